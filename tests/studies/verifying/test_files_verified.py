"""Any change to any file of a run is found, and the file is named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.core.files import write_json
from moralscope.studies.verifying.files import file_checks
from moralscope.studies.verifying.opening import open_run
from moralscope.studies.verifying.verify import verify_run


def contents(run: Path) -> dict[str, str]:
    return {
        p.relative_to(run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(run.rglob("*"))
        if p.is_file()
    }


def failing(run: Path) -> set[str]:
    """The files that fail, by their bytes alone."""
    opened, found = open_run(run)
    return {c.subject for c in [*found, *file_checks(opened)] if c.passed is False}


def test_an_untouched_run_is_what_it_says_and_stays_so(whole: Path) -> None:
    before = contents(whole)
    found = verify_run(whole)
    assert found.failed == ()
    assert found.open == ()
    assert found.passed
    assert found.seal == json.loads((whole / "manifest.json").read_text())["seal"]
    assert {check.part for check in found.checks} == {"files", "completeness", "numbers", "claims"}
    assert contents(whole) == before
    about = {check.subject for check in found.checks}
    assert about == set(before)  # every file is spoken of


def test_every_file_is_named_when_a_byte_of_it_changes(copy: Any) -> None:
    files = sorted(contents(copy.path))
    assert len(files) > 35

    @given(st.data())
    @settings(max_examples=2)
    def flipped(path: Path, data: st.DataObject) -> None:
        kept = path.read_bytes()
        place = data.draw(st.integers(0, len(kept) - 1))
        mask = data.draw(st.integers(1, 255))
        path.write_bytes(kept[:place] + bytes([kept[place] ^ mask]) + kept[place + 1 :])
        try:
            assert path.relative_to(copy.path).as_posix() in failing(copy.path)
        finally:
            path.write_bytes(kept)

    for name in files:
        flipped(copy.path / name)
    assert failing(copy.path) == set()


def test_every_file_is_named_when_it_is_gone(copy: Any) -> None:
    for name in sorted(contents(copy.path)):
        kept = (copy.path / name).read_bytes()
        (copy.path / name).unlink()
        assert name in failing(copy.path), name
        (copy.path / name).write_bytes(kept)


@pytest.mark.parametrize("name", ["tables/lens.parquet", "tables/claims.parquet", "study.yaml"])
def test_a_damaged_file_ends_nothing_else(copy: Any, name: str) -> None:
    (copy.path / name).write_bytes(b"PAR1 and nothing more")
    found = verify_run(copy.path)
    assert name in {check.subject for check in found.failed}
    assert any(check.part == "numbers" and check.passed for check in found.checks)


@pytest.mark.parametrize(
    "name", ["tables/more.parquet", "tables/notes.txt", "agents/game/more.bin", "figures/own.png"]
)
def test_a_file_that_no_list_has_is_named(copy: Any, name: str) -> None:
    (copy.path / name).write_bytes(b"more")
    assert failing(copy.path) == {name}


def test_what_lies_beside_the_results_is_only_told(copy: Any) -> None:
    (copy.path / "notes.txt").write_text("mine")
    (copy.path / "explained" / "c").mkdir(parents=True)
    (copy.path / "explained" / "c" / "units.csv").write_text("unit")
    (copy.path / ".lock").write_text("")
    found = verify_run(copy.path)
    assert found.passed
    (told,) = found.open
    assert (told.subject, told.found) == (
        "notes.txt",
        "no list has it, and nothing is read from it",
    )


def said(run: Path, name: str) -> str:
    opened, _ = open_run(run)
    return "; ".join(c.found for c in file_checks(opened) if c.subject == name and not c.passed)


def test_an_edited_manifest_does_not_give_its_seal(copy: Any) -> None:
    path = copy.path / "manifest.json"
    write_json(path, {**copy.manifest(), "seed": 77})
    assert "its content does not give its seal: it was edited" in said(copy.path, path.name)
    assert said(copy.path, "report-files.json") == "it was made from another one"


def test_a_manifest_without_a_seal_is_not_taken_for_verified(copy: Any) -> None:
    manifest = copy.manifest()
    for field in ("seal", "files", "planned"):
        del manifest[field]
    path = copy.path / "manifest.json"
    write_json(path, manifest)
    assert said(copy.path, path.name).startswith("it has no seal")
    (copy.path / "tables" / "lens.parquet").write_bytes(b"x")
    assert "its bytes have changed" in said(copy.path, "tables/lens.parquet")
    assert "planned" in {c.found.split()[-1] for c in verify_run(copy.path).open}


@pytest.mark.parametrize(("text", "why"), [("{", "it is not JSON"), ("[]", "it is not an object")])
def test_a_manifest_that_is_none_is_named(copy: Any, text: str, why: str) -> None:
    (copy.path / "manifest.json").write_text(text)
    assert said(copy.path, "manifest.json").startswith(why)


def test_a_list_may_not_point_out_of_the_run(copy: Any) -> None:
    copy.seal()
    manifest = copy.manifest()
    outside = copy.path.parent / "outside.txt"
    outside.write_text("x")
    digest = hashlib.sha256(b"x").hexdigest()
    files = {**manifest["files"], "../outside.txt": digest}
    from moralscope.core.sealing import sealed  # noqa: PLC0415 - of this test alone

    write_json(copy.path / "manifest.json", sealed({**manifest, "files": files}))
    assert said(copy.path, "../outside.txt") == "it lies outside the run"


def test_a_seal_that_was_written_down_finds_whoever_seals_again(copy: Any) -> None:
    seal = copy.manifest()["seal"]
    assert copy.failed(against=seal[:16].upper()) == []
    logs = copy.path / "logs" / "stages.log"
    logs.write_text(logs.read_text().replace("computed", "cached  "))
    copy.seal()
    assert copy.failing("files") == []
    (failed,) = copy.failed(against=seal)
    assert failed.what == "the seal is the one that was written down elsewhere"
    assert failed.found.startswith(f"{seal} was given, here is ")


@pytest.mark.parametrize("against", ["", "abc", "x" * 64, "0" * 65])
def test_what_is_no_seal_is_refused(whole: Path, against: str) -> None:
    with pytest.raises(ConfigError, match="This is not a seal"):
        verify_run(whole, against=against)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="This folder is not a run"):
        verify_run(tmp_path)
    (tmp_path / "audit.yaml").write_text("")
    with pytest.raises(ConfigError, match="an audit, not the run of a study") as caught:
        verify_run(tmp_path)
    assert "moralscope diff" in caught.value.remedy


def test_verifying_needs_no_model_stack() -> None:
    told = "import sys, moralscope.studies.verifying.verify; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
