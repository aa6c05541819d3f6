"""One way of asking at a time: planted causes show at their factor and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moralscope.behaviour.varying.robustness import robustness_table
from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError
from moralscope.core.tables import from_rows
from moralscope.games import structured, wordings
from moralscope.games.asking.robustness import LABEL_PAIRS, robustness_prompts

PAIR = "action1/action2"
SWAPPED = {"action2/action1", *("/".join(reversed(pair)) for pair in LABEL_PAIRS)}
FACTORS = [
    "family", "wording", "labels", "assignment", "option_order", "state", "answer_order",
    "table_order", "stem", "system", "chat_template", "value",
]  # fmt: skip


def described(world: Any, prompts: PromptSet) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for p in prompts:
        state = (p.own_previous, p.opponent_previous)
        row = world.prompt_row(
            p.family, p.template, p.labels, p.table_order, state, order=p.option_order, game=p.game
        )
        system = [m.content for m in p.decision.messages if m.role == "system"]
        rows.append(
            row
            | {"prompt": p.name, "answer_order": p.answer_order, "system": "".join(system)}
            | {"stem": p.decision.stem, "chat_template": p.decision.chat_template}
        )
    return from_rows("prompts", rows)


@pytest.fixture(scope="module")
def asked(world: Any) -> pl.DataFrame:
    return described(world, robustness_prompts())


Row = dict[str, Any]


def first(p: Row, order: str = "option_order") -> str:
    """The move that the question names first."""
    labels = p["labels"].split("/")
    return "CD"[labels.index(sorted(labels)[p[order]])]


def changes(world: Any, asked: pl.DataFrame, p: Callable[[Row], float]) -> dict[Any, float | None]:
    table = robustness_table(asked, world.follow("agent", asked, p))
    return {(f, v): c for f, v, c in table.select("factor", "level", "change").iter_rows()}


def test_every_factor_has_its_levels_and_its_reference_first(
    world: Any, asked: pl.DataFrame
) -> None:
    table = robustness_table(asked, world.decide("agent", asked, world.base_log_odds))
    assert table["factor"].unique(maintain_order=True).to_list() == FACTORS
    first = table.group_by("factor", maintain_order=True).first()
    assert first["level"].to_list() == [
        "structured", "structured", PAIR, PAIR, "C first", "CC", "C first", "original", "default",
        "none", "on", "none",
    ]  # fmt: skip
    assert first["change"].null_count() == first.height
    assert table["change"].null_count() == first.height
    levels = dict(table.group_by("factor").agg("level").iter_rows())
    assert set(levels["family"]) == {
        "structured", "wordings", "unstructured", "poetic", "explicit", "value-prompted",
        "unrelated",
    }  # fmt: skip
    assert len(levels["wording"]) == 15
    assert set(levels["table_order"]) == {"original", "rows", "columns", "both"}
    assert levels["chat_template"] == ["on", "off"]
    assert {"none", "answer", "colon"} < set(levels["stem"])
    units = dict(table.group_by("factor").agg(pl.col("unit").first()).iter_rows())
    texts = {"family", "assignment", "option_order", "state"}
    assert {f for f, unit in units.items() if unit == "texts"} == texts
    counts = dict(table.filter(factor="family").select("level", "n_units").iter_rows())
    assert (counts["wordings"], counts["structured"], counts["unrelated"]) == (7, 1, 9)
    assert table.filter(factor="assignment")["n_units"].to_list() == [8, 8]


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (lambda p: first(p) == "D", {("option_order", "D first")}),
        (
            # Elsewhere options stand in one order throughout.
            lambda p: first(p, "answer_order") == "D",
            {("answer_order", "D first"), ("option_order", "D first")},
        ),
        # Which word comes first by the alphabet says nothing of a move.
        (lambda p: p["option_order"] == 1, set()),
        (lambda p: p["labels"] in SWAPPED, {("assignment", "action2/action1")}),
        (lambda p: p["table_order"] == "rows", {("table_order", "rows")}),
        (lambda p: "ethicist" in p["system"], {("system", "ethicist")}),
        (lambda p: not p["chat_template"], {("chat_template", "off")}),
        (lambda p: p["template"] == "stem:none", {("stem", "none")}),
        (lambda p: p["labels"] in ("X/Y", "Y/X"), {("labels", "X/Y")}),
        (
            lambda p: p["opponent_previous"] == "D",
            # A text that does not tell the other's last move is no reason to answer it.
            {("state", "CD"), ("state", "DD"), ("family", "unrelated")},
        ),
        (
            lambda p: p["template"] == "utilitarian",
            {("value", "utilitarian"), ("family", "value-prompted")},
        ),
        (lambda p: p["family"] == "poetic", {("family", "poetic")}),
        (
            lambda p: p["template"] == "rounds",
            {("wording", "rounds"), ("family", "wordings")},
        ),
    ],
)
def test_a_planted_cause_shows_at_its_level_and_nowhere_else(
    world: Any, asked: pl.DataFrame, cause: Callable[[Row], bool], expected: set[Any]
) -> None:
    """Exact: every comparison is balanced over all that it does not vary."""
    found = changes(world, asked, lambda p: 0.3 + 0.4 * cause(p))
    shown = {key for key, change in found.items() if change is not None and abs(change) > 1e-12}
    assert shown == expected
    sizes = {key: found[key] for key in expected if key[0] != "family"}
    assert list(sizes.values()) == pytest.approx([-0.4] * len(sizes))


def test_values_equal_an_independent_computation(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.decide("agent", asked, world.base_log_odds)
    table = robustness_table(asked, decisions)
    rows = {row["prompt"]: row for row in asked.iter_rows(named=True)}
    answers = {
        row["prompt"]: 1 - row["p_positive_given_legal"] for row in decisions.iter_rows(named=True)
    }

    def mean(prompts: list[str]) -> float:
        return float(np.mean([answers[name] for name in prompts]))

    def select(**where: Any) -> list[str]:
        return [n for n, row in rows.items() if all(row[k] == v for k, v in where.items())]

    both = (PAIR, "action2/action1")
    system: list[float] = []
    for own, other in world.states:
        state = {"own_previous": own, "opponent_previous": other}
        there = select(template="system:terse", **state)
        here = [
            name
            for labels in both
            for name in select(family="structured", labels=labels, table_order="original", **state)
            if rows[name]["option_order"] == rows[name]["answer_order"]
        ]
        assert len(there) == len(here) == 4
        system.append(mean(there) - mean(here))
    check(table, "system", "terse", system)

    unrelated: list[float] = []
    for text in dict.fromkeys(rows[n]["template"] for n in select(family="unrelated")):
        cells: list[float] = []
        for name in select(template=text):
            told = {k: rows[name][k] for k in ("labels", "own_previous", "opponent_previous")}
            told = {k: v for k, v in told.items() if v is not None}
            like = select(family="structured", table_order="original", **told)
            like = [n for n in like if rows[n]["option_order"] == rows[n]["answer_order"]]
            cells.append(answers[name] - mean(like))
        unrelated.append(float(np.mean(cells)))
    check(table, "family", "unrelated", unrelated)

    assignment: list[float] = []
    for text in dict.fromkeys(rows[n]["template"] for n in select(family="wordings")):
        if not text.endswith("-mirrored"):
            same, swapped = (mean(select(template=text, labels=labels)) for labels in both)
            assignment.append(swapped - same)
    plain = {"family": "structured", "table_order": "original"}
    first, second = (
        [n for n in select(labels=x, **plain) if rows[n]["option_order"] == rows[n]["answer_order"]]
        for x in both
    )
    check(table, "assignment", both[1], [mean(second) - mean(first), *assignment])


def check(table: pl.DataFrame, factor: str, level: str, units: list[float]) -> None:
    (row,) = table.filter(factor=factor, level=level).iter_rows(named=True)
    half = stats.t.ppf(0.975, len(units) - 1) * stats.sem(units)
    assert row["n_units"] == len(units)
    assert row["change"] == pytest.approx(np.mean(units), abs=1e-12)
    assert row["change_low"] == pytest.approx(max(-1.0, np.mean(units) - half), abs=1e-9)
    assert row["change_high"] == pytest.approx(min(1.0, np.mean(units) + half), abs=1e-9)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_intervals_hold_their_estimates_and_stay_possible(
    world: Any, asked: pl.DataFrame, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    table = robustness_table(asked, world.follow("agent", asked, lambda _: rng.beta(0.2, 0.2)))
    assert table["log_odds"].null_count() == table.height
    for value, low, high, floor in (
        ("p_cooperate", "low", "high", 0.0),
        ("change", "change_low", "change_high", -1.0),
    ):
        known = table.drop_nulls([value, low])
        assert known.height > 40
        assert (known[low] >= floor).all()
        assert (known[high] <= 1.0).all()
        assert ((known[low] <= known[value]) & (known[value] <= known[high])).all()


def test_several_agents_keep_apart(world: Any, asked: pl.DataFrame) -> None:
    one = world.decide("one", asked, world.base_log_odds)
    two = world.follow("two", asked, lambda _: 0.25)
    table = robustness_table(asked, pl.concat([one, two]))
    assert table["agent"].unique(maintain_order=True).to_list() == ["one", "two"]
    assert table.filter(agent="one").equals(robustness_table(asked, one))
    flat = table.filter(agent="two")
    assert flat["p_cooperate"].to_list() == pytest.approx([0.75] * flat.height)
    assert flat["low"].null_count() == flat["change_low"].null_count() == flat.height
    assert flat["log_odds"].null_count() == flat.height


def test_no_legal_answer_is_a_legal_mass_of_zero(world: Any, asked: pl.DataFrame) -> None:
    silent = from_rows(
        "decisions",
        [
            world.decision_row("agent", row, None, 0.5, float(row["family"] != "poetic"))
            for row in asked.iter_rows(named=True)
        ],
    ).with_columns(p_positive_given_legal=pl.when(pl.col("legal_mass") > 0).then(0.5))
    table = robustness_table(asked, silent)
    (row,) = table.filter(level="poetic").iter_rows(named=True)
    assert row["p_cooperate"] is row["low"] is row["change"] is None
    assert row["n_units"] == 0
    assert table["p_cooperate"].null_count() == 1
    mass = dict(table.filter(factor="family").select("level", "legal_mass").iter_rows())
    assert mass.pop("poetic") == 0.0
    assert set(mass.values()) == {1.0}


def test_what_was_not_asked_is_left_out(world: Any) -> None:
    plain = described(world, structured())
    table = robustness_table(plain, world.decide("agent", plain, world.base_log_odds))
    assert set(table["factor"]) == {"assignment", "option_order", "answer_order", "state"}
    # With one text only, states are the units of what texts would be.
    assert table.filter(factor="assignment")["unit"].unique().to_list() == ["states"]
    assert table.filter(factor="assignment")["n_units"].to_list() == [4, 4]
    assert table.filter(factor="state")["low"].null_count() == 4
    half = described(world, PromptSet((*structured(), *wordings())))
    texts = robustness_table(half, world.decide("agent", half, world.base_log_odds))
    # Uncrossed wordings ask no state under both orders, so they cannot show what an order does.
    orders = texts.filter(factor="option_order")
    assert orders.equals(table.filter(factor="option_order"))
    nothing = robustness_table(plain.head(1), world.decide("agent", plain.head(1), lambda _: 1.0))
    assert nothing.is_empty()


def test_labels_are_two_words(asked: pl.DataFrame, world: Any) -> None:
    decisions = world.follow("agent", asked, lambda _: 0.5)
    with pytest.raises(ConfigError, match="not an assignment of two labels"):
        robustness_table(asked, decisions, labels="defect")
