"""A stage is computed once for all who depend on the same things, and trusted only if intact."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core import stage as stage_module
from moralscope.core.errors import OutputError
from moralscope.core.files import TEMPORARY_PREFIX
from moralscope.core.stage import RECORD, Stage, StageCache, cache_folder

KEYS = {"source": "1" * 64, "target": "2" * 64}


def a_stage(**changes: object) -> Stage:
    fields: dict[str, object] = {
        "name": "patch-game", "package": "mechanisms", "task": "patching",
        "inputs": {"dtype": "float32", "threads": 2}, "needs": KEYS,
    }  # fmt: skip
    return Stage(**{**fields, **changes})


def fill(cache: StageCache, text: str = "numbers") -> Path:
    produced = cache.root / "produced"
    (produced / "deep").mkdir(parents=True)
    (produced / "table").write_text(text)
    (produced / "deep" / "tensor").write_text("weights")
    return produced


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path)


def test_the_key_is_a_hash():
    assert len(a_stage().key) == 64
    assert set(a_stage().key) <= set("0123456789abcdef")


def test_equal_dependencies_give_equal_keys():
    reordered = {"threads": 2, "dtype": "float32"}
    backwards = dict(reversed(KEYS.items()))
    assert a_stage(inputs=reordered, needs=backwards).key == a_stage().key


def test_the_name_is_free():
    assert a_stage(name="another").key == a_stage().key


@pytest.mark.parametrize(
    "change",
    [
        {"package": "behaviour"},
        {"task": "lens"},
        {"inputs": {"dtype": "float64", "threads": 2}},
        {"inputs": {"dtype": "float32"}},
        {"needs": {"source": "1" * 64}},
        {"needs": {"source": "1" * 64, "target": "3" * 64}},
        {"needs": {"source": "2" * 64, "target": "1" * 64}},
    ],
)
def test_any_other_difference_changes_the_key(change: dict[str, object]):
    assert a_stage(**change).key != a_stage().key


def test_edited_code_changes_the_key(monkeypatch: pytest.MonkeyPatch):
    before = a_stage().key
    monkeypatch.setattr(stage_module, "code_version", lambda package: f"edited {package}")
    assert a_stage().key != before


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_inputs_that_went_through_a_file_keep_the_key(inputs: dict[str, object]):
    assert a_stage(inputs=json.loads(json.dumps(inputs))).key == a_stage(inputs=inputs).key


def test_a_finished_stage_is_found_with_its_facts(cache: StageCache):
    assert cache.record(a_stage()) is None
    produced = fill(cache)
    place = cache.commit(a_stage(), produced, {"seconds": 1.5})
    assert place == cache.folder(a_stage())
    assert not produced.exists()
    assert (place / "deep" / "tensor").read_text() == "weights"
    record = cache.record(a_stage())
    assert record is not None
    assert record["facts"] == {"seconds": 1.5}
    assert record["key"] == a_stage().key
    assert set(record["files"]) == {"table", "deep/tensor"}
    assert (record["name"], record["task"]) == ("patch-game", "patching")


def test_other_stages_are_not_found(cache: StageCache):
    cache.commit(a_stage(), fill(cache), {})
    assert cache.record(a_stage(task="lens")) is None


def damage_table(folder: Path) -> None:
    (folder / "table").write_text("numberz")


def lose_tensor(folder: Path) -> None:
    (folder / "deep" / "tensor").unlink()


def lose_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def cut_record(folder: Path) -> None:
    (folder / RECORD).write_text((folder / RECORD).read_text()[:40])


def empty_record(folder: Path) -> None:
    (folder / RECORD).write_text("{}")


def wrong_record(folder: Path) -> None:
    (folder / RECORD).write_text("[1]")


def garble_record(folder: Path) -> None:
    (folder / RECORD).write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "damage",
    [
        damage_table, lose_tensor, lose_record, cut_record, empty_record, wrong_record,
        garble_record,
    ],
)  # fmt: skip
def test_a_damaged_stage_counts_as_not_finished_and_is_replaced(cache: StageCache, damage):
    damage(cache.commit(a_stage(), fill(cache), {"seconds": 1}))
    assert cache.record(a_stage()) is None
    place = cache.commit(a_stage(), fill(cache), {"seconds": 2})
    record = cache.record(a_stage())
    assert record is not None
    assert record["facts"] == {"seconds": 2}
    assert (place / "table").read_text() == "numbers"


def test_the_first_to_finish_stays(cache: StageCache):
    cache.commit(a_stage(), fill(cache, "first"), {"seconds": 1})
    place = cache.commit(a_stage(), fill(cache, "second"), {"seconds": 2})
    assert (place / "table").read_text() == "first"
    record = cache.record(a_stage())
    assert record is not None
    assert record["facts"] == {"seconds": 1}
    assert not (cache.root / "produced").exists()


def test_another_process_may_arrive_between_the_check_and_the_rename(
    cache: StageCache, monkeypatch: pytest.MonkeyPatch
):
    rename = Path.replace
    destination = cache.folder(a_stage())

    def overtaken(self: Path, target: Path) -> Path:
        if Path(target) == destination:
            monkeypatch.setattr(Path, "replace", rename)
            cache.commit(a_stage(), fill(StageCache(cache.root / "other"), "theirs"), {})
        return rename(self, target)

    produced = fill(cache, "ours")
    monkeypatch.setattr(Path, "replace", overtaken)
    assert cache.commit(a_stage(), produced, {}) == destination
    assert (destination / "table").read_text() == "theirs"


def test_a_cache_that_cannot_be_written_says_so(cache: StageCache, monkeypatch):
    def refuse(self: Path, target: Path) -> Path:
        if Path(target) == cache.folder(a_stage()):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    rename = Path.replace
    produced = fill(cache)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        cache.commit(a_stage(), produced, {})
    assert cache.record(a_stage()) is None


def test_work_in_progress_has_a_place_of_its_own(cache: StageCache):
    place = cache.work_folder(a_stage())
    assert place.is_dir()
    assert place == cache.work_folder(a_stage(name="renamed"))
    assert place != cache.work_folder(a_stage(task="lens"))


def test_only_abandoned_commits_are_cleared(cache: StageCache):
    shard = cache.commit(a_stage(), fill(cache), {}).parent
    for name, age in (("ours", 1.0), ("abandoned", 5000.0)):
        (shard / (TEMPORARY_PREFIX + name)).mkdir()
        stamp = time.time() - age
        os.utime(shard / (TEMPORARY_PREFIX + name), (stamp, stamp))
    cache.clear_leftovers()
    assert {p.name for p in shard.iterdir()} == {a_stage().key, f"{TEMPORARY_PREFIX}ours"}


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MORALSCOPE_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("moralscope")
