"""One tiny base for all tests of training; every test must leave it as it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_base import save_tiny

from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.training.config import LoraSettings, TrainingConfig

Configure = Callable[..., TrainingConfig]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def base(tiny_folder: Path) -> LoadedModel:
    """The tiny model in memory, in float32."""
    return load_model(locate_model(str(tiny_folder)))


@pytest.fixture(scope="session")
def wide_base(tiny_folder: Path) -> LoadedModel:
    """The tiny model in float64."""
    return load_model(locate_model(str(tiny_folder)), dtype="float64")


@pytest.fixture
def configure() -> Configure:
    """A short training of small adapters; any setting can be named."""

    def make(**settings: object) -> TrainingConfig:
        common: dict[str, object] = {
            "reward": "game",
            "steps": 3,
            "prompts_per_step": 8,
            "learning_rate": 0.02,
            "lora": LoraSettings(rank=4, alpha=8.0),
        }
        return TrainingConfig.model_validate(common | settings)

    return make
