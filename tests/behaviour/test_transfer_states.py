"""Agents that learned to answer what was played: the controls, each state by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from moralscope.behaviour import TrainedOn, learned_table, trained_on, transfer_table
from moralscope.behaviour.learning.training_sets import reference_training, with_unknown
from moralscope.behaviour.learning.transfer_states import transfer_states_table
from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.games import structured
from moralscope.games.asking.robustness import robustness_prompts

RECIPROCAL = {"CC": -1.0, "CD": 1.0, "DC": -1.3, "DD": 0.6}


def made(world: Any, learner: Any, what: TrainedOn, prompts: Any = None) -> tuple[Any, ...]:
    asked = world.prompts(mirrored=True) if prompts is None else prompts
    return asked, learner.decisions(asked), world.agents("agent"), {"agent": what}


def verdict(
    world: Any, learner: Any, what: TrainedOn, prompts: Any = None
) -> tuple[str, str, str | None]:
    tables = made(world, learner, what, prompts)
    found = learned_table(transfer_table(*tables), transfer_states_table(*tables))
    (row,) = found.iter_rows(named=True)
    return row["learned"], row["sentence"], row["basis"]


@pytest.mark.parametrize("trained", ["fixed", "both"])
@pytest.mark.parametrize(
    ("kind", "learned"),
    [("move", "move"), ("label", "label"), ("row", "layout"), ("mention", "order")],
)
def test_planted_conditional_learners_are_named(
    world: Any, kind: str, learned: str, trained: str
) -> None:
    learner = world.learner(**{kind: 2.0}, by_state=RECIPROCAL)
    found, sentence, basis = verdict(world, learner, getattr(world, trained))
    assert (found, basis) == (learned, "each state"), sentence


def test_the_means_alone_say_nothing_of_a_conditional_agent(world: Any) -> None:
    tables = made(world, world.learner(move=2.0, by_state=RECIPROCAL), world.both)
    (row,) = learned_table(transfer_table(*tables)).iter_rows(named=True)
    assert (row["learned"], row["basis"]) == ("undecided", "mean over states")
    assert "its change has no common sign over the memory-one states" in row["sentence"]


def test_the_sentence_names_the_states(world: Any) -> None:
    learner = world.learner(move=2.0, by_state=RECIPROCAL)
    _, sentence, _ = verdict(world, learner, world.both)
    assert sentence.startswith(
        "agent learned the move: its change, up in IPD.CD and IPD.DD and down in IPD.CC and IPD.DC,"
        " keeps its sign in each of these states under swapped labels, under exchanged payoff rows,"
        " on every new wording and on their mirrors. Change from base in the log-odds of defecting,"
        " mean over states: on the prompts it was trained on"
    )
    quiet = world.learner(move=2.0, noise=1e-5, by_state={**RECIPROCAL, "DC": 0.0})
    assert "(IPD.DC unclear and left out)" in verdict(world, quiet, world.fixed)[1]


def test_half_a_pattern_is_not_kept(world: Any) -> None:
    """One state of one control that turns round, or says nothing, is enough against the move."""
    prompts = world.prompts(mirrored=True)
    learner = world.learner(move=2.0, by_state=RECIPROCAL)
    decisions = learner.decisions(prompts)
    base = dict(decisions.filter(agent="base").select("prompt", "log_odds").iter_rows())
    there = (
        (pl.col("agent") == "agent")
        & pl.col("prompt").str.contains(".CD.", literal=True)
        & pl.col("prompt").str.starts_with("wordings")
        & ~pl.col("prompt").str.contains("-mirrored", literal=True)
    )
    before = pl.col("prompt").replace_strict(base)
    for share, words in (
        (-1.0, "its change turns round in IPD.CD on wordings never trained on"),
        (0.0, "its change is not clear in IPD.CD on wordings never trained on"),
    ):
        altered = decisions.with_columns(
            log_odds=pl.when(there)
            .then(before + share * (pl.col("log_odds") - before))
            .otherwise("log_odds")
        )
        tables = prompts, altered, world.agents("agent"), {"agent": world.both}
        found = learned_table(transfer_table(*tables), transfer_states_table(*tables))
        assert found["learned"].to_list() == ["undecided"]
        assert words in found["sentence"][0]


def test_a_missing_control_is_named_for_conditional_agents_too(world: Any) -> None:
    learner = world.learner(move=2.0, by_state=RECIPROCAL)
    found, sentence, _ = verdict(world, learner, world.fixed, world.prompts())
    assert found == "undecided"
    assert "undecided: it was not evaluated on a wording and its mirror." in sentence


def test_noise_has_no_pattern(world: Any) -> None:
    for seed in range(10):
        learned, sentence, _ = verdict(world, world.learner(noise=1.0, seed=seed), world.both)
        assert learned == "undecided", sentence


def test_states_equal_an_independent_computation(world: Any) -> None:
    prompts = world.prompts(mirrored=True, orders=(0, 1))
    learner = world.learner(move=0.4, label=0.2, noise=0.5, seed=9, by_state=RECIPROCAL)
    tables = made(world, learner, world.fixed, prompts)
    odds = {(r["agent"], r["prompt"]): r["log_odds"] for r in tables[1].iter_rows(named=True)}
    everything = transfer_states_table(*tables)
    single = everything.filter(pl.col("template") != "all")
    # Single wordings are the conditions of the table transfer, and their means over states.
    means = single.group_by("control", "template", "labels", "table_order").agg(
        pl.col("change_log_odds").mean(), states=pl.len()
    )
    both = transfer_table(*tables).join(means, on=["control", "template", "labels", "table_order"])
    assert both.height == means.height == 17
    assert (both["change_log_odds"] - both["change_log_odds_right"]).abs().max() < 1e-12
    assert single["unit"].unique().to_list() == ["orders"]
    assert single["n_units"].unique().to_list() == [2]
    table = everything.filter(pl.col("template") == "all")
    conditions = table.group_by("control", "labels", "table_order").len()
    assert sorted(conditions["len"].to_list()) == [4] * 9
    for row in table.iter_rows(named=True):
        worded = row["control"] in ("new_wording", "mirrored_wording")
        values: dict[object, list[float]] = {}
        for p in prompts.iter_rows(named=True):
            if p["labels"] != row["labels"] or p["scenario"] != row["scenario"]:
                continue
            mirror = p["template"].endswith("-mirrored")
            here = (
                p["family"] == "wordings" and mirror == (row["control"] == "mirrored_wording")
                if worded
                else p["family"] == "structured" and p["table_order"] == row["table_order"]
            )
            if here:
                unit = p["template"] if worded else p["option_order"]
                change = odds["agent", p["prompt"]] - odds["base", p["prompt"]]
                values.setdefault(unit, []).append(change)
        units = [float(np.mean(v)) for v in values.values()]
        half = stats.t.ppf(0.975, len(units) - 1) * stats.sem(units)
        assert (row["unit"], row["n_units"]) == (("wordings", 3) if worded else ("orders", 2))
        assert row["change_log_odds"] == pytest.approx(np.mean(units), abs=1e-12)
        assert row["low"] == pytest.approx(np.mean(units) - half, abs=1e-9)
        assert row["high"] == pytest.approx(np.mean(units) + half, abs=1e-9)


def test_the_reference_is_the_trained_condition_with_most_clear_states(world: Any) -> None:
    learner = world.learner(move=1.0, label=1.0, noise=0.01, by_state=RECIPROCAL)
    table = transfer_states_table(*made(world, learner, world.both))
    reference = table.filter("reference")
    # Under one assignment both add up to 2 nats, under the other to none.
    assert reference["labels"].unique().to_list() == [world.same]
    assert reference["control"].unique().to_list() == ["trained"]
    assert reference["keeps_sign"].to_list() == [True] * 4
    assert table.filter(control="new_wording", template="all").height == 8
    assert transfer_states_table(
        world.prompts(), learner.decisions(world.prompts()), world.agents("agent"), {}
    ).is_empty()


# Agents whose training is not known


def test_the_structured_text_stands_in_for_a_training_that_is_not_known(world: Any) -> None:
    prompts = world.prompts(mirrored=True)
    agents = from_rows(
        "agents",
        [
            *world.agents("agent", "known").iter_rows(named=True),
            {"agent": "script", "base": "none", "kind": "policy", "dtype": "none"},
        ],
    )
    found = with_unknown(agents, prompts, {"known": world.fixed})
    assert list(found) == ["agent", "known"]
    assert found["known"] is world.fixed
    assert found["agent"] == TrainedOn(
        ("structured",), ("matrix",), (world.same, world.swapped), known=False
    )
    assert with_unknown(world.agents("known"), prompts.clear(), {"known": world.fixed}) == {
        "known": world.fixed
    }


def test_a_verdict_on_unknown_training_says_so(world: Any) -> None:
    what = reference_training(world.prompts())
    for kind, learned in (("move", "move"), ("label", "label"), ("mention", "order")):
        found, sentence, _ = verdict(world, world.learner(**{kind: 2.0}), what)
        assert found == learned
        assert (
            "on the structured text under both label assignments, which stands in for a training "
            "that is not known" in sentence
        )
        assert "trained on" not in sentence
    moved = verdict(world, world.learner(move=2.0), what)[1]
    assert "on every other wording and on their mirrors." in moved
    table = transfer_table(*made(world, world.learner(move=2.0), what))
    assert table["training_known"].to_list() == [False] * table.height


def test_without_a_structured_text_nothing_stands_in(world: Any) -> None:
    prompts = world.prompts().filter(pl.col("family") == "wordings")
    with pytest.raises(TableError, match="nothing to stand in for a training that is not known"):
        with_unknown(world.agents("agent"), prompts, {})


@pytest.mark.parametrize("known", [True, False])
def test_the_controls_fit_the_prompts_of_an_evaluation(world: Any, known: bool) -> None:
    """On the real prompts every condition has units enough for conditional agents to be judged."""
    asked = robustness_prompts()
    prompts = from_rows(
        "prompts",
        [
            world.prompt_row(
                p.family,
                p.template,
                p.labels,
                p.table_order,
                (p.own_previous, p.opponent_previous),
                order=p.option_order,
                game=p.game,
            )
            | {"prompt": p.name, "answer_order": p.answer_order}
            for p in asked
        ],
    )
    what = trained_on(structured()) if known else reference_training(prompts)
    for kind, learned in (("move", "move"), ("label", "label"), ("row", "layout")):
        learner = world.learner(**{kind: 2.0}, by_state=RECIPROCAL)
        found, sentence, basis = verdict(world, learner, what, prompts)
        assert (found, basis) == (learned, "each state"), sentence
    table = transfer_states_table(*made(world, world.learner(move=2.0), what, prompts))
    units = dict(
        table.filter(template="all").group_by("control").agg(pl.col("n_units").min()).iter_rows()
    )
    assert units == {"trained": 4, "exchanged_rows": 2, "new_wording": 7, "mirrored_wording": 7}
