"""Agents in populations, against closed forms and the laws of the replicator equation."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest

from moralscope.behaviour.playing.spreading import TIMES, dynamics_table, fixation_table
from moralscope.behaviour.presentations import Presented
from moralscope.core.errors import ConfigError
from moralscope.games import get_opponent

LABELS = "action1/action2"
COOPERATOR, DEFECTOR = get_opponent("always-cooperate"), get_opponent("always-defect")


def scripted(
    agent: str, p: tuple[float, ...], game: str = "IPD", labels: str = LABELS
) -> Presented:
    answers = np.array([[[x, 1 - x, 0.0] for x in p]])
    return Presented(agent, game, labels, (f"{labels} o0a0",), answers)


KIND = scripted("kind", (1, 1, 1, 1))


def shares(table: pl.DataFrame, player: str, **place: object) -> np.ndarray:
    return table.filter(player=player, **place).sort("time")["share"].to_numpy()


def test_a_defector_takes_over_cooperators_as_a_logistic_curve() -> None:
    table = dynamics_table([KIND], (DEFECTOR,), (0.0,))
    # Defecting gains 1 whatever is met: the odds grow by a factor e each unit of time.
    odds = np.exp(np.array(TIMES))
    np.testing.assert_allclose(shares(table, "always-defect"), odds / (1 + odds), rtol=1e-6)
    np.testing.assert_allclose(shares(table, "kind"), 1 / (1 + odds), rtol=1e-5)
    assert table["process"].unique().to_list() == ["replicator"]
    # Errors of 5% take the gain to 0.9 of what it was.
    shaken = dynamics_table([KIND], (DEFECTOR,), (0.05,), (0.0, 2.0))
    odds = np.exp(0.9 * 2)
    assert shares(shaken, "always-defect")[1] == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_shares_of_everybody_sum_to_one_from_equal_shares_on() -> None:
    agents = [KIND, scripted("odd", (0.7, 0.1, 0.4, 0.2)), scripted("hare", (0, 0, 0, 0), "ISH")]
    table = dynamics_table(agents, times=(0.0, 1.0, 50.0))
    assert sorted(table.select("game", "noise").unique().rows()) == [
        ("IPD", 0.0), ("IPD", 0.05), ("ISH", 0.0), ("ISH", 0.05),
    ]  # fmt: skip
    sums = table.group_by("game", "noise", "time").agg(pl.col("share").sum(), n=pl.len())
    np.testing.assert_allclose(sums["share"], 1, atol=1e-12)
    assert sums.filter(game="IPD")["n"].unique().to_list() == [10]
    start = table.filter(time=0.0, game="ISH")["share"]
    np.testing.assert_allclose(start, 1 / 9)
    assert table.filter(time=50.0)["share"].max() > 0.5


def test_invasions_in_closed_form() -> None:
    table = fixation_table([KIND], (DEFECTOR,), (0.0,), population=2, selection=0.5)
    assert sorted(table.select("invader", "resident").rows()) == sorted(
        permutations(("kind", "always-defect"), 2)
    )
    # Two players: the one gets 4, the other 0, and the fitter is born with their odds e^2.
    found = dict(table.select("invader", "fixation").iter_rows())
    assert found["always-defect"] == pytest.approx(np.exp(2) / (1 + np.exp(2)), rel=1e-12)
    assert found["kind"] == pytest.approx(1 / (1 + np.exp(2)), rel=1e-12)
    assert table["neutral"].to_list() == [0.5, 0.5]
    drift = fixation_table([KIND], (DEFECTOR,), (0.0,), selection=0.0)
    np.testing.assert_allclose(drift["fixation"], 0.01, rtol=1e-12)


def test_both_seats_make_one_population() -> None:
    here, there = (
        scripted("one", (1, 1, 1, 1), "BOS"),
        scripted("one", (0, 0, 0, 0), "BOS-mirrored"),
    )
    assert dynamics_table([here]).height == 0
    assert fixation_table([here, scripted("two", (0, 0, 0, 0), "BOS-mirrored")]).height == 0
    table = fixation_table([here, there], (COOPERATOR,), (0.0,), population=2, selection=1.0)
    assert table["game"].unique().to_list() == ["BOS"]
    # With a cooperator it meets in its own seat alone: 3 and 2 there, half of the time.
    found = dict(table.select("invader", "fixation").iter_rows())
    assert found["one"] == pytest.approx(np.exp(1.5) / (np.exp(1.5) + np.exp(1.0)), rel=1e-12)
    back = fixation_table([there, here], (COOPERATOR,), (0.0,), population=2, selection=1.0)
    assert back["game"].unique().to_list() == ["BOS-mirrored"]
    assert sorted(back["fixation"]) == pytest.approx(sorted(table["fixation"]), rel=1e-12)


def test_populations_are_divided_by_labels_and_names_are_told_apart() -> None:
    agents = [KIND, scripted("always-defect", (0, 0, 0, 0), labels="C/D")]
    table = fixation_table(agents, (DEFECTOR,), (0.0,))
    assert table.select("labels", "invader").unique().height == 4
    assert set(table.filter(labels="C/D")["invader"]) == {
        "always-defect", "always-defect (strategy)",
    }  # fmt: skip
    # The same play: neither is favoured.
    np.testing.assert_allclose(table.filter(labels="C/D")["fixation"], 0.01, rtol=1e-9)


def test_what_is_refused() -> None:
    assert dynamics_table([]).height == 0
    with pytest.raises(ConfigError, match="There is no such invasion"):
        fixation_table([KIND], (DEFECTOR,), population=1)
    with pytest.raises(ConfigError, match="There is no such population"):
        dynamics_table([KIND], (DEFECTOR,), times=(2.0, 1.0))
    with pytest.raises(ConfigError, match="Noise is not a probability"):
        dynamics_table([KIND], noises=(-0.5,))
