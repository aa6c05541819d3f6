"""Contrasts against sums worked out one by one, on agents whose behaviour is known."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from moralscope.behaviour.varying.contrasts import contrasts_table
from moralscope.core.errors import TableError
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.contrasts import SITUATIONS, designs, measure

SAME, SWAPPED = "action1/action2", "action2/action1"
LETTERS = ("letter", "duel", "market", "ledger", "rounds")


@pytest.fixture(scope="module")
def asked(world: Any) -> pl.DataFrame:
    return world.prompts(wordings=LETTERS)


@pytest.fixture(scope="module")
def told(world: Any) -> pl.DataFrame:
    """Five situations, four texts each, in both label assignments."""
    rows = [
        world.prompt_row(
            "scenarios", f"{situation}-{i}", labels, "none", (situation[0], situation[1]),
            scenario=situation,
        )
        for situation in SITUATIONS
        for i in range(4)
        for labels in (world.same, world.swapped)
    ]  # fmt: skip
    return from_rows("prompts", rows)


def row(table: pl.DataFrame, **where: str) -> dict[str, object]:
    found = table.filter(*(pl.col(k) == v for k, v in where.items()))
    assert found.height == 1
    return found.row(0, named=True)


def state(prompt: dict[str, object]) -> str:
    return f"{prompt['own_previous']}{prompt['opponent_previous']}"


def test_tit_for_tat_answers_the_other_and_nothing_else(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.follow("tft", asked, lambda p: float(p["opponent_previous"] == "D"))
    agents = from_rows(
        "agents", [{"agent": "tft", "base": "tft", "kind": "policy", "dtype": "none"}]
    )
    table = contrasts_table(asked, decisions, agents)
    values = {
        "response_to_other": 1.0, "response_to_self": 0.0, "forgiveness": 0.0, "loyalty": 1.0,
        "repair": 1.0, "escape": 0.0, "cooperation": 0.5, "betrayal_response": -1.0,
        "guilt_effect": 2 / 3, "repair_over_deadlock": 1.0, "forgiveness_over_deadlock": 0.0,
    }  # fmt: skip
    for family in ("wordings", "structured"):
        for name, value in values.items():
            found = row(table, contrast=name, family=family)
            assert found["estimate"] == pytest.approx(value, abs=1e-12)
            assert (found["low"], found["change"]) == (None, None)
    said = row(table, contrast="response_to_other", family="wordings")["sentence"]
    assert said == (
        "tft cooperates more after the other cooperated than after the other defected: difference "
        "+1.000 (no interval, 6 wordings)."
    )
    said = row(table, contrast="response_to_self", family="wordings")["sentence"]
    assert str(said).startswith("tft cooperates after it cooperated as it does after it defected:")


def test_estimates_and_changes_are_those_summed_one_by_one(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.learner(move=0.8, label=0.5, noise=0.3).decisions(asked)
    table = contrasts_table(asked, decisions, world.agents("agent"))
    for agent, sign in (("agent", 1), ("base", -1)):
        per_text = guilt_by_text(asked, decisions, agent)
        found = row(table, agent=agent, contrast="guilt_effect", family="wordings")
        assert found["estimate"] == pytest.approx(np.mean(per_text), abs=1e-12)
        assert (found["unit"], found["n_units"]) == ("wordings", 6)
        assert (found["change"] is None) == (sign < 0)
    moved = np.subtract(*(guilt_by_text(asked, decisions, a) for a in ("agent", "base")))
    found = row(table, agent="agent", contrast="guilt_effect", family="wordings")
    assert found["change"] == pytest.approx(moved.mean(), abs=1e-12)
    assert abs(float(str(found["change"]))) > 1e-3
    assert float(str(found["change_low"])) < moved.mean() < float(str(found["change_high"]))
    odds = [
        -np.subtract(*(guilt_by_text(asked, decisions, a, "log_odds") for a in ("agent", "base")))
    ]
    assert found["change_log_odds"] == pytest.approx(np.mean(odds), abs=1e-12)


def guilt_by_text(
    asked: pl.DataFrame, decisions: pl.DataFrame, agent: str, column: str = "p_negative"
) -> list[float]:
    """The guilt effect text by text, with loops."""
    value = {
        str(d["prompt"]): float(d[column])
        for d in decisions.filter(pl.col("agent") == agent).iter_rows(named=True)
    }
    prompts = [
        p
        for p in asked.iter_rows(named=True)
        if p["family"] == "wordings"
        or (p["table_order"] == "original" and p["option_order"] == p["answer_order"])
    ]
    found: list[float] = []
    for text in dict.fromkeys(p["template"] for p in prompts):
        after = {}
        for cell in ("CC", "CD", "DC", "DD"):
            of_labels = [
                np.mean([
                    value[p["prompt"]]
                    for p in prompts
                    if p["template"] == text and state(p) == cell and p["labels"] == labels
                ])
                for labels in (SAME, SWAPPED)
            ]  # fmt: skip
            after[cell] = np.mean(of_labels)
        found.append(float(after["DC"] - (after["CC"] + after["CD"] + after["DD"]) / 3))
    return found


def test_in_the_middle_of_the_range_the_interval_is_the_paired_t(world: Any) -> None:
    """Probabilities near one half lie on the straight part of the sigmoid."""
    asked = world.prompts(wordings=LETTERS)
    decisions = world.decide("base", asked, lambda p: 0.02 * world.base_log_odds(p))
    table = contrasts_table(asked, decisions, world.agents())
    values = guilt_by_text(asked, decisions, "base")
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    found = row(table, contrast="guilt_effect", family="wordings")
    assert found["low"] == pytest.approx(low, abs=2e-4)
    assert found["high"] == pytest.approx(high, abs=2e-4)
    assert high - low > 5e-3


def test_more_orders_and_labels_of_one_text_are_no_more_units(world: Any) -> None:
    """Repeating every prompt in a further order leaves every row of the table as it was."""
    rows = [
        world.prompt_row("wordings", text, world.same, "none", cell, order=order)
        for order in range(4)
        for text in LETTERS
        for cell in world.states
    ]
    few, many = from_rows("prompts", rows[: len(rows) // 4]), from_rows("prompts", rows)

    def leaning(prompt: dict[str, object]) -> float:
        return world.base_log_odds({"prompt": f"{prompt['template']}{state(prompt)}"})

    made = [
        contrasts_table(p, world.decide("base", p, leaning), world.agents()) for p in (few, many)
    ]
    assert made[0].height == 11
    for column in ("estimate", "low", "high", "n_units"):
        assert made[0][column].to_list() == pytest.approx(made[1][column].to_list())
    assert set(made[0]["n_units"]) == {len(LETTERS)}


def test_mirrors_and_rearranged_tables_are_left_out(world: Any, asked: pl.DataFrame) -> None:
    extra = [
        world.prompt_row("wordings", "duel-mirrored", world.same, "none", cell)
        for cell in world.states
    ]
    more = pl.concat([asked, from_rows("prompts", extra)])

    def leaning(prompt: dict[str, object]) -> float:
        rearranged = str(prompt["template"]).endswith("mirrored")
        return 9.0 if rearranged else world.base_log_odds(prompt)

    tables = [
        contrasts_table(p, world.decide("base", p, leaning), world.agents()) for p in (asked, more)
    ]
    assert tables[0].equals(tables[1])


def test_situations_are_told_by_different_texts_so_nothing_is_paired(
    world: Any, told: pl.DataFrame
) -> None:
    place = {text: i for i, text in enumerate(told["template"].unique(maintain_order=True))}
    noise = np.random.default_rng(3).normal(0, 0.05, len(place))

    def leaning(prompt: dict[str, object]) -> float:
        guilty = prompt["scenario"] == "DC_exploited"
        return 0.4 * guilty + float(noise[place[str(prompt["template"])]])

    decisions = world.decide("base", told, leaning)
    table = contrasts_table(told, decisions, world.agents())
    found = row(table, contrast="guilt_effect")
    p = {
        s: told.filter(pl.col("scenario") == s)
        .unique("template", maintain_order=True)
        .join(decisions, on="prompt")["p_negative"]
        .to_numpy()
        for s in SITUATIONS
    }
    others = [p[s] for s in SITUATIONS if s != "DC_exploited"]
    value = p["DC_exploited"].mean() - np.mean([y.mean() for y in others])
    assert found["estimate"] == pytest.approx(value, abs=1e-12)
    assert value < -0.05
    assert (found["unit"], found["n_units"], found["family"]) == ("texts", 20, "scenarios")
    parts = [(1.0, p["DC_exploited"]), *((0.25, y) for y in others)]
    variances = [w**2 * y.var(ddof=1) / 4 for w, y in parts]
    degrees = sum(variances) ** 2 / sum(v**2 / 3 for v in variances)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(variances))
    # The hull of Welch's interval and the other one: never narrower, here hardly wider.
    assert float(str(found["low"])) <= value - half + 1e-12
    assert float(str(found["high"])) >= value + half - 1e-12
    assert float(str(found["high"])) - float(str(found["low"])) < 3 * half
    assert str(found["sentence"]).startswith(
        "base cooperates less after it defected and the other cooperated than in the other "
        "situations: difference -0.0"
    )


def test_a_contrast_that_the_texts_do_not_settle_is_called_unclear(
    world: Any, told: pl.DataFrame
) -> None:
    decisions = world.decide("base", told, lambda p: 3.0 * world.base_log_odds(p))
    said = row(contrasts_table(told, decisions, world.agents()), contrast="temptation")["sentence"]
    assert str(said).startswith(
        "Whether base cooperates more where defecting is pointed out as tempting than where both "
        "simply cooperated is not clear: difference "
    )


def test_levels_stay_in_their_range_and_conform(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.learner(move=9.0, noise=3.0).decisions(asked)
    table = contrasts_table(asked, decisions, world.agents("agent"))
    conform("contrasts", table)
    levels = table.filter(pl.col("contrast").is_in(["cooperation", "forgiveness", "escape"]))
    assert levels["low"].min() >= 0.0
    assert levels["high"].max() <= 1.0
    assert table["low"].min() >= -1.0
    assert table["high"].max() <= 1.0
    assert (table["low"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["high"]).all()


def test_without_a_legal_answer_a_unit_is_left_out_and_said(
    world: Any, asked: pl.DataFrame
) -> None:
    decisions = world.decide("base", asked, world.base_log_odds)
    (design,) = (d for d in designs(asked) if d.family == "wordings")
    one = asked.filter(pl.col("template") == "duel")["prompt"][0]
    silent = pl.col("prompt") == one
    given = pl.when(~silent).then(pl.col("p_positive_given_legal"))
    for gone in (given, given.fill_null(float("nan"))):
        made = measure(design, decisions.with_columns(gone), ["base"])
        assert made is not None
        assert made.left_out == 1
        assert made.groups[0].shape == (5, 4)
        assert np.isfinite(made.groups[0]).all()


def test_half_a_family_is_refused(world: Any, asked: pl.DataFrame) -> None:
    decisions = world.decide("base", asked, world.base_log_odds).head(100)
    with pytest.raises(TableError) as caught:
        contrasts_table(asked, decisions, world.agents())
    text = str(caught.value)
    assert "Agent 'base' decided on some of the prompts of a family only" in text
    assert "evaluate the agent on the whole family" in text


def test_control_families_have_no_contrasts(world: Any) -> None:
    rows = [
        world.prompt_row(family, text, world.same, "none", cell)
        for family in ("framings", "value-prompted", "mine")
        for text, cell in itertools.product(("a", "b"), world.states)
    ]
    prompts = from_rows("prompts", rows)
    decisions = world.decide("base", prompts, world.base_log_odds)
    table = contrasts_table(prompts, decisions, world.agents())
    assert set(table["family"]) == {"mine"}


def test_no_prompt_with_a_memory_gives_an_empty_table(world: Any) -> None:
    prompts = from_rows(
        "prompts", [world.prompt_row("unrelated", "a", world.same, "none", (None, None))]
    )
    decisions = world.decide("base", prompts, world.base_log_odds)
    assert contrasts_table(prompts, decisions, world.agents()).is_empty()
