"""A setting is called idle where training without it gives the same bytes, and only there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from moralscope.models.loading import LoadedModel
from moralscope.training.config import TrainingConfig
from moralscope.training.diagnostics import before_training
from moralscope.training.idle import idle_settings
from moralscope.training.loop import train_agent
from moralscope.training.presets import PRESETS

Course = list[tuple[object, ...]]
Plain = Callable[[str], Course]
Settings = dict[str, Any]

SAMPLED: Settings = {
    "actions": "generate",
    "stem": False,
    "sampling": {"games": 2, "group": 2, "rounds": 2, "epochs": 2},
    "prompts_per_step": 16,
    "learning_rate": 0.05,
    "lora": {"rank": 2, "alpha": 4.0},
}
# Generated answers of a tiny model are never legal, and all that are equal teach a group nothing.
GROUPED: Settings = {
    "actions": "score",
    "stem": True,
    "sampling": SAMPLED["sampling"] | {"games": 4, "group": 4},
}
EXACT: Settings = {"prompts_per_step": 8, "lora": {"rank": 2, "alpha": 4.0}}

# Method, key, value; whether something reads it there.
CASES = [
    ("exact", "actions", "generate", False),
    ("exact", "sampling.rounds", 2, False),
    ("exact", "discount", 0.5, False),
    ("exact", "visitation", "visitation", True),
    ("ppo", "prompts_per_step", 8, False),
    ("ppo", "sampling.kl_target", 0.01, False),
    ("ppo", "sampling.dropout_while_playing", True, False),
    ("ppo", "lora.dropout", 0.5, False),
    ("ppo", "sampling.clip", 0.001, True),
    ("ppo", "sampling.gae_lambda", 0.1, True),
    ("reinforce", "sampling.clip", 0.001, False),
    ("reinforce", "sampling.epochs", 1, True),
    ("grpo", "sampling.whiten", False, False),
    ("grpo", "sampling.scale", False, True),
]  # fmt: skip


def changed(settings: Settings, key: str, value: object) -> Settings:
    place, _, name = key.rpartition(".")
    inside = settings.get(place, {}) if place else settings
    return settings | ({place: inside | {name: value}} if place else {name: value})


def course(base: LoadedModel, settings: Settings, folder: Path) -> Course:
    config = TrainingConfig.model_validate(settings)
    table = train_agent("a", config, base, out=folder / "out", work=folder / "work")
    weights = (folder / "out" / "adapter_model.safetensors").read_bytes()
    return [*table.drop("seconds", "visitation").rows(), (weights,)]


def plainly(method: str) -> Settings:
    special = {"exact": EXACT, "ppo": SAMPLED}.get(method, SAMPLED | GROUPED)
    return {"reward": "game", "steps": 2, "method": method, **special}


@pytest.fixture(scope="module")
def plain(base: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """The course of each method with nothing changed."""

    def made(method: str) -> Course:
        return course(base, plainly(method), tmp_path_factory.mktemp(method))

    return cache(made)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_idle_is_what_changes_nothing(
    base: LoadedModel, plain: Plain, tmp_path: Path, case: tuple[str, str, object, bool]
) -> None:
    method, key, value, read = case
    other = changed(plainly(method), key, value)
    assert (key in idle_settings(TrainingConfig.model_validate(other))) is not read
    assert (course(base, other, tmp_path) != plain(method)) is read


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_preset_has_idle_settings_by_itself(preset: str) -> None:
    assert not idle_settings(TrainingConfig(reward="game", preset=preset))


@pytest.mark.parametrize("opponent", ["learner", "tit-for-tat", "copies"])
def test_a_reward_of_an_opponent_needs_one_that_learns(opponent: str) -> None:
    config = TrainingConfig(reward="game", opponent=opponent, opponent_reward="utilitarian")
    assert ("opponent_reward" in idle_settings(config)) is (opponent != "learner")


def test_it_is_told_before_training_with_its_reason() -> None:
    config = TrainingConfig.model_validate(
        {"reward": "game", "discount": 0.9, "sampling": {"clip": 0.3}}
    )
    (found,) = before_training(config)
    assert (found.kind, found.step, found.measured) == ("no-effect", 0, 2.0)
    assert found.sentence == (
        "Nothing reads discount: a bandit has no later rounds; "
        "sampling.clip: method exact samples nothing"
    )
