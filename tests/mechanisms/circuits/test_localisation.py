"""How concentrated effects are: closed forms, all permutations, calibration, and the words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from set_functions import additive, heads, made

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.mechanisms.circuits.localisation import (
    concentration,
    gini,
    localisation,
    localisation_table,
    participation_ratio,
)

Array = NDArray[np.float64]

sizes = arrays(np.float64, st.integers(1, 9), elements=st.floats(-5, 5).map(lambda x: round(x, 3)))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_k_equal_sites_among_ten_count_as_k(k: int):
    values = np.array([2.5] * k + [0.0] * (10 - k))
    assert participation_ratio(values) == pytest.approx(k)
    assert gini(values) == pytest.approx(1 - k / 10)
    assert participation_ratio(-1e-200 * values) == pytest.approx(k)


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_the_statistics_are_their_definitions(values: Array):
    if not np.abs(values).any():
        assert np.isnan(participation_ratio(values))
        assert gini(values) is None
        return
    size = np.abs(values).tolist()
    n_eff = float(participation_ratio(values))
    assert n_eff == pytest.approx(sum(size) ** 2 / sum(x * x for x in size))
    assert 1 - 1e-9 <= n_eff <= len(size) + 1e-9
    # Half the mean absolute difference of all pairs, over the mean.
    differences = [abs(x - y) for x, y in itertools.product(size, repeat=2)]
    assert gini(values) == pytest.approx(np.mean(differences) / 2 / np.mean(size))


def test_the_null_is_all_permutations_within_kinds():
    """Two units, kinds of three and two sites: 72 relative permutations, counted out."""
    rng = stream(5, "values")
    values, kinds = rng.exponential(size=(2, 5)), ["head", "mlp", "head", "head", "mlp"]
    values[:, 0] += 3.0
    at = [[0, 2, 3], [1, 4]]
    everywhere: list[float] = []
    for first, second in itertools.product(
        itertools.permutations(at[0]), itertools.permutations(at[1])
    ):
        moved = values.copy()
        moved[1, at[0]], moved[1, at[1]] = values[1, list(first)], values[1, list(second)]
        means = np.abs(moved.mean(0))
        everywhere.append(means.sum() ** 2 / (means**2).sum())
    found = concentration(values, kinds, stream(1, "null"), draws=8000)
    assert found.n_eff == pytest.approx(everywhere[0])
    exact = np.mean(np.array(everywhere) <= everywhere[0] + 1e-9)
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 8000) + 1e-4)
    assert found.p_floor == pytest.approx(1 / 12)
    assert found.null_median is not None
    assert min(everywhere) - 1e-9 <= found.null_median <= max(everywhere) + 1e-9
    assert found.n_units == 2


@pytest.mark.parametrize("draw", ["exponential", "normal"])
def test_effects_without_favoured_sites_are_called_concentrated_in_one_case_in_twenty(draw: str):
    """Sites of a kind are exchangeable, kinds differ in size: p is uniform."""
    rng = stream(11, draw)
    kinds = ["head"] * 12 + ["mlp"] * 4
    scale = np.array([1.0] * 12 + [6.0] * 4)
    n = 1500
    p = np.array(
        [
            concentration(scale * getattr(rng, draw)(size=(5, 16)), kinds, rng, draws=79).p
            for _ in range(n)
        ]
    )
    for level in (0.05, 0.25, 0.5, 0.75):
        share = float((p <= level + 1e-9).mean())
        assert abs(share - level) < 3.5 * np.sqrt(level * (1 - level) / n), level


def test_favoured_sites_are_found():
    rng = stream(12, "power")
    kinds = ["head"] * 20
    values = 0.3 * rng.exponential(size=(6, 20))
    values[:, 4] += 4.0
    found = concentration(values, kinds, rng, draws=199)
    assert (found.p, found.p_floor) == (1 / 200, 1 / 200)
    assert found.null_low is not None
    assert found.n_eff is not None
    assert found.null_high is not None
    assert found.n_eff < found.null_low < found.null_high
    # The sites of a kind change places, kinds do not.
    alone = concentration(values, ["mlp" if i == 4 else "head" for i in range(20)], rng, draws=199)
    assert alone.p is not None
    assert alone.p > 0.02


def by_prompt(values: Array, signs: Array | None = None, *, total: float | None = None):
    """Effects that add up, ``(prompts, sites)``, given towards the source."""
    side = np.ones(len(values)) if signs is None else signs
    sites = heads(values.shape[1])
    rows = {site: side * column for site, column in zip(sites, values.T, strict=True)}
    swap = side * (values.sum(1) if total is None else total)
    return made(lambda s: np.sum([rows[x] for x in s], 0), sites, swap.tolist())


def test_one_strong_site_is_localised_whichever_way_prompts_point():
    rng = stream(13, "word")
    values = 0.02 * rng.exponential(size=(6, 20))
    values[:, 7] += 2.0
    signs = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    given_ = by_prompt(values, signs)
    found = localisation(given_.effects, stream(1, "l"), draws=199)
    assert (found.word, found.n_top, found.n_sites, found.n_prompts) == ("localised", 2, 20, 6)
    order = np.argsort(-values.mean(0))[:2]
    assert found.top_share == pytest.approx(values[:, order].sum() / values.sum())
    assert found.concentration.n_eff == pytest.approx(float(participation_ratio(values.mean(0))))
    # Far more of the full swap than the sites do: concentrated, and still not the explanation.
    short = localisation(by_prompt(values, signs, total=9.0).effects, stream(1, "l"), draws=199)
    assert (short.word, short.concentration) == ("neither shown", found.concentration)
    assert localisation(
        given_.effects, stream(1, "l"), share=1.0, top=1.0, draws=199
    ).word == "localised"  # fmt: skip


def test_sites_that_take_turns_are_distributed():
    values = stream(14, "word").exponential(size=(8, 20))
    found = localisation(by_prompt(values).effects, stream(1, "l"), draws=199)
    assert found.word == "distributed"
    equal = localisation(by_prompt(np.ones((4, 20))).effects, stream(1, "l"), draws=199)
    assert (equal.word, equal.concentration.n_eff) == ("distributed", pytest.approx(20.0))


def test_a_design_that_cannot_tell_says_so():
    values = stream(15, "word").exponential(size=(1, 12))
    one = localisation(by_prompt(values).effects, stream(1, "l"))
    assert one.word == "not identified by this design"
    assert (one.concentration.p, one.concentration.null_low, one.concentration.n_units) == (
        None, None, 1,
    )  # fmt: skip
    few = localisation(by_prompt(np.array([[9.0, 1, 1], [9.0, 1, 1]])).effects, stream(1, "l"))
    assert few.concentration.p_floor == pytest.approx(1 / 6)
    assert few.word == "not identified by this design"
    # Six prompts of one scenario are one unit.
    six = by_prompt(stream(15, "word").exponential(size=(6, 12)))
    alone = localisation(six.effects, stream(1, "l"), units=["s"] * 6)
    assert (alone.word, alone.n_prompts) == ("not identified by this design", 6)


def test_prompts_are_averaged_within_their_scenario():
    rng = stream(16, "units")
    values = rng.exponential(size=(5, 10))
    units = ["b", "a", "b", "b", "c"]
    means = np.stack([values[[0, 2, 3]].mean(0), values[1], values[4]])
    found = localisation(by_prompt(values).effects, stream(2, "l"), units=units, draws=99)
    assert found.concentration == concentration(means, ["head"] * 10, stream(2, "l"), draws=99)
    assert found.concentration.n_units == 3
    with pytest.raises(EvidenceError, match="do not fit the prompts.*2 units for 5 prompts"):
        localisation(by_prompt(values).effects, stream(2, "l"), units=units[:2])


def test_sites_that_do_nothing_alone_show_neither():
    a, b = heads(2)
    given_ = made(lambda s: [1.0 * ({a, b} <= s)] * 3, [a, b, Site("mlp", 0)], [1.0] * 3)
    found = localisation(given_.effects, stream(1, "l"))
    assert (found.word, found.concentration.n_eff, found.concentration.gini) == (
        "neither shown", None, None,
    )  # fmt: skip
    (row,) = localisation_table(given_.effects, found).rows(named=True)
    assert row["n_eff"] is row["gini"] is row["p"] is None
    assert (row["word"], row["unit"], row["n_units"], row["top_share"]) == (
        "neither shown", "prompt", 3, 0.0,
    )  # fmt: skip


def test_effects_that_cancel_in_a_permutation_are_not_concentrated():
    """One of the two relative permutations leaves nothing; that counts as spread out."""
    found = concentration(np.array([[1.0, -1.0], [1.0, -1.0]]), ["mlp"] * 2, stream(1, "l"))
    assert found.null_high == 2.0
    assert found.p == 1.0


def test_what_cannot_be_measured_is_refused():
    values = np.ones((3, 4))
    rng = stream(1, "l")
    with pytest.raises(EvidenceError, match=r"undefined.*shape \(3, 4\) for 2 kinds"):
        concentration(values, ["head"] * 2, rng)
    values[0, 0] = np.inf
    with pytest.raises(EvidenceError, match="undefined.*1 values that are not finite"):
        concentration(values, ["head"] * 4, rng)
    with pytest.raises(ConfigError, match="needs permutations.*0 draws"):
        concentration(np.ones((3, 4)), ["head"] * 4, rng, draws=0)
    given_ = made(additive(dict.fromkeys(heads(4), 1.0)), heads(4))
    with pytest.raises(ConfigError, match="share of all sites.*Seen: 0.0"):
        localisation(given_.effects, rng, top=0.0)
    with pytest.raises(ConfigError, match="'share' of 2.0"):
        localisation(given_.effects, rng, share=2.0)
