"""Hosted models are asked the same texts, for whole labels."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from moralscope.behaviour.inspecting.asking import (
    PROMPT_SETS,
    asked_prompts,
    prompts_without_stem,
)
from moralscope.behaviour.inspecting.places import prompt_of, sample_of
from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, DependencyError, PromptError, TableError
from moralscope.games import (
    framings,
    get_game,
    get_public_goods,
    public_goods_prompts,
    robustness_prompts,
    structured,
    wordings,
    write_prompts,
)


@pytest.mark.parametrize("labels", [("action1", "action2"), ("red", "blue"), ("my hat", "my cap")])
def test_a_set_without_stem_is_the_set_that_is_built_without(labels: tuple[str, str]):
    for build in (structured, wordings):
        with_stem = build(labels)
        assert all(prompt.decision.stem for prompt in with_stem)
        assert prompts_without_stem(with_stem) == build(labels, stem=False)
    group = get_public_goods("PGG4x2")
    asked = prompts_without_stem(public_goods_prompts(group, labels))
    built = public_goods_prompts(group, labels, stem=False)
    assert [p.decision for p in asked] == [p.decision for p in built]


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_every_set_asks_for_the_labels_in_unchanged_texts(name: str):
    asked = asked_prompts(name, None, None)
    families = {prompt.family for prompt in asked}
    assert name in families or len(families) > 1 or name == "generalisation"
    for prompt in asked:
        told = prompt.decision
        assert (told.stem, told.chat_template) == ("", True)
        named = f"{told.negative.canonical}/{told.positive.canonical}"
        assert named == prompt.labels
        assert (told.negative.name, told.positive.name) == ("cooperate", "defect")


def test_prompts_that_differ_in_their_stem_alone_are_asked_once():
    shared = framings()
    told = Counter(prompt.template.partition(":")[0] for prompt in shared)
    asked = prompts_without_stem(shared)
    kept = Counter(prompt.template for prompt in asked)
    systems = {prompt.template for prompt in shared if prompt.template.startswith("system")}
    assert (told["stem"], told["plain"]) == (80, 16)
    assert kept == {"stem:none": 16, **dict.fromkeys(systems, 16)}
    everything = robustness_prompts()
    once = prompts_without_stem(everything)
    templated = [p for p in everything if p.decision.chat_template]
    assert {p.decision.messages for p in once} == {p.decision.messages for p in templated}
    assert len(once) == len(templated) - told["stem"]


def test_games_and_labels_are_chosen():
    one = asked_prompts("structured", "ICN", "left/right")
    assert {(p.game, p.labels) for p in one} == {("ICN", "left/right"), ("ICN", "right/left")}
    both = asked_prompts("wordings", ["IPD", "ISH"], ["left/right", "action1/action2"])
    assert {p.game for p in both} == {"IPD", "ISH"}
    assert len({p.labels for p in both}) == 4
    assert {p.game for p in asked_prompts("clusters", "BOS", None)} == {"BOS"}
    assert {p.game for p in asked_prompts("public-goods", None, None)} == {"PGG4x2"}
    assert len(asked_prompts("generalisation", "IVD", "red/blue")) == 128
    other = asked_prompts("robustness", None, ["action1/action2", "red/blue"])
    assert {p.labels for p in other} == {
        *("action1/action2", "action2/action1", "red/blue", "blue/red")
    }
    get_game("matrix_R3_S0_T5_P1")
    assert len(asked_prompts("structured", "matrix_R3_S0_T5_P1", None)) == 32


def test_a_file_of_prompts_is_asked_as_it_is(tmp_path: Path):
    path = tmp_path / "own.jsonl"
    bare = [replace(p, decision=replace(p.decision, spans=())) for p in structured()]
    write_prompts(path, PromptSet(tuple(bare)))
    asked = asked_prompts(str(path), None, None)
    assert [p.decision.negative for p in asked] == [
        p.decision.negative for p in structured(stem=False)
    ]
    with pytest.raises(ConfigError, match="A file of prompts has games and labels") as caught:
        asked_prompts(str(path), "IPD", "a/b")
    assert caught.value.seen == "IPD, a/b"


def test_a_word_that_the_stem_begins_is_finished_where_no_span_says_so():
    asked = [
        prompt
        for pair in (("action1", "action2"), ("red", "blue"))
        for prompt in prompts_without_stem(
            replace(p, decision=replace(p.decision, spans=())) for p in structured(pair)
        )
    ]
    assert {p.decision.positive.canonical for p in asked} == {"action1", "action2", "red", "blue"}


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (("structurd", None, None), "There is no prompt set of this name", "'structured'"),
        (("scenarios", "ISH", None), "This prompt set does not ask about", "leave out the games"),
        (("structured", "PD", None), "There is no game of this name", ""),
        (("structured", None, "action1"), "A pair of labels is not written", "action1/action2"),
    ],
)
def test_what_cannot_be_asked_is_said(
    arguments: tuple[str, str | None, str | None], problem: str, remedy: str
):
    with pytest.raises(ConfigError) as caught:
        asked_prompts(*arguments)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_nothing_to_ask_is_said():
    plain = framings(names=["plain"])
    with pytest.raises(PromptError, match="A prompt set is empty"):
        prompts_without_stem(plain)


def shown(prompt: Prompt) -> Prompt:
    """A prompt without its spans, which a log does not keep."""
    return replace(prompt, decision=replace(prompt.decision, spans=()))


def test_a_sample_gives_its_prompt_back():
    states: set[str] = set()
    roles: set[str] = set()
    for name in ("robustness", "public-goods"):
        for prompt in asked_prompts(name, None, None):
            sample = sample_of(prompt)
            assert sample.metadata is not None
            assert sample.target == prompt.labels.split("/")[0]
            assert prompt_of(str(sample.id), sample.input, sample.metadata) == shown(prompt)
            states.add(sample.metadata["state"])
            assert not isinstance(sample.input, str)
            roles |= {message.role for message in sample.input}
    pairs = {"CC", "CD", "DC", "DD"}
    counts = {f"{own}{n}" for own in "CD" for n in range(4)}
    assert states == {*pairs, *counts, "_C", "_D", "none"}
    assert roles == {"system", "user"}


def test_a_sample_of_another_task_is_refused():
    with pytest.raises(TableError, match="not one of the package's decisions") as caught:
        prompt_of("sample-7", "What is 2 + 2?", {"game": "IPD"})
    assert str(caught.value.seen).startswith("'sample-7': scenario")


def test_without_inspect_ai_its_absence_is_said(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("moralscope.behaviour.inspect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(DependencyError, match="Inspect AI is not installed") as caught:
        importlib.import_module("moralscope.behaviour.inspecting")
    assert caught.value.remedy == 'run: pip install "moralscope[inspect]"'
