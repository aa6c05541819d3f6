"""Planted label-, row- and move-learners are told apart, and noise is not taken for any."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.behaviour import TrainedOn, learned_table, trained_on, transfer_table
from moralscope.behaviour.learning.transfer_states import transfer_states_table
from moralscope.core.decision import PromptSet
from moralscope.core.tables import from_rows
from moralscope.games import MIRRORED, TABLE_ORDERS, WORDINGS, clusters, structured, wordings


def verdict(
    world: Any, learner: Any, what: TrainedOn, prompts: pl.DataFrame | None = None
) -> tuple[str, str]:
    asked = world.prompts(mirrored=True) if prompts is None else prompts
    made = asked, learner.decisions(asked), world.agents("agent"), {"agent": what}
    table = learned_table(transfer_table(*made), transfer_states_table(*made))
    (row,) = table.iter_rows(named=True)
    assert row["basis"] in ("mean over states", "each state")
    return row["learned"], row["sentence"]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("trained", ["fixed", "both"])
@pytest.mark.parametrize("kind", ["move", "label", "row", "mention"])
def test_planted_learners_are_named(world: Any, kind: str, trained: str, sign: int) -> None:
    learner = world.learner(**{kind: 2.5 * sign})
    learned, _ = verdict(world, learner, getattr(world, trained))
    assert learned == {"row": "layout", "mention": "order"}.get(kind, kind)


@settings(max_examples=20, deadline=None)
@given(move=st.floats(-3, 3), label=st.floats(-3, 3), row=st.floats(-3, 3), both=st.booleans())
def test_the_strongest_of_mixed_causes_decides_as_the_rule_says(
    world: Any, move: float, label: float, row: float, both: bool
) -> None:
    """Closed form: with next to no noise, every sign is arithmetic."""
    what = world.both if both else world.fixed
    assignments = (1, -1) if both else (1,)
    effects = [move + a * label + r * row for a in (1, -1) for r in (1, -1)]
    if min(map(abs, effects)) < 1e-3:
        return  # at the noise floor, not decided by arithmetic
    learned, _ = verdict(world, world.learner(move, label, row, noise=1e-7), what)

    def sign(label_sign: int, row_sign: int) -> float:
        return float(np.sign(move + label_sign * label + row_sign * row))

    flips_label = sign(1, 1) != sign(-1, 1)
    flips_layout = any(sign(a, 1) != sign(a, -1) for a in assignments)
    everywhere = {sign(a, r) for a in (1, -1) for r in (1, -1)}
    if flips_label and flips_layout:
        assert learned == "undecided"
    elif flips_label:
        assert learned == "label"
    elif flips_layout:
        assert learned == "layout"
    else:
        assert learned == ("move" if len(everywhere) == 1 else "undecided")


def test_noise_is_undecided(world: Any) -> None:
    for seed in range(12):
        learned, sentence = verdict(world, world.learner(noise=1.0, seed=seed), world.fixed)
        assert learned == "undecided", sentence


def test_a_dead_agent_is_undecided_and_says_why(world: Any) -> None:
    learned, sentence = verdict(world, world.learner(noise=0.0), world.fixed)
    assert learned == "undecided"
    assert "its change has no common sign over the memory-one states" in sentence


def test_one_new_wording_that_turns_round_is_enough_against_the_move(world: Any) -> None:
    learner = world.learner(move=2.0, by_template={"duel": -1.0, "duel-mirrored": -1.0})
    learned, sentence = verdict(world, learner, world.both)
    assert learned == "undecided"
    assert "turns round on wordings never trained on (2 of 6)" in sentence


def test_one_new_wording_that_stays_unclear_is_enough_against_the_move(world: Any) -> None:
    learner = world.learner(move=2.0, by_template={"market": 0.0}, seed=3)
    learned, sentence = verdict(world, learner, world.fixed)
    assert learned == "undecided"
    assert "not clear of zero on wordings never trained on (2 of 6)" in sentence


def test_one_mirror_that_differs_from_its_original_is_no_order_of_mention(world: Any) -> None:
    """A going by place shows on every wording; one of three that turns round is something else."""
    learner = world.learner(move=2.0, by_template={"market-mirrored": -1.0})
    learned, sentence = verdict(world, learner, world.both)
    assert learned == "undecided"
    assert "its change turns round on mirrored wordings (2 of 6)" in sentence


def test_order_of_mention_explains_a_rearranged_table_too_and_labels_do_not(world: Any) -> None:
    learned, sentence = verdict(world, world.learner(mention=2.0), world.both)
    assert learned == "order"
    assert sentence.startswith(
        "agent learned an order of mention: its change turns round when a text mentions the two "
        "moves the other way round, in 6 of 6 pairs of a wording and its mirror."
    )
    asked = world.prompts(mirrored=True)
    decisions = world.learner(mention=2.0).decisions(asked)
    measured = transfer_table(asked, decisions, world.agents("agent"), {"agent": world.both})
    clear = pl.when(pl.col("template") != "duel").then("keeps_sign").alias("keeps_sign")
    (row,) = learned_table(measured.with_columns(clear)).iter_rows(named=True)
    assert row["learned"] == "order"
    weaker = "in 4 of 6 pairs of a wording and its mirror; the others are not clear."
    assert weaker in row["sentence"]
    table = world.prompts(mirrored=True).filter(pl.col("table_order").is_in(["none", "original"]))
    assert verdict(world, world.learner(mention=2.0), world.both, table)[0] == "order"
    learned, sentence = verdict(world, world.learner(label=-1.5, mention=1.0), world.both)
    assert learned == "label"
    learned, sentence = verdict(world, world.learner(-2.0, 1.5, mention=1.5), world.fixed)
    assert learned == "undecided"
    assert "under swapped labels and in a rearranged table alike" in sentence


def test_a_wording_trained_on_is_compared_with_its_mirror(world: Any) -> None:
    what = TrainedOn(("wordings",), ("letter",), (world.same, world.swapped), ("none",))
    assert verdict(world, world.learner(mention=2.0), what)[0] == "order"
    assert verdict(world, world.learner(move=2.0), what)[0] == "move"
    pair = TrainedOn(
        ("wordings",), ("letter", "letter-mirrored"), (world.same, world.swapped), ("none",)
    )
    names = ["letter", "letter-mirrored", "duel", "duel-mirrored"]
    prompts = world.prompts(mirrored=True).filter(pl.col("template").is_in(names))
    assert verdict(world, world.learner(mention=2.0), pair, prompts)[0] == "order"
    assert verdict(world, world.learner(move=2.0), pair, prompts)[0] == "move"
    # One wording speaks of itself alone.
    one = prompts.filter(pl.col("template") != "duel-mirrored")
    assert verdict(world, world.learner(mention=2.0), pair, one)[0] == "undecided"
    assert verdict(world, world.learner(move=2.0), pair, one)[0] == "move"


def test_turning_round_under_both_controls_is_undecided(world: Any) -> None:
    learner = world.learner(move=-2.0, label=1.5, row=1.5)
    learned, sentence = verdict(world, learner, world.fixed)
    assert learned == "undecided"
    assert "under swapped labels and in a rearranged table alike" in sentence


@pytest.mark.parametrize(
    ("keep", "missing"),
    [
        (pl.col("labels") == "action1/action2", "not evaluated under swapped labels"),
        (
            pl.col("table_order").is_in(["original", "columns", "none"]),
            "not evaluated with the payoff rows exchanged",
        ),
        (pl.col("family") == "structured", "not evaluated on wordings never trained on"),
        (
            ~pl.col("template").str.ends_with("-mirrored"),
            "not evaluated on a wording and its mirror",
        ),
    ],
)
def test_a_control_that_was_not_run_is_named(world: Any, keep: pl.Expr, missing: str) -> None:
    prompts = world.prompts(mirrored=True).filter(keep)
    learned, sentence = verdict(world, world.learner(move=2.0), world.fixed, prompts)
    assert learned == "undecided"
    assert missing in sentence


def test_no_control_at_all_names_all_four(world: Any) -> None:
    prompts = world.prompts((world.same,), ("original",), ())
    _, sentence = verdict(world, world.learner(move=2.0), world.fixed, prompts)
    assert sentence.count("not evaluated") == 4


def test_prose_has_no_rows_to_exchange(world: Any) -> None:
    what = TrainedOn(("wordings",), ("letter",), (world.same,), ("none",))
    learned, sentence = verdict(world, world.learner(move=2.0), what)
    assert learned == "move"
    assert "payoff rows" not in sentence


def test_training_on_tables_in_both_orders_is_its_own_layout_control(world: Any) -> None:
    what = TrainedOn(
        ("structured",), ("matrix",), (world.same, world.swapped), ("original", "rows")
    )
    assert verdict(world, world.learner(move=2.0), what)[0] == "move"
    assert verdict(world, world.learner(row=2.0), what)[0] == "layout"


def test_the_sentence_carries_the_figures(world: Any) -> None:
    learner = world.learner(label=2.0, noise=1e-6)
    _, sentence = verdict(world, learner, world.fixed)
    assert sentence == (
        "agent learned which label to say: its change turns round when the two action labels are "
        "swapped. Change from base in the log-odds of defecting: on the prompts it was trained on "
        "+2.00 nats (95% interval +2.00 to +2.00 over 4 states); with the action labels swapped "
        "-2.00 nats (95% interval -2.00 to -2.00 over 4 states); with the payoff table rearranged "
        "+2.00 to +2.00 nats in 3 conditions (3 keep the sign); on wordings never trained on -2.00 "
        "to +2.00 nats in 6 conditions (3 keep the sign, 3 turn round); on mirrored wordings -2.00 "
        "to +2.00 nats in 6 conditions (3 keep the sign, 3 turn round)."
    )


def test_the_verdicts_read_as_sentences(world: Any) -> None:
    assert verdict(world, world.learner(move=2.0), world.both)[1].startswith(
        "agent learned the move: its change keeps its sign under swapped labels, under exchanged "
        "payoff rows, on every new wording and on their mirrors."
    )
    assert verdict(world, world.learner(row=2.0), world.both)[1].startswith(
        "agent learned a place in the payoff table: its change turns round when the table is "
        "rearranged."
    )


def test_tables_without_table_orders_or_intervals_are_read(world: Any) -> None:
    def row(control: str, labels: str, change: float, keeps: bool | None) -> dict[str, object]:
        return {
            "agent": "a",
            "control": control,
            "template": "matrix" if control != "new_wording" else "tale",
            "labels": labels,
            "table_order": None if control != "exchanged_rows" else "rows",
            "change_log_odds": change,
            "low": None,
            "high": None,
            "p_defect": 0.5,
            "legal_mass": 1.0,
            "n_states": 4,
            "keeps_sign": keeps,
        }

    rows = [
        row("trained", world.same, 1.0, True),
        row("swapped_labels", world.swapped, 1.0, True),
        row("exchanged_rows", world.same, 1.0, True),
        row("new_wording", world.same, 1.0, True),
        row("mirrored_wording", world.same, 1.0, True) | {"template": "tale-mirrored"},
    ]
    (found,) = learned_table(from_rows("transfer", rows)).iter_rows(named=True)
    assert found["learned"] == "move"
    assert "+1.00 nats (no interval)" in found["sentence"]
    assert found["basis"] == "mean over states"
    assert learned_table(from_rows("transfer", [])).is_empty()


def test_the_controls_fit_the_prompts_of_the_games(world: Any) -> None:
    """On the real prompt sets every control exists, and planted learners are told apart."""
    sets = [structured(table_order=order) for order in TABLE_ORDERS]
    training, everything = (
        sets[0],
        PromptSet(
            tuple(
                prompt
                for one in (*sets, wordings(names=(*WORDINGS, *MIRRORED)), clusters())
                for prompt in one
            )
        ),
    )
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
                scenario=p.scenario,
            )
            | {"prompt": p.name, "answer_order": p.answer_order}
            for p in everything
        ],
    )
    for kind, learned in (("move", "move"), ("label", "label"), ("row", "layout")):
        found, sentence = verdict(
            world, world.learner(**{kind: 2.0}), trained_on(training), prompts
        )
        assert found == learned, sentence
    fixed = trained_on(training.where(lambda p: p.labels == world.same))
    learner = world.learner(move=2.0)
    table = transfer_table(
        prompts, learner.decisions(prompts), world.agents("agent"), {"agent": fixed}
    )
    counts = table.group_by("control").len().rows()
    assert dict(counts) == {
        "trained": 1,
        "swapped_labels": 1,
        "exchanged_rows": 3,
        "new_wording": 2 * len(WORDINGS),
        "mirrored_wording": 2 * len(MIRRORED),
    }
    assert table.get_column("n_states").unique().to_list() == [4]
