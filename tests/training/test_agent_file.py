"""The agent file: short, complete when written out, and strict."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from moralscope.core.errors import ConfigError
from moralscope.games import HELD_OUT
from moralscope.training.agent_file import (
    OWN_KEYS,
    AgentFile,
    agent_yaml,
    differing,
    held_back_prompts,
    read_agent,
)
from moralscope.training.batches import training_prompts
from moralscope.training.config import TrainingConfig


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str, name: str = "kind-one.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_one_line_is_an_agent(written) -> None:
    agent = read_agent(written("reward: deontological\n"))
    assert (agent.name, agent.model, agent.dtype, agent.device) == (
        "kind-one", "default", "float32", "cpu",
    )  # fmt: skip
    assert agent.training == TrainingConfig(reward="deontological")


def test_every_key_of_a_training_can_be_given(written) -> None:
    text = """
name: other
preset: paper
reward: game
steps: 7
sampling: {games: 2}
lora: {rank: 8}
device: cuda
"""
    agent = read_agent(written(text))
    assert (agent.name, agent.device) == ("other", "cuda")
    training = agent.training
    assert type(training) is TrainingConfig
    assert (training.method, training.steps, training.actions) == ("ppo", 7, "generate")
    # Given settings win one by one; their neighbours stay those of the preset.
    assert (training.sampling.games, training.sampling.one_update) == (2, True)
    assert (training.lora.rank, training.lora.dropout) == (8, 0.05)
    assert set(AgentFile.model_fields) == set(TrainingConfig.model_fields) | set(OWN_KEYS)


@pytest.mark.parametrize(
    "text", ["reward: game", "reward: utilitarian\npreset: fixed\nsampling: {rounds: 3}"]
)
def test_written_out_it_reads_as_the_same_agent(written, text: str) -> None:
    agent = read_agent(written(text))
    whole = agent_yaml(agent)
    assert set(yaml.safe_load(whole)) == set(AgentFile.model_fields)
    assert read_agent(written(whole, "whole.yaml")) == agent


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rewrad: game", "did you mean 'reward'"),
        ("reward: game\nlearning_rat: 0.1", "did you mean 'learning_rate'"),
        ("reward: game\nlora: {rnak: 3}", "did you mean 'rank'"),
        ("reward: game\nsampling: {gaems: 3}", "did you mean 'games'"),
        ("reward: game\npreset: papre", "did you mean 'paper'"),
        ("steps: 3", "The key 'reward' is missing in kind-one.yaml"),
        ("reward: game\ndtype: float16", "'float32', 'bfloat16' or 'nf4'"),
        ("reward: game\nsteps: 0", "greater than or equal to 1"),
        ("reward: game\nreward: game", "The key 'reward' is given twice"),
        ("reward: game\nname: ../elsewhere", "This cannot be the name of an agent"),
        ("- reward", "does not hold keys and values"),
    ],
)
def test_what_cannot_be_meant_is_refused(written, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_agent(written(text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The file cannot be read") as refused:
        read_agent(tmp_path / "none.yaml")
    assert "none.yaml" in str(refused.value.seen)


def test_the_schema_says_keys_and_what_they_may_be() -> None:
    schema = AgentFile.model_json_schema()
    assert schema["required"] == ["reward"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(AgentFile.model_fields)
    assert schema["properties"]["dtype"]["enum"] == ["float32", "bfloat16", "nf4"]
    assert "rank" in schema["$defs"]["LoraSettings"]["properties"]


def test_settings_that_differ_are_named_with_both_values() -> None:
    before = TrainingConfig(reward="game").model_dump(mode="json")
    now = TrainingConfig.model_validate({"reward": "game", "steps": 9, "lora": {"rank": 3}})
    assert differing(before, before) == {}
    assert differing(before, now.model_dump(mode="json")) == {
        "steps": (25, 9),
        "lora.rank": (64, 3),
    }
    assert differing({"a": 1, "old": 2}, {"a": 1, "new": 3}) == {"old": (2, None), "new": (None, 3)}


def test_held_back_prompts_are_never_trained_on() -> None:
    config = TrainingConfig(reward="game", wordings=("structured", HELD_OUT[0]))
    held_back = held_back_prompts(config)
    assert {prompt.template for prompt in held_back} == set(HELD_OUT[1:])
    assert {prompt.labels for prompt in held_back} == {"action1/action2", "action2/action1"}
    assert {p.name for p in held_back}.isdisjoint(p.name for p in training_prompts(config))
