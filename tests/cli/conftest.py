"""A tiny model and a study file of it, for commands that compute."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a folder."""
    from tiny_base import save_tiny  # noqa: PLC0415 - only these tests need the model stack

    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an agent that was trained for two steps; tests must leave it as it is."""
    from moralscope.cli.main import main  # noqa: PLC0415 - only these tests need the model stack

    folder = tmp_path_factory.mktemp("trained")
    settings = {
        "reward": "game", "name": "agent", "model": str(tiny_folder), "steps": 2,
        "prompts_per_step": 8, "lora": {"rank": 4, "alpha": 8},
    }  # fmt: skip
    (folder / "agent.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(folder / "agent.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def study_file(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a small study's file, some settings replaced, and gives it a cache of its own."""
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def write(**changes: object) -> Path:
        settings: dict[str, object] = {
            "model": str(tiny_folder),
            "agents": {"base": {}, "game": {"reward": "game"}},
            "training": {"steps": 2, "checkpoint_every": 1, "lora": {"rank": 4, "alpha": 8}},
            "prompts": {
                "games": ["IPD", "ISH"],
                "wordings": ["rounds"],
                "scenarios": False,
                "table_orders": ["original"],
            },
            "mechanisms": {"scenarios": 4},
            "evidence": {"draws": 199},
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return path

    return write
