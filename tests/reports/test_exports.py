"""Do exports hold every row of every table, and summaries what plain loops give?"""

from __future__ import annotations

import csv
import gzip
import io
import json
import statistics
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from synthetic_run import Size, write_run

from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import from_rows, read_table, schema_of, write_table
from moralscope.reports import build_report
from moralscope.reports.exports import planned, write_exports, writing
from moralscope.reports.exports.dictionary import dictionary_markdown, dictionary_rows
from moralscope.reports.run import read_run

NO_FIGURES = (
    "policy", "cooperation", "transfer", "training", "lens", "attribution", "patching",
)  # fmt: skip


def lines_of(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return list(csv.reader(io.StringIO(text)))


def test_every_table_is_there_to_the_last_row(reported: Path) -> None:
    for path in (reported / "tables").glob("*.parquet"):
        table = read_table(path.stem, reported / "tables")
        (file,) = (reported / "exports").glob(f"{path.stem}.csv*")
        header, *rows = lines_of(file)
        assert header == table.columns
        assert len(rows) == table.height
        last = table.row(table.height - 1)
        for shown, value in zip(rows[-1], last, strict=True):
            if isinstance(value, float):
                assert float(shown) == value  # to the last bit
            elif value is None:
                assert shown == ""
            else:
                assert shown == (str(value).lower() if isinstance(value, bool) else str(value))


def test_large_tables_are_compressed_and_repeatable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", Size(cluster_prompts=1, claims=2), leave_out=NO_FIGURES)
    monkeypatch.setattr(writing, "LARGE", 1)
    bytes_of: list[dict[str, bytes]] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        exported = write_exports(read_run(run), tmp_path / name)
        bytes_of.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert bytes_of[0] == bytes_of[1]
    assert exported.tables["decisions"] == "decisions.csv.gz"
    decisions = read_table("decisions", run / "tables")
    assert len(lines_of(tmp_path / "first" / "decisions.csv.gz")) == decisions.height + 1
    assert not [p for p in (tmp_path / "first").iterdir() if p.name.startswith(".partial")]


def test_the_dictionary_has_every_column_of_every_schema() -> None:
    rows = dictionary_rows(SCHEMAS)
    assert rows.height == sum(len(schema_of(name).columns) for name in SCHEMAS)
    row = rows.filter((pl.col("table") == "decisions") & (pl.col("column") == "log_odds")).row(
        0, named=True
    )
    assert (row["kind"], row["nullable"], row["unit"]) == ("number", True, "nats")
    text = dictionary_markdown(("decisions",))
    assert text.count("\n| ") == len(schema_of("decisions").columns) + 1


def test_the_dictionaries_agree(reported: Path) -> None:
    folder = reported / "exports"
    table = pl.read_csv(folder / "data-dictionary.csv")
    value = json.loads((folder / "data-dictionary.json").read_text())
    columns = {(name, c["name"]): c["meaning"] for name, t in value.items() for c in t["columns"]}
    shown = {(row["table"], row["column"]): row["meaning"] for row in table.iter_rows(named=True)}
    assert columns == shown
    assert set(value) == {p.stem for p in (reported / "tables").glob("*.parquet")}


def test_patching_is_broken_down_by_direction(reported: Path) -> None:
    found: dict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
    for row in read_table("patching", reported / "tables").iter_rows(named=True):
        if row["site"] != "all" and row["prompt"] == row["source_prompt"]:
            found[row["source"], row["target"]].append((row["effect"], row["flipped"]))
    shown = pl.read_csv(reported / "exports" / "summary-patching-by-direction.csv")
    assert shown.height == len(found)
    for row in shown.iter_rows(named=True):
        effects = [effect for effect, _ in found[row["source"], row["target"]]]
        assert row["mean"] == pytest.approx(statistics.fmean(effects), abs=1e-12)
        assert row["n"] == len(effects)
        assert row["n_towards_positive"] == sum(effect > 0 for effect in effects)
        assert row["n_flipped"] == sum(flip for _, flip in found[row["source"], row["target"]])
        assert row["largest_absolute"] == max(map(abs, effects))


def test_asymmetry_is_told_beside_the_published_mark(tmp_path: Path) -> None:
    run = write_run(tmp_path, Size(cluster_prompts=1, claims=1), leave_out=NO_FIGURES)
    prompts = read_table("prompts", run / "tables").get_column("prompt").to_list()
    rows = [
        {
            "agent_a": "base", "prompt_a": prompt, "agent_b": "game", "prompt_b": prompt,
            "site": site, "positions": "answer_span", "write": "write", "effect_a_to_b": a,
            "effect_b_to_a": b, "symmetric": (a - b) / 2, "asymmetry": (a + b) / 2,
        }
        for prompt in prompts
        for site, a, b in (("L0.h0", 0.5, -0.5), ("L1.mlp", 0.3, 0.1), ("all", 9.0, 9.0))
    ]  # fmt: skip
    write_table("directions", from_rows("directions", rows), run / "tables")
    build_report(run)
    shown = pl.read_csv(run / "exports" / "summary-asymmetry-by-component.csv")
    found = {row["site"]: row for row in shown.iter_rows(named=True)}
    assert set(found) == {"L0.h0", "L1.mlp"}
    assert found["L0.h0"]["asymmetry"] == pytest.approx(0.0)
    assert not found["L0.h0"]["beyond_published_mark"]
    assert found["L1.mlp"]["asymmetry"] == pytest.approx(0.2)
    assert found["L1.mlp"]["beyond_published_mark"]
    assert found["L1.mlp"]["same_sign_both_ways"]


def test_rankings_hold_twenty_a_model(reported: Path) -> None:
    shown = pl.read_csv(reported / "exports" / "summary-attribution-top-components.csv")
    each = pl.read_csv(reported / "exports" / "summary-attribution-by-component.csv")
    for (agent,), own in shown.group_by("agent"):
        means = each.filter(pl.col("agent") == agent).get_column("mean").abs()
        top = sorted(means.to_list(), reverse=True)[:20]
        assert own.sort("rank").get_column("mean").abs().to_list() == pytest.approx(top)


def test_exports_can_be_left_out_and_the_page_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path, Size(cluster_prompts=1, claims=1), leave_out=NO_FIGURES)
    build_report(run, exports=False)
    assert not (run / "exports").exists()
    text = (run / "report" / "data.html").read_text()
    assert "without exports" in text
    assert "../exports/" not in text
    build_report(run)
    assert planned(read_run(run)).tables["claims"] == "claims.csv"
    assert "../exports/claims.csv" in (run / "report" / "data.html").read_text()
