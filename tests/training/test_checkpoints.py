"""A checkpoint comes back to the bit, or says what is wrong with it and gives way to another."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, OutputError
from moralscope.core.files import TEMPORARY_PREFIX
from moralscope.core.hashing import sha256_value
from moralscope.core.tables import schema_of
from moralscope.training import checkpoints as module
from moralscope.training.checkpoints import (
    CheckpointClock,
    Checkpoints,
    DamagedCheckpointWarning,
    Snapshot,
    TrainingLog,
    differences,
)

IDENTITY = {"name": "a", "seed": 3, "lora": {"rank": 4, "sites": ("L1 mlp",)}, "words": ("x", "y")}


def filled(name: str, rows: int) -> pl.DataFrame:
    """A table with different values in every cell, as its schema wants them."""
    columns = {}
    for i, column in enumerate(schema_of(name).columns):
        kinds: Mapping[str, list[object]] = {
            "text": [f"{column.name} {r}" for r in range(rows)],
            "integer": [i + r for r in range(rows)],
            "number": [(i + 1) / (3 * r + 7) for r in range(rows)],
            "flag": [bool(r % 2) for r in range(rows)],
        }
        columns[column.name] = pl.Series(
            kinds[column.kind], dtype=schema_of(name).dtypes()[column.name]
        )
    return pl.DataFrame(columns)


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    wide = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    tensors = {
        "a/parameter": wide.T,  # not contiguous
        "a/moment": torch.tensor([-0.0, 5e-324, float("inf"), 0.1 + 0.2], dtype=torch.float64),
        "a/narrow": torch.randn(4, generator=generator).bfloat16(),
        "a/step": torch.tensor(float(step)),
    }
    tables = {"training": filled("training", step), "plays": filled("plays", 2 * step)}
    return Snapshot(step, tensors, tables, {"a": {"mean": 0.1 + 0.2, "count": step}, "none": None})


def at(work: Path, **changes: object) -> Checkpoints:
    return Checkpoints(work, IDENTITY | changes)


def same(one: Snapshot | None, other: Snapshot) -> bool:
    assert one is not None
    assert one.tensors.keys() == other.tensors.keys()
    assert one.tables.keys() == other.tables.keys()
    for name, tensor in other.tensors.items():
        bits = torch.int64 if tensor.dtype == torch.float64 else torch.int16
        whole = tensor.contiguous()
        if tensor.dtype == torch.float32:
            bits = torch.int32
        assert one.tensors[name].dtype == tensor.dtype
        assert torch.equal(one.tensors[name].view(bits), whole.view(bits))
    assert all(one.tables[name].equals(table) for name, table in other.tables.items())
    return one.step == other.step and one.values == other.values


def kept(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "snapshots").iterdir())


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_snapshot_comes_back_to_the_bit(tmp_path: Path) -> None:
    assert at(tmp_path).newest() is None
    place = at(tmp_path).save(snapshot(3))
    assert place == tmp_path / "snapshots" / "step-00000003"
    assert same(at(tmp_path).newest(), snapshot(3))
    files = {"state.safetensors", "state.json", "training.parquet", "plays.parquet"}
    assert {path.name for path in place.iterdir()} == files
    record = json.loads((place / "state.json").read_text())
    assert set(record["files"]) == files - {"state.json"}
    assert record["format"] == 1


def test_the_two_newest_stay(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    for step in (2, 4, 10, 11):
        at(tmp_path).save(snapshot(step))
        seen.append([name.lstrip("step-0") for name in kept(tmp_path)])
    assert seen == [["2"], ["2", "4"], ["4", "10"], ["10", "11"]]
    assert same(at(tmp_path).newest(), snapshot(11))


def test_what_an_interruption_left_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    at(tmp_path).save(snapshot(2))
    (tmp_path / "snapshots" / f"{TEMPORARY_PREFIX}step-4").mkdir()
    (tmp_path / "snapshots" / "notes").mkdir()
    assert same(at(tmp_path).newest(), snapshot(2))
    at(tmp_path).save(snapshot(4))
    assert kept(tmp_path) == ["notes", "step-00000002", "step-00000004"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, empty, flip, lose])
@pytest.mark.parametrize(
    "file", ["state.safetensors", "state.json", "training.parquet", "plays.parquet"]
)
def test_a_damaged_one_gives_way_to_the_one_before_it(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    for step in (2, 4):
        at(tmp_path).save(snapshot(step))
    damage(tmp_path / "snapshots" / "step-00000004" / file)
    with pytest.warns(DamagedCheckpointWarning) as told:
        found = at(tmp_path).newest()
    assert same(found, snapshot(2))
    (text,) = [str(warning.message) for warning in told]
    assert "step-00000004 is damaged: " + file in text
    assert text.endswith("step 2 is used instead")
    # It stays until training has got past it, so that nothing is lost by looking.
    assert kept(tmp_path) == ["step-00000002", "step-00000004"]
    at(tmp_path).save(snapshot(3))
    assert kept(tmp_path) == ["step-00000002", "step-00000003"]
    at(tmp_path).save(snapshot(4))
    assert same(at(tmp_path).newest(), snapshot(4))


def test_a_damaged_one_is_replaced_by_its_own_step(tmp_path: Path) -> None:
    for step in (2, 4):
        at(tmp_path).save(snapshot(step))
    flip(tmp_path / "snapshots" / "step-00000004" / "state.safetensors")
    at(tmp_path).save(snapshot(4))
    assert kept(tmp_path) == ["step-00000002", "step-00000004"]
    assert same(at(tmp_path).newest(), snapshot(4))


def test_with_none_left_training_starts_over(tmp_path: Path) -> None:
    for step in (2, 4):
        at(tmp_path).save(snapshot(step))
        truncate(tmp_path / "snapshots" / f"step-{step:08d}" / "state.json")
    with pytest.warns(DamagedCheckpointWarning, match="training starts over") as told:
        assert at(tmp_path).newest() is None
    assert [str(w.message).split(" is damaged")[0][-8:] for w in told] == ["00000004", "00000002"]


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"step": 4}', "\xff", '{"format": NaN}'])
def test_a_record_that_is_none_is_damage(tmp_path: Path, text: str) -> None:
    place = at(tmp_path).save(snapshot(4))
    (place / "state.json").write_text(text, encoding="latin-1")
    with pytest.warns(DamagedCheckpointWarning, match="state.json is not"):
        assert at(tmp_path).newest() is None


@given(st.data())
@settings(max_examples=25)
def test_no_flipped_bit_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    work = tmp_path_factory.mktemp("bits")
    place = at(work).save(snapshot(1))
    file = data.draw(st.sampled_from(sorted(path.name for path in place.iterdir())))
    content = bytearray((place / file).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (place / file).write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = at(work).newest()
    # What is left of the record may be the same JSON in another spelling.
    assert (found is None and len(told) == 1) or same(found, snapshot(1))
    assert found is None or file == "state.json"
    shutil.rmtree(work)


def signed_again(place: Path, **changes: object) -> None:
    record = json.loads((place / "state.json").read_text()) | changes
    del record["sha256"]
    (place / "state.json").write_text(json.dumps(record | {"sha256": sha256_value(record)}))


def test_another_format_is_an_error_and_nothing_is_removed(tmp_path: Path) -> None:
    for step in (2, 4):
        place = at(tmp_path).save(snapshot(step))
    signed_again(place, format=7)
    before = everything(tmp_path)
    with pytest.raises(
        ConfigError,
        match="The checkpoint was written by another version. Seen: format 7 in .*step-00000004. "
        r"Allowed: format 1. Next: go on with the version that wrote it, or .*--out",
    ):
        at(tmp_path).newest()
    assert everything(tmp_path) == before


def test_other_settings_are_an_error_that_names_them(tmp_path: Path) -> None:
    at(tmp_path).save(snapshot(2))
    before = everything(tmp_path)
    changes = {"seed": 4, "lora": {"rank": 8, "sites": ["L1 mlp"]}, "words": ["x", "y"]}
    with pytest.raises(ConfigError) as caught:
        Checkpoints(tmp_path, IDENTITY | changes).newest()
    assert caught.value.problem == "The training in this folder was started with other settings"
    assert caught.value.seen == "lora.rank 4 -> 8, seed 3 -> 4"
    assert str(tmp_path) in caught.value.allowed
    assert "--out" in caught.value.remedy
    assert everything(tmp_path) == before


def test_of_many_differences_six_are_told(tmp_path: Path) -> None:
    Checkpoints(tmp_path, {f"k{i}": i for i in range(9)}).save(snapshot(2))
    with pytest.raises(ConfigError) as caught:
        Checkpoints(tmp_path, {f"k{i}": -i for i in range(9)}).newest()
    told = "k1 1 -> -1, k2 2 -> -2, k3 3 -> -3, k4 4 -> -4, k5 5 -> -5, k6 6 -> -6, and 2 more"
    assert caught.value.seen == told


def test_long_values_are_told_in_short(tmp_path: Path) -> None:
    Checkpoints(tmp_path, {"prompts": ["f" * 64, "a"], "gone": None}).save(snapshot(2))
    with pytest.raises(ConfigError) as caught:
        Checkpoints(tmp_path, {"prompts": ["f" * 64, "b"], "come": "now"}).newest()
    assert caught.value.seen == (
        'come (not set) -> "now", gone null -> (not set), prompts other values'
    )


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1) | st.none()),
       st.dictionaries(st.sampled_from("abcd"), st.integers(0, 1) | st.none()))  # fmt: skip
def test_differences_are_exactly_the_keys_that_differ(
    old: dict[str, object], new: dict[str, object]
) -> None:
    missing = "missing"
    expected = [k for k in "abcd" if old.get(k, missing) != new.get(k, missing)]
    assert [key for key, _, _ in differences({"x": old}, {"x": new})] == [
        f"x.{k}" for k in expected
    ]
    assert differences(old, old) == []


def test_the_clock_counts_steps() -> None:
    clock = CheckpointClock(3)
    assert [step for step in range(1, 10) if clock.due(step, 1e6)] == [3, 6, 9]


def test_the_first_checkpoint_comes_after_ten_seconds() -> None:
    clock = CheckpointClock("auto")
    assert [clock.due(step, 3.0) for step in range(1, 6)] == [False, False, False, True, True]
    assert CheckpointClock("auto").due(1, 60.0)


@given(
    st.lists(st.floats(0.01, 30), min_size=20, max_size=60),
    st.lists(st.floats(0.001, 5), min_size=60, max_size=60),
)
def test_checkpoints_cost_a_twentieth_of_the_time(steps: list[float], costs: list[float]) -> None:
    clock = CheckpointClock("auto")
    trained = written = 0.0
    last: float | None = None
    for i, seconds in enumerate(steps):
        trained += seconds
        if last is None:
            expected = trained >= 10
        else:  # affordable if this one costs what the last one did
            expected = (written + last) / (trained + written + last) <= 0.05 * (1 + 1e-12)
        due = clock.due(i + 1, seconds)
        assert due == expected
        if due:
            last = costs[i]
            written += last
            clock.saved(last)


def test_steady_checkpoints_cost_a_twentieth_and_not_much_less() -> None:
    clock, trained, written = CheckpointClock("auto"), 0.0, 0.0
    for step in range(1, 2001):
        trained += 1.0
        if clock.due(step, 1.0):
            written += 0.8
            clock.saved(0.8)
    assert 0.045 < written / (trained + written) <= 0.05


def test_the_log_has_a_line_for_each_row(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "work")
    log.cut(0)
    log.append([{"step": 1, "agent": "a", "kl": 0.1 + 0.2}, {"step": 1, "agent": "b", "kl": None}])
    log.append([{"step": 2, "agent": "ü", "kl": float("nan")}])
    rows = [json.loads(line) for line in log.path.read_text("utf-8").splitlines()]
    assert rows == [
        {"step": 1, "agent": "a", "kl": 0.1 + 0.2},
        {"step": 1, "agent": "b", "kl": None},
        {"step": 2, "agent": "ü", "kl": None},
    ]


def test_the_log_goes_on_after_the_step_of_a_checkpoint(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.append([{"step": step}])
    with log.path.open("ab") as stream:
        stream.write(b'{"step": 5, "agent": "\xc3')
    (tmp_path / f"{TEMPORARY_PREFIX}log").touch()
    log.cut(3)
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    log.append([{"step": 4}])
    log.cut(9)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 2, 3, 4]
    log.cut(0)
    assert log.path.read_text() == ""


@pytest.mark.parametrize("torn", ["{", "7\n", "[1]\n", '{"agent": "a"}\n', '{"step": "1"}\n'])
def test_lines_that_are_none_are_cut(tmp_path: Path, torn: str) -> None:
    log = TrainingLog(tmp_path)
    log.append([{"step": 1}])
    with log.path.open("a") as stream:
        stream.write(torn)
    log.cut(1)
    assert log.path.read_text() == '{"step": 1}\n'


@contextlib.contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """The system refuses to let any file of this process grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [0, 200, 1500])
def test_a_full_disk_is_one_clear_error_and_older_checkpoints_stay(
    tmp_path: Path, size: int
) -> None:
    at(tmp_path).save(snapshot(2))
    at(tmp_path).save(snapshot(4))
    before = everything(tmp_path)
    assert max(map(len, before.values())) > 1500
    with (
        pytest.raises(
            OutputError,
            match="A result cannot be written. Seen: .*File too large.*free some space",
        ),
        files_of_at_most(size),
    ):
        at(tmp_path).save(snapshot(6))
    assert everything(tmp_path) == before
    assert kept(tmp_path) == ["step-00000002", "step-00000004"]
    at(tmp_path).save(snapshot(6))  # once there is space
    assert same(at(tmp_path).newest(), snapshot(6))


