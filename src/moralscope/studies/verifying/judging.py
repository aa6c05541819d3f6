"""Do the claims follow from the tables? Controls, gates, design and claims, made once more.

Everything is judged again with the level, the seed and the hypotheses of the run, and compared,
verdicts and sentences included. Beside that each claim's own ``query`` must give its estimate, and
what was copied from the table of claims (``claims.json``, ``report.json``) must say the same:

    |query - estimate| <= 1e-9 max(1, |estimate|)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from moralscope.core.errors import MoralscopeError
from moralscope.core.hashing import sha256_file
from moralscope.core.sealing import MANIFEST, canonical
from moralscope.evidence.concluding import CONCLUDED, conclude
from moralscope.evidence.hypotheses.grammar import Hypothesis, Named
from moralscope.studies.study import Study
from moralscope.studies.verifying.check import CLAIMS, Check, holds, table_file
from moralscope.studies.verifying.deriving import AGREES, remade
from moralscope.studies.verifying.opening import CLAIMS_FILE, Opened

REPORT = "report.json"


def claim_checks(run: Opened) -> Iterator[Check]:
    """Everything that is concluded, made again from what it was concluded from."""
    if run.study is not None:
        yield from _judged_again(run, run.study)
    if "claims" in run.tables:
        yield from _queries(run)
        yield from _copied(run)
    elif not run.failed and "claims" not in run.damaged:
        found = "the table is missing"
        yield Check(CLAIMS, table_file("claims"), "there are claims", passed=False, found=found)


def _judged_again(run: Opened, study: Study) -> Iterator[Check]:
    """Each concluded table, made again from the measured ones."""
    what = "it follows from the tables"
    named = _named(run)
    why = ""
    if run.damaged:
        why = f"the table {run.damaged[0]} is damaged"
    elif named is None:
        why = "the manifest does not say which hypotheses were named"
    if why or named is None:
        yield Check(CLAIMS, table_file("claims"), what, passed=None, found=why)
        return
    try:
        made = conclude(
            run.tables,
            alpha=study.evidence.alpha,
            seed=study.seed,
            draws=study.evidence.draws,
            named=named,
        )
    except MoralscopeError as error:
        why = f"they cannot be made from these tables: {error.problem}: {error.seen}"
        wrong = False if run.same_software else None
        yield Check(CLAIMS, table_file("claims"), what, wrong, why.partition("\n")[0])
        return
    for name in CONCLUDED:
        if name in made and name in run.tables:
            yield remade(run, name, what, lambda table=made[name]: table, CLAIMS)
        elif name in made or name in run.tables:
            found = (
                "the table is missing" if name in made else "nothing that it follows from is here"
            )
            wrong = False if run.same_software and not run.failed else None
            yield Check(CLAIMS, table_file(name), what, wrong, found)


def _named(run: Opened) -> Sequence[Named] | None:
    """The hypotheses as they stood when the run began; None where that is not known."""
    manifest = run.manifest or {}
    if not isinstance(manifest.get("hypotheses"), list):
        return None if "hypotheses" in run.tables else ()
    found: list[Named] = []
    for entry in run.listed("hypotheses"):
        told = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        try:
            hypothesis = Hypothesis.model_validate(told["hypothesis"])
        except (KeyError, ValueError):
            return None
        registered, asked = told.get("registered") is True, told.get("asked") is not False
        found.append(Named(hypothesis, registered, str(told.get("basis", "")), asked=asked))
    return tuple(found)


def _queries(run: Opened) -> Iterator[Check]:
    """The query of each claim, run on the tables."""
    claims = run.tables["claims"]
    context = pl.SQLContext(dict(run.tables), eager=True)
    wrong: list[str] = []
    for row in claims.iter_rows(named=True):
        try:
            given = context.execute(row["query"]).item()
        except (pl.exceptions.PolarsError, ValueError) as cause:
            said = str(cause).partition("\n")[0]
            wrong.append(f"{row['id']}: its query cannot be run ({said})")
            continue
        if not same_number(given, row["estimate"]):
            wrong.append(f"{row['id']}: {row['estimate']} is stated, {given} follows")
    what = f"the query of each of {claims.height} claims gives its estimate"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    said = f"{wrong[0]}{more}" if wrong else ""
    yield from holds(CLAIMS, table_file("claims"), what, not wrong, said)


def same_number(one: object, other: object) -> bool:
    """Whether two numbers agree; None agrees with None alone."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= AGREES * max(1.0, abs(one), abs(other))
    return one is None and other is None


def _copied(run: Opened) -> Iterator[Check]:
    """What repeats the claims says the same."""
    claims = run.tables["claims"]
    path = run.path / CLAIMS_FILE
    if path.is_file():
        same = path.read_bytes() == canonical(claims.to_dicts()).encode()
        what = "it says what the table claims says"
        yield from holds(CLAIMS, CLAIMS_FILE, what, same, "it says something else")
    elif not run.failed:
        found = "the file is missing"
        yield Check(CLAIMS, CLAIMS_FILE, "the claims are there as JSON", passed=False, found=found)
    if (run.path / REPORT).is_file():
        found = _report(run, run.path / REPORT, claims)
        what = "the report has the numbers of the tables"
        yield from holds(CLAIMS, REPORT, what, not found, found)


def _report(run: Opened, path: Path, claims: pl.DataFrame) -> str:
    """What of the report is not of this run, in words; empty for nothing."""
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        return f"it is not JSON ({cause})"
    report = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if (run.path / MANIFEST).is_file() and report.get("manifest_sha256") != sha256_file(
        run.path / MANIFEST
    ):
        return "it was made from another manifest"
    return _report_numbers(run, report, claims)


def _report_numbers(run: Opened, report: Mapping[str, object], claims: pl.DataFrame) -> str:
    """The first number of a report that is not that of the tables, in words; empty for none."""
    stated = {str(entry.get("id")): entry for entry in _entries(report.get("claims"))}
    for row in claims.iter_rows(named=True):
        entry = stated.pop(row["id"], None)
        if entry is None:
            return f"the claim {row['id']} is missing"
        for field, own in row.items():
            if field in entry and entry[field] != own:
                return f"{row['id']}: {field} is {entry[field]!r}, in the table {own!r}"
    if stated:
        return f"the claim {next(iter(stated))} is not in the table"
    tables = report.get("tables")
    for name, rows in (
        cast("dict[str, object]", tables) if isinstance(tables, dict) else {}
    ).items():
        if name in run.tables and rows != run.tables[name].height:
            return f"{name} has {rows} rows, in the run {run.tables[name].height}"
    return ""


def _entries(value: object) -> list[Mapping[str, object]]:
    listed = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, object]", entry) for entry in listed if isinstance(entry, dict)]
