"""An interrupted training goes on to exactly the result of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.core.tables import read_table
from moralscope.models.loading import LoadedModel
from moralscope.training.checkpoints import DamagedCheckpointWarning
from moralscope.training.config import LoraSettings, TrainingConfig
from moralscope.training.loop import train_agent

Configure = Callable[..., TrainingConfig]
STEPS, EVERY = 7, 2


class StopHereError(Exception):
    pass


def result(folder: Path) -> tuple[bytes, list[tuple[object, ...]]]:
    table: pl.DataFrame = read_table("training", folder).drop("seconds")
    return (folder / "adapter_model.safetensors").read_bytes(), table.rows()


def stop_after(step: int, seen: list[int]) -> Callable[[ProgressEvent], None]:
    def watch(event: ProgressEvent) -> None:
        if event.task.startswith("train "):
            seen.append(event.done)
            if event.done == step:
                raise StopHereError

    return watch


@pytest.fixture
def config(configure: Configure) -> TrainingConfig:
    return configure(steps=STEPS, checkpoint_every=EVERY, visitation="visitation")


@pytest.fixture
def whole(base: LoadedModel, config: TrainingConfig, tmp_path: Path) -> object:
    train_agent("a", config, base, out=tmp_path / "whole", work=tmp_path / "whole-work")
    return result(tmp_path / "whole")


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_going_on_after_any_step_gives_the_same_bytes(
    base: LoadedModel, config: TrainingConfig, whole: object, tmp_path: Path, step: int
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    with pytest.raises(StopHereError):
        train_agent("a", config, base, out=out, work=work, progress=stop_after(step, []))
    assert not out.exists()
    done: list[int] = []
    train_agent("a", config, base, out=out, work=work, progress=stop_after(0, done))
    kept = min(step, STEPS - 1) // EVERY * EVERY
    assert done == list(range(kept + 1, STEPS + 1))  # from the last checkpoint, not from scratch
    assert result(out) == whole


def test_going_on_again_and_again_gives_the_same_bytes(
    base: LoadedModel, config: TrainingConfig, whole: object, tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    for step in (3, 5, 6):
        with pytest.raises(StopHereError):
            train_agent("a", config, base, out=out, work=work, progress=stop_after(step, []))
    train_agent("a", config, base, out=out, work=work)
    assert result(out) == whole


def cut_short(folder: Path) -> None:
    path = folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def change_a_byte(folder: Path) -> None:
    path = folder / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def break_the_record(folder: Path) -> None:
    (folder / "state.json").write_text('{"rows": [')


def empty_the_record(folder: Path) -> None:
    (folder / "state.json").write_text("[]")


def lose_the_tensors(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


@pytest.mark.parametrize(
    "damage", [cut_short, change_a_byte, break_the_record, empty_the_record, lose_the_tensors]
)
def test_a_damaged_checkpoint_is_passed_over(
    base: LoadedModel,
    config: TrainingConfig,
    whole: object,
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    with pytest.raises(StopHereError):
        train_agent("a", config, base, out=out, work=work, progress=stop_after(4, []))
    damage(work / "snapshots" / "step-00000004")
    done: list[int] = []
    told = "step-00000004 is damaged: .*step"
    with pytest.warns(DamagedCheckpointWarning, match=told):
        train_agent("a", config, base, out=out, work=work, progress=stop_after(0, done))
    assert done == list(range(3, STEPS + 1))  # from the checkpoint before
    assert result(out) == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 9}, "Seen: seed 0 -> 9. Allowed"),
        ({"reward": "hybrid"}, 'Seen: reward "game" -> "hybrid". Allowed'),
        (
            {"learning_rate": 0.01, "lora": LoraSettings(rank=5, alpha=8.0)},
            "Seen: learning_rate 0.02 -> 0.01, lora.rank 4 -> 5. Allowed",
        ),
    ],
)
def test_a_training_with_other_settings_is_refused_and_nothing_overwritten(
    base: LoadedModel, whole: object, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    config = TrainingConfig.model_validate_json((tmp_path / "whole" / "training.json").read_text())
    with pytest.raises(StopHereError):
        train_agent("a", config, base, out=out, work=work, progress=stop_after(4, []))
    other = config.model_copy(update=change)
    with pytest.raises(ConfigError, match=f"started with other settings. {said}"):
        train_agent("a", other, base, out=out, work=work)
    done: list[int] = []
    train_agent("a", config, base, out=out, work=work, progress=stop_after(0, done))
    assert done == [5, 6, 7]
    assert result(out) == whole


def test_how_often_a_checkpoint_is_written_may_change(
    base: LoadedModel, config: TrainingConfig, whole: object, tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    with pytest.raises(StopHereError):
        train_agent("a", config, base, out=out, work=work, progress=stop_after(4, []))
    rarely = config.model_copy(update={"checkpoint_every": "auto"})
    train_agent("a", rarely, base, out=out, work=work)
    assert result(out) == whole
