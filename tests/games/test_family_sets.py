"""Families of texts: counts, balance, what they tell and what they keep to themselves."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    FAMILIES,
    GAMES,
    STATES,
    Wording,
    counterpart,
    families,
    family_prompts,
    structured,
)
from moralscope.games.asking.family_texts import EXPLICIT, POETIC, UNSTRUCTURED

ALL = families()
LABELS = st.sampled_from(
    [("action1", "action2"), ("red", "blue"), ("X", "Y"), ("wait", "walk"), ("left", "right")]
)


def text_of(prompt):
    return prompt.decision.messages[0].content


def of(family):
    return [prompt for prompt in ALL if prompt.family == family]


def test_sizes() -> None:
    assert Counter(p.family for p in ALL) == {
        "unstructured": 48,
        "poetic": 48,
        "explicit": 48,
        "value-prompted": 64,
        "unrelated": 24,
    }
    assert all(len(texts) >= 3 for texts in FAMILIES.values())


@pytest.mark.parametrize("family", ["unstructured", "poetic", "explicit", "value-prompted"])
def test_texts_are_fully_crossed(family) -> None:
    cells = Counter(
        (p.template, p.own_previous, p.opponent_previous, p.labels, p.option_order)
        for p in of(family)
    )
    names = [text.name for text in FAMILIES[family]]
    swapped = ("action1/action2", "action2/action1")
    assert set(cells) == set(product(names, "CD", "CD", swapped, (0, 1)))
    assert set(cells.values()) == {1}
    assert all(p.answer_order == p.option_order for p in of(family))
    assert {p.scenario for p in of(family)} == {f"IPD.{s.name}" for s in STATES}


def test_unrelated_texts_are_asked_once_for_each_question() -> None:
    """Both assignments read the same where no label has a meaning; only its first one is asked."""
    cells = Counter(
        (p.template.split(":")[0], p.opponent_previous, p.option_order, p.labels)
        for p in of("unrelated")
    )
    same = "action1/action2"
    assert cells == {
        **{(kind, None, o, same): 3 for kind, o in product(("action", "game"), (0, 1))},
        **{("reciprocity", move, o, same): 3 for move, o in product("CD", (0, 1))},
    }
    assert {p.own_previous for p in of("unrelated")} == {None}
    assert {p.scenario for p in of("unrelated")} == {"IPD", "IPD._C", "IPD._D"}
    swapped = families(assignments=("swapped",), names=["unrelated"])
    assert len(swapped) == 24
    asked = {p.decision.question for p in of("unrelated")}
    assert {p.decision.question for p in swapped} == asked
    told = {p.decision.question: p.opponent_previous for p in swapped}
    for p in of("unrelated"):
        other = told[p.decision.question]
        assert (p.opponent_previous, other) in {(None, None), ("C", "D"), ("D", "C")}


@settings(max_examples=10)
@given(LABELS, st.sampled_from(["same", "swapped"]))
def test_every_text_names_both_options_in_the_order_of_the_prompt(labels, assignment) -> None:
    first, second = sorted(labels)
    for p in families(labels, (assignment,)):
        text = text_of(p)
        assert re.search(rf"\b{first}\b", text)
        assert re.search(rf"\b{second}\b", text)
        ordered = re.findall(
            rf"\b({first}|{second})\b,? (?:or|and) (?:with )?({first}|{second})\b", text
        )
        assert ((second, first) if p.option_order else (first, second)) in ordered, text
        words = labels if assignment == "same" else labels[::-1]
        assert p.labels == "/".join(words)
        answers = p.decision.negative, p.decision.positive
        assert [p.decision.stem + o.canonical for o in answers] == [f"I choose {w}" for w in words]


def test_the_memory_that_is_told_is_that_of_the_prompt() -> None:
    for p in ALL:
        label = dict(zip("CD", p.labels.split("/"), strict=True))
        for category in ("own_previous", "opponent_previous"):
            move = getattr(p, category)
            told = [text_of(p)[s.start : s.end] for s in p.decision.spans if s.category == category]
            assert told == ([] if move is None else [label[move]])


def test_prose_tells_the_points_of_each_pair_of_moves() -> None:
    """The two numbers after the words for a pair of moves, read in the text of the first friend."""
    for name, game in GAMES.items():
        for p in family_prompts("unstructured", UNSTRUCTURED[:1], game):
            c, d = p.labels.split("/")
            says = {
                ("C", "C"): rf"both say {c}, you get (\d+) and your friend gets (\d+)",
                ("D", "D"): rf"both say {d}, you get (\d+) and your friend (\d+)",
                ("C", "D"): rf"you say {c} and your friend says {d}, it is (\d+) for you and (\d+)",
                ("D", "C"): rf"you say {d} and your friend says {c}, (\d+) for you and (\d+)",
            }
            for pair, pattern in says.items():
                found = re.search(pattern, text_of(p))
                assert found is not None, (name, pair)
                assert tuple(map(float, found.groups())) == game.payoffs[pair]


@pytest.mark.parametrize("text", UNSTRUCTURED, ids=lambda t: t.name)
def test_all_prose_tells_as_many_points_as_the_game_has(text) -> None:
    points = [n for pair in GAMES["BOS"].payoffs.values() for n in pair]
    for p in family_prompts("unstructured", [text], GAMES["BOS"]):
        told = [text_of(p)[s.start : s.end] for s in p.decision.spans if s.category == "payoffs"]
        last = GAMES["BOS"].payoffs[(p.own_previous, p.opponent_previous)][0]
        expected = sorted([*points, last] if text.name == "train" else points)
        assert sorted(map(float, told)) == expected


def test_stories_and_the_dilemma_by_name_tell_no_points() -> None:
    for family in ("poetic", "explicit", "unrelated"):
        for p in of(family):
            assert not re.search(r"\d", re.sub(r"action\d", "", text_of(p)))
            assert not [s for s in p.decision.spans if s.category == "payoffs"]
    assert all("Prisoner's Dilemma" in text_of(p) for p in of("explicit"))
    assert not any("Prisoner" in text_of(p) for p in ALL if p.family != "explicit")
    assert all("friend" in text_of(p) for p in of("unstructured"))
    for text in (*POETIC, *EXPLICIT):
        assert {"{c}", "{d}"} <= set(re.findall(r"\{[cd]\}", text.text))


def test_a_value_stands_before_the_structured_text() -> None:
    plain = {
        (p.own_previous, p.opponent_previous, p.labels, p.option_order): text_of(p)
        for p in structured()
        if p.option_order == p.answer_order
    }
    personas = set()
    for p in of("value-prompted"):
        key = (p.own_previous, p.opponent_previous, p.labels, p.option_order)
        persona, rest = text_of(p).split("\n\n", 1)
        assert rest == plain[key]
        assert p.table_order == "original"
        personas.add((p.template, persona))
    assert sorted(t for t, _ in personas) == ["deontological", "selfish", "utilitarian", "virtue"]


def test_no_prompt_is_a_clone_of_another_or_of_the_structured_ones() -> None:
    assert len(PromptSet((*ALL, *structured()))) == 232 + 32
    with pytest.raises(PromptError, match="have the same text"):
        PromptSet(
            family_prompts("mine", [UNSTRUCTURED[0], Wording("copy", UNSTRUCTURED[0].text)],
                           GAMES["IPD"])
        )  # fmt: skip


def test_other_labels_are_named_after_themselves() -> None:
    first = families(("red", "blue"), names=["poetic"]).prompts[0]
    assert first.name == "poetic.eaves.CC.o0.same.red-blue"
    assert ALL.prompts[0].name == "unstructured.cafe.CC.o0.same"
    assert of("unrelated")[0].name == "unrelated.action:pick.o0.same"
    assert of("unrelated")[12].name == "unrelated.reciprocity:table._C.o0.same"


@pytest.mark.parametrize("change", ["opponent_previous", "own_previous", "labels", "payoffs"])
def test_counterparts_undo_themselves_where_the_text_depends_on_the_change(change) -> None:
    made = 0
    for p in ALL:
        absent = change.endswith("previous") and getattr(p, change) is None
        silent = change == "payoffs" and p.family in ("poetic", "explicit", "unrelated")
        nameless = change == "labels" and p.template.startswith(("action:", "game:"))
        if absent:
            with pytest.raises(PromptError, match=f"has no {change} that could be changed"):
                counterpart(p, change)
        elif silent or nameless:
            with pytest.raises(PromptError, match=f"Changing {change} would leave the text of"):
                counterpart(p, change)
        else:
            other = counterpart(p, change)
            assert text_of(other) != text_of(p)
            assert counterpart(other, change) == p
            made += 1
    assert (
        made
        == {"opponent_previous": 220, "own_previous": 208, "labels": 220, "payoffs": 112}[change]
    )


def test_unknown_families_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no prompt family.*Seen: poetik.*did you mean 'poetic'"):
        families(names=["poetik"])
    with pytest.raises(PromptError, match="A prompt set is empty"):
        families(names=[])


def test_a_wording_that_tells_what_it_omits_is_refused() -> None:
    with pytest.raises(PromptError, match=r"Wording 'w' tells what it says to omit: payoffs") as e:
        Wording("w", "{first} {second} {own} {other} {own_CC}", omits=("payoffs", "goal"))
    assert e.value.seen == "{own_CC}"
    with pytest.raises(PromptError, match="tells what it says to omit: own"):
        Wording("w", "{first} {second} {own} {other}", omits=("payoffs", "goal", "own"))
    with pytest.raises(PromptError, match="no field goal, own"):
        Wording("w", "{first} {second} {other}", omits=("payoffs",))
