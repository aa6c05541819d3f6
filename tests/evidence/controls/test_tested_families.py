"""Shuffled labels and planted effects: the test in use passes, a broken one does not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
import synthetic

from moralscope.evidence.controls import families, planted, shuffled
from moralscope.evidence.controls.families import CHANGES, Family
from moralscope.evidence.controls.families import families as families_of
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.controls.planted import judge_planted
from moralscope.evidence.controls.shuffled import MORE, SHUFFLES, judge_shuffled
from moralscope.evidence.ledger import Setting

SWEEPS = ["patching game>utilitarian", "patching utilitarian>game"]


def setting(tables: synthetic.Tables | None = None, alpha: float = 0.05) -> Setting:
    return Setting(tables or {}, {}, alpha, 0, 9_999, None)


def noise(groups: int, columns: int, seed: int = 1) -> Family:
    values = np.random.default_rng(seed).normal(0.3, 1.0, (groups, columns))
    return Family("family", "sites", values)


def rows(table: pl.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["control"], r["subject"]): r for r in table.iter_rows(named=True)}


def test_families_are_the_unit_means_that_claims_are_tested_on(sound: synthetic.Tables) -> None:
    found = {family.name: family for family in families_of(setting(sound))}
    assert list(found) == [CHANGES, *SWEEPS]
    decisions = sound["decisions"].select("agent", "prompt", "scenario", "log_odds")
    base = decisions.filter(agent="base").select("prompt", base="log_odds")
    means = (
        decisions.join(base, on="prompt")
        .group_by("agent", "scenario", maintain_order=True)
        .agg(change=(pl.col("log_odds") - pl.col("base")).mean())
    )
    agents = [a for a in sound["agents"]["agent"] if a != "base"]
    expected = [means.filter(agent=agent).sort("scenario")["change"].to_list() for agent in agents]
    ours = found[CHANGES].values.T
    assert ours.shape == (4, 20)
    assert np.sort(ours, axis=1) == pytest.approx(np.sort(np.array(expected), axis=1), abs=1e-12)
    sweep = sound["patching"].filter(source="game", target="utilitarian", site="L1.mlp")
    by_scenario = sweep.join(sound["prompts"].select("prompt", "scenario"), on="prompt")
    mean = by_scenario.group_by("scenario").agg(pl.col("effect").mean())["effect"].to_numpy()
    own = found[SWEEPS[0]].values
    assert own.shape == (20, len(synthetic.SITES))
    assert any(np.allclose(np.sort(column), np.sort(mean)) for column in own.T)


def test_tables_alone_are_enough(sound: synthetic.Tables) -> None:
    only = {name: sound[name] for name in ("agents", "prompts", "decisions", "patching")}
    found = rows(judge_controls(only))
    for family, control in itertools.product([CHANGES, *SWEEPS], ["shuffled", "planted"]):
        assert found[control, family]["passed"] is True
    shares = [found["planted", family]["measured"] for family in (CHANGES, *SWEEPS)]
    assert all(0.7 < share < 0.95 for share in shares)
    assert all(found["shuffled", family]["measured"] < 0.1 for family in (CHANGES, *SWEEPS))
    said = found["shuffled", CHANGES]["sentence"]
    assert "something is found among 4 agents in" in said
    assert "of 200 shuffles, where 5% may be: the test keeps to its level" in said
    assert judge_controls({}).is_empty()


def test_exactly_what_enumeration_gives_is_found_among_shuffles() -> None:
    """One column of six scenarios of equal size: only the two unanimous patterns reject."""
    family = Family("six", "agents", np.array([[1.0]] * 5 + [[1.0 + 1e-9]]))
    found = judge_shuffled(setting(), family)
    unanimous = 2 / 2**6
    error = np.sqrt(unanimous * (1 - unanimous) / found.n)
    assert abs((found.measured or 0.0) - unanimous) < 4 * error
    assert found.passed is True


@pytest.mark.parametrize("uncorrected", [True, False])
def test_a_test_that_finds_too_much_fails_after_a_second_look(
    uncorrected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = noise(20, 30)
    if uncorrected:
        adjusted = families.max_t

        def raw(*given: Any) -> Any:
            found = adjusted(*given)
            return type("Raw", (), {"p_adjusted": found.p})

        monkeypatch.setattr(families, "max_t", raw)
    found = judge_shuffled(setting(), family)
    assert found.passed is not uncorrected
    assert found.n == (SHUFFLES + MORE if uncorrected else SHUFFLES)
    if uncorrected:
        # Thirty independent tests at .05 each.
        assert found.measured == pytest.approx(1.0 - 0.95**30, abs=0.06)
        assert "finds differences where there are none" in found.sentence


def test_an_unlucky_draw_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([30, 50])
    monkeypatch.setattr(shuffled, "_found", lambda *_: next(counts))
    found = judge_shuffled(setting(), noise(20, 3))
    assert (found.n, found.measured, found.passed) == (1200, 80 / 1200, True)


def test_the_power_found_is_that_of_the_t_test_for_one_column() -> None:
    found = judge_planted(setting(), noise(30, 1))
    # The smallest detectable effect is defined by a power of .8; sign-flips nearly reach it.
    assert found.measured == pytest.approx(0.8, abs=3.5 * np.sqrt(0.16 / 200))
    assert found.passed is True
    assert "twice that effect in 100%" in found.sentence


def test_an_effect_called_detectable_that_is_not_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = planted.smallest_detectable_effect
    monkeypatch.setattr(
        planted, "smallest_detectable_effect", lambda *given: 0.5 * (exact(*given) or 0.0)
    )
    found = judge_planted(setting(), noise(20, 5))
    assert found.passed is False
    assert (found.measured or 1.0) < 0.5
    assert "too small for these data" in found.sentence


def test_too_few_scenarios_are_said_and_not_passed() -> None:
    for judge in (judge_shuffled, judge_planted):
        found = judge(setting(), noise(5, 3))
        assert (found.passed, found.measured, found.n) == (None, None, 0)
        assert "with 5 scenarios no p can be below 0.0625" in found.sentence
        constant = judge(setting(), Family("none", "sites", np.zeros((20, 0))))
        assert constant.passed is None
        assert "no sites with any spread" in constant.sentence


def test_columns_without_spread_are_left_out_and_wide_families_sampled() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 1.0, (12, 60))
    values[:, 4] = 2.0
    kept = families._family(setting(), "wide", "sites", values)
    assert kept.values.shape == (12, 40)
    assert kept.left_out == 19
    assert not (np.ptp(kept.values, axis=0) == 0.0).any()
    assert "40 of 59 sites, drawn at random, in" in judge_shuffled(setting(), kept).sentence
    whole = families._family(setting(), "wide", "sites", np.tile(values, (2, 1)))
    assert (whole.values.shape, whole.left_out) == ((24, 59), 0)


def test_equal_seeds_give_equal_results(sound: synthetic.Tables) -> None:
    only = {name: sound[name] for name in ("agents", "prompts", "decisions")}
    one, again, other = (judge_controls(only, seed=seed) for seed in (3, 3, 4))
    assert one.equals(again)
    assert not one.equals(other)
