"""Edits that were sealed again: numbers and claims no longer follow from each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from moralscope.core.files import write_json
from moralscope.core.tables import read_table
from moralscope.studies import Study, run_study
from moralscope.studies.steps import measuring
from moralscope.studies.verifying.judging import _copied
from moralscope.studies.verifying.opening import open_run
from moralscope.studies.verifying.verify import verify_run

Change = Callable[[pl.DataFrame], pl.DataFrame]


def first(column: str, value: pl.Expr) -> Change:
    """One value of the first row replaced."""
    there = pl.int_range(pl.len()) == 0
    return lambda table: table.with_columns(
        pl.when(there).then(value).otherwise(pl.col(column)).alias(column)
    )


def more(column: str, by: float = 0.01) -> Change:
    return first(column, pl.col(column).fill_null(0.0) + by)


EDITS: dict[str, tuple[str, Change, str]] = {
    "a log-odds": ("decisions", more("log_odds"), "log_odds is that of the probabilities"),
    "a legal mass": ("decisions", more("legal_mass"), "legal_mass is the sum"),
    "a share": ("decisions", more("p_positive_given_legal"), "is a share of legal_mass"),
    "an effect": ("patching", more("effect"), "effect is patched_log_odds minus"),
    "a margin": ("patching", more("margin"), "margin is patched_log_odds"),
    "a flip": ("patching", first("flipped", ~pl.col("flipped")), "flipped says whether"),
    "a contribution": ("attribution", more("contribution"), "weights and input add up"),
    "a sum": ("completeness", more("error"), "contributions sum to logit_diff plus error"),
    "a reading": ("stabilisation", more("final_logit_diff"), "the last reading of the lens"),
    "a depth": ("stabilisation_summary", more("depth"), "depth is the mean over scenarios"),
    "a remainder": ("completeness", more("remainder"), "remainder is log_odds minus"),
    "a policy": ("policy", more("p_cooperate"), "it follows from prompts and decisions"),
    "cooperation": ("cooperation", more("high", -0.01), "it follows from prompts and decisions"),
    "a transfer": ("transfer", more("change_log_odds"), "trained_on"),
    "what was learned": (
        "learned", first("sentence", pl.lit("It learned to cooperate.")), "transfer_states",
    ),
    "a control": ("control_results", more("measured"), "it follows from the tables"),
    "a gate": ("gates", more("measured"), "it follows from the tables"),
    "a design": ("design", first("n", pl.col("n") + 1), "it follows from the tables"),
    "an estimate": ("claims", more("estimate"), "the query of each of"),
    "an interval": ("claims", more("high"), "it follows from the tables"),
    "a verdict": ("claims", first("verdict", pl.lit("supported")), "it follows from the tables"),
    "a sentence": ("claims", first("statement", pl.lit("It is so.")), "it follows from the tables"),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_number_is_found_though_everything_was_sealed_again(copy: Any, edit: str) -> None:
    table, change, what = EDITS[edit]
    before = read_table(table, copy.path / "tables")
    copy.change(table, change)
    assert not read_table(table, copy.path / "tables").equals(before)
    judged = table in ("control_results", "gates", "design", "claims")
    failed = copy.failing("claims" if judged else "numbers")
    assert any(c.subject == f"tables/{table}.parquet" and what in c.what for c in failed)


def test_a_claim_that_was_taken_out_or_put_in_is_found(copy: Any) -> None:
    claims = read_table("claims", copy.path / "tables")
    copy.change("claims", lambda table: table.slice(1))
    found = [check.found for check in copy.failing("claims")]
    assert any("1 rows stand in the second alone" in line for line in found)
    new = claims.head(1).with_columns(id=pl.lit("new"))
    copy.change("claims", lambda _: pl.concat([claims, new]))
    found = [check.found for check in copy.failing("claims")]
    assert any("1 rows stand in the first alone, such as new" in line for line in found)


def test_both_directions_of_a_pair_must_give_what_is_said_of_it(copy: Any) -> None:
    """The tiny study patches one way; its other way is made up here, and so is their summary."""
    patching = read_table("patching", copy.path / "tables")
    back = patching.with_columns(
        source="target", target="source", source_prompt="prompt", prompt="source_prompt"
    )
    both = pl.concat([patching, back])
    copy.change("patching", lambda _: both)
    (copy.path / "tables" / "directions.parquet").write_bytes(b"")
    rows = patching.filter(pl.col("site") != "all")
    directions = rows.select(
        pl.col("source").alias("agent_a"), pl.col("source_prompt").alias("prompt_a"),
        pl.col("target").alias("agent_b"), pl.col("prompt").alias("prompt_b"),
        "site", "positions", "write", pl.col("effect").alias("effect_a_to_b"),
        pl.col("effect").alias("effect_b_to_a"), pl.lit(0.0).alias("symmetric"),
        pl.col("effect").alias("asymmetry"),
    )  # fmt: skip
    directions.write_parquet(copy.path / "tables" / "directions.parquet")
    copy.seal()

    def failing() -> set[str]:
        return {c.what for c in copy.failing("numbers") if c.subject == "tables/directions.parquet"}

    assert failing() == set()
    for column, what in (("symmetric", "half the difference"), ("asymmetry", "half the sum")):
        copy.change("directions", more(column))
        assert [what in told for told in failing()] == [True]
        copy.change("directions", lambda _: directions)


def test_a_row_that_is_missing_from_a_sweep_is_found(copy: Any) -> None:
    for name in ("decisions", "lens", "attribution", "patching", "completeness"):
        kept = read_table(name, copy.path / "tables")
        copy.change(name, lambda table: table.slice(0, table.height - 1))
        assert {check.subject for check in copy.failing("completeness")} == {
            f"tables/{name}.parquet"
        }, name
        copy.change(name, lambda _, kept=kept: kept)
    assert copy.failing("completeness") == []


def test_an_agent_that_is_missing_is_found(copy: Any) -> None:
    for name in ("agents", "decisions", "lens", "attribution"):
        kept = read_table(name, copy.path / "tables")
        copy.change(name, lambda table: table.filter(pl.col("agent") != "game"))
        (failed,) = (c for c in copy.failing("completeness") if "agent" in c.what)
        assert failed.subject == f"tables/{name}.parquet"
        assert "game" in failed.found
        copy.change(name, lambda _, kept=kept: kept)


@pytest.mark.parametrize("name", ["decisions", "lens", "patching", "claims"])
def test_a_table_that_is_missing_is_found(copy: Any, name: str) -> None:
    (copy.path / "tables" / f"{name}.parquet").unlink()
    manifest = copy.manifest()
    del manifest["tables"][name]
    copy.seal(tables=manifest["tables"])
    part = "claims" if name == "claims" else "completeness"
    absent = [c for c in copy.failing(part) if c.subject == f"tables/{name}.parquet"]
    assert "the table is missing" in {check.found for check in absent}


def test_a_stage_that_is_missing_is_found_and_one_that_failed_is_told(copy: Any) -> None:
    stages = [s for s in copy.manifest()["stages"] if s["name"] != "patch-base>game"]
    copy.seal(stages=stages)
    (failed,) = copy.failing("completeness")
    assert failed.found == "missing: patch-base>game"
    why = [{"name": "patch-base>game", "why": "no memory was left", "skipped": None}]
    copy.seal(stages=stages, failed=why)
    found = verify_run(copy.path)
    assert found.passed
    assert [(c.what, c.found) for c in found.open] == [
        ("the stage patch-base>game was computed", "no memory was left")
    ]


def test_what_a_failed_stage_would_have_written_is_not_missed(copy: Any) -> None:
    (copy.path / "tables" / "lens.parquet").unlink()
    tables = {n: t for n, t in copy.manifest()["tables"].items() if n != "lens"}
    copy.seal(tables=tables, failed=[{"name": "explain-game", "why": "killed"}])
    found = verify_run(copy.path)
    assert "tables/lens.parquet" not in {c.subject for c in found.failed}
    assert ("tables/lens.parquet", "the table is missing") in {
        (c.subject, c.found) for c in found.open
    }


def test_copies_of_the_claims_must_say_the_same(copy: Any) -> None:
    rows = json.loads((copy.path / "claims.json").read_text())
    write_json(copy.path / "claims.json", [{**rows[0], "verdict": "supported"}, *rows[1:]])
    copy.seal()
    (failed,) = copy.failing("claims")
    assert (failed.subject, failed.found) == ("claims.json", "it says something else")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda r: r["claims"][0].update(estimate=9.0), "estimate is 9.0, in the table"),
        (lambda r: r["claims"].pop(), "is missing"),
        (lambda r: r["claims"].append({"id": "new"}), "the claim new is not in the table"),
        (lambda r: r["tables"].update(lens=1), "lens has 1 rows, in the run"),
        (lambda r: r.update(manifest_sha256="0"), "it was made from another manifest"),
    ],
)
def test_the_report_must_have_the_numbers_of_the_tables(
    copy: Any, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    from moralscope.core.sealing import seal_report  # noqa: PLC0415 - of this test alone

    report = json.loads((copy.path / "report.json").read_text())
    change(report)
    write_json(copy.path / "report.json", report)
    seal_report(copy.path)
    run, _ = open_run(copy.path)
    (failed,) = (check for check in _copied(run) if check.passed is False)
    assert failed.subject == "report.json"
    assert found in failed.found


def test_numbers_of_other_software_are_told_and_fail_nothing(copy: Any) -> None:
    copy.change("claims", first("statement", pl.lit("It was so.")))
    assert copy.failing("claims") != []
    copy.seal(moralscope="0.0.1")
    found = verify_run(copy.path)
    assert found.passed
    (told,) = found.open
    assert told.subject == "tables/claims.parquet"
    assert told.found.startswith("made by other software (moralscope 0.0.1)")


def test_named_hypotheses_are_judged_again(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.cache, tmp_path / "cache")
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))
    named = [{"id": "more", "quantity": "change", "agents": ["game"], "direction": "above"}]
    study = Study.model_validate(finished.study.model_dump() | {"hypotheses": named})
    out = tmp_path / "run"
    run_study(study, out)
    found = verify_run(out)
    assert (found.failed, found.open) == ((), ())
    assert "tables/hypotheses.parquet" in {c.subject for c in found.checks if c.part == "claims"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["hypothesis"]["id"] for entry in manifest["hypotheses"]] == ["more"]


def test_a_run_with_a_failed_training_verifies_and_says_what_it_lacks(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.cache, tmp_path / "cache")
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a loss that is no number")

    monkeypatch.setattr(measuring, "train_agent", fails)  # that of game is cached
    agents = {"base": {}, "game": {"reward": "game"}, "util": {"reward": "utilitarian"}}
    study = Study.model_validate(finished.study.model_dump() | {"agents": agents})
    out = tmp_path / "run"
    run_study(study, out)
    found = verify_run(out)
    assert found.failed == ()
    told = {check.what: check.found for check in found.open}
    assert "a loss that is no number" in told["the stage train-util was computed"]
    assert told["the stage decide-util was computed"] == "skipped, train-util failed"
    (out / "tables" / "decisions.parquet").write_bytes(b"")
    assert "tables/decisions.parquet" in {check.subject for check in verify_run(out).failed}
