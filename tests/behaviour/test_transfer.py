"""The change from base under each control, against plain loops and scipy."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moralscope.behaviour import TrainedOn, swap_labels, trained_on, transfer_table
from moralscope.behaviour.learning.transfer_states import transfer_states_table
from moralscope.core.decision import Decision, Message, Option, Prompt
from moralscope.core.errors import AgentError, ConfigError, TableError


def transfer(world: Any, learner: Any, what: TrainedOn, prompts: Any = None) -> pl.DataFrame:
    asked = world.prompts() if prompts is None else prompts
    return transfer_table(asked, learner.decisions(asked), world.agents("agent"), {"agent": what})


def test_every_prompt_lands_under_its_control(world: Any) -> None:
    table = transfer(world, world.learner(move=2.0), world.fixed)
    cells = table.select("control", "template", "labels", "table_order").rows()
    exchanged = [
        ("exchanged_rows", "matrix", world.same, order) for order in ("rows", "columns", "both")
    ]
    worded = [
        ("new_wording", template, labels, "none")
        for labels in (world.same, world.swapped)
        for template in ("letter", "duel", "market")
    ]
    assert sorted(cells) == sorted(
        [
            ("trained", "matrix", world.same, "original"),
            ("swapped_labels", "matrix", world.swapped, "original"),
            *exchanged,
            *worded,
        ]
    )
    assert cells[0][0] == "trained"


def test_an_agent_trained_under_both_assignments_has_two_trained_rows(world: Any) -> None:
    table = transfer(world, world.learner(move=2.0), world.both)
    trained = table.filter(pl.col("control") == "trained")
    assert sorted(trained.get_column("labels")) == sorted([world.same, world.swapped])
    assert table.filter(pl.col("control") == "swapped_labels").is_empty()
    assert table.filter(pl.col("control") == "exchanged_rows").height == 6


def test_changes_equal_an_independent_computation(world: Any) -> None:
    prompts = world.prompts()
    learner = world.learner(move=0.4, label=0.2, row=-0.3, noise=0.5, seed=9)
    decisions = learner.decisions(prompts)
    log_odds = {(r["agent"], r["prompt"]): r for r in decisions.iter_rows(named=True)}
    table = transfer_table(prompts, decisions, world.agents("agent"), {"agent": world.fixed})
    for row in table.iter_rows(named=True):
        by_state: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for p in prompts.iter_rows(named=True):
            if all(p[key] == row[key] for key in ("template", "labels", "table_order")):
                agent, base = log_odds["agent", p["prompt"]], log_odds["base", p["prompt"]]
                by_state.setdefault((p["own_previous"], p["opponent_previous"]), []).append(
                    (agent["log_odds"] - base["log_odds"], agent["p_positive_given_legal"])
                )
        means = [np.mean([change for change, _ in found]) for found in by_state.values()]
        interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
        assert row["n_states"] == 4
        assert row["change_log_odds"] == pytest.approx(np.mean(means), abs=1e-12)
        assert row["low"] == pytest.approx(interval.low, abs=1e-9)
        assert row["high"] == pytest.approx(interval.high, abs=1e-9)
        defecting = np.mean([np.mean([p for _, p in found]) for found in by_state.values()])
        assert row["p_defect"] == pytest.approx(defecting, abs=1e-12)
        assert row["legal_mass"] == 1.0


@pytest.mark.parametrize("sign", [1, -1])
def test_signs_of_a_label_learner(world: Any, sign: int) -> None:
    table = transfer(world, world.learner(label=2.0 * sign), world.fixed)
    for row in table.iter_rows(named=True):
        says_label = row["labels"] == world.same
        assert np.sign(row["change_log_odds"]) == (sign if says_label else -sign)
        assert row["keeps_sign"] is says_label


def test_signs_of_a_row_learner(world: Any) -> None:
    table = transfer(world, world.learner(row=2.0), world.both)
    rows = {
        (r["table_order"], r["labels"]): r["keeps_sign"]
        for r in table.filter(pl.col("control") != "new_wording").iter_rows(named=True)
    }
    for (order, _), keeps in rows.items():
        assert keeps is (order in ("original", "columns"))
    assert len(rows) == 8


def test_an_interval_over_zero_has_no_sign(world: Any) -> None:
    table = transfer(world, world.learner(noise=1.0, seed=4), world.fixed)
    covering = table.filter((pl.col("low") < 0) & (pl.col("high") > 0))
    assert covering.height > 5
    assert covering.get_column("keeps_sign").null_count() == covering.height


def test_a_change_below_the_noise_floor_has_no_sign(world: Any) -> None:
    consistent_but_tiny = world.learner(move=5e-5, noise=1e-7)
    assert transfer(world, consistent_but_tiny, world.fixed)["keeps_sign"].null_count() == 11
    above = world.learner(move=5e-4, noise=1e-7)
    assert transfer(world, above, world.fixed)["keeps_sign"].to_list() == [True] * 11


def test_one_state_gives_no_interval_and_no_sign(world: Any) -> None:
    prompts = world.prompts().filter(
        pl.col("own_previous") == "C", pl.col("opponent_previous") == "C"
    )
    table = transfer(world, world.learner(move=3.0), world.fixed, prompts)
    assert table.get_column("n_states").unique().to_list() == [1]
    assert table.get_column("low").null_count() == table.height
    assert table.get_column("keeps_sign").null_count() == table.height


def test_untrained_tables_of_a_trained_wording_in_prose_are_no_layout_control(world: Any) -> None:
    what = TrainedOn(("wordings",), ("letter",), (world.same,), ("none",))
    table = transfer(world, world.learner(move=2.0), what)
    assert set(table.get_column("control")) == {"trained", "swapped_labels", "new_wording"}
    worded = table.filter(pl.col("control") == "new_wording")
    assert set(worded.get_column("template")) == {"matrix", "duel", "market"}
    assert worded.filter(pl.col("template") == "matrix").height == 8


def test_other_games_and_other_label_words_are_left_out(world: Any) -> None:
    extra = pl.concat(
        [
            world.prompts(),
            pl.DataFrame(
                [
                    world.prompt_row("structured", "matrix", "A/B", "original", ("C", "C")),
                    world.prompt_row(
                        "structured", "matrix", world.same, "original", ("C", "C"), game="ISH"
                    ),
                    world.prompt_row("clusters", "tale", world.same, "none", ("C", "C")),
                ]
            ),
        ]
    )
    learner = world.learner(move=2.0, noise=0.0)
    assert transfer(world, learner, world.fixed, extra).equals(
        transfer(world, learner, world.fixed)
    )


def test_two_games_trained_are_eight_states(world: Any) -> None:
    games = pl.concat(
        pl.DataFrame(
            [
                world.prompt_row("structured", "matrix", world.same, "original", state, game=game)
                for state in world.states
            ]
        )
        for game in ("IPD", "ISH")
    )
    what = TrainedOn(("structured",), ("matrix",), (world.same,), games=("IPD", "ISH"))
    (row,) = transfer(world, world.learner(move=1.0), what, games).iter_rows(named=True)
    assert row["n_states"] == 8


def test_each_agent_is_compared_with_its_own_base(world: Any) -> None:
    prompts = world.prompts()
    agents = pl.concat(
        [
            world.agents("agent"),
            pl.DataFrame(
                [
                    {"agent": "other-base", "base": "huge", "kind": "base", "dtype": "float32"},
                    {"agent": "tuned", "base": "huge", "kind": "checkpoint", "dtype": "float32"},
                ]
            ).pipe(lambda frame: pl.concat([world.agents().clear(), frame], how="diagonal")),
        ]
    )
    decisions = pl.concat(
        [
            world.learner(move=1.0, noise=0.0).decisions(prompts),
            world.decide("other-base", prompts, lambda _: 10.0),
            world.decide("tuned", prompts, lambda _: 7.0),
        ]
    )
    table = transfer_table(prompts, decisions, agents, {"agent": world.fixed, "tuned": world.fixed})
    changes = dict(table.group_by("agent").agg(pl.col("change_log_odds").mean()).rows())
    assert changes["agent"] == pytest.approx(1.0)
    assert changes["tuned"] == pytest.approx(-3.0)


def test_scripted_policies_beside_the_agents_change_nothing(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.learner(move=1.0).decisions(prompts)
    scripted = world.follow("policy:random", prompts, lambda _: 0.5)
    plain = transfer_table(prompts, decisions, world.agents("agent"), {"agent": world.fixed})
    joined = transfer_table(
        prompts, pl.concat([decisions, scripted]), world.agents("agent"), {"agent": world.fixed}
    )
    assert joined.equals(plain)
    assert transfer_table(prompts, decisions, world.agents("agent"), {}).is_empty()


def test_a_scripted_policy_has_no_change_to_examine(world: Any) -> None:
    prompts = world.prompts()
    decisions = pl.concat(
        [
            world.decide("base", prompts, world.base_log_odds),
            world.follow("agent", prompts, lambda _: 0.5),
        ]
    )
    with pytest.raises(TableError, match="Agent 'agent' has no log-odds on a prompt"):
        transfer_table(prompts, decisions, world.agents("agent"), {"agent": world.fixed})


def test_a_base_that_lacks_a_prompt_is_named(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.learner(move=1.0).decisions(prompts).tail(-1)
    with pytest.raises(TableError, match="Agent 'base' has no log-odds on a prompt"):
        transfer_table(prompts, decisions, world.agents("agent"), {"agent": world.fixed})


def test_unknown_agents_and_missing_bases_are_named(world: Any) -> None:
    prompts = world.prompts()
    decisions = world.learner(move=1.0).decisions(prompts)
    agents = world.agents("agent")
    with pytest.raises(AgentError, match=r"not in the table 'agents'.*did you mean 'agent'"):
        transfer_table(prompts, decisions, agents, {"agnet": world.fixed})
    with pytest.raises(AgentError, match="The base of agent 'agent' was not evaluated"):
        transfer_table(prompts, decisions, agents.tail(1), {"agent": world.fixed})


def test_without_trained_prompts_there_is_nothing_to_compare_with(world: Any) -> None:
    what = TrainedOn(("structured",), ("matrix",), (world.same,), ("nowhere",))
    with pytest.raises(TableError, match="is on a prompt that it was trained on"):
        transfer(world, world.learner(move=1.0), what)


@given(st.text("abc1 ", min_size=1), st.text("abc1 ", min_size=1))
def test_swapping_labels_is_its_own_inverse(cooperate: str, defect: str) -> None:
    assignment = f"{cooperate}/{defect}"
    assert swap_labels(assignment) == f"{defect}/{cooperate}"
    assert swap_labels(swap_labels(assignment)) == assignment


@pytest.mark.parametrize("text", ["action1", "a/b/c", "/b", "a/", ""])
def test_labels_that_are_not_two_words_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an assignment of two labels"):
        swap_labels(text)


def test_a_training_set_describes_itself() -> None:
    def prompt(template: str, labels: str, order: str) -> Prompt:
        decision = Decision(
            (Message("user", template + labels + order),),
            "I choose",
            Option("defect", (" B",)),
            Option("cooperate", (" A",)),
        )
        return Prompt(
            f"{template}.{labels}.{order}",
            decision,
            "IPD",
            "IPD.CC",
            "structured",
            template,
            labels,
            table_order=order,
        )

    found = trained_on([prompt("matrix", "A/B", "original"), prompt("matrix", "B/A", "rows")])
    assert found == TrainedOn(("structured",), ("matrix",), ("A/B", "B/A"), ("original", "rows"))
    with pytest.raises(ConfigError, match="names no families"):
        trained_on([])


def test_states_of_a_group_are_units_like_those_of_two_players(world: Any) -> None:
    rows = []
    for labels, own, k in product((world.same, world.swapped), "CD", range(3)):
        row = world.prompt_row(
            "public-goods",
            "structured",
            labels,
            "original",
            (own, None),
            game="PGG3x2",
            scenario=f"PGG3x2.{own}{k}",
            order=k,
        )
        rows.append(row | {"others_cooperated": k})
    prompts = pl.DataFrame(rows, schema=world.prompts().schema)
    learner = world.learner(label=1.5, noise=0.0)
    what = TrainedOn(("public-goods",), ("structured",), (world.same,), games=("PGG3x2",))
    found = transfer(world, learner, what, prompts)
    assert found["control"].to_list() == ["trained", "swapped_labels"]
    assert found["n_states"].to_list() == [6, 6]
    changes = found["change_log_odds"].to_list()
    assert changes[0] == -changes[1] != 0


def silenced(decisions: pl.DataFrame, agent: str, prompts: list[str]) -> pl.DataFrame:
    """The decisions with one agent giving no legal answer to some prompts."""
    gone = (pl.col("agent") == agent) & pl.col("prompt").is_in(prompts)
    mass = ("p_positive", "p_negative", "legal_mass")
    ratios = ("log_odds", "p_positive_given_legal")
    return decisions.with_columns(
        *(pl.when(gone).then(0.0).otherwise(name).alias(name) for name in mass),
        *(pl.when(~gone).then(name).alias(name) for name in ratios),
    )


@pytest.mark.parametrize("agent", ["agent", "base"])
def test_prompts_without_a_legal_answer_have_no_change(world: Any, agent: str) -> None:
    prompts = world.prompts()
    decisions = world.learner(move=2.0).decisions(prompts)
    rows = prompts.filter(family="structured", labels=world.swapped)
    state = rows.filter(table_order="original", scenario="IPD.CC")["prompt"].to_list()
    table = rows.filter(table_order="rows")["prompt"].to_list()
    made = silenced(decisions, agent, [*state, *table])
    found = transfer_table(prompts, made, world.agents("agent"), {"agent": world.both})
    sound = transfer_table(prompts, decisions, world.agents("agent"), {"agent": world.both})
    key = ["control", "template", "labels", "table_order"]
    left = sound.join(found, on=key, how="anti")
    assert left.select("labels", "table_order").rows() == [(world.swapped, "rows")]
    where = {"control": "trained", "labels": world.swapped}
    (row,) = found.filter(**where).iter_rows(named=True)
    assert row["n_states"] == 3
    assert row["legal_mass"] == (0.75 if agent == "agent" else 1.0)
    states = transfer_states_table(prompts, made, world.agents("agent"), {"agent": world.both})
    assert states.filter(template="all", **where).height == 3
    everything = silenced(decisions, agent, prompts["prompt"].to_list())
    with pytest.raises(TableError, match="No decision of agent 'agent' is on a prompt that it was"):
        transfer_table(prompts, everything, world.agents("agent"), {"agent": world.both})
