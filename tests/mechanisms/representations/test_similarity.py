"""Similarity of changes: closed forms, a brute-force CKA, and what raw vectors hide."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import AgentError
from moralscope.core.tables import conform
from moralscope.mechanisms.representations.similarity import (
    changes,
    debiased_cka,
    pairs_table,
    similarity_table,
)
from moralscope.mechanisms.representations.streams import Streams

PROMPTS = tuple(f"p{i}" for i in range(16))
SCENARIOS = {name: f"s{i // 2}" for i, name in enumerate(PROMPTS)}
EPS = float(np.finfo(np.float32).eps)


def streams(agent: str, values: np.ndarray, eps: float = EPS) -> Streams:
    return Streams(agent, PROMPTS, values, eps)


def three(seed: int = 0, size: float = 0.01) -> tuple[Streams, Streams, Streams]:
    """A base, and two agents whose changes are random and small beside it."""
    rng = np.random.default_rng(seed)
    base = 10.0 * rng.standard_normal((16, 3, 64))
    one, two = (base + size * rng.standard_normal(base.shape) for _ in range(2))
    return streams("base", base), streams("a", one), streams("b", two)


def brute_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Debiased HSIC as an average over tuples of distinct rows (Song et al. 2012, eq. 4)."""
    n = len(x)

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        two = np.mean([k[i, j] * m[i, j] for i, j in itertools.permutations(range(n), 2)])
        three_ = np.mean([k[i, j] * m[i, q] for i, j, q in itertools.permutations(range(n), 3)])
        four = np.mean([
            k[i, j] * m[q, r] for i, j, q, r in itertools.permutations(range(n), 4)
        ])  # fmt: skip
        return float(two + four - 2.0 * three_)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def test_cka_is_the_average_over_distinct_rows() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((7, 5)), rng.standard_normal((7, 3))
    y[:, 0] += x[:, 1]
    assert debiased_cka(x + 3.0, y) == pytest.approx(brute_cka(x, y), abs=1e-10)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.1, 10.0))
def test_cka_sees_neither_rotation_nor_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((9, 6))
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert debiased_cka(x, scale * x @ turn + 1.0) == pytest.approx(1.0, abs=1e-9)


def test_cka_of_unrelated_sets_is_about_zero_in_many_dimensions() -> None:
    rng = np.random.default_rng(2)
    found = [
        debiased_cka(rng.standard_normal((20, 500)), rng.standard_normal((20, 500)))
        for _ in range(20)
    ]
    assert abs(float(np.mean([v for v in found if v is not None]))) < 0.05


def test_cka_is_undefined_without_spread_or_rows() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((8, 4))
    assert debiased_cka(x, np.ones((8, 4))) is None
    assert debiased_cka(x[:3], x[:3]) is None


def test_raw_vectors_agree_where_the_changes_have_nothing_in_common() -> None:
    base, one, two = three()
    pairs = conform("representation_pairs", pairs_table(one, two, base))
    assert pairs.get_column("raw_cosine").min() > 0.99999
    assert abs(float(pairs.get_column("change_cosine").mean())) < 0.05
    table = similarity_table(pairs, {"base": base, "a": one, "b": two}, "base", SCENARIOS)
    at = {(r["layer"], r["measure"]): r for r in table.iter_rows(named=True)}
    assert at[0, "raw_cka"]["value"] > 0.999
    assert at[0, "change_cka"]["value"] < 0.5
    assert at[0, "change_cosine"]["low"] < 0.0 < at[0, "change_cosine"]["high"]
    assert {row["n"] for row in at.values()} == {8}
    assert sorted({layer for layer, _ in at}) == [-1, 0, 1]


def test_means_are_of_scenarios_and_in_closed_form() -> None:
    base, one, two = three(4)
    pairs = pairs_table(one, two, base)
    a, b = one.values - base.values, two.values - base.values
    for row in pairs.filter(pairs["layer"] == 1).iter_rows(named=True):
        i = PROMPTS.index(row["prompt"])
        x, y, z = a[i, 2], b[i, 2], base.values[i, 2]
        cosine = math.fsum(x * y) / math.sqrt(math.fsum(x * x) * math.fsum(y * y))
        assert row["change_cosine"] == pytest.approx(cosine, abs=1e-10)
        apart = math.dist(one.values[i, 2], two.values[i, 2])
        assert row["distance"] == pytest.approx(apart / math.hypot(*z), rel=1e-10)
    table = similarity_table(pairs, {"base": base, "a": one, "b": two}, "base", SCENARIOS)
    of = table.filter((table["layer"] == 1) & (table["measure"] == "distance"))
    mine = pairs.filter(pairs["layer"] == 1).get_column("distance").to_numpy()
    units = mine.reshape(8, 2).mean(axis=1)
    half = 2.364624251592785 * units.std(ddof=1) / math.sqrt(8)  # t of 7 degrees, from R
    assert of["value"].item() == pytest.approx(units.mean(), rel=1e-12)
    assert of["low"].item() == pytest.approx(units.mean() - half, rel=1e-9)


def test_a_base_has_no_change_and_its_distance_is_the_size_of_the_other_change() -> None:
    base, one, _ = three(5)
    pairs = pairs_table(base, one, base)
    assert pairs["change_cosine"].null_count() == pairs.height
    size = np.linalg.norm(one.values - base.values, axis=-1) / np.linalg.norm(base.values, axis=-1)
    assert pairs["distance"].to_numpy() == pytest.approx(size.ravel(), rel=1e-12)
    table = similarity_table(pairs, {"base": base, "a": one}, "base", SCENARIOS)
    undefined = table.filter(table["measure"].is_in(["change_cosine", "change_cka"]))
    assert undefined["value"].null_count() == undefined.height


def test_equal_agents_lie_exactly_nowhere_apart() -> None:
    base, one, _ = three(6)
    twin = streams("twin", one.values.copy())
    pairs = pairs_table(one, twin, base)
    assert pairs["distance"].to_list() == [0.0] * pairs.height
    assert pairs["change_cosine"].min() == pytest.approx(1.0, abs=1e-12)


def test_a_change_of_rounding_is_none() -> None:
    base, one, _ = three(7, size=1e-8)
    assert not changes(one, base).any()
    wide = Streams("a", PROMPTS, one.values, float(np.finfo(np.float64).eps))
    exact = Streams("base", PROMPTS, base.values, float(np.finfo(np.float64).eps))
    assert changes(wide, exact).any()


def test_other_prompts_are_refused() -> None:
    base, one, two = three()
    fewer = two.of(PROMPTS[:10])
    with pytest.raises(AgentError, match="cannot be compared.*16 prompts of 'a' and 10 of 'b'"):
        pairs_table(one, fewer, base)
    with pytest.raises(AgentError, match="'b' has no stream on a prompt"):
        fewer.of(["p12"])
