"""The examples are studies and prompts that the software reads, and say what they claim to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moralscope.games import read_prompts
from moralscope.studies import demo_study, read_study
from moralscope.studies.series import is_series, read_series
from moralscope.studies.study import base_name, patched_pairs, training_config
from moralscope.training.agent_file import read_agent
from moralscope.training.batches import training_prompts
from moralscope.training.diagnostics import before_training

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
AGENTS = sorted(path.name for path in EXAMPLES.glob("agent-*.yaml"))
SERIES = sorted(path.name for path in EXAMPLES.glob("*.yaml") if is_series(path))
STUDIES = sorted({path.name for path in EXAMPLES.glob("*.yaml")} - {*AGENTS, *SERIES})


def test_the_promised_examples_are_there():
    assert {"ipd-small.yaml", "own-adapter.yaml", "own-prompts.yaml"} <= set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_an_example_is_a_study_whose_command_is_told(name: str):
    study = read_study(EXAMPLES / name)
    assert study.name == name.removesuffix(".yaml")
    assert base_name(study) == "base"
    text = (EXAMPLES / name).read_text()
    assert re.search(rf"^#   moralscope run examples/{re.escape(name)}( |$)", text, re.MULTILINE)
    for file in study.prompts.files:
        assert len(read_prompts(ROOT / file)) > 1


@pytest.mark.parametrize("name", SERIES)
def test_an_example_is_a_series_whose_command_is_told(name: str):
    series, studies = read_series(EXAMPLES / name)
    assert series.name == name.removesuffix(".yaml")
    assert len({study.model for study in studies.values()}) == len(studies)
    text = (EXAMPLES / name).read_text()
    assert re.search(rf"^#   moralscope run examples/{re.escape(name)}( |$)", text, re.MULTILINE)


def test_what_the_sources_ask_for_is_there():
    """Dynamics, size, pretraining, other frameworks, label or move, parts."""
    asked = {"course", "members", "pretrained", "frameworks", "label-or-move", "targeted", "ipd"}
    assert {f"{name}.yaml" for name in asked} <= set(STUDIES)
    assert SERIES == ["scaling.yaml"]


@pytest.mark.parametrize("name", AGENTS)
def test_an_example_is_an_agent_whose_command_is_told(name: str):
    agent = read_agent(EXAMPLES / name)
    text = (EXAMPLES / name).read_text()
    assert re.search(rf"^#   moralscope train examples/{re.escape(name)}( |$)", text, re.MULTILINE)
    assert len(training_prompts(agent)) >= 16
    assert sum(agent.phase_steps or [agent.steps]) == agent.steps
    assert before_training(agent) == ()


def test_the_promised_agents_are_there():
    assert {"agent-deontological.yaml", "agent-ppo.yaml", "agent-unlearning.yaml"} <= set(AGENTS)
    shortest = (EXAMPLES / "agent-deontological.yaml").read_text()
    lines = [line for line in shortest.splitlines() if line and line[0] != "#"]
    assert lines == ["reward: deontological"]


def test_the_first_example_is_the_demo():
    study = read_study(EXAMPLES / "demo.yaml")
    demo = demo_study()
    for name in demo.agents:
        assert training_config(study, name) == training_config(demo, name)
    same = {"name": demo.name, "training": demo.training, "hypotheses": ()}
    assert study.model_copy(update=same) == demo
    assert [h.quantity for h in study.hypotheses] == ["change", "change", "difference"]


def test_the_seeds_of_a_reward_differ_in_nothing_else():
    study = read_study(EXAMPLES / "training-seeds.yaml")
    trained = [config for name in study.agents if (config := training_config(study, name))]
    for reward in ("game", "deontological", "utilitarian"):
        seeds = [config for config in trained if config.reward == reward]
        assert [config.seed for config in seeds] == [0, 1, 2, 3, 4]
        assert {config.model_copy(update={"seed": 0}) for config in seeds} == {seeds[0]}
    assert len(trained) == 15
    assert study.mechanisms.methods == ()


def test_prompts_of_ones_own_are_asked_both_ways_round():
    prompts = tuple(read_prompts(EXAMPLES / "own-prompts.jsonl"))
    scenarios = {prompt.scenario for prompt in prompts}
    assert len(prompts) == 2 * len(scenarios) == 16
    for scenario in scenarios:
        first, second = (p.decision for p in prompts if p.scenario == scenario)
        assert (first.positive.name, first.negative.name) == ("grant", "refuse")
        assert first.positive.forms == second.negative.forms
        assert first.negative.forms == second.positive.forms


def test_an_adapter_of_ones_own_is_loaded_not_trained():
    study = read_study(EXAMPLES / "own-adapter.yaml")
    assert training_config(study, "tuned") is None
    assert study.agents["tuned"].adapter == "runs/demo/agents/game"
    assert patched_pairs(study) == (("base", "tuned"), ("tuned", "base"))
