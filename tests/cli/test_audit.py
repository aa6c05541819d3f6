"""The command audit: tables of any tool in, gates first, a report at the end, no model stack."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from moralscope.cli.main import main

MODEL_STACK = ("torch", "transformers", "peft", "safetensors", "accelerate", "tokenizers")
WITHOUT_MODELS = (
    f"import sys; sys.modules.update(dict.fromkeys({MODEL_STACK!r}));"
    "from moralscope.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
SITES = ("L0.h0", "L0.mlp", "L1.mlp")
HYPOTHESES = """hypotheses:
  - {id: up, quantity: change, agents: [tuned], direction: above}
  - {id: down, quantity: change, agents: [tuned], direction: below}
"""


def write_tables(folder: Path, scenarios: Iterable[int] = range(10)) -> Path:
    """Two agents on two texts of each scenario; site L1.mlp carries most of the change."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    decisions: list[tuple[str, str, str, float]] = []
    sweep: list[tuple[str, str, str, str, float]] = []
    for s in scenarios:
        for v in range(2):
            name, x = f"story {s}, telling {v}", float(rng.normal())
            for agent, change in (("base", 0.0), ("tuned", 2.0 + 0.1 * float(rng.normal()))):
                decisions.append((agent, name, f"story {s}", x + change))
            for site in SITES:
                effect = (1.5 if site == "L1.mlp" else 0.1) + 0.1 * float(rng.normal())
                sweep.append(("tuned", "base", name, site, effect))
    columns = ["model", "prompt_id", "scenario", "logit_diff"]
    pl.DataFrame(decisions, schema=columns, orient="row").write_csv(folder / "decisions.csv")
    columns = ["source", "target", "prompt", "component", "delta"]
    pl.DataFrame(sweep, schema=columns, orient="row").write_csv(folder / "patching.csv")
    (folder / "readme.txt").write_text("made elsewhere")
    return folder


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command says where the model stack is not installed, and what it leaves."""
    root = tmp_path_factory.mktemp("audit")
    folder = write_tables(root / "mine")
    (folder / "audit.yaml").write_text(HYPOTHESES)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS, "audit", str(folder), "--out", str(root / "out")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, root / "out"


def test_gates_are_told_first_and_the_report_last(audited: tuple[str, Path]) -> None:
    lines = audited[0].strip().splitlines()
    assert "passed" in lines[0]
    assert "gates" in lines[0]
    assert lines[-1] == f"Report: {audited[1] / 'report.html'}"
    assert any(line.startswith("Not run, or not read") for line in lines)
    assert any("readme.txt: Neither CSV nor TSV nor Parquet." in line for line in lines)


def test_hypotheses_are_told_with_verdict_and_reason(audited: tuple[str, Path]) -> None:
    lines = audited[0].splitlines()
    up = next(i for i, line in enumerate(lines) if line.startswith("up: "))
    down = next(i for i, line in enumerate(lines) if line.startswith("down: "))
    assert lines[up + 1].startswith("  confirmed (supported)")
    assert lines[down + 1].startswith("  contradicted (")


def test_the_folder_is_that_of_a_run(audited: tuple[str, Path]) -> None:
    out = audited[1]
    assert {p.name for p in out.iterdir()} >= {
        "audit.yaml", "claims.json", "manifest.json", "report.html", "report.json", "tables",
    }  # fmt: skip
    claims = {c["id"]: c for c in json.loads((out / "claims.json").read_text())}
    assert claims["change:tuned"]["verdict"] == "supported"
    assert claims["change:tuned"]["estimate"] == pytest.approx(2.0, abs=0.1)
    assert "L1.mlp" in claims["patching:tuned>base not recorded"]["statement"]
    page = (out / "report.html").read_text()
    assert "readme.txt" in page
    assert claims["change:tuned"]["statement"] in page
    assert "audit <bdi>mine</bdi>" in page


def test_its_claims_can_be_walked_down_to_rows(
    audited: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(audited[1]), "--explain", "change:tuned"]) == 0
    told = json.loads(
        next((audited[1] / "explained").glob("*/explanation.json")).read_text(encoding="utf-8")
    )
    assert told["agrees"] is True
    assert "change:tuned" in capsys.readouterr().out


def test_bad_tables_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tables(tmp_path / "mine")
    (folder / "patching.csv").write_text("source,target,prompt,effect\na,b,p,1\n")
    assert main(["audit", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "lacks a column: site" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_only_an_earlier_audit_is_replaced(
    tmp_path: Path, audited: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tables(tmp_path / "mine")
    for out in (folder, tmp_path):
        assert main(["audit", str(folder), "--out", str(out)]) == 2
        assert "holds something else" in capsys.readouterr().err
    assert (folder / "decisions.csv").is_file()
    earlier = tmp_path / "earlier"
    shutil.copytree(audited[1], earlier)
    (earlier / "explained").mkdir(exist_ok=True)
    assert main(["audit", str(folder), "--out", str(earlier)]) == 0
    assert not (earlier / "explained").exists()
    assert "hypothesis:up" not in (earlier / "claims.json").read_text()


@pytest.mark.parametrize("alpha", ["0", "1", "-0.1", "nan"])
def test_a_level_that_no_test_can_be_held_to_is_refused(
    alpha: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tables(tmp_path / "tables")
    arguments = ["audit", str(tmp_path / "tables"), f"--alpha={alpha}"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "The significance level is out of range" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
