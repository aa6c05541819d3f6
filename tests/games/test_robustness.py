"""The sets that an evaluation asks: crossed where they have to be, each question once."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    GAMES,
    LABEL_PAIRS,
    LABELS,
    MIRRORED,
    TABLE_ORDERS,
    UNTRAINED,
    WORDINGS,
    crossed_wordings,
    families,
    framings,
    generalisation_prompts,
    one_order,
    robustness_prompts,
    structured,
    united,
    wordings,
)

CROSSED = crossed_wordings()
ROBUSTNESS = robustness_prompts()
GENERAL = generalisation_prompts()
SYMMETRIC = [name for name in GAMES if name != "BOS"]


def cells(prompts, *attributes):
    return Counter(tuple(getattr(p, a) for a in attributes) for p in prompts)


DESIGN = ("template", "own_previous", "opponent_previous", "labels", "option_order")


@settings(max_examples=8)
@given(st.sampled_from([LABELS, *LABEL_PAIRS]), st.sampled_from(SYMMETRIC))
def test_crossed_wordings_ask_every_combination_exactly_once(labels, game) -> None:
    prompts = crossed_wordings(labels, game=GAMES[game])
    assignments = ("/".join(labels), "/".join(labels[::-1]))
    found = cells(prompts, *DESIGN)
    texts = ("structured", *WORDINGS)
    assert set(found) == set(product(texts, "CD", "CD", assignments, (0, 1)))
    assert set(found.values()) == {1}
    assert len(prompts) == 128
    assert all(p.answer_order == p.option_order for p in prompts)
    assert {p.game for p in prompts} == {game}


def test_crossed_prompts_are_those_of_the_other_sets() -> None:
    asked = set(CROSSED)
    assert asked >= set(wordings())
    assert asked & set(structured()) == set(one_order(structured()))
    assert set(wordings(crossed=True)) == asked - set(structured())
    mirrors = wordings(names=MIRRORED, crossed=True)
    assert len(mirrors) == 112
    assert set(mirrors) >= set(wordings(names=MIRRORED))


def test_one_assignment_is_half_of_the_design() -> None:
    assert len(crossed_wordings(assignments=("swapped",))) == 64


def test_crossed_wordings_refuse_a_game_of_two_roles() -> None:
    with pytest.raises(PromptError, match="tells one player's points for both"):
        crossed_wordings(game=GAMES["BOS"])


def test_the_evaluation_asks_everything_and_is_not_too_long() -> None:
    assert len(ROBUSTNESS) == 752
    asked = {p.decision.question for p in ROBUSTNESS}
    for part in (CROSSED, structured(), families(), framings(), wordings(names=MIRRORED)):
        assert {p.decision.question for p in part} <= asked
    names = {p.name for p in ROBUSTNESS}
    assert {p.name for p in CROSSED} <= names
    for order in TABLE_ORDERS:
        prompts = [p for p in ROBUSTNESS if p.family == "structured" and p.table_order == order
                   and p.labels in ("action1/action2", "action2/action1")]  # fmt: skip
        found = cells(prompts, "own_previous", "opponent_previous", "labels", "option_order")
        assert len(found) == 16
        assert set(found.values()) == {2 if order == "original" else 1}
    for pair in LABEL_PAIRS:
        swapped = "/".join(pair), "/".join(pair[::-1])
        prompts = [p for p in ROBUSTNESS if p.labels in swapped]
        assert len(prompts) == 16
        assert len(cells(prompts, *DESIGN)) == 16
        assert {(p.family, p.table_order) for p in prompts} == {("structured", "original")}


def test_every_prompt_names_both_labels() -> None:
    for p in (*ROBUSTNESS, *GENERAL):
        text = p.decision.messages[-1].content
        for label in p.labels.split("/"):
            assert re.search(rf"\b{re.escape(label)}\b", text), p.name


def test_other_labels_are_words_that_the_text_does_not_use_otherwise() -> None:
    plain = re.sub(r"action\d", "", structured().prompts[0].decision.messages[0].content)
    for pair in LABEL_PAIRS:
        for label in pair:
            assert not re.search(rf"\b{label}\b", plain), label
    assert UNTRAINED == ("action3", "action4")
    assert len({label for pair in LABEL_PAIRS for label in pair}) == 2 * len(LABEL_PAIRS)


def test_labels_that_are_also_other_labels_are_asked_once() -> None:
    prompts = robustness_prompts(("Y", "X"))
    assert len(prompts) == 752 - 16
    few = robustness_prompts(label_pairs=[("up", "down")])
    assert len(few) == 752 - 16 * 6
    assert {p.labels for p in few} - {"action1/action2", "action2/action1"} == {
        "up/down",
        "down/up",
    }


def test_every_game_is_asked_with_its_own_points() -> None:
    assert len(GENERAL) == 6 * (4 * 32 + 32)
    found = cells(GENERAL, "game", "labels", "table_order", "own_previous", "opponent_previous",
                  "option_order", "answer_order")  # fmt: skip
    trained = [*product(("action1/action2", "action2/action1"), TABLE_ORDERS)]
    other = [*product(("action3/action4", "action4/action3"), ("original",))]
    expected = {
        (game, *shown, own, opponent, *orders)
        for game, shown, own, opponent in product(GAMES, [*trained, *other], "CD", "CD")
        for orders in product((0, 1), (0, 1))
    }
    assert set(found) == expected
    assert set(found.values()) == {1}
    assert {p.family for p in GENERAL} == {"structured"}
    for p in GENERAL:
        assert told_payoffs(p) == GAMES[p.game].payoffs


def told_payoffs(prompt):
    """The payoff table as it stands in the text."""
    cooperate, defect = prompt.labels.split("/")
    move = {cooperate: "C", defect: "D"}
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in prompt.decision.messages[0].content.split("\n")
        if line.startswith("|")
    ]
    return {
        (move[row[0]], move[column]): tuple(map(float, cell.split(", ")))
        for row in lines[2:]
        for column, cell in zip(lines[0][1:], row[1:], strict=True)
    }


def test_games_labels_and_orders_can_be_chosen() -> None:
    prompts = generalisation_prompts(
        ["BOS", "matrix(R=3, S=0.5, T=5, P=1)"], [("X", "Y"), ("up", "down")], ["both", "rows"]
    )
    found = cells(prompts, "game", "labels", "table_order")
    assert set(found.values()) == {16}
    assert {key[1:] for key in found} == {
        *product(("X/Y", "Y/X"), ("both", "rows")),
        *product(("up/down", "down/up"), ("both",)),
    }
    assert {key[0] for key in found} == {"BOS", "matrix_R3_S0.5_T5_P1"}


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match="Nothing is asked without label_pairs"):
        generalisation_prompts(label_pairs=[])
    with pytest.raises(ConfigError, match="Nothing is asked without table_orders"):
        generalisation_prompts(table_orders=[])
    with pytest.raises(ConfigError, match="mean 'IPD'"):
        generalisation_prompts(["IPT"])
    with pytest.raises(PromptError, match="A prompt set is empty"):
        generalisation_prompts([])
    with pytest.raises(PromptError, match="One action label is the beginning of the other"):
        robustness_prompts(label_pairs=[("go", "gone")])


def test_a_union_keeps_the_first_prompt_of_every_question() -> None:
    first, second = structured().prompts[:2]
    copy = replace(first, name="copy")
    assert united([first], [copy, second], [first]) == PromptSet((first, second))
    with pytest.raises(PromptError, match="Two prompts share a name"):
        united([first], [replace(second, name=first.name)])