def test_a_full_disk_stops_the_log_and_leaves_its_lines(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    for step in (1, 2, 3):
        log.append([{"step": step}])
    size = log.path.stat().st_size
    with (
        pytest.raises(
            OutputError,
            match=r"The log of a training cannot be written. Seen: .*log.jsonl \(File too large\)",
        ),
        files_of_at_most(size + 5),
    ):
        log.append([{"step": 4}])
    log.cut(3)
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_log_whose_folder_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="log of a training cannot be written"):
        TrainingLog(tmp_path / "gone").append([{"step": 1}])


def test_a_file_system_that_cannot_sync_names_is_not_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fsync

    def refuse(handle: int, number: int) -> None:
        if Path(f"/proc/self/fd/{handle}").resolve().is_dir():
            raise OSError(number, os.strerror(number))
        whole(handle)

    monkeypatch.setattr(module.os, "fsync", lambda handle: refuse(handle, 22))
    at(tmp_path).save(snapshot(2))
    monkeypatch.setattr(module.os, "fsync", lambda handle: refuse(handle, 5))
    with pytest.raises(OutputError, match="A checkpoint cannot be written.*Input/output error"):
        at(tmp_path).save(snapshot(3))
    assert kept(tmp_path) == ["step-00000002"]
    monkeypatch.undo()
    assert same(at(tmp_path).newest(), snapshot(2))
