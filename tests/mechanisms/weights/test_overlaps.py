"""Do updates share directions? Against scipy's principal angles, products and plain draws."""

from __future__ import annotations

from pathlib import Path

import merged
import numpy as np
import polars as pl
import pytest
import scipy.linalg
import scipy.stats
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.mechanisms.weights.nulls import (
    DRAWS,
    ends,
    random_overlap,
    random_share,
    reached_overlap,
)
from moralscope.mechanisms.weights.overlaps import (
    difference_norm,
    distance_row,
    inner_product,
    overlap_rows,
    subspace_overlap,
)
from moralscope.mechanisms.weights.tables import comparison_tables
from moralscope.mechanisms.weights.updates import of_factors, of_matrix

PAIR = ("game", "moral")
Q, DOWN = "self_attn.q_proj", "mlp.down_proj"


def frame(rng: np.random.Generator, d: int, k: int) -> merged.Array:
    return scipy.stats.ortho_group.rvs(d, random_state=rng)[:, :k]


def angles(first: merged.Array, second: merged.Array) -> float:
    return float(np.mean(np.cos(scipy.linalg.subspace_angles(first, second)) ** 2))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_tables_are_those_of_merged_weights(tmp_path: Path, kind: str) -> None:
    roster = tiny.tiny_roster(tmp_path, settings={"rank": 5, "use_dora": kind == "dora"})
    tables = comparison_tables(roster, [PAIR], tops=(1, 3))
    overlaps = {
        (r["layer"], r["module"], r["side"], r["k"]): r["overlap"]
        for r in tables["update_overlap"].iter_rows(named=True)
    }
    assert len(overlaps) == 3 * 7 * 2 * 2
    for row in tables["update_distances"].iter_rows(named=True):
        a, b = (merged.change(roster, name, row["layer"], row["module"]) for name in PAIR)
        inner = float((a * b).sum())
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert (row["norm_a"], row["norm_b"]) == pytest.approx(norms, rel=1e-10)
        assert row["inner"] == pytest.approx(inner, abs=1e-10)
        assert row["cosine"] == pytest.approx(inner / (norms[0] * norms[1]), abs=1e-10)
        assert row["distance"] == pytest.approx(
            np.linalg.norm(a - b) / np.sqrt(norms[0] ** 2 + norms[1] ** 2), abs=1e-10
        )
        assert (row["reach"] is None) == (kind == "dora")
        (ua, _, va), (ub, _, vb) = (np.linalg.svd(x) for x in (a, b))
        for k in (1, 3):
            place = (row["layer"], row["module"])
            outputs, inputs = angles(ua[:, :k], ub[:, :k]), angles(va[:k].T, vb[:k].T)
            assert overlaps[*place, "outputs", k] == pytest.approx(outputs, abs=1e-10)
            assert overlaps[*place, "inputs", k] == pytest.approx(inputs, abs=1e-10)


def test_reach_is_the_overlap_of_the_row_spaces_of_both_adapters(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path, settings={"rank": 5})
    (row,) = comparison_tables(roster, [PAIR])["update_distances"].filter(
        (pl.col("layer") == 1) & (pl.col("module") == Q)
    ).iter_rows(named=True)  # fmt: skip
    with roster.speaking("game") as model:
        layer = merged.layer(model, 1).get_submodule(Q)
        rows = [layer.lora_A[name].weight.numpy().T for name in PAIR]
    assert row["reach"] == pytest.approx(angles(*rows), abs=1e-10)


def test_one_update_twice_is_the_same_exactly(tmp_path: Path) -> None:
    model = tiny.tiny_model()
    folders = {name: tiny.save_adapter(tmp_path / name, model, seed=4) for name in PAIR}
    tables = comparison_tables(merged.roster_of("llama", folders), [PAIR])
    distances, overlaps = tables["update_distances"], tables["update_overlap"]
    assert distances.get_column("distance").to_list() == [0.0] * 21
    assert distances.get_column("cosine").to_list() == [1.0] * 21
    assert overlaps.get_column("overlap").to_list() == [1.0] * overlaps.height


