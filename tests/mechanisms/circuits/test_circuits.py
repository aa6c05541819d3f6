"""Searches for circuits on functions of sets that are known, against brute force."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from set_functions import Made, additive, heads, made, share_of, smallest

from moralscope.core.errors import ConfigError, EvidenceError, SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.circuits.effects import Goal, _chunks, score
from moralscope.mechanisms.circuits.search import (
    Circuit,
    backward,
    circuits_table,
    disjoint,
    exhaustive,
    forward,
    forward_backward,
)

SEARCHES = [forward, backward, forward_backward, exhaustive]

weights = st.lists(st.integers(1, 40), min_size=2, max_size=7)


def weighted(drawn: list[int]) -> Made:
    sites = heads(len(drawn))
    total = float(sum(drawn))
    return made(additive(dict(zip(sites, drawn, strict=True))), sites[::-1], [total])


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=25, deadline=None)
@given(weights, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_every_search_finds_a_smallest_set_where_effects_add_up(search, drawn, threshold):
    given_ = weighted(drawn)
    found = search(given_.effects, Goal("share", threshold))
    best = smallest(given_, threshold)
    assert found.reached
    assert len(found.sites) == len(best[0])
    assert found.share == pytest.approx(max(share_of(given_, group) for group in best))
    assert found.share == pytest.approx(share_of(given_, found.sites))
    assert found.n_sets == len(given_.asked)
    assert found.minimal == (search is exhaustive)
    # Most important first.
    by_site = dict(zip(heads(len(drawn)), drawn, strict=True))
    assert [by_site[s] for s in found.sites] == sorted(by_site[s] for s in found.sites)[::-1]


def test_each_site_that_forward_selection_adds_raises_the_share():
    given_ = weighted([1, 2, 3, 4, 5, 6])
    found = forward(given_.effects, Goal("share", 1.0))
    shares = [share_of(given_, found.sites[:k]) for k in range(7)]
    assert np.all(np.diff(shares) > 0)
    assert shares[-1] == 1.0
    assert found.n_sets == 6 + 5 + 4 + 3 + 2 + 1


tables = st.lists(
    st.tuples(st.integers(-8, 12), st.integers(-8, 12)), min_size=2**4 - 1, max_size=2**4 - 1
)


def tabulated(rows: list[tuple[int, int]]) -> Made:
    """Any function of the subsets of four sites, on two prompts with opposite full swaps."""
    sites = [Site("mlp", 0), Site("mlp", 1), Site("head", 1, 0), Site("attn", 2)]
    sets = [
        frozenset(group) for size in range(1, 5) for group in itertools.combinations(sites, size)
    ]
    by_set = dict(zip(sets, rows, strict=True))
    return made(by_set.__getitem__, sites, [6.0, -4.0])


@settings(max_examples=60, deadline=None)
@given(tables)
def test_an_exhaustive_search_is_right_about_any_function_of_sets(rows):
    given_ = tabulated(rows)
    found = exhaustive(given_.effects)
    best = smallest(given_, 0.8)
    assert found.reached == found.minimal == bool(best)
    groups = best or [
        g for size in range(1, 5) for g in itertools.combinations(given_.effects.candidates, size)
    ]
    assert found.share == pytest.approx(max(share_of(given_, group) for group in groups))
    if best:
        assert found.members in map(frozenset, best)
    assert found.n_sets == len(given_.asked)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_elimination_ends_where_no_single_site_can_be_left_out(rows):
    given_ = tabulated(rows)
    for search in (backward, forward_backward):
        found = search(given_.effects)
        assert found.share == pytest.approx(share_of(given_, found.sites))
        assert not found.minimal
        assert found.reached == (found.share >= 0.8 - 1e-9)
        if search is backward:
            assert found.reached == (share_of(given_, given_.effects.candidates) >= 0.8 - 1e-9)
        if found.reached:
            assert len(found.sites) >= len(smallest(given_, 0.8)[0])
            for site in found.sites:
                others = [s for s in found.sites if s != site]
                assert share_of(given_, others) < 0.8 - 1e-9


@settings(max_examples=40, deadline=None)
@given(tables)
def test_forward_selection_returns_the_best_set_on_its_way(rows):
    given_ = tabulated(rows)
    found = forward(given_.effects)
    way: list[Site] = []
    shares: list[float] = []
    while not shares or (shares[-1] < 0.8 - 1e-9 and len(way) < 4):
        rest = [site for site in sorted(given_.effects.candidates) if site not in way]
        way.append(max(rest, key=lambda site: round(share_of(given_, [*way, site]), 9)))
        shares.append(share_of(given_, way))
    size = int(np.argmax(np.round(shares, 9))) + 1
    assert found.sites == tuple(way[:size])
    assert found.reached == (shares[-1] >= 0.8 - 1e-9)


def test_redundant_sites_are_found_as_disjoint_circuits():
    """Either of two sites suffices; a third pair does so together."""
    a, b, c, d, e, f = heads(6)

    def either(sites: frozenset[Site]) -> list[float]:
        return [1.0 if a in sites or b in sites or {c, d} <= sites else 0.0]

    given_ = made(either, [a, b, c, d, e, f])
    found = disjoint(given_.effects)
    assert [circuit.members for circuit in found.circuits] == [{a}, {b}, {c, d}]
    assert not found.capped
    assert found.left is not None
    assert (found.left.share, found.left.n_candidates) == (0.0, 2)
    capped = disjoint(given_.effects, search=exhaustive, cap=2)
    assert (len(capped.circuits), capped.left, capped.capped) == (2, None, True)
    assert all(circuit.minimal for circuit in capped.circuits)
    used_up = disjoint(made(either, [a, b]).effects, cap=2)
    assert (len(used_up.circuits), used_up.left, used_up.capped) == (2, None, False)
    none = disjoint(made(lambda _: [0.1], [a, b]).effects)
    assert none.circuits == ()
    assert none.left is not None
    # Elimination leaves one of the redundant ways only, and not the smallest.
    left = backward(given_.effects)
    assert (left.members, left.reached, left.minimal) == ({c, d}, True, False)


def test_sites_that_only_work_together_are_found_unless_candidates_are_limited():
    a, _, c, d = sites = heads(4)

    def both(chosen: frozenset[Site]) -> list[float]:
        return [1.0 * ({a, d} <= chosen) + 0.1 * (c in chosen)]

    given_ = made(both, sites)
    assert exhaustive(given_.effects).members == {a, d}
    assert backward(given_.effects).members == {a, d}
    found = forward_backward(given_.effects)
    assert (found.members, found.method, found.minimal) == ({a, d}, "forward_backward", False)
    # Forward selection alone keeps what it took on its way: c, and b on the blind.
    assert {a, c, d} <= forward(given_.effects).members
    limited = exhaustive(given_.effects, top_k=2)
    assert (limited.reached, limited.minimal, limited.top_k) == (False, False, 2)
    assert limited.members == {c}
    assert limited.n_sets == 4 + 3 + 1
    assert exhaustive(given_.effects, top_k=4).minimal
    assert exhaustive(given_.effects, top_k=9).top_k is None


def test_candidates_may_be_limited_to_the_largest_single_effects():
    drawn = [3, 9, 1, 8, 2, 7, 4]
    given_ = weighted(drawn)
    found = forward(given_.effects, Goal("share", 0.9), top_k=3)
    strongest = [site for _, site in sorted(zip(drawn, heads(7), strict=True), reverse=True)[:3]]
    assert found.sites == tuple(strongest)
    assert not found.reached
    assert (found.top_k, found.n_candidates, found.n_sets) == (3, 7, 7 + 2 + 1)
    assert all(len(s) == 1 or s <= set(strongest) for s in given_.asked)
    exact = exhaustive(given_.effects, Goal("share", 0.5), top_k=3)
    assert exact.members == set(strongest[:2])
    assert exact.reached
    assert not exact.minimal
    short = forward(given_.effects, Goal("share", 0.9), max_sites=2)
    assert (len(short.sites), short.reached, short.n_sets) == (2, False, 7 + 6)


def test_the_mean_is_taken_towards_the_source_on_each_prompt():
    (a, b) = heads(2)
    effects = {a: [2.0, -1.0, 5.0], b: [2.0, 1.0, -5.0]}
    given_ = made(lambda s: np.sum([effects[x] for x in s], 0), [a, b], [4.0, -2.0, 0.0])
    found = score(given_.effects, [frozenset((a,)), frozenset((b,)), frozenset()])
    assert found.share.tolist() == [3.0 / 6.0, 1.0 / 6.0, 0.0]
    assert found.towards.tolist() == [[2.0, 1.0, 0.0], [2.0, -1.0, 0.0], [0.0, 0.0, 0.0]]


def test_flips_are_counted_where_the_full_swap_flips():
    """The third prompt is flipped by a site, but not by the full swap."""
    (a, b) = heads(2)
    effects = {a: [3.0, 0.2, -3.0], b: [0.0, 2.9, 0.0]}
    given_ = made(
        lambda s: np.sum([effects[x] for x in s], 0), [a, b], [3.0, 3.0, 1.0],
        baseline=[-2.0, -3.0 + 1e-6, 1.0],
    )  # fmt: skip
    found = score(given_.effects, [frozenset((a,)), frozenset((b,)), frozenset((a, b))])
    assert found.flipped is not None
    assert found.flipped.tolist() == [0.5, 0.0, 1.0]
    half = forward(given_.effects, Goal("flip", 0.5))
    assert (half.sites, half.flipped, half.reached) == ((a,), 0.5, True)
    every = forward_backward(given_.effects, Goal("flip", 1.0))
    assert (every.members, every.flipped) == ({a, b}, 1.0)
    assert every.share == pytest.approx((3.0 + 3.1 - 3.0) / 7.0)
    # A site that flips nothing yet is still chosen by how far it leads.
    assert score(given_.effects, [frozenset((b,))], Goal("flip", 0.5)).order() == [0]


def test_a_match_is_with_the_full_swap_prompt_by_prompt():
    (a, b) = heads(2)
    effects = {a: [8.0, -1.0], b: [2.0, -1.0]}
    given_ = made(lambda s: np.sum([effects[x] for x in s], 0), [a, b], [4.0, -2.0])
    sets = [frozenset((a,)), frozenset((b,)), frozenset((a, b)), frozenset()]
    found = score(given_.effects, sets, Goal("match", 0.5))
    assert found.value == pytest.approx([1 - 5 / 6, 1 - 3 / 6, 1 - 6 / 6, 0.0])
    assert found.reached.tolist() == [False, True, False, False]
    # By share alone the overshooting site would do.
    assert exhaustive(given_.effects).sites == (a,)
    (match, share) = (exhaustive(given_.effects, Goal(kind, 0.5)) for kind in ("match", "share"))
    assert (match.sites, match.share, share.sites) == ((b,), 0.5, (a,))


def test_without_a_flip_to_make_flips_are_undefined():
    given_ = made(additive(dict.fromkeys(heads(2), 0.5)), heads(2), baseline=[1.0])
    found = forward(given_.effects)
    assert (found.flipped, found.reached) == (None, True)
    table = circuits_table(given_.effects, {"x": found})
    assert table["flipped"].to_list() == [None]
    with pytest.raises(EvidenceError, match="No set of sites can flip.*none of 1 prompts"):
        forward(given_.effects, Goal("flip"))


def test_ties_go_to_the_shallowest_and_rounding_misses_no_threshold():
    sites = heads(5)
    given_ = made(lambda s: [len(s) * 0.1 + 1e-13 * sum(x.head or 0 for x in s)], sites)
    # 0.1 + 0.2 is not 0.3 in binary.
    found = forward(given_.effects, Goal("share", 0.3 + 1e-12))
    assert found.sites == tuple(sites[:3])
    assert len(backward(given_.effects, Goal("share", 0.3 + 1e-12)).sites) == 3


def test_the_table_says_how_each_circuit_was_found():
    given_ = weighted([5, 3, 2])
    circuits: dict[str, Circuit] = {
        "all": exhaustive(given_.effects),
        "few": forward(given_.effects, top_k=1),
    }
    rows = circuits_table(given_.effects, circuits).rows(named=True)
    assert rows[0] == {
        "source": "a", "target": "b", "positions": "answer_span", "write": "write",
        "circuit": "all", "method": "exhaustive", "goal": "share", "threshold": 0.8,
        "sites": "L0.h0+L0.h1", "n_sites": 2, "share": 0.8, "flipped": 1.0, "reached": True,
        "minimal": True, "n_candidates": 3, "top_k": None, "n_sets": 3 + 3 + 2 + 1,
        "n_prompts": 1,
    }  # fmt: skip
    assert (rows[1]["top_k"], rows[1]["reached"], rows[1]["share"]) == (1, False, 0.5)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_sets_are_cut_into_runs_that_fit(sizes, most):
    sets = [frozenset(heads(size)) for size in sizes]
    chunks = list(_chunks(sets, most))
    assert [one for chunk in chunks for one in chunk] == sets
    assert all(chunk for chunk in chunks)
    assert all(len(chunk) == 1 or sum(map(len, chunk)) <= most for chunk in chunks)
    joined = [sum(map(len, chunk)) + len(after[0]) for chunk, after in itertools.pairwise(chunks)]
    assert all(total > most for total in joined)


def test_what_cannot_be_searched_is_refused():
    sites = heads(13)
    many = made(additive(dict.fromkeys(sites, 1.0)), sites, [13.0])
    with pytest.raises(ConfigError, match="too many sets.*13 candidates, 8192 sets.*4096"):
        exhaustive(many.effects)
    assert len(exhaustive(many.effects, Goal("share", 0.1), top_k=12).sites) == 2
    with pytest.raises(ConfigError, match="room for one site.*max_sites=0"):
        forward(many.effects, max_sites=0)
    with pytest.raises(ConfigError, match="room for one site.*top_k=0"):
        exhaustive(many.effects, top_k=0)
    with pytest.raises(ConfigError, match="room for one site.*cap=-1"):
        disjoint(many.effects, search=partial(forward, top_k=2), cap=-1)
    with pytest.raises(ConfigError, match="cannot be asked for this.*'shar' of 0.8.*'share'"):
        Goal("shar")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'flip' of 1.5.*above 0 and up to 1"):
        Goal("flip", 1.5)
    with pytest.raises(SiteError, match="different sites.*L0.h0, L0.h0"):
        made(additive({}), [sites[0], sites[0]])
    with pytest.raises(SiteError, match="different sites.*none"):
        made(additive({}), [])
    for swap in ([0.0, 0.0], [float("nan"), 1.0]):
        with pytest.raises(EvidenceError, match="no effect of which.*have a share.*full swap"):
            made(additive({}), sites, swap)
    broken = made(lambda _: [float("inf")], sites)
    with pytest.raises(EvidenceError, match=r"undefined.*shape \(13, 1\), 13 not finite"):
        forward(broken.effects)
    wrong = made(lambda _: [1.0, 2.0], sites)
    with pytest.raises(EvidenceError, match=r"shape \(13, 2\), 0 not finite.*shape \(13, 1\)"):
        forward(wrong.effects)
