"""The prefix tree and its packs, against brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moralscope.models.tree import cut_into_packs, grow_tree

sequences = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=7).map(tuple), min_size=1, max_size=9
)
groups = st.lists(sequences.map(lambda found: found[:3]), min_size=1, max_size=8)


def prefixes(found: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    return {s[:end] for s in found for end in range(1, len(s) + 1)}


@given(sequences)
def test_a_tree_has_one_node_for_each_distinct_prefix(found: list[tuple[int, ...]]):
    tree = grow_tree(found)
    assert len(tree) == len(prefixes(found))
    spelled = set()
    for node in range(len(tree)):
        word: tuple[int, ...] = ()
        at = node
        while at >= 0:
            word = (int(tree.tokens[at]), *word)
            at = int(tree.parent[at])
        assert tree.depth[node] == len(word) - 1
        spelled.add(word)
    assert spelled == prefixes(found)


@given(sequences)
def test_each_path_spells_its_sequence_from_the_root(found: list[tuple[int, ...]]):
    tree = grow_tree(found)
    assert len(tree.paths) == len(found)
    for sequence, path in zip(found, tree.paths, strict=True):
        assert tuple(tree.tokens[path].tolist()) == sequence
        assert tree.depth[path].tolist() == list(range(len(sequence)))
        assert tree.parent[path].tolist() == [-1, *path[:-1].tolist()]


@given(sequences)
def test_a_node_sees_its_ancestors_and_itself_alone(found: list[tuple[int, ...]]):
    tree = grow_tree(found)
    expected = np.zeros((len(tree), len(tree)), dtype=bool)
    for path in tree.paths:
        for depth, node in enumerate(path):
            expected[node, path[: depth + 1]] = True
    assert np.array_equal(tree.ancestors(), expected)
    assert (tree.parent < np.arange(len(tree))).all()


@given(groups, st.integers(1, 30))
def test_packs_partition_the_groups_and_respect_the_limit(
    found: list[list[tuple[int, ...]]], limit: int
):
    packs = cut_into_packs(found, limit)
    assert sorted(g for pack in packs for g in pack) == list(range(len(found)))
    for pack in packs:
        nodes = len(grow_tree([s for g in pack for s in found[g]]))
        assert nodes <= limit or len(pack) == 1


@given(groups)
def test_without_a_limit_everything_is_one_pack(found: list[list[tuple[int, ...]]]):
    assert len(cut_into_packs(found, 10**6)) == 1


def test_groups_that_share_prefixes_share_a_pack():
    alike = [[(1, 1, 1, k)] for k in range(3)]
    other = [[(2, 2, 2, k)] for k in range(3)]
    mixed = [alike[0], other[0], alike[1], other[1], alike[2], other[2]]
    packs = cut_into_packs(mixed, 6)
    assert [sorted(pack) for pack in packs] == [[0, 2, 4], [1, 3, 5]]