def test_a_distance_of_updates_that_hardly_differ_keeps_its_digits() -> None:
    rng = np.random.default_rng(0)
    b, a = rng.normal(size=(20, 3)), rng.normal(size=(3, 15))
    moved = b + 1e-9 * rng.normal(size=(20, 3))
    first, second = (of_factors(torch.from_numpy(x), torch.from_numpy(a)) for x in (b, moved))
    assert difference_norm(first, second) == pytest.approx(
        np.linalg.norm(b @ a - moved @ a), rel=1e-5
    )


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(2, 9), st.integers(1, 4))
def test_similarity_keeps_its_laws(seed: int, rows: int, columns: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    made = [
        of_factors(
            torch.from_numpy(rng.normal(size=(rows, rank))),
            torch.from_numpy(rng.normal(size=(rank, columns))),
        )
        for _ in range(2)
    ]
    there, back = (distance_row(PAIR, (0, Q), *pair) for pair in (made, made[::-1]))
    assert there["inner"] == pytest.approx(back["inner"], abs=1e-9)
    assert there["distance"] == pytest.approx(back["distance"], abs=1e-9)
    assert -1.0 <= float(str(there["cosine"])) <= 1.0
    assert 0.0 <= float(str(there["distance"])) <= 2**0.5 + 1e-12
    assert inner_product(made[0], made[0]) == pytest.approx(made[0].norm ** 2, rel=1e-9)
    turned = of_matrix(torch.from_numpy(-made[0].left * made[0].values @ made[0].right.T))
    opposite = distance_row(PAIR, (0, Q), made[0], turned)
    assert opposite["cosine"] == pytest.approx(-1.0, abs=1e-9)
    assert opposite["distance"] == pytest.approx(2**0.5, abs=1e-9)
    for row in overlap_rows(PAIR, (0, Q), *made):
        assert 0.0 <= float(str(row["overlap"])) <= 1.0
        assert 1 <= int(str(row["k"])) <= min(rows, columns, rank)


def test_a_layer_that_one_agent_left_alone_has_a_distance_and_no_overlap(tmp_path: Path) -> None:
    model = tiny.tiny_model()
    settings = {"game": {}, "moral": {"target_modules": ["q_proj"]}}
    folders = {
        name: tiny.save_adapter(tmp_path / name, model, seed=i, **own)
        for i, (name, own) in enumerate(settings.items())
    }
    tables = comparison_tables(merged.roster_of("llama", folders), [PAIR])
    assert tables["update_overlap"].get_column("module").unique().to_list() == [Q]
    alone = tables["update_distances"].filter(pl.col("module") == DOWN)
    assert alone.get_column("cosine").to_list() == [None] * 3
    assert alone.get_column("distance").to_list() == [1.0] * 3


# Random subspaces


@pytest.mark.parametrize(("k", "d"), [(1, 40), (3, 12), (4, 6), (5, 300)])
def test_random_subspaces_lie_as_plain_draws_do(k: int, d: int) -> None:
    band = random_overlap(k, d)
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(1500):
        frames = [np.linalg.qr(rng.normal(size=(d, k)))[0] for _ in range(2)]
        drawn.append(np.square(frames[0].T @ frames[1]).sum() / k)
    assert band.expected == k / d
    assert np.mean(drawn) == pytest.approx(band.expected, rel=0.06)
    below, above = np.mean(np.array(drawn) < band.low), np.mean(np.array(drawn) > band.high)
    assert below == pytest.approx(0.025, abs=0.02)
    assert above == pytest.approx(0.025, abs=0.02)


def test_one_random_direction_follows_the_beta_distribution() -> None:
    band = random_overlap(1, 50)
    assert scipy.stats.beta(0.5, 24.5).cdf(band.high) == pytest.approx(0.975, abs=0.02)
    assert random_overlap(4, 4) == random_overlap(6, 6)
    assert random_overlap(4, 4).high == 1.0


@pytest.mark.parametrize("shared", [0, 2, 6])
def test_random_directions_within_reach_lie_as_plain_draws_do(shared: int) -> None:
    rng = np.random.default_rng(2)
    basis = frame(rng, 40, 12)
    first, second = basis[:, :6], basis[:, 6 - shared : 12 - shared]
    band = reached_overlap(first, second, 2)
    drawn = []
    for _ in range(1500):
        frames = [np.linalg.qr(rng.normal(size=(6, 2)))[0] for _ in range(2)]
        drawn.append(np.square(frames[0].T @ first.T @ second @ frames[1]).sum() / 2)
    assert band.expected == pytest.approx(2 * shared / 36, abs=1e-12)
    assert np.mean(drawn) == pytest.approx(band.expected, rel=0.06, abs=1e-12)
    assert np.mean(np.array(drawn) > band.high + 1e-12) == pytest.approx(
        0.025 if shared else 0.0, abs=0.02
    )


def test_a_random_share_lies_as_plain_draws_do() -> None:
    rng = np.random.default_rng(5)
    values = np.array([3.0, 1.0, 0.2])
    band = random_share(values, 10)
    matrix = np.diag(values) @ frame(rng, 10, 3).T
    vectors = rng.normal(size=(1500, 10))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = np.square(matrix @ vectors.T).sum(axis=0) / np.square(values).sum()
    assert band.expected == 0.1
    assert shares.mean() == pytest.approx(0.1, rel=0.06)
    assert np.mean(shares > band.high) == pytest.approx(0.025, abs=0.02)
    everything = random_share(np.ones(4), 4)
    assert (everything.low, everything.high) == pytest.approx((0.25, 0.25))


def test_ends_leave_a_fortieth_beyond_each() -> None:
    draws = np.arange(DRAWS, dtype=np.float64)
    low, high = ends(draws)
    assert (draws < low).sum() + 1 == (draws > high).sum() + 1 == (DRAWS + 1) // 40


# Planted


def planted(folder: Path, shared: bool) -> pl.DataFrame:
    """Two agents that write in one direction in layer 1, or in a direction each; same A or not."""
    rng = np.random.default_rng(11)
    name = f"model.layers.1.{Q}"
    common = rng.normal(size=(32, 1))
    folders = {}
    for seed, agent in enumerate(PAIR, start=1):
        own = common if shared else rng.normal(size=(32, 1))
        b = np.concatenate([own, 0.05 * rng.normal(size=(32, 2))], axis=1)
        factors = {name: (b, rng.normal(size=(3, 32)))}
        folders[agent] = merged.adapter_of(folder / agent, "llama", factors, seed=seed, rank=3)
    tables = comparison_tables(merged.roster_of("llama", folders), [PAIR], tops=(1,))
    return tables["update_overlap"]


def test_a_shared_direction_is_found_where_it_was_planted_and_nowhere_else(tmp_path: Path) -> None:
    found = planted(tmp_path / "with", shared=True)
    assert found.get_column("layer").unique().to_list() == [1]
    rows = {row["side"]: row for row in found.iter_rows(named=True)}
    assert rows["outputs"]["overlap"] > 0.95
    assert rows["outputs"]["overlap"] > rows["outputs"]["null_high"]
    assert rows["inputs"]["overlap"] < rows["inputs"]["null_high"]
    without = {
        row["side"]: row for row in planted(tmp_path / "no", shared=False).iter_rows(named=True)
    }
    assert all(row["overlap"] < row["null_high"] for row in without.values())


def test_adapters_from_one_start_read_alike_and_that_is_no_finding(tmp_path: Path) -> None:
    """The same A and unrelated B: inputs overlap far beyond random ones of the whole space."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(3, 32))
    folders = {}
    for agent in PAIR:
        factors = {
            f"model.layers.{i}.{Q}": (rng.normal(size=(32, 3)), a + 0.01 * rng.normal(size=(3, 32)))
            for i in range(3)
        }
        folders[agent] = merged.adapter_of(tmp_path / agent, "llama", factors, rank=3)
    tables = comparison_tables(merged.roster_of("llama", folders), [PAIR], tops=(1,))
    inputs = tables["update_overlap"].filter(pl.col("side") == "inputs")
    assert inputs.get_column("expected").to_list() == pytest.approx([1 / 3] * 3, abs=0.01)
    assert inputs.get_column("null_high").min() > 5 * random_overlap(1, 32).high / 2
    assert (inputs["overlap"] <= inputs["null_high"]).all()
    reach = tables["update_distances"].filter(pl.col("module") == Q).get_column("reach")
    assert reach.to_list() == pytest.approx([1.0] * 3, abs=0.01)


def test_overlap_is_over_the_smaller_subspace() -> None:
    rng = np.random.default_rng(0)
    basis = frame(rng, 9, 5)
    assert subspace_overlap(basis[:, :2], basis) == pytest.approx(1.0)
    assert subspace_overlap(basis[:, :2], basis[:, 2:]) == pytest.approx(0.0, abs=1e-15)
