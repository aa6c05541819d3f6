"""The page on explaining in Python works as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.models.loading import LoadedModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explain.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_example_of_the_page_runs(
    real_base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tiny.save_adapter(tmp_path / "runs/demo/agents/game", real_base.model, size=0.02)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 -- our own page
    found = names["found"]
    assert found.agents == ("base", "game")
    assert found.notes == ()
    assert found.gates().filter(gate="noise floor")["passed"].all()
    # Both prompts, every head and MLP, and the full swap.
    assert found.tables["patching"].height == 2 * (30 * 10 + 1)
    assert found.decisions["legal_mass"].min() > 0.3
    assert set(names["across"].tables["patching"]["positions"]) == {"move"}
    assert set(names["swapped"].tables["patching"].filter(pl.col("kind") != "all")["kind"]) == {
        "mlp"
    }
    assert names["edges"]["effect"].abs().max() > 1e-4
    for changed in ("without", "steered", "projected"):
        assert abs(names[changed] - names["plain"]).max() > 1e-3
    assert (tmp_path / "runs/explained/tables/patching.parquet").is_file()


def test_the_first_example_is_five_statements():
    statements = compile(BLOCKS[0], str(PAGE), "exec", flags=0x400)  # the syntax tree alone
    assert len(statements.body) - len(["found"]) == len(
        ["import", "load", "ask", "prompts", "explain"]
    )
