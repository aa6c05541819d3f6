"""Presets supply what a file leaves out; the command wins over the file, the file over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError
from moralscope.studies import Study, read_study
from moralscope.studies.choices.mechanisms import MechanismChoice
from moralscope.studies.presets import PRESETS, with_changes
from moralscope.studies.study import study_yaml, training_config

SMALL = "agents:\n  base: {}\n  game: {reward: game}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    return path


def test_the_small_preset_is_the_defaults(file: Path) -> None:
    assert read_study(file, ["preset=small"]) == read_study(file)
    assert PRESETS["small"] == {}


def test_the_paper_preset_has_the_model_and_the_sizes_of_the_published_study(file: Path) -> None:
    study = read_study(file, ["preset=paper"])
    assert (study.model, study.device, study.dtype) == ("google/gemma-2-2b-it", "cuda", "float32")
    config = training_config(study, "game")
    assert config is not None
    assert (config.lora.rank, config.lora.alpha) == (64, 32.0)
    # 26 layers of 8 heads and an MLP, on at least as many prompts as there, six pairs.
    assert study.mechanisms.scenarios * 26 * 9 * 6 > 21060


def test_the_file_wins_over_its_preset_key_by_key(file: Path) -> None:
    file.write_text(SMALL + "preset: paper\ndevice: cpu\ntraining: {lora: {rank: 8}, steps: 3}\n")
    study = read_study(file)
    assert (study.device, study.model) == ("cpu", "google/gemma-2-2b-it")
    config = training_config(study, "game")
    assert config is not None
    assert (config.lora.rank, config.lora.alpha, config.steps) == (8, 32.0, 3)
    assert config.prompts_per_step == 16


def test_a_resolved_study_is_itself(file: Path, tmp_path: Path) -> None:
    study = read_study(file, ["preset=paper", "mechanisms.scenarios=3"])
    resolved = tmp_path / "study.yaml"
    resolved.write_text(study_yaml(study))
    assert read_study(resolved) == study


def test_a_study_of_values_has_its_preset_too() -> None:
    study = Study(preset="paper", agents={"base": {}}, mechanisms=MechanismChoice(scenarios=5))
    assert study.model == "google/gemma-2-2b-it"
    assert (study.mechanisms.scenarios, study.mechanisms.memory_mib) == (5, 16384)


def test_the_command_wins_over_the_file(file: Path) -> None:
    study = read_study(
        file,
        [
            "model=google/gemma-2-2b-it",
            "device=cuda",
            "training.lora.rank=8",
            "agents.hybrid={reward: hybrid, seed: 3}",
            "mechanisms.methods=[lens]",
            "evidence.alpha=0.01",
        ],
    )
    assert (study.model, study.device) == ("google/gemma-2-2b-it", "cuda")
    assert study.agents["hybrid"].seed == 3
    assert study.mechanisms.methods == ("lens",)
    assert study.evidence.alpha == 0.01
    config = training_config(study, "game")
    assert config is not None
    assert config.lora.rank == 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("seed", "cannot be changed in this way. Seen: seed. Allowed: KEY=VALUE"),
        ("=3", "cannot be changed in this way"),
        ("training..steps=3", "cannot be changed in this way"),
        ("seed.x=3", "The key 'seed' has no keys below it. Seen: --set seed.x=3, where seed is 4"),
        ("sede=3", "no key 'sede' in mine.yaml with --set sede=3.*did you mean 'seed'"),
        ("mechanisms.scenario=3", "no key 'mechanisms.scenario' in mine.yaml.*'scenarios'"),
        ("seed=-1", "value of 'seed' in mine.yaml with --set seed=-1 cannot be used"),
        ("training.stesp=2", "did you mean 'steps'"),
        ("preset=large", "value of 'preset' in mine.yaml.*'small' or 'paper'"),
        ("agents=[", "not valid YAML. Seen: --set agents"),
        ("seed={a: 1, a: 2}", "'a' is given twice. Seen: --set seed, line 1"),
    ],
)
def test_a_wrong_change_names_its_key(file: Path, change: str, told: str) -> None:
    file.write_text(SMALL + "seed: 4\n")
    with pytest.raises(ConfigError, match=told):
        read_study(file, [change])


def test_changes_leave_the_settings_as_they_were() -> None:
    settings: dict[str, object] = {"training": {"steps": 3}}
    assert with_changes(settings, ["training.seed=1", "training.seed=2"]) == {
        "training": {"steps": 3, "seed": 2}
    }
    assert settings == {"training": {"steps": 3}}
