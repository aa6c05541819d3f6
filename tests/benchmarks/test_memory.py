"""Agents share their base in memory, and the bytes that are counted are those there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from benchmarks.adapters import agents
from benchmarks.memory import divide, main, measure, storages

from moralscope.core.agents import AgentSpec
from moralscope.models.roster import Roster


def test_five_agents_cost_the_base_and_their_adapters(tmp_path: Path):
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32))  # tied embeddings
    before = storages(base.model)
    weights = sum(p.numel() * p.itemsize for p in base.model.parameters())
    buffers = sum(b.numel() * b.itemsize for b in base.model.buffers())
    assert sum(size for _, size in before.values()) == weights + buffers
    roster = agents(base, 4, tmp_path, count=5)
    roster.add(AgentSpec(name="base", base="tiny"))
    parts = divide(before, roster)
    shapes = [
        (module.in_features, module.out_features)
        for layer in tiny.tiny_model("llama").model.layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    adapter = 4 * 4 * sum(into + out for into, out in shapes)
    assert parts == {"base": weights + buffers, "adapters": 5 * adapter, "rest": 0}


def test_switching_agents_copies_nothing(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path)
    plain = tiny.tiny_model()
    answers: list[torch.Tensor] = []
    places: list[dict[str, int]] = []
    for name in ("base", "game", "moral", "base", "moral"):
        with roster.speaking(name) as model:
            answers.append(tiny.plain_logits(model, range(40, 50)))
            parameters = {n.replace("base_layer.", ""): p for n, p in model.named_parameters()}
            for key, value in plain.named_parameters():
                assert torch.equal(parameters[key], value), key  # un-merged
            places.append({n: p.data_ptr() for n, p in parameters.items()})
    assert all(place == places[0] for place in places)
    assert torch.equal(answers[0], answers[3])
    assert torch.equal(answers[2], answers[4])
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])


def test_checkpoints_load_beside(tmp_path: Path):
    folder = tiny.save_base(tmp_path / "base")
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32))
    before = storages(base.model)
    roster = Roster(base)
    roster.add(AgentSpec(name="base", base="tiny"))
    roster.add(AgentSpec(name="full", base="tiny", checkpoint=str(folder)))
    parts = divide(before, roster)
    assert parts["adapters"] == 0
    assert parts["rest"] == parts["base"] > 0


def test_a_copy_of_the_base_would_be_noticed(tmp_path: Path):
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32))
    before = storages(base.model)
    roster = agents(base, 4, tmp_path, count=2)
    clean = divide(before, roster)
    copied: Any = base.model.model.layers[0].mlp.up_proj.base_layer.weight
    copied.data = copied.data.clone()
    parts = divide(before, roster)
    assert clean["rest"] == 0
    assert parts["rest"] == copied.numel() * copied.itemsize


def test_a_process_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tiny.save_base(tmp_path / "base")
    places = [
        tiny.save_adapter(tmp_path / name, tiny.tiny_model(dtype=torch.float32), seed=seed)
        for seed, name in enumerate(("one", "two"), start=1)
    ]
    assert main(["--model", str(folder), *map(str, places)]) == 0
    found = json.loads(capsys.readouterr().out)
    stored, grown = found["storage_bytes"], found["resident_bytes"]
    assert found["agents"] == 2
    assert found["storage_overhead"] == 0
    assert stored["adapters"] > 0
    total = grown["base"] + grown["agents"]
    assert found["resident_over_weights"] == pytest.approx(
        total / (stored["base"] + stored["adapters"]) - 1
    )
    assert found["resident_overhead"] == pytest.approx(
        total / (grown["base"] + stored["adapters"]) - 1
    )
    assert found["in_copies_of_the_base"] == pytest.approx(1 + stored["adapters"] / stored["base"])


@pytest.mark.slow
def test_five_agents_on_the_real_base_cost_at_most_five_percent_more():
    found: Any = measure()
    assert found["agents"] == 5
    assert found["storage_bytes"]["adapters"] > 3e8
    assert found["storage_overhead"] == 0
    assert found["resident_overhead"] < 0.05
