"""A decision that cannot be asked or scored fairly is refused when it is built."""

from __future__ import annotations

import dataclasses
import re

import pytest

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet, Span
from moralscope.core.errors import PromptError

DEFECT = Option("defect", (" action2", " Action2"))
COOPERATE = Option("cooperate", (" action1",))


def a_decision(text: str = "Choose.", spans: tuple[Span, ...] = ()) -> Decision:
    return Decision((Message("user", text),), "I choose", DEFECT, COOPERATE, spans)


def a_prompt(name: str, text: str) -> Prompt:
    return Prompt(name, a_decision(text), "IPD", "CC", "structured", "plain", "action1/action2")


def test_the_first_form_is_canonical():
    assert DEFECT.canonical == " action2"


@pytest.mark.parametrize("forms", [(), ("",), (" a", "")])
def test_an_empty_form_is_refused(forms: tuple[str, ...]):
    with pytest.raises(PromptError, match="Option 'x' has an empty surface form") as refusal:
        Option("x", forms)
    assert refusal.value.seen == forms


def test_a_repeated_form_is_refused():
    with pytest.raises(PromptError, match="Option 'x' lists the same surface form twice"):
        Option("x", (" a", " b", " a"))


def test_identical_options_are_refused():
    messages = (Message("user", "Choose."),)
    twin = Option("cooperate", (" action2",))
    with pytest.raises(
        PromptError, match=re.escape("two options are identical. Seen: [' action2']")
    ):
        Decision(messages, "", DEFECT, twin)
    namesake = Option("defect", (" other",))
    with pytest.raises(PromptError, match="two options are identical. Seen: defect"):
        Decision(messages, "", DEFECT, namesake)


def test_a_decision_without_messages_is_refused():
    with pytest.raises(PromptError, match="A decision has no messages"):
        Decision((), "", DEFECT, COOPERATE)


@pytest.mark.parametrize(
    ("message", "start", "end"),
    [(1, 0, 1), (-1, 0, 1), (0, -1, 2), (0, 3, 3), (0, 4, 2), (0, 0, 8)],
)
def test_a_span_outside_its_message_is_refused(message: int, start: int, end: int):
    with pytest.raises(PromptError, match="Span 'goal' lies outside its message") as refusal:
        a_decision("Choose.", (Span("goal", message, start, end),))
    assert refusal.value.seen == f"message {message}, characters {start} to {end}"


def test_a_span_may_reach_the_last_character():
    (span,) = a_decision("Choose.", (Span("goal", 0, 6, 7),)).spans
    assert "Choose."[span.start : span.end] == "."


def test_a_set_keeps_its_order_and_filters():
    prompts = PromptSet((a_prompt("b", "two"), a_prompt("a", "one")))
    assert [p.name for p in prompts] == ["b", "a"]
    assert len(prompts) == 2
    assert [p.name for p in prompts.where(lambda p: p.name == "a")] == ["a"]
    longer = prompts + PromptSet((a_prompt("c", "three"),))
    assert [p.name for p in longer] == ["b", "a", "c"]


def test_an_empty_set_is_refused():
    with pytest.raises(PromptError, match="A prompt set is empty"):
        PromptSet(())
    with pytest.raises(PromptError, match="A prompt set is empty"):
        PromptSet((a_prompt("a", "one"),)).where(lambda p: p.game == "chess")


def test_a_name_may_stand_once():
    with pytest.raises(PromptError, match="Two prompts share a name. Seen: a"):
        PromptSet((a_prompt("a", "one"), a_prompt("a", "two")))


def test_a_clone_under_another_name_is_refused():
    with pytest.raises(PromptError, match="Prompts 'a' and 'b' have the same text"):
        PromptSet((a_prompt("a", "one"), a_prompt("b", "one")))


def test_joining_sets_refuses_clones_across_them():
    with pytest.raises(PromptError, match="Prompts 'a' and 'b' have the same text"):
        PromptSet((a_prompt("a", "one"),)) + PromptSet((a_prompt("b", "one"),))


def test_exchanged_or_reordered_options_do_not_make_a_new_text():
    one = a_prompt("a", "one")
    exchanged = dataclasses.replace(one.decision, positive=COOPERATE, negative=DEFECT)
    reordered = dataclasses.replace(
        one.decision, positive=Option("defect", tuple(reversed(DEFECT.forms)))
    )
    for decision in (exchanged, reordered):
        with pytest.raises(PromptError, match="have the same text"):
            PromptSet((one, dataclasses.replace(one, name="b", decision=decision)))


def test_another_stem_or_other_options_make_a_new_text():
    one = a_prompt("a", "one")
    stemless = dataclasses.replace(one.decision, stem="")
    reworded = dataclasses.replace(one.decision, positive=Option("defect", (" B",)))
    twins = [
        dataclasses.replace(one, name=name, decision=decision)
        for name, decision in (("b", stemless), ("c", reworded))
    ]
    assert len(PromptSet((one, *twins))) == 3


def test_decisions_are_values():
    assert a_decision() == a_decision()
    assert hash(a_decision()) == hash(a_decision())
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_decision().stem = "changed"
