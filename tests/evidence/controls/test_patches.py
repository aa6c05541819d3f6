"""Controls of patches and circuits, on tables whose truth is known; and what they stand in."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.core.tables import conform
from moralscope.evidence.claims import make_claims
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.controls.patches import median_interval
from moralscope.evidence.gates.judging import judge_gates

PROMPTS = [f"p{index}" for index in range(6)]


def control_patches(
    ratio: float = 5.0, *, slope: float = 1.0, gap: float = 0.0, scale: float = 1.0, sites: int = 12
) -> pl.DataFrame:
    """Random directions of unit effect beside patches of ``ratio``; writes of known effect."""
    rng = np.random.default_rng(2)
    made: list[dict[str, Any]] = []
    place = {"source": "a", "target": "b"}
    for site, prompt, draw in [(s, p, d) for s in range(sites) for p in PROMPTS for d in (0, 1)]:
        made.append(
            {**place, "control": "random_direction", "prompt": prompt, "site": f"L{site}.mlp",
             "draw": draw, "norm": 1.0, "effect": (-1.0) ** draw * (1.0 + 0.01 * site),
             "expected": None, "source_effect": -ratio * (1.0 + 0.01 * site)}
        )  # fmt: skip
    for prompt, draw in [(p, d) for p in PROMPTS[:2] for d in (0, 1)]:
        effect = scale * float(rng.normal(2.0, 0.2)) / (draw + 1)
        made.append(
            {**place, "control": "planted", "prompt": prompt, "site": "L3.mlp", "draw": draw,
             "norm": 1.0 / (draw + 1), "effect": slope * effect + gap, "expected": effect,
             "source_effect": None}
        )  # fmt: skip
    return conform("control_patches", pl.DataFrame(made, infer_schema_length=None))


def judged(tables: synthetic.Tables) -> dict[str, dict[str, Any]]:
    return {row["control"]: row for row in judge_controls(tables).iter_rows(named=True)}


def test_a_patch_is_compared_with_directions_as_long() -> None:
    row = judged({"control_patches": control_patches(5.0)})["random_direction"]
    assert (row["measured"], row["low"], row["high"]) == pytest.approx((5.0, 5.0, 5.0))
    assert (row["expected"], row["passed"], row["n"], row["subject"]) == (1.0, True, 12, "a>b")
    assert "more than each of them at 12 of 12 sites" in row["sentence"]
    weak = judged({"control_patches": control_patches(0.4)})["random_direction"]
    assert (weak["measured"], weak["passed"]) == (pytest.approx(0.4), False)
    assert "0 of 12 sites, where chance would give 4 (p = 1.000)" in weak["sentence"]
    assert "and not only how much, does not show at these sites" in weak["sentence"]


@pytest.mark.parametrize("larger", [5, 7, 8, 12])
def test_beating_random_directions_must_exceed_chance(larger: int) -> None:
    """At 12 sites, each beaten by chance in one case of three."""
    made = control_patches(5.0)
    weak = [f"L{site}.mlp" for site in range(larger, 12)]
    few = made.with_columns(
        source_effect=pl.when(pl.col("site").is_in(weak))
        .then(pl.col("source_effect") / 100.0)
        .otherwise("source_effect")
    )
    row = judged({"control_patches": few})["random_direction"]
    oracle = stats.binomtest(larger, 12, 1 / 3, alternative="greater").pvalue
    assert row["passed"] is bool(oracle < 0.05)
    assert f"at {larger} of 12 sites, where chance would give 4" in row["sentence"]


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"gap": 9e-5}, True),
        ({"gap": 4e-4}, False),
        ({"slope": -1.0}, False),
        ({"slope": 0.0}, False),
        ({"slope": 1.01}, False),
        ({"scale": 1e-4}, None),
    ],
)
def test_writes_of_known_effect_must_do_what_is_known(
    changes: dict[str, float], passed: bool | None
) -> None:
    table = control_patches(**changes)
    row = judged({"control_patches": table})["planted_write"]
    assert row["passed"] is passed
    if passed is None:
        assert "have no effect to be found" in row["sentence"]
        return
    known = table.filter(control="planted")
    slope = np.linalg.lstsq(
        known["expected"].to_numpy()[:, None], known["effect"].to_numpy(), rcond=None
    )[0][0]
    assert row["measured"] == pytest.approx(float(slope), abs=1e-10)


def test_narrow_weights_are_allowed_narrow_agreement() -> None:
    agents = synthetic.agents(rewards=("b",)).with_columns(dtype=pl.lit("bfloat16"))
    tables = {"control_patches": control_patches(slope=1.01), "agents": agents}
    assert judged(tables)["planted_write"]["passed"] is True
    wrong = {"control_patches": control_patches(slope=0.5), "agents": agents}
    assert judged(wrong)["planted_write"]["passed"] is False


def test_patches_without_controls_say_that_there_are_none(sound: synthetic.Tables) -> None:
    found = judge_controls({name: sound[name] for name in ("prompts", "patching")})
    absent = found.filter(pl.col("control").is_in(["random_direction", "planted_write"]))
    assert sorted(absent["subject"].unique()) == ["game>utilitarian", "utilitarian>game"]
    assert absent["passed"].null_count() == 4
    unmatched = control_patches().with_columns(source_effect=pl.lit(None, pl.Float64))
    row = judged({"control_patches": unmatched})["random_direction"]
    assert (row["passed"], row["measured"]) == (None, None)
    assert "patch the same sites on the same prompts" in row["sentence"]


@pytest.mark.parametrize("n", [1, 5, 6, 9, 20, 24])
def test_the_interval_of_a_median_is_the_shortest_that_covers(n: int) -> None:
    """Order statistics k and n + 1 - k cover with 1 - 2 P(Binomial(n, 1/2) < k)."""
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1.0))
    covering = [k for k in range(1, n // 2 + 1) if 2 * stats.binom.cdf(k - 1, n, 0.5) <= 0.05]
    found = median_interval(values)
    assert found == ((covering[-1], n + 1.0 - covering[-1]) if covering else None)
    assert (found is None) == (n < 6)


def curves(circuit: float) -> pl.DataFrame:
    made = [
        {"source": "a", "target": "b", "positions": "answer_span", "write": "write",
         "circuit": "first", "curve": "faithfulness", "sets": sets, "size": size, "draw": draw,
         "share": share * size / 3}
        for size in (1, 2, 3)
        for sets, draw, share in [("circuit", 0, circuit),
                                  *(("random", d, 0.1 + 0.02 * d) for d in range(10))]
    ]  # fmt: skip
    return pl.DataFrame(made)


def test_a_circuit_is_compared_with_random_sets_of_its_size() -> None:
    row = judged({"circuit_curves": curves(0.9)})["random_sites"]
    assert row["measured"] == pytest.approx(0.19)
    assert row["expected"] == pytest.approx(0.9)
    assert (row["n"], row["passed"], row["subject"], row["kind"]) == (10, True, "a>b", "negative")
    assert 0.1 <= row["low"] < row["high"] <= 0.28
    ordinary = judged({"circuit_curves": curves(0.2)})["random_sites"]
    assert ordinary["passed"] is False
    assert "the circuit is not special" in ordinary["sentence"]


def failing(control: str, subject: str) -> pl.DataFrame:
    return pl.DataFrame(
        [{"control": control, "subject": subject, "kind": "negative", "measured": 0.4, "low": None,
          "high": None, "expected": 0.05, "unit": "share", "n": 200, "passed": False,
          "sentence": "It failed."}],
        schema_overrides={"low": pl.Float64, "high": pl.Float64},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("control", "subject", "fallen"),
    [
        ("shuffled", "changes from base", {"change:game"}),
        ("shuffled", "patching game>utilitarian", {"patching:game>utilitarian"}),
        ("planted_write", "game>utilitarian", {"patching:game>utilitarian"}),
        ("random_direction", "game>utilitarian", set()),
        ("numerical", "dtype base", set()),
        ("planted", "changes from base", set()),
    ],
)
def test_no_claim_stands_whose_control_failed(
    sound: synthetic.Tables, control: str, subject: str, fallen: set[str]
) -> None:
    tables = {**sound, "control_results": failing(control, subject)}
    gates = judge_gates(tables)
    (gate,) = gates.filter(gate="control").to_dicts()
    assert gate["subject"] == f"{control} {subject}"
    assert (gate["measured"], gate["threshold"], gate["passed"]) == (0.4, 0.05, False)
    claims = make_claims({**tables, "gates": gates}, draws=999)
    watched = ("change:game", "patching:game>utilitarian", "patching:utilitarian>game")
    verdicts = {row["id"]: row["verdict"] for row in claims.to_dicts() if row["id"] in watched}
    assert len(verdicts) == 3
    assert {name for name, verdict in verdicts.items() if verdict == "artefact"} == fallen
    for row in claims.filter(pl.col("id").is_in(list(fallen))).to_dicts():
        assert f"control ({control} {subject}): It failed." in row["statement"]
