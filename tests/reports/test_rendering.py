"""Is a picture drawn once, and drawn again whenever anything about it has changed?"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from synthetic_run import Size, write_run

from moralscope.core.tables import read_table, write_table
from moralscope.reports import build_report, export

NO_MECHANISMS = ("cooperation", "transfer", "training", "lens", "attribution", "patching")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each specification is that went to the converter."""
    calls: list[int] = []
    real = export.vl_convert.vegalite_to_svg

    def counted(spec: dict[str, object], **options: object) -> str:
        calls.append(len(spec))
        return real(spec, **options)

    monkeypatch.setattr(export.vl_convert, "vegalite_to_svg", counted)
    return calls


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path, Size(cluster_prompts=1, claims=1), leave_out=NO_MECHANISMS)


def files_of(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "figures").iterdir())}


def test_an_unchanged_picture_is_taken_as_it_is(run: Path, drawn: list[int]) -> None:
    build_report(run)
    first, calls = files_of(run), len(drawn)
    assert calls == 1
    build_report(run)
    assert len(drawn) == calls
    assert files_of(run) == first
    index = json.loads(first["rendered.json"])
    assert set(index) == {"memory_one"}
    assert set(index["memory_one"]) == {"json", "svg", "png", "pdf", "renderer"}


@pytest.mark.parametrize("ending", ["svg", "png", "pdf", "json"])
def test_a_picture_that_was_touched_is_drawn_again(
    run: Path, drawn: list[int], ending: str
) -> None:
    build_report(run)
    first = files_of(run)
    with (run / "figures" / f"memory_one.{ending}").open("ab") as file:
        file.write(b" ")
    build_report(run)
    assert len(drawn) == 2
    assert files_of(run) == first


def test_other_numbers_are_drawn_anew(run: Path, drawn: list[int]) -> None:
    build_report(run)
    policy = read_table("policy", run / "tables")
    write_table("policy", policy.filter(pl.col("agent") != "game"), run / "tables")
    before = files_of(run)
    build_report(run)
    assert len(drawn) == 2
    assert files_of(run)["memory_one.svg"] != before["memory_one.svg"]


def test_another_converter_draws_everything_again(
    run: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(run)
    monkeypatch.setattr(export, "_RENDERER", "vl-convert of another version")
    build_report(run)
    assert len(drawn) == 2


@pytest.mark.parametrize("text", ["{", '{"memory_one": 3}'])
def test_a_damaged_index_is_no_reason_to_fail(run: Path, drawn: list[int], text: str) -> None:
    build_report(run)
    (run / "figures" / "rendered.json").write_text(text)
    build_report(run)
    assert len(drawn) == 2
