"""The command ``claims`` on a run's folder: the list, the walk down, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from moralscope.cli.main import main
from moralscope.core.tables import conform, write_table
from moralscope.evidence.claims import make_claims
from moralscope.evidence.explaining import folder_name
from moralscope.evidence.gates.judging import judge_gates

sys.path.insert(0, str(Path(__file__).parents[1] / "evidence"))

import synthetic

CHANGE = "change:game"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tables = synthetic.replicated(1, {"game": 3.0, "hybrid": 0.0})
    for name, frame in tables.items():
        write_table(name, conform(name, frame), tmp_path / "tables")
    write_table("gates", judge_gates(tables), tmp_path / "tables")
    write_table("claims", make_claims(tables, draws=199), tmp_path / "tables")
    return tmp_path


def claims_of(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "tables" / "claims.parquet")


def test_every_claim_has_a_line_with_its_numbers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(run)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    made = claims_of(run)
    for row in made.iter_rows(named=True):
        (line,) = [line for line in lines if line.split("  ")[0] == row["id"]]
        assert row["verdict"] in line
        # One seed of each reward gives no distance between seeds of one.
        assert (row["estimate"] is None) is (row["id"] == "replicates:behaviour")
        if row["estimate"] is not None:
            assert f"{row['estimate']:.4g}" in line
        if row["q"] is not None:
            assert line.endswith(f"{row['q']:.4g}")
    supported = int((made["verdict"] == "supported").sum())
    assert f"{supported} supported" in printed
    assert lines[-1] == f"Claims: {run / 'tables' / 'claims.parquet'}"


def test_named_claims_come_first_and_are_marked(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = pl.col("id") == "labels:hybrid"
    made = claims_of(run).with_columns(
        registered=named, outcome=pl.when(named).then(pl.lit("open"))
    )
    write_table("claims", made, run / "tables")
    assert main(["claims", str(run)]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("labels:hybrid")
    assert first.endswith("registered, open")


def test_one_verdict_can_be_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", str(run), "--verdict", "supported"]) == 0
    printed = capsys.readouterr().out
    assert CHANGE in printed
    assert "change:hybrid " not in printed
    assert main(["claims", str(run), "--verdict", "artefact"]) == 0
    assert "No claim is artefact." in capsys.readouterr().out
    assert main(["claims", str(run), "--verdict", "suported"]) == 2
    refused = capsys.readouterr().err
    assert "There is no such verdict" in refused
    assert "did you mean 'supported'" in refused


def test_a_claim_is_explained_down_to_its_rows(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # a second time replaces the first
        assert main(["claims", str(run), "--explain", CHANGE]) == 0
    printed = capsys.readouterr().out
    (row,) = claims_of(run).filter(pl.col("id") == CHANGE).iter_rows(named=True)
    folder = run / "explained" / folder_name(CHANGE)
    assert printed.splitlines()[-1] == f"Explained: {folder}"
    for part in (row["statement"], "liveness (game)", "SELECT", "Recomputed: 80 rows in 20 units"):
        assert part in printed
    said = json.loads((folder / "explanation.json").read_text())
    assert said["claim"] == row
    assert said["agrees"] is True
    assert said["recomputed"] == pytest.approx(row["estimate"], abs=1e-9)
    assert {gate["result"] for gate in said["gates"]} <= {"passed", "failed", "not available"}
    units = pl.read_csv(folder / "units.csv")
    assert units.height == said["units"]["count"] == row["n_units"]
    assert units["value"].mean() == pytest.approx(row["estimate"], abs=1e-9)
    rows = pl.read_parquet(folder / "rows.parquet")
    assert rows.height == said["rows"]["count"] == 80
    assert (rows["log_odds"] - rows["subtracted"] - rows["value"]).abs().max() < 1e-12
    assert [path.name for path in (run / "explained").iterdir()] == [folder.name]


def test_every_claim_of_a_run_can_be_explained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in claims_of(run)["id"]:
        assert main(["claims", str(run), "--explain", name]) == 0, name
    capsys.readouterr()


def test_tables_that_no_longer_give_the_estimate_are_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = pl.read_parquet(run / "tables" / "decisions.parquet")
    write_table("decisions", decisions.with_columns(-pl.col("log_odds")), run / "tables")
    assert main(["claims", str(run), "--explain", CHANGE]) == 2
    found = capsys.readouterr()
    assert "the claim states another" in found.out
    assert "The rows of a claim no longer give its estimate" in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "change:gaem"], "did you mean 'change:game'"),
        (["--explain", CHANGE, "--verdict", "supported"], "leave out --verdict to explain"),
    ],
)
def test_bad_input_is_refused(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "explained").exists()


def test_claims_need_no_model_stack(run: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from moralscope.cli.main import main\n"
        f"sys.exit(main(['claims', {str(run)!r}, '--explain', {CHANGE!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Recomputed: 80 rows in 20 units" in done.stdout


def test_a_folder_without_claims_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(tmp_path)]) == 2
    assert "There are no claims in this folder" in capsys.readouterr().err


def test_a_damaged_table_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "tables" / "decisions.parquet").write_bytes(b"no parquet")
    assert main(["claims", str(run), "--explain", CHANGE]) == 2
    assert "cannot be read from these tables" in capsys.readouterr().err
