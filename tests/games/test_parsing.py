"""What an answer names, strictly and tolerantly."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.decision import Decision, Message, Option
from moralscope.games.parsing import named_first, parse, strict


def decision(
    positive: str | tuple[str, ...] = "2", negative: str = "1", stem: str = "I choose action"
) -> Decision:
    forms = (positive,) if isinstance(positive, str) else positive
    return Decision(
        (Message("user", "Choose."),), stem, Option("defect", forms), Option("co", (negative,))
    )


@pytest.mark.parametrize(
    ("text", "exact", "named"),
    [
        ("2", "positive", "positive"),
        (" 1 ", "negative", "negative"),
        ("2.", "illegal", "positive"),
        (" 2 is best", "illegal", "positive"),
        ("12", "illegal", "illegal"),
        ("", "illegal", "illegal"),
        (" of my own", "illegal", "illegal"),
        ("s. Action1, not action2", "illegal", "negative"),
        (" and payoff. action2, never action1!", "illegal", "positive"),
        (": 2", "illegal", "illegal"),
    ],
)
def test_both_rules_with_a_begun_answer(text: str, exact: str, named: str) -> None:
    found = parse(decision(), text)
    assert (found.strict, found.tolerant) == (exact, named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("choose action1", "negative"),
        ("I think ACTION2 pays more than action1", "positive"),
        ("action12", "illegal"),
        ("my_action1", "illegal"),
        ("both or none", "illegal"),
    ],
)
def test_without_a_stem_the_label_is_the_form(text: str, named: str) -> None:
    assert parse(decision("action2", "action1", ""), text).tolerant == named
    assert parse(decision("action2", "action1", ""), text).strict == "illegal"


def test_single_letters_are_read_as_written() -> None:
    asked = decision("B", "A", "")
    assert named_first(asked, "a choice: B") == "positive"
    assert named_first(asked, "A choice: B") == "negative"
    alike = decision("Go", "go", "")
    assert named_first(alike, "I would go there") == "negative"
    assert named_first(alike, "I would Go there") == "positive"


def test_of_labels_that_begin_together_the_longer_counts() -> None:
    asked = decision(" stay away", " stay", "I")
    assert named_first(asked, " will stay away") == "positive"
    assert named_first(asked, " will stay here") == "negative"


def test_what_the_stem_names_is_not_an_answer() -> None:
    asked = decision(" action2", " action1", "Of action1 and action2 I take")
    assert named_first(asked, " neither") == "illegal"
    assert named_first(asked, " the second, action2") == "positive"


def test_every_form_counts_and_the_strict_rule_reads_the_beginning() -> None:
    asked = decision((" two", " second"), " one", "I take")
    assert strict(asked, "second") == "positive"
    found = parse(asked, " one or perhaps two", beginning=" one")
    assert (found.strict, found.tolerant) == ("negative", "negative")
    assert parse(asked, " the second", beginning=" the").tolerant == "positive"


words = st.sampled_from(["action1", "action2", "action12", "1", "2", "or", "Action", "take", "."])


@given(st.lists(words, max_size=6), st.sampled_from(["", " "]), st.booleans())
def test_tolerant_holds_whatever_strict_holds_and_takes_the_first_word(
    parts: list[str], joint: str, begun: bool
) -> None:
    asked = decision() if begun else decision("action2", "action1", "")
    text = joint.join(parts)
    found = parse(asked, text)
    if found.strict != "illegal":
        assert found.tolerant == found.strict
        return
    # Read word by word: runs of letters and digits, "action 1" being one of them.
    whole = re.sub(r"(?i)\baction\s+(?=[12]\b)", "action", asked.stem + text) if begun else text
    read = [w.lower() for w in re.findall(r"\w+", whole)]
    named = [w for w in read if w in ("action1", "action2")]
    expected = {"action1": "negative", "action2": "positive"}[named[0]] if named else "illegal"
    assert found.tolerant == expected
