"""A user's own family: what becomes of it, and one clear error for each way to get it wrong."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import yaml

from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import read_family

BOATS = "Clear is {c}, block is {d}. You did {own}, they did {other}. {first} or {second}?"
POINTS = (
    "{own_CC}/{other_CC} {own_CD}/{other_CD} {own_DC}/{other_DC} {own_DD}/{other_DD} "
    "{own} {other} {goal:earn} {first} {second}"
)


@pytest.fixture
def written(tmp_path):
    def write(**keys):
        path = tmp_path / "harbour.yaml"
        content = {"name": "harbour", "texts": {"boats": BOATS}} | keys
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return path

    return write


def refusal(path):
    with pytest.raises(PromptError) as caught:
        read_family(path)
    return caught.value


def test_texts_are_asked_in_every_state_order_and_assignment(written) -> None:
    prompts = read_family(written(texts={"boats": BOATS, "buoys": f"Buoys. {BOATS}"}))
    found = Counter(
        (p.template, p.own_previous, p.opponent_previous, p.labels, p.option_order) for p in prompts
    )
    assignments = ("action1/action2", "action2/action1")
    assert set(found) == set(product(("boats", "buoys"), "CD", "CD", assignments, (0, 1)))
    assert set(found.values()) == {1}
    first = prompts.prompts[0]
    assert (first.name, first.family, first.game) == (
        "harbour.boats.CC.o0.same", "harbour", "IPD"
    )  # fmt: skip
    assert first.decision.messages[0].content == (
        "Clear is action1, block is action2. You did action1, they did action1. action1 or action2?"
    )
    assert (first.scenario, first.table_order) == ("IPD.CC", "none")


def test_memory_points_game_and_labels_are_those_of_the_file(written) -> None:
    other = "They did {other}: {first} or {second}? {c} is kind."
    probe = read_family(written(memory="other", texts={"a": other}), ("X", "Y"), ("same",))
    assert [(p.own_previous, p.opponent_previous) for p in probe] == [(None, "C"), (None, "D")] * 2
    assert {p.labels for p in probe} == {"X/Y"}
    none = read_family(written(memory="none", texts={"a": "{first} or {second}? {{now}}"}))
    assert [p.name for p in none] == ["harbour.a.o0.same", "harbour.a.o1.same"]
    assert none.prompts[0].decision.messages[0].content == "action1 or action2? {now}"
    told = read_family(written(payoffs=True, game="BOS", texts={"a": POINTS}))
    assert told.prompts[0].decision.messages[0].content == (
        "3/2 0/0 0/0 2/3 action1 action1 earn action1 action2"
    )
    assert told.prompts[0].name == "harbour.a.CC.o0.same.BOS"
    cells = "{row1} {own_11} {own_12} {own_21} {own_22}"
    table = written(payoffs=True, texts={"a": f"{cells} {{own}} {{other}} {{first}} {{second}}"})
    assert {p.table_order for p in read_family(table)} == {"original"}


@pytest.mark.parametrize("slot", ["first", "second", "own", "other"])
def test_a_missing_slot_is_named_with_its_text_and_family(slot, written) -> None:
    text = BOATS.replace(f"{{{slot}}}", "that")
    error = refusal(written(texts={"buoys": f"Buoys. {BOATS}", "boats": text}))
    assert f"harbour.yaml: Text 'boats' of family 'harbour' has no slot {{{slot}}}" in error.problem
    assert f"write {{{slot}}} where" in error.remedy
    assert "(memory: both, payoffs: false)" in error.allowed


def test_missing_points_are_named(written) -> None:
    error = refusal(written(payoffs=True, texts={"a": POINTS.replace("{own_DC}", "4")}))
    assert "Text 'a' of family 'harbour' has no slot {own_DC}" in error.problem
    assert "where the number of points stands" in error.remedy


def test_a_slot_that_the_file_says_is_omitted_is_refused(written) -> None:
    error = refusal(written(memory="other"))
    assert "Text 'boats' of family 'harbour': Wording 'boats' tells what it says to omit: own" in (
        error.problem
    )
    assert "tells what it says to omit: payoffs" in str(refusal(written(texts={"a": POINTS})))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{first} or {secnd}?", "has an unknown slot. Seen: {secnd}"),
        ("{first} or {second", "has a brace without its counterpart"),
        ("{first} or {second}}", "has a brace without its counterpart"),
        ("{first} {} {second}", "has an unknown slot. Seen: {}"),
        ("{first!r} or {second}", "has a slot {first} that cannot be filled as it is written"),
        ("{first:>9} or {second}", "has a slot {first} that cannot be filled as it is written"),
        ("{first} {second} {goal}", "has a slot {goal} that cannot be filled as it is written"),
        ("{first} {second} {goal: }", "has a slot {goal} that cannot be filled as it is written"),
        ("{first} {second} {goal:{c}}", "has a slot {goal} that cannot be filled as it is written"),
    ],
)
def test_slots_that_cannot_be_filled_are_refused(text, problem, written) -> None:
    assert f"Text 'a' of family 'harbour' {problem}" in str(refusal(written(texts={"a": text})))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"name": "poetic"}, "name of a family is taken by one of the package's"),
        ({"name": ""}, "The value of 'name'"),
        ({"texts": {}}, "The value of 'texts'"),
        ({"texts": None}, "The key 'texts' is missing"),
        ({"texts": {"": BOATS}}, "Text '' of family 'harbour' has no name"),
        ({"texts": {"a": BOATS, "b": BOATS}}, "have the same text"),
        ({"memory": "all"}, "The value of 'memory'"),
        ({"payoffs": "yes"}, "The value of 'payoffs'"),
        ({"memry": "both"}, "There is no key 'memry'"),
        ({"game": "IPT"}, "mean 'IPD'"),
    ],
)
def test_a_bad_file_is_refused_by_name(keys, problem, written) -> None:
    error = str(refusal(written(**keys)))
    assert problem in error
    assert "harbour.yaml" in error


def test_files_that_cannot_be_read_and_assignments_that_are_not(tmp_path, written) -> None:
    assert "The file cannot be read" in str(refusal(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigError, match="^There is no label assignment of this name"):
        read_family(written(), assignments=("sam",))
    with pytest.raises(PromptError, match="^An action label cannot stand in a prompt"):
        read_family(written(), (" a", "b"))
    path = tmp_path / "list.yaml"
    path.write_text("- name: a\n")
    assert "There are no keys and values in" in str(refusal(path))
