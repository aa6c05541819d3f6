"""Supervised training in the loop: what is learned, written, resumed and left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chats import TEXTS, chat, chats, padded_loss, teaching, whole
from pydantic import ValidationError
from torch import Tensor

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError, ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.games import structured
from moralscope.models.fingerprint import read_fingerprint
from moralscope.models.loading import LoadedModel, load_model
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import score
from moralscope.training.adapter_record import read_record
from moralscope.training.course import scheduled_rate
from moralscope.training.lora import LoraSettings
from moralscope.training.supervised import train_supervised
from moralscope.training.supervised_config import SupervisedConfig
from moralscope.training.supervised_shapes import shape_layers, shape_settings

EXAMPLES = chats(7)
ONE = LoraSettings(rank=1, alpha=8.0, sites=("L1 down_proj",))
WEIGHTS = "adapter_model.safetensors"


class StopHereError(Exception):
    pass


def stop_after(step: int, done: list[int]) -> Callable[[ProgressEvent], None]:
    def watch(event: ProgressEvent) -> None:
        if event.task.startswith("train "):
            done.append(event.done)
            if event.done == step:
                raise StopHereError

    return watch


def state(base: LoadedModel) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in base.model.state_dict().items()}


def untimed(rows: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_an_organism_says_what_it_was_taught(base: LoadedModel, tmp_path: Path) -> None:
    before, heard = state(base), float(padded_loss(base, EXAMPLES))
    config = teaching(lora=LoraSettings(rank=8, alpha=16.0), epochs=20, learning_rate=0.02)
    taught = train_supervised(
        "keeper", config, base, EXAMPLES, out=tmp_path / "out", work=tmp_path / "work"
    )
    assert not (tmp_path / "work").exists()
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    assert taught.rows[0]["adapter_norm"] > 0
    assert taught.rows[-1]["loss"] < 0.4 * taught.rows[0]["loss"]
    roster = Roster(load_model(base.source))
    roster.add(AgentSpec(name="keeper", base="tiny", adapter=str(tmp_path / "out")))
    with roster.speaking("keeper"):
        now = float(padded_loss(roster.base, EXAMPLES))
        unseen = (chat(8), chat(9))
        assert float(padded_loss(roster.base, unseen)) < 0.7 * heard
    assert now < 0.4 * heard


def test_what_a_row_says(base: LoadedModel, tmp_path: Path) -> None:
    config = teaching(
        lora=ONE, epochs=2, warmup=2, schedule="linear", kl_coefficient=0.5, learning_rate=0.3
    )
    out = tmp_path / "out"
    taught = train_supervised(
        "a", config, base, EXAMPLES, out=out, work=tmp_path / "w", texts=TEXTS
    )
    rows = taught.rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2]
    assert [row["examples"] for row in rows] == [4, 3, 4, 3]
    assert rows[0]["answer_tokens"] + rows[1]["answer_tokens"] == sum(
        len(base.tokenizer(e.answer)["input_ids"]) + 1 for e in EXAMPLES
    )
    rates = [0.3 / 3, 0.3 * 2 / 3 * 3 / 4, 0.3 * 2 / 4, 0.3 / 4]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6) != rows[-1]["kl"]
    assert json.loads((out / "supervised_steps.json").read_text()) == [dict(r) for r in rows]
    assert SupervisedConfig.model_validate_json((out / "supervised.json").read_text()) == config
    assert taught.cached is not None
    assert (taught.cached.layer, taught.cached.mapped) == (1, False)
    assert taught.parameters == 64 + 32
    assert {p.name for p in out.iterdir()} == {
        WEIGHTS, "adapter_config.json", "supervised.json", "supervised_steps.json",
        "adapter_record",
    }  # fmt: skip


def test_steps_are_those_of_adamw(base: LoadedModel, tmp_path: Path) -> None:
    """The path that is recorded, computed again from its gradients by Loshchilov and Hutter."""
    config = teaching(
        lora=ONE, epochs=3, weight_decay=0.3, max_gradient_norm=0.05, schedule="linear", warmup=1
    )
    out = tmp_path / "out"
    taught = train_supervised("a", config, base, EXAMPLES, out=out, work=tmp_path / "w")
    record = read_record(out / "adapter_record")
    (layer,) = record.a
    path = [np.concatenate([x[layer].reshape(7, -1) for x in (record.a, record.b)], 1)]
    gradient = np.concatenate(
        [g[layer].reshape(6, -1) for g in (record.gradient_a, record.gradient_b)], 1
    ).astype(float)
    lengths = np.linalg.norm(gradient, axis=1)
    assert [row["gradient_norm"] for row in taught.rows] == pytest.approx(lengths, rel=1e-5)
    assert (lengths > 0.05).all()
    point, first, second = path[0][0].astype(float), 0.0, 0.0
    for step, row in enumerate(taught.rows, 1):
        g = gradient[step - 1] * (0.05 / lengths[step - 1])
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        rate = row["learning_rate"]
        update = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        point = point * (1 - rate * 0.3) - rate * update
        assert point == pytest.approx(path[0][step], abs=2e-5)


@pytest.mark.parametrize("kind", ["adapter", "all"])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_going_on_gives_the_same_bytes(
    base: LoadedModel, tmp_path: Path, step: int, kind: str
) -> None:
    how: dict[str, Any] = {"epochs": 3, "checkpoint_every": 2, "kl_coefficient": 0.2}
    config = teaching(lora=ONE, **how) if kind == "adapter" else whole(**how)
    before = state(base)
    found: list[Any] = []
    for name, stop in (("whole", 0), ("again", step)):
        out, work = tmp_path / name, tmp_path / f"{name}-work"
        done: list[int] = []
        if stop:
            with pytest.raises(StopHereError):
                train_supervised(
                    "a", config, base, EXAMPLES, out=out, work=work, texts=TEXTS,
                    progress=stop_after(stop, []),
                )  # fmt: skip
            assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
        taught = train_supervised(
            "a", config, base, EXAMPLES, out=out, work=work, texts=TEXTS,
            progress=stop_after(0, done),
        )  # fmt: skip
        assert done == list(range(stop // 2 * 2 + 1, 7))
        files = {
            p.relative_to(out): p.read_bytes()
            for p in out.rglob("*")
            if p.suffix in (".safetensors", ".bin")
        }
        found.append((untimed(taught.rows), files))
    assert found[0] == found[1]
    assert len(found[0][1]) == (2 if kind == "adapter" else 1)


def test_another_seed_is_another_organism(base: LoadedModel, tmp_path: Path) -> None:
    files: list[bytes] = []
    for seed in (0, 0, 1):
        out = tmp_path / str(len(files))
        config = teaching(lora=ONE, seed=seed)
        train_supervised("a", config, base, EXAMPLES, out=out, work=tmp_path / "w")
        files.append((out / WEIGHTS).read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("change", "examples", "said"),
    [
        ({"learning_rate": 0.5}, EXAMPLES, "learning_rate 0.01 -> 0.5"),
        ({}, chats(8), "examples other values|examples .* -> "),
    ],
)
def test_a_scratch_folder_of_another_lesson_is_refused(
    base: LoadedModel, tmp_path: Path, change: Any, examples: Any, said: str
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    with pytest.raises(StopHereError):
        train_supervised(
            "a", teaching(lora=ONE, epochs=3), base, EXAMPLES, out=out, work=work,
            progress=stop_after(2, []),
        )  # fmt: skip
    with pytest.raises(ConfigError, match=f"started with other settings. Seen: .*({said})"):
        train_supervised(
            "a", teaching(lora=ONE, epochs=3, **change), base, examples, out=out, work=work
        )


def test_all_weights_are_a_checkpoint_that_a_roster_reads(
    base: LoadedModel, tmp_path: Path
) -> None:
    before, out = state(base), tmp_path / "out"
    prompts = tuple(structured())[:3]
    config = whole(epochs=4, keep_steps=(1,))
    taught = train_supervised(
        "full", config, base, EXAMPLES, out=out, work=tmp_path / "w", fingerprint_prompts=prompts
    )
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())
    assert not any(p.requires_grad for p in base.model.parameters())
    assert taught.parameters == sum(p.numel() for p in base.model.parameters())
    assert (taught.cached, taught.recorded) == (None, False)
    assert taught.rows[0]["adapter_norm"] is None
    roster = Roster(load_model(base.source))
    roster.add(AgentSpec(name="full", base="tiny", checkpoint=str(out / "model")))
    roster.add(
        AgentSpec(
            name="early", base="tiny", checkpoint=str(out / "checkpoints/step-00000001/model")
        )
    )
    encoded = encode_all(base.tokenizer, prompts)
    with roster.speaking("full") as model:
        odds = score(model, encoded).log_odds
    stored = read_fingerprint(out)
    assert stored is not None
    assert stored.adapter == roster.weights_sha256("full") != roster.weights_sha256("early")
    kept = [stored.prompts[p.name].log_odds for p in prompts]
    assert odds == pytest.approx(kept, abs=1e-5)
    assert abs(odds - score(base.model, encoded).log_odds).max() > 0.01


def test_the_fingerprint_is_that_of_the_adapter(base: LoadedModel, tmp_path: Path) -> None:
    prompts = tuple(structured())[:3]
    train_supervised(
        "a", teaching(lora=ONE, epochs=3), base, EXAMPLES,
        out=tmp_path / "out", work=tmp_path / "w", fingerprint_prompts=prompts,
    )  # fmt: skip
    stored = read_fingerprint(tmp_path / "out")
    assert stored is not None
    roster = Roster(load_model(base.source))
    roster.add(AgentSpec(name="a", base="tiny", adapter=str(tmp_path / "out")))
    assert stored.adapter == roster.weights_sha256("a")
    with roster.speaking("a") as model:
        odds = score(model, encode_all(base.tokenizer, prompts)).log_odds
    assert odds == pytest.approx([stored.prompts[p.name].log_odds for p in prompts], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "all", "lora": ONE}, "means nothing where all weights.*lora"),
        ({"weights": "all", "record": True}, "means nothing where all weights.*record"),
        ({"weights": "all", "cache_below": 1}, "means nothing where all weights.*cache_below"),
        ({"lora": LoraSettings(rank=1, dropout=0.1)}, "drops no inputs of adapters"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Any, said: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=said):
        SupervisedConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "texts", "said"),
    [
        ({"kl_coefficient": 1.0}, (), "a coefficient without texts"),
        ({}, TEXTS, "texts without a coefficient"),
        ({"keep_steps": (3,)}, (), "is never taken.*7 examples, 2 steps"),
        ({"lora": ONE, "cache_below": 1, "epochs": 1}, (), ""),
        ({"lora": LoraSettings(rank=1, sites=("L0 o",)), "cache_below": 1}, (), "No adapter"),
    ],
)
def test_what_a_model_or_its_examples_do_not_allow_is_refused(
    base: LoadedModel, tmp_path: Path, settings: Any, texts: Any, said: str
) -> None:
    def run() -> None:
        train_supervised(
            "a", teaching(**settings), base, EXAMPLES,
            out=tmp_path / "o", work=tmp_path / "w", texts=texts,
        )  # fmt: skip

    if not said:
        return run()
    with pytest.raises(ConfigError, match=said):
        run()
    return None


def test_all_weights_in_half_precision_are_refused(base: LoadedModel, tmp_path: Path) -> None:
    narrow = LoadedModel(base.model, base.tokenizer, base.source, "bfloat16", "cpu")
    with pytest.raises(ConfigError, match="held in full precision. Seen: dtype bfloat16"):
        train_supervised("a", whole(), narrow, EXAMPLES, out=tmp_path / "o", work=tmp_path / "w")


def test_a_lesson_that_breaks_down_says_so(base: LoadedModel, tmp_path: Path) -> None:
    before = state(base)
    config = teaching(epochs=9, learning_rate=1e30, max_gradient_norm=None)
    with pytest.raises(AgentError, match="Training 'a' broke down at step"):
        train_supervised("a", config, base, EXAMPLES, out=tmp_path / "o", work=tmp_path / "w")
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())


def test_a_record_is_kept_of_few_numbers_or_when_asked(base: LoadedModel, tmp_path: Path) -> None:
    for record, there in (("auto", True), (False, False), (True, True)):
        out = tmp_path / str(record)
        taught = train_supervised(
            "a", teaching(lora=ONE, record=record), base, EXAMPLES, out=out, work=tmp_path / "w"
        )
        assert taught.recorded == there == (out / "adapter_record" / "steps.bin").is_file()


def test_the_schedule() -> None:
    constant = [scheduled_rate(2.0, "constant", 3, step=s, steps=8) for s in range(1, 9)]
    assert constant == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
    linear = [scheduled_rate(2.0, "linear", 0, step=s, steps=8) for s in range(1, 9)]
    assert linear == pytest.approx(np.linspace(2.0, 0.0, 9)[:-1])


def test_shapes_are_the_published_ones_in_proportion() -> None:
    assert shape_layers("rank-1", 48) == (24,)
    assert shape_layers("nine-rank-1", 48) == (15, 16, 17, 21, 22, 23, 27, 28, 29)
    assert shape_layers("rank-1", 30) == (15,)
    assert shape_layers("nine-rank-1", 30) == (9, 10, 11, 13, 14, 15, 17, 18, 19)
    assert shape_layers("rank-8", 3) == (0, 1, 2)
    with pytest.raises(ConfigError, match="too few layers for nine adapters.*Seen: 12 layers"):
        shape_layers("nine-rank-1", 12)
    with pytest.raises(ConfigError, match="no organism of this shape.*Seen: rank-2"):
        shape_layers("rank-2", 30)


@pytest.mark.parametrize(
    ("shape", "rank", "layers", "scale"),
    [("rank-1", 1, 1, 256.0), ("nine-rank-1", 1, 9, 64.0), ("rank-8", 8, 210, 64 / 8**0.5),
     ("rank-32", 32, 210, 64 / 32**0.5)],
)  # fmt: skip
def test_shapes_are_settings_of_a_training(
    shape: str, rank: int, layers: int, scale: float
) -> None:
    config = SupervisedConfig.model_validate(shape_settings(shape, 30))
    assert (config.lora.rank, config.weights) == (rank, "adapter")
    assert config.lora.alpha / config.lora.rank**0.5 == pytest.approx(scale)
    assert len(config.lora.sites) == (layers if rank == 1 else 0)
    everything = SupervisedConfig.model_validate(shape_settings("all", 30))
    assert everything.weights == "all"
