"""Agents that cannot be compared are found before any weights are loaded."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_base import save_tiny

from moralscope.core.errors import AgentError, ModelError
from moralscope.models import comparable, loading
from moralscope.models.comparable import check_comparable
from moralscope.models.libraries import safetensors_torch
from moralscope.models.loading import ModelSource, locate_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def base(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    def weights(*args: object, **named: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(loading, "load_model", weights)
    return locate_model(str(folder))


def saved_adapter(folder: Path, base: ModelSource, *, wide: int = 0) -> Path:
    """A LoRA adapter on one layer of the base, its input ``wide`` columns too wide."""
    skeleton = comparable._skeleton(base)
    layers = dict(skeleton.model.named_modules())
    name, layer = next((n, m) for n, m in layers.items() if n.endswith("q_proj"))
    folder.mkdir()
    key = f"base_model.model.{name}.lora_"
    tensors = {
        f"{key}A.weight": torch.ones(2, layer.in_features + wide),
        f"{key}B.weight": torch.ones(layer.out_features, 2),
    }
    safetensors_torch.save_file(tensors, str(folder / "adapter_model.safetensors"))
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def edited(folder: Path, place: Path, file: str, **changes: object) -> str:
    shutil.copytree(folder, place)
    said = json.loads((place / file).read_text())
    (place / file).write_text(json.dumps(said | changes))
    return str(place)


def test_what_fits_is_let_pass(base: ModelSource, folder: Path, tmp_path: Path) -> None:
    adapter = saved_adapter(tmp_path / "fits", base)
    check_comparable(base, {"old": str(adapter)}, {"full": str(folder)})
    check_comparable(base, {}, {})


def test_a_missing_adapter_is_named(base: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="adapter of agent 'old' was not found.*nowhere"):
        check_comparable(base, {"old": str(tmp_path / "nowhere")}, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgentError, match="folder of agent 'old' is not a PEFT adapter"):
        check_comparable(base, {"old": str(tmp_path / "empty")}, {})


def test_an_adapter_of_another_base_is_named(base: ModelSource, tmp_path: Path) -> None:
    adapter = saved_adapter(tmp_path / "wide", base, wide=1)
    with pytest.raises(AgentError, match="The adapter of agent 'old' was made for another base"):
        check_comparable(base, {"old": str(adapter)}, {})


def test_a_checkpoint_of_another_anatomy_is_named(
    base: ModelSource, folder: Path, tmp_path: Path
) -> None:
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"] + 1
    other = edited(folder, tmp_path / "other", "config.json", num_hidden_layers=layers)
    told = "Agent 'full' cannot be compared with its base: the anatomy differs. Seen: .*other"
    with pytest.raises(AgentError, match=told):
        check_comparable(base, {}, {"full": other})


def test_a_checkpoint_of_another_chat_template_is_named(
    base: ModelSource, folder: Path, tmp_path: Path
) -> None:
    other = edited(folder, tmp_path / "other", "tokenizer_config.json", chat_template="{{ 1 }}")
    (tmp_path / "other" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(AgentError, match="'full'.*the tokenizer or chat template differs"):
        check_comparable(base, {}, {"full": other})


def test_a_checkpoint_that_is_not_there_is_named(base: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        check_comparable(base, {}, {"full": str(tmp_path / "nowhere")})
