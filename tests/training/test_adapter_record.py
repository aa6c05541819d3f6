"""The record of an adapter's path: what the optimiser did, kept step by step, whole or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chats import chats, deep_base, teaching

from moralscope.core.errors import AgentError, OutputError
from moralscope.models.libraries import safetensors_torch
from moralscope.models.loading import LoadedModel
from moralscope.training.adapter_record import (
    STEPS_FILE,
    AdapterRecorder,
    read_record,
    write_adapter_at,
)
from moralscope.training.lora import ADAPTER, LoraSettings, adapted, trainable
from moralscope.training.supervised import train_supervised

LORA = LoraSettings(rank=2, alpha=3.0, rslora=True, sites=("L1 down_proj", "L3 o"))
LAYERS = ("model.layers.1.mlp.down_proj", "model.layers.3.self_attn.o_proj")


@pytest.fixture
def base() -> LoadedModel:
    return deep_base(torch.float32)


def record_three_steps(base: LoadedModel, folder: Path) -> list[dict[str, np.ndarray]]:
    """Three steps with known gradients; what the factors were after each of them."""
    with adapted(base, LORA, 0) as wrapped:
        parameters = trainable(wrapped)
        recorder = AdapterRecorder(folder, wrapped, ADAPTER)
        recorder.begin(0)
        seen = [{k: p.detach().numpy().copy() for k, p in parameters.items()}]
        for step in (1, 2, 3):
            for index, parameter in enumerate(parameters.values()):
                parameter.grad = torch.full_like(parameter, step + index / 10)
            recorder.see()
            with torch.no_grad():
                for parameter in parameters.values():
                    parameter.sub_(0.5 * parameter.grad)
            recorder.append(step)
            seen.append({k: p.detach().numpy().copy() for k, p in parameters.items()})
        recorder.sync()
    return seen


def test_what_is_read_is_what_was_recorded(base: LoadedModel, tmp_path: Path) -> None:
    seen = record_three_steps(base, tmp_path)
    record = read_record(tmp_path)
    assert record.steps == 3
    assert tuple(layer.name for layer in record.layers) == LAYERS
    assert [layer.scale for layer in record.layers] == [pytest.approx(3 / np.sqrt(2))] * 2
    assert [(x.rank, x.inputs, x.outputs) for x in record.layers] == [(2, 24, 16), (2, 16, 16)]
    for layer in LAYERS:
        for factor, values, gradients in (
            ("A", record.a, record.gradient_a),
            ("B", record.b, record.gradient_b),
        ):
            key = f"base_model.model.{layer}.lora_{factor}.{ADAPTER}.weight"
            expected = np.stack([step[key] for step in seen])
            assert values[layer].dtype == np.float32
            assert (values[layer] == expected).all()
            index = list(seen[0]).index(key)
            assert (
                gradients[layer][:, 0, 0] == np.float32([1, 2, 3]) + np.float32(index / 10)
            ).all()
            # The gradient of row t leads from row t to row t + 1.
            assert np.allclose(np.diff(values[layer], axis=0), -0.5 * gradients[layer], atol=1e-6)
    norms = record.gradient_norms(LAYERS[0])
    both = np.concatenate(
        [g[LAYERS[0]].reshape(3, -1) for g in (record.gradient_a, record.gradient_b)], 1
    )
    assert norms == pytest.approx(np.linalg.norm(both.astype(float), axis=1))


def test_half_a_record_is_left_out_and_cut_off(base: LoadedModel, tmp_path: Path) -> None:
    record_three_steps(base, tmp_path)
    path = tmp_path / STEPS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:37])
    assert read_record(tmp_path).steps == 3
    with adapted(base, LORA, 0) as wrapped:
        AdapterRecorder(tmp_path, wrapped, ADAPTER).begin(2)
    assert path.read_bytes() == whole[: len(whole) * 3 // 4]
    assert read_record(tmp_path).steps == 2


def test_a_record_that_lacks_steps_stops_a_resume(base: LoadedModel, tmp_path: Path) -> None:
    record_three_steps(base, tmp_path)
    with adapted(base, LORA, 0) as wrapped, pytest.raises(AgentError, match="does not reach"):
        AdapterRecorder(tmp_path, wrapped, ADAPTER).begin(4)
    other = LORA.model_copy(update={"rank": 1})
    with adapted(base, other, 0) as wrapped, pytest.raises(AgentError, match="does not reach"):
        AdapterRecorder(tmp_path, wrapped, ADAPTER).begin(3)


def test_a_changed_byte_is_noticed(base: LoadedModel, tmp_path: Path) -> None:
    record_three_steps(base, tmp_path)
    path = tmp_path / STEPS_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(AgentError, match=r"damaged.*record 2 is not what was written"):
        read_record(tmp_path)


def test_what_is_not_a_record_is_refused(base: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="damaged"):
        read_record(tmp_path)
    record_three_steps(base, tmp_path)
    layers = tmp_path / "layers.json"
    for broken in ({"format": 9, "layers": []}, {"format": 1, "layers": [{"name": "x"}]}):
        layers.write_text(json.dumps(broken))
        with pytest.raises(AgentError, match="damaged"):
            read_record(tmp_path)


def test_a_record_that_cannot_be_written_says_so(base: LoadedModel, tmp_path: Path) -> None:
    with adapted(base, LORA, 0) as wrapped:
        recorder = AdapterRecorder(tmp_path, wrapped, ADAPTER)
        recorder.begin(0)
        recorder.see()
        (tmp_path / STEPS_FILE).unlink()
        (tmp_path / STEPS_FILE).mkdir()
        with pytest.raises(OutputError, match="The record of an adapter cannot be written"):
            recorder.append(1)


def test_an_adapter_can_be_written_as_it_was_at_any_step(base: LoadedModel, tmp_path: Path) -> None:
    config: Any = teaching(lora=LORA, batch=2, keep_steps=(2,))
    out = tmp_path / "out"
    train_supervised("a", config, base, chats(6), out=out, work=tmp_path / "work")
    record = read_record(out / "adapter_record")
    for step, kept in ((2, out / "checkpoints" / "step-00000002"), (3, out)):
        write_adapter_at(record, step, out, tmp_path / str(step))
        written, expected = (
            safetensors_torch.load_file(str(folder / "adapter_model.safetensors"))
            for folder in (tmp_path / str(step), kept)
        )
        assert set(written) == set(expected)
        assert all(torch.equal(written[k], expected[k]) for k in expected)
        for name in ("adapter_config.json",):
            assert (tmp_path / str(step) / name).read_bytes() == (kept / name).read_bytes()
    with pytest.raises(AgentError, match="The record has no such step. Seen: 4"):
        write_adapter_at(record, 4, out, tmp_path / "none")
    with pytest.raises(AgentError, match="no such layer"):
        record.gradient_norms("model.layers.0.mlp.down_proj")
