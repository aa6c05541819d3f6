"""The base against itself: its shift, and what it is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.evidence.controls.judging import judge_controls

SCENARIOS = 12


def measured_again(
    tables: synthetic.Tables, change: str, mean: float, spread: float, scenarios: int = SCENARIOS
) -> pl.DataFrame:
    """Replicas of the base on the first scenarios, shifted by a mean with some spread."""
    rng = np.random.default_rng(11)
    few = [f"s{index}" for index in range(scenarios)]
    own = tables["decisions"].filter(pl.col("agent") == "base", pl.col("scenario").is_in(few))
    return own.select(
        "agent", "prompt", reference_log_odds="log_odds",
        log_odds=pl.col("log_odds") + pl.Series(rng.normal(mean, spread, own.height)),
        change=pl.lit(change), setting=pl.lit("eager" if change == "kernel" else "bfloat16"),
    )  # fmt: skip


def judged(tables: synthetic.Tables, replicas: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    given = dict(tables) if replicas is None else {**tables, "replicas": replicas}
    given.pop("patching", None)
    table = judge_controls(given).filter(pl.col("control") == "numerical")
    return {row["subject"]: row for row in table.iter_rows(named=True)}


def test_the_shift_is_the_mean_of_scenario_means_with_students_interval(
    sound: synthetic.Tables,
) -> None:
    replicas = measured_again(sound, "dtype", 0.01, 0.02)
    row = judged(sound, replicas)["dtype base"]
    scenario = dict(sound["prompts"].select("prompt", "scenario").iter_rows())
    by_scenario: dict[str, list[float]] = {}
    for prompt, before, after in replicas.select(
        "prompt", "reference_log_odds", "log_odds"
    ).iter_rows():
        by_scenario.setdefault(scenario[prompt], []).append(after - before)
    means = np.array([np.mean(values) for values in by_scenario.values()])
    interval = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
    assert len(means) == SCENARIOS
    assert row["measured"] == pytest.approx(means.mean(), abs=1e-12)
    assert (row["low"], row["high"]) == pytest.approx(interval, abs=1e-12)
    assert (row["n"], row["kind"], row["unit"]) == (4 * SCENARIOS, "negative", "nats")


def test_it_stands_beside_the_smallest_change_that_is_found(sound: synthetic.Tables) -> None:
    both = pl.concat(
        [measured_again(sound, "kernel", 0.0, 1e-6), measured_again(sound, "dtype", 0.02, 0.01)]
    )
    found = judged(sound, both)
    decisions = sound["decisions"]
    base = decisions.filter(agent="base")["log_odds"].mean()
    changes = {
        agent: decisions.filter(agent=agent)["log_odds"].mean() - base
        for agent in ("game", "deontological", "utilitarian")
    }
    smallest = min(map(abs, changes.values()))  # hybrid has no effect and is not found
    for subject in ("kernel base", "dtype base"):
        assert found[subject]["expected"] == pytest.approx(smallest)
        assert found[subject]["passed"] is True
    kernel, dtype = (found[subject]["sentence"] for subject in ("kernel base", "dtype base"))
    assert "with the eager attention kernel, against itself" in kernel
    assert "with its weights held in bfloat16, against itself" in dtype
    # A shift of a fiftieth of a nat is found by the test, which is no sign of training.
    assert "a small p alone is no sign of training" in dtype
    assert "a small p alone" not in kernel


def test_a_shift_as_large_as_what_is_claimed_fails(sound: synthetic.Tables) -> None:
    row = judged(sound, measured_again(sound, "dtype", 2.5, 0.5))["dtype base"]
    assert row["passed"] is False
    assert "which numerical noise may explain; measure in float32" in row["sentence"]


def test_without_any_change_that_is_found_the_margin_is_the_scale() -> None:
    still = synthetic.build(effects=dict.fromkeys(synthetic.EFFECTS, 0.0))
    # No adapter differs at all: the changes are exactly those of the prompts, which are noise.
    base = still["decisions"].filter(agent="base")
    copies = [base.with_columns(agent=pl.lit(agent)) for agent in still["agents"]["agent"]]
    tables = {**still, "decisions": pl.concat(copies)}
    row = judged(tables, measured_again(tables, "kernel", 0.0, 1e-6))["kernel base"]
    margin = 0.1 * float(np.abs(base["log_odds"].to_numpy()).mean())
    assert row["expected"] == pytest.approx(margin)
    assert "below the margin within which changes count as equivalent" in row["sentence"]
    assert row["passed"] is True


def test_what_was_not_measured_is_not_available(sound: synthetic.Tables) -> None:
    found = judged(sound, None)
    assert set(found) == {"kernel base", "dtype base"}
    for row in found.values():
        assert row["passed"] is row["measured"] is None
    assert "controls: kernel" in found["kernel base"]["sentence"]
    assert "a 4-bit base has no other" in found["dtype base"]["sentence"]
    undefined = measured_again(sound, "kernel", 0.0, 1e-6).with_columns(
        log_odds=pl.when(pl.int_range(pl.len()) > 0).then("log_odds")
    )
    row = judged(sound, undefined)["kernel base"]
    assert row["passed"] is None
    assert "log-odds are undefined on 1 of 48 prompts" in row["sentence"]
