"""Frames around one text: what changes, and that nothing else does."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    FRAMINGS,
    GAMES,
    counterpart,
    framings,
    read_prompts,
    structured,
    write_prompts,
)

ALL = framings()
NAMES = [framing.name for framing in FRAMINGS]
PLAIN = {
    (p.own_previous, p.opponent_previous, p.labels, p.option_order): p
    for p in structured()
    if p.option_order == p.answer_order
}


def reference(prompt):
    return PLAIN[
        prompt.own_previous, prompt.opponent_previous, prompt.labels, prompt.option_order
    ]  # fmt: skip


def test_framings_are_fully_crossed() -> None:
    cells = Counter(
        (p.template, p.own_previous, p.opponent_previous, p.labels, p.option_order) for p in ALL
    )
    swapped = ("action1/action2", "action2/action1")
    assert set(cells) == set(product(NAMES, "CD", "CD", swapped, (0, 1)))
    assert set(cells.values()) == {1}
    assert {p.family for p in ALL} == {"framings"}
    assert all(p.answer_order == p.option_order for p in ALL)
    kinds = Counter(name.split(":")[0] for name in NAMES)
    assert kinds == {"stem": 5, "system": 4, "plain": 1}


def test_the_text_is_the_structured_one_and_one_thing_around_it_differs() -> None:
    for p in ALL:
        plain, framed = reference(p).decision, p.decision
        differing = {
            "stem": framed.stem != plain.stem,
            "system": framed.messages[:-1] != (),
            "plain": not framed.chat_template,
        }
        assert [kind for kind, differs in differing.items() if differs] == [
            p.template.split(":")[0]
        ]
        assert framed.messages[-1] == plain.messages[-1]
        assert (p.game, p.scenario, p.table_order) == ("IPD", reference(p).scenario, "original")
        assert (framed.positive.name, framed.negative.name) == ("defect", "cooperate")


def test_spans_are_those_of_the_text_behind_a_system_message() -> None:
    for p in ALL:
        plain, framed = reference(p).decision, p.decision
        behind = int(p.template.startswith("system:"))
        assert {s.message for s in framed.spans} == {behind}
        assert [(s.category, s.start, s.end) for s in framed.spans] == [
            (s.category, s.start, s.end) for s in plain.spans
        ]


@pytest.mark.parametrize("labels", [("action1", "action2"), ("red", "blue"), ("wait", "walk")])
def test_answers_spell_the_labels_behind_every_stem(labels) -> None:
    openings = {framing.name: framing.opening for framing in FRAMINGS}
    for p in framings(labels, ("same",)):
        opening = openings[p.template]
        for option, label in zip((p.decision.negative, p.decision.positive), labels, strict=True):
            whole = p.decision.stem + option.canonical
            assert whole == (f"{opening} {label}" if opening else label)
        assert not p.decision.stem.endswith(" ")
        assert p.decision.stem.startswith(opening)
    assert openings["stem:none"] == ""
    assert len(set(openings.values())) == 6


def test_names_say_what_is_unusual() -> None:
    assert ALL.prompts[0].name == "framings.stem:none.CC.o0.same"
    named = framings(("X", "Y"), ("swapped",), ["plain"], GAMES["ISH"]).prompts
    assert [p.name for p in named[:2]] == [
        "framings.plain.CC.o0.swapped.X-Y.ISH",
        "framings.plain.CD.o0.swapped.X-Y.ISH",
    ]
    assert named[0].labels == "Y/X"
    assert len(named) == 8


def test_framings_are_no_clones_and_come_back_from_a_file(tmp_path) -> None:
    assert len(PromptSet((*ALL, *structured()))) == 160 + 32
    path = tmp_path / "framings.jsonl"
    write_prompts(path, ALL)
    assert read_prompts(path) == ALL
    assert {p.decision.chat_template for p in read_prompts(path)} == {True, False}


def test_a_prompt_file_may_do_without_a_chat_template(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "- name: a\n"
        "  messages: [{role: system, content: Be brief.}, {role: user, content: Now}]\n"
        "  chat_template: false\n"
        "  positive: {name: y, forms: ['yes']}\n"
        "  negative: {name: n, forms: ['no']}\n"
    )
    (prompt,) = read_prompts(path)
    assert not prompt.decision.chat_template
    assert [m.role for m in prompt.decision.messages] == ["system", "user"]
    path.write_text(path.read_text().replace("chat_template: false", "chat_template: 'off'"))
    with pytest.raises(PromptError, match="The value of 'chat_template'.*valid boolean"):
        read_prompts(path)


def test_framed_prompts_have_no_counterpart() -> None:
    with pytest.raises(PromptError, match="its text is not one of the package's own"):
        counterpart(ALL.prompts[0], "labels")


def test_unknown_framings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no framing of this name.*did you mean 'stem:none'"):
        framings(names=["stem:non"])
    with pytest.raises(PromptError, match="A prompt set is empty"):
        framings(names=[])
