"""Curves over the size of a circuit, on functions of sets whose shares are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from set_functions import Made, additive, made, share_of

from moralscope.core.errors import ConfigError, SiteError
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.mechanisms.circuits.curves import curves, curves_table, draw_alike
from moralscope.mechanisms.circuits.search import forward

SITES = tuple(
    sorted([Site("head", layer, head) for layer in range(3) for head in range(3)]
           + [Site("mlp", layer) for layer in range(3)])
)  # fmt: skip
EMBED = Site("embed")
WHOLE = (EMBED, *SITES)


def summed(**changed: float) -> Made:
    """Effects that add up; the embedding carries 3 of 40 nats and is no candidate."""
    named = {str(site): float(at + 1) / 2 for at, site in enumerate(SITES)} | changed
    by_site = {site: named[str(site)] for site in SITES} | {EMBED: 3.0}
    total = sum(by_site.values())
    return made(additive(by_site), SITES, [total], everything=WHOLE)


def test_curves_are_the_shares_of_growing_and_of_shrinking_sets():
    given_ = summed()
    circuit = forward(given_.effects).sites
    found = curves(given_.effects, circuit, stream(1, "curves"), draws=6)
    for k in range(len(circuit) + 1):
        left = [site for site in WHOLE if site not in circuit[:k]]
        assert found.faithfulness[k] == pytest.approx(share_of(given_, circuit[:k]))
        assert found.completeness[k] == pytest.approx(share_of(given_, left))
    assert found.faithfulness[0] == 0.0
    assert found.completeness[0] == pytest.approx(1.0)
    assert found.faithfulness[-1] >= 0.8
    # Where effects add up, the two are complements, and no set of a size beats the largest sites.
    assert found.faithfulness + found.completeness == pytest.approx(np.ones(len(circuit) + 1))
    random = found.random_faithfulness
    assert random.shape == (6, len(circuit) + 1)
    assert np.all(random <= found.faithfulness + 1e-9)
    assert random + found.random_completeness == pytest.approx(np.ones(random.shape))
    assert np.ptp(random[:, 1]) > 0.01, "draws differ"
    again = curves(given_.effects, circuit, stream(1, "curves"), draws=6)
    assert np.array_equal(again.random_faithfulness, random)


def test_whole_layers_come_in_the_order_of_their_own_shares():
    given_ = summed(**{"L1.mlp": 50.0})
    found = curves(given_.effects, SITES[:1], stream(1, "curves"), draws=1)
    assert found.layers == (1, 2, 0)
    assert found.layer_sizes == (0, 4, 8, 12)
    for k in range(4):
        sites = [site for site in SITES if site.layer in found.layers[:k]]
        assert found.layer_faithfulness[k] == pytest.approx(share_of(given_, sites))
        left = [site for site in WHOLE if site not in sites]
        assert found.layer_completeness[k] == pytest.approx(share_of(given_, left))
    even = made(lambda s: [float(len(s))], SITES, [12.0])
    assert curves(even.effects, SITES[:1], stream(1, "x"), draws=1).layers == (0, 1, 2)


def test_a_redundant_copy_leaves_much_when_the_circuit_is_left_out():
    a, b = SITES[0], SITES[5]
    given_ = made(lambda s: [1.0 * (a in s or b in s)], SITES)
    found = curves(given_.effects, [a], stream(2, "curves"), draws=3)
    assert found.faithfulness.tolist() == [0.0, 1.0]
    assert found.completeness.tolist() == [1.0, 1.0]
    both = curves(given_.effects, [a, b], stream(2, "curves"), draws=3)
    assert both.completeness.tolist() == [1.0, 1.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(SITES), unique=True, max_size=12), st.integers(0, 10_000))
def test_random_sites_are_different_and_of_the_same_kinds(sites, seed):
    drawn = draw_alike(sites, SITES, stream(seed, "draw"))
    assert [site.kind for site in drawn] == [site.kind for site in sites]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(SITES)


def test_every_site_of_a_kind_is_drawn_equally_often():
    rng = stream(3, "draw")
    counts = Counter(
        site for _ in range(900) for site in draw_alike([SITES[0], Site("mlp", 1)], SITES, rng)
    )
    for site in SITES:
        expected = 900 / 9 if site.kind == "head" else 900 / 3
        assert abs(counts[site] - expected) < 5 * np.sqrt(expected)


def test_the_table_holds_every_curve_with_its_sizes():
    given_ = summed()
    circuit = SITES[:2]
    found = curves(given_.effects, circuit, stream(1, "curves"), draws=4)
    table = curves_table(given_.effects, {"mine": found})
    assert table.height == 2 * (3 + 4 * 3 + 4)
    random = table.filter(sets="random", curve="completeness", draw=2).sort("size")
    assert random["share"].to_list() == found.random_completeness[2].tolist()
    layers = table.filter(sets="layers", curve="faithfulness")
    assert layers["size"].to_list() == [0, 4, 8, 12]
    assert layers["share"].to_list() == found.layer_faithfulness.tolist()
    own = table.filter(sets="circuit", curve="faithfulness")
    assert own["share"].to_list() == found.faithfulness.tolist()
    assert table.select(pl.col("circuit", "source", "target").n_unique()).row(0) == (1, 1, 1)


def test_sites_without_a_complement_are_refused():
    given_ = summed()
    rng = stream(1, "curves")
    with pytest.raises(SiteError, match="complement is defined.*Seen: embed\\."):
        curves(given_.effects, [SITES[0], EMBED], rng)
    attn = Site("attn", 0)
    both = made(additive({}), [*SITES, attn], everything=WHOLE)
    with pytest.raises(SiteError, match="complement is defined.*Seen: L0.attn\\."):
        curves(both.effects, [attn], rng)
    with pytest.raises(SiteError, match="complement is defined.*Seen: no site"):
        curves(given_.effects, [], rng)
    with pytest.raises(SiteError, match="complement is defined.*L0.h0, L0.h0"):
        curves(given_.effects, [SITES[0], SITES[0]], rng)
    with pytest.raises(ConfigError, match="compared with random sets.*0 draws"):
        curves(given_.effects, SITES[:1], rng, draws=0)
