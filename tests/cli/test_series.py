"""The same study of two models of different depth, in one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from moralscope.cli.main import main
from moralscope.studies import Study

StudyFile = Callable[..., Path]


@pytest.fixture
def series(study_file: StudyFile, tmp_path: Path) -> Callable[..., Path]:
    """A series of the tiny study, with members."""
    from tiny_base import save_tiny  # noqa: PLC0415 - only these tests need the model stack

    save_tiny(tmp_path / "deep", layers=5, seed=1)
    study = study_file(
        prompts={
            "games": ["IPD", "ISH"], "wordings": [], "scenarios": False,
            "table_orders": ["original"],
        },
        mechanisms={"scenarios": 8, "methods": ["attribution", "attribution_change", "patching"]},
    )  # fmt: skip

    def write(**members: dict[str, object]) -> Path:
        content = {
            "name": "sizes",
            "study": study.name,
            "members": members or {"flat": {}, "deep": {"model": str(tmp_path / "deep")}},
        }
        file = study.parent / "sizes.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return write


def test_members_are_runs_and_are_compared_by_relative_depth(
    series: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["run", str(series()), "--out", str(out)]) == 0
    for name in ("flat", "deep"):
        assert (out / "members" / name / "report.html").is_file()
    depths = pl.read_parquet(out / "tables/depths.parquet")
    assert dict(depths.group_by("member").agg(pl.col("layer").n_unique()).iter_rows()) == {
        "flat": 2, "deep": 5,
    }  # fmt: skip
    shares = depths.group_by("member", "level", "agent", "scenario").agg(pl.col("share").sum())
    assert shares["share"].to_numpy() == pytest.approx(1.0)
    one = depths.filter(member="deep", level="patching", scenario="IPD.CC").sort("layer")
    assert one["relative_depth"].to_list() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    # By brute force from the member's own table.
    own = out / "members/deep/tables"
    patches = pl.read_parquet(own / "patching.parquet").filter(pl.col("layer").is_not_null())
    scenario = pl.read_parquet(own / "prompts.parquet").select("prompt", "scenario")
    here = patches.join(scenario, on="prompt").filter(scenario="IPD.CC", source="base")
    sums = np.zeros(5)
    for (layer, _), rows in here.group_by("layer", "site"):
        sums[int(str(layer))] += abs(float(np.mean(rows["effect"].to_numpy())))
    assert one["share"].to_list() == pytest.approx(sums / sums.sum())
    claims = {row["id"]: row for row in json.loads((out / "claims.json").read_text())}
    assert set(claims) == {"depth:attribution:flat:deep", "depth:patching:flat:deep"}
    tables = {"depths": depths}
    for row in claims.values():
        again = pl.SQLContext(tables).execute(row["query"]).collect()["estimate"][0]
        assert again == pytest.approx(row["estimate"], abs=1e-9)
        assert row["n_units"] == 8
        assert row["p_floor"] == pytest.approx(2 / 2**8)
    page = (out / "report.html").read_text() + "".join(
        p.read_text() for p in (out / "report").glob("*.html")
    )
    assert "Where training acts, by relative depth" in page
    assert main(["verify", str(out / "members/flat")]) == 0


def test_a_member_that_fails_leaves_the_others(
    series: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    file = series(flat={}, none={"model": str(tmp_path / "nothing")})
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 3
    assert "Failed: none:" in capsys.readouterr().err
    assert (tmp_path / "out/members/flat/report.html").is_file()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [entry["name"] for entry in manifest["failed"]] == ["none"]


def test_the_dry_run_tells_of_every_member(
    series: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(series()), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "Member flat:" in told
    assert "Member deep:" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": {"one": {}}}, "members"),
        ({"members": {"a/b": {}, "c": {}}}, "This cannot be the name of a member"),
        ({"members": {"a": {"modle": "x"}, "c": {}}}, "modle"),
        ({"study": "absent.yaml"}, "absent.yaml"),
        ({"alhpa": 0.1}, "alhpa"),
    ],
)
def test_what_is_no_series_is_refused(
    series: Callable[..., Path],
    tmp_path: Path,
    change: dict[str, object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = series()
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_member_is_told_what_it_needs(
    series: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from moralscope.studies.doctor import Finding  # noqa: PLC0415
    from moralscope.studies.examining import needs  # noqa: PLC0415 -- needs the model stack

    seen: list[tuple[str, str]] = []

    def examined(study: Study, out: Path) -> tuple[Finding, ...]:
        seen.append((study.model, out.as_posix()))
        return (Finding("time", "a minute", ok=None),)

    monkeypatch.setattr(needs, "examine_study", examined)
    file = series(flat={"model": "one"}, deep={"model": "other"})
    main(["doctor", str(file)])
    assert seen == [("one", "runs/sizes/members/flat"), ("other", "runs/sizes/members/deep")]
    told = " ".join(capsys.readouterr().out.split())
    assert "What member flat of" in told
    assert "What member deep of" in told
