"""Which tokens a patch changes, against the definition on token sequences."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MOVE, Worlds

from moralscope.core.errors import AgentError, PromptError
from moralscope.mechanisms.patching.segments import (
    PackedPrompts,
    Segment,
    case_of,
    group_cases,
    kept_rows,
    paths_of,
    where,
)
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import make_packs
from moralscope.models.tree import PromptTree

Word = tuple[int, ...]


def packed(prompts: Sequence[EncodedPrompt], max_nodes: int = 4096) -> PackedPrompts:
    return PackedPrompts(tuple(prompts), make_packs(prompts, max_nodes))


def prompts_of(words: Sequence[Word], forms: str = "several") -> tuple[EncodedPrompt, ...]:
    like = tiny.token_prompts(1, forms=forms)[0]
    return tuple(
        dataclasses.replace(like, name=f"p{i}", tokens=word, spans=(("move", (1, 2)),))
        for i, word in enumerate(words)
    )


def word_of(tree: PromptTree, node: int) -> Word:
    """The tokens that lead to a node, itself included: what a node *is*."""
    word: Word = ()
    while node >= 0:
        word = (int(tree.tokens[node]), *word)
        node = int(tree.parent[node])
    return word


def read_words(prompt: EncodedPrompt) -> set[Word]:
    """Every beginning of the prompt with its options, their last tokens left out."""
    whole = [prompt.tokens + form[:-1] for form in prompt.positive + prompt.negative]
    return {word[:end] for word in whole for end in range(1, len(word) + 1)}


def edited_words(prompt: EncodedPrompt, positions: str) -> set[Word]:
    n = len(prompt.tokens)
    if positions == "move":
        return {prompt.tokens[: at + 1] for at in (1, 2)}
    first = n if positions == "answer_span" else 1
    return {word for word in read_words(prompt) if len(word) >= first}


words = st.lists(
    st.lists(st.integers(0, 2), min_size=4, max_size=6).map(tuple), min_size=1, max_size=4,
    unique=True,
)  # fmt: skip


@given(words, st.sampled_from(["answer_span", "all", "move"]), st.integers(1, 60))
@settings(max_examples=40)
def test_a_segment_is_what_its_definition_says(found: list[Word], positions: str, max_nodes: int):
    prompts = prompts_of(found)
    run = packed(prompts, max_nodes)
    cases = [case_of(run, run, m, m, positions) for m in range(len(prompts))]
    segments = group_cases(run, cases, share=positions == "all", max_nodes=max_nodes)
    members = [case.member for segment in segments for case in segment.cases]
    assert sorted(members) == list(range(len(prompts)))
    for segment in segments:
        tree = run.layouts[segment.pack].tree
        inside = [prompts[case.member] for case in segment.cases]
        assert len(inside) == 1 or (positions == "all" and len(segment.nodes) <= max_nodes)
        edited = set[Word]().union(*(edited_words(p, positions) for p in inside))
        every = set[Word]().union(*(read_words(p) for p in inside))
        changed = {w for w in every if any(w[: len(e)] == e for e in edited)}
        spelled = [word_of(tree, int(node)) for node in segment.nodes]
        assert set(spelled) == changed
        assert {spelled[at] for at in segment.edited} == edited
        assert {word_of(tree, int(node)) for node in segment.frozen} == every - changed
        # Patched with itself: each edited node is its own counterpart.
        assert segment.counterparts[:, 1].tolist() == segment.nodes[segment.edited].tolist()
        assert set(segment.counterparts[:, 0].tolist()) == {segment.pack}


def spelled_pairs(run: PackedPrompts, segment: Segment) -> set[tuple[Word, Word]]:
    mine = run.layouts[segment.pack].tree
    return {
        (
            word_of(mine, int(segment.nodes[at])),
            word_of(run.layouts[int(pack)].tree, int(node)),
        )
        for at, (pack, node) in zip(segment.edited, segment.counterparts, strict=True)
    }


def test_counterparts_lie_at_the_same_place_of_the_other_prompt():
    one, two = (5, 6, 7, 8), (5, 6, 9, 9)
    run = packed(prompts_of([one, two]), max_nodes=1)
    assert len(run.layouts) == 2
    (segment,) = group_cases(run, [case_of(run, run, 0, 1, "all")], share=True, max_nodes=99)
    beginnings = [(one[:end], two[:end]) for end in range(1, 5)]
    assert spelled_pairs(run, segment) == {
        *beginnings, ((*one, 13), (*two, 13)), ((*one, 13, 15), (*two, 13, 15)),
    }  # fmt: skip
    (named,) = group_cases(run, [case_of(run, run, 0, 1, "move")], share=False, max_nodes=99)
    assert spelled_pairs(run, named) == {(one[:2], two[:2]), (one[:3], two[:3])}
    assert len(named.nodes) == len(named.edited) + 1 + 2, "what follows is computed again"


def test_prompts_that_disagree_on_a_shared_token_are_kept_apart():
    """The first token is shared; it cannot come from two sources at once."""
    run = packed(prompts_of([(1, 2, 3, 4), (1, 2, 5, 6), (7, 8, 9, 9), (1, 2, 6, 6)]))
    pairs = [(0, 0), (1, 2), (1, 1), (3, 3)]
    cases = [case_of(run, run, mine, theirs, "all") for mine, theirs in pairs]
    segments = group_cases(run, cases, share=True, max_nodes=999)
    grouped = [[(c.member, c.source_member) for c in s.cases] for s in segments]
    assert sorted(pair for group in grouped for pair in group) == sorted(pairs)
    assert [(1, 2)] in grouped, "another source than its neighbours'"
    assert max(map(len, grouped)) >= 2, "the others share their beginning"


def test_prompts_of_which_one_edits_what_the_other_sees_are_kept_apart():
    short = dataclasses.replace(prompts_of([(1, 2, 3, 4)])[0], name="short")
    longer = dataclasses.replace(short, tokens=(1, 2, 3, 4, 5), name="longer")
    run = packed([short, longer])
    cases = [case_of(run, run, m, m, "answer_span") for m in range(2)]
    segments = group_cases(run, cases, share=True, max_nodes=999)
    assert [len(segment.cases) for segment in segments] == [1, 1]


def test_prompts_that_do_not_align_are_refused_saying_where():
    run = packed(prompts_of([(1, 2, 3, 4), (1, 2, 9, 3, 4)]))
    with pytest.raises(PromptError, match="'p0' and 'p1' do not align token by token") as e:
        case_of(run, run, 0, 1, "all")
    assert "4 tokens against 5, out of step from token 2" in str(e.value.seen)
    with pytest.raises(PromptError, match="A span is absent from prompt 'p0'"):
        case_of(run, run, 0, 1, "payoffs")


def test_a_prompt_is_found_in_its_pack():
    run = packed(prompts_of([(3, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1)]), max_nodes=1)
    found = {member: where(run, member) for member in range(3)}
    for member, (pack, position) in found.items():
        assert run.layouts[pack].members[position] == member
        for path, form in zip(
            paths_of(run, member), run.prompts[member].continuations, strict=True
        ):
            assert tuple(run.layouts[pack].tree.tokens[path].tolist()) == form
    with pytest.raises(IndexError):
        where(run, 3)


def test_activations_that_were_not_kept_are_refused(worlds: Worlds):
    here = worlds("llama", n=2, equal=True)
    run = here.runs["base"]
    part = run.packs[0]
    captured, rows = kept_rows(part, part.pack.keep[::-1].copy())
    assert captured is part.captured
    assert rows.tolist() == list(range(len(part.pack.keep)))[::-1]
    path = paths_of(run, 0)[0]
    with pytest.raises(AgentError, match="needs activations that were not kept") as e:
        kept_rows(part, np.array([path[MOVE[0]], path[MOVE[1]], part.pack.keep[0]]))
    assert e.value.seen == "2 of 3 tokens without activations"
    assert e.value.remedy == "run clean with everywhere=True"
