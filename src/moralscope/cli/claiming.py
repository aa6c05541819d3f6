"""What stands, and on what does it rest? The command ``claims``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
from rich.console import Console

from moralscope.cli.claims_drawn import draw_claims, draw_explanation
from moralscope.cli.drawing import draw_verdicts, say
from moralscope.core.errors import ConfigError, EvidenceError, nearest
from moralscope.core.files import atomic_file, atomic_folder, write_bytes, write_json
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import from_rows, read_table
from moralscope.evidence.explaining import Explanation, explain_claim, folder_name, write_rows
from moralscope.evidence.verdicts import VERDICTS

EXPLAINED = "explained"
"""Where in a run explanations go."""


def show_claims(run: Path, *, explain: str | None, verdict: str | None) -> int:
    """List the claims of a run or an audit, or walk from one of them down to its rows.

    Args:
        run: the folder, with ``tables/claims.parquet``.
        explain: id of the claim to explain, into ``RUN/explained``; all are listed without one.
        verdict: list only claims with this verdict.

    Raises:
        ConfigError: the folder holds no claims, there is no such verdict, or both were asked for.
        EvidenceError: there is no such claim, or its rows no longer give its estimate.
        OutputError: the explanation cannot be written.
    """
    claims = _claims(run)
    if explain is not None and verdict is not None:
        raise ConfigError(
            "A claim is explained whatever its verdict",
            seen=f"--explain {explain} and --verdict {verdict}",
            allowed="one of the two",
            remedy="leave out --verdict to explain, or --explain to list",
        )
    console = Console()
    if explain is None:
        _list(console, run, claims, verdict)
    else:
        _explain(console, run, claims, explain)
    return 0


def _claims(run: Path) -> pl.DataFrame:
    if not (run / "tables" / "claims.parquet").is_file():
        raise ConfigError(
            "There are no claims in this folder",
            seen=run,
            allowed="the folder of a finished run or audit, with tables/claims.parquet",
            remedy="give the folder that --out named, or run the study or the audit to its end",
        )
    return read_table("claims", run / "tables")


def _list(console: Console, run: Path, claims: pl.DataFrame, verdict: str | None) -> None:
    if verdict is not None and verdict not in VERDICTS:
        raise ConfigError(
            "There is no such verdict",
            seen=verdict,
            allowed=", ".join(VERDICTS),
            remedy=nearest(verdict, VERDICTS),
        )
    listed = claims if verdict is None else claims.filter(pl.col("verdict") == verdict)
    named = pl.col("id").str.starts_with("hypothesis:")
    ordered = listed.sort(~pl.col("registered"), ~named, maintain_order=True)
    if ordered.height:
        draw_claims(console, ordered)
    elif verdict is not None:
        say(console, f"No claim is {verdict}.")
    draw_verdicts(console, claims.get_column("verdict"))
    if claims.height:
        say(console, f"Walk down from one: moralscope claims {run} --explain ID", "dim")
    files = [run / "tables" / "claims.parquet", run / "claims.json"]
    present = ", ".join(str(path) for path in files if path.is_file())
    say(console, f"Claims: {present}", "bold")


def _explain(console: Console, run: Path, claims: pl.DataFrame, claim: str) -> None:
    explanation = explain_claim(_scans(run), claims, _gates(run), claim)
    folder = run / EXPLAINED / folder_name(claim)
    _write(explanation, folder)
    draw_explanation(console, explanation)
    say(console, f"Explained: {folder}", "bold")
    if not explanation.agrees:
        raise EvidenceError(
            "The rows of a claim no longer give its estimate",
            seen=f"{explanation.recomputed} from the tables, {explanation.claim['estimate']} "
            f"in {claim}",
            allowed="the tables that the claims were made from, as they were",
            remedy="find out what changed in tables/, or run the study or the audit again",
        )


def _gates(run: Path) -> pl.DataFrame:
    if (run / "tables" / "gates.parquet").is_file():
        return read_table("gates", run / "tables")
    return from_rows("gates", [])


def _scans(run: Path) -> Mapping[str, pl.LazyFrame]:
    """Every table of a run, none of them read yet."""
    paths = {name: run / "tables" / f"{name}.parquet" for name in SCHEMAS}
    return {name: pl.scan_parquet(path) for name, path in paths.items() if path.is_file()}


def _write(explanation: Explanation, folder: Path) -> None:
    """``explanation.json``, ``units.csv`` and ``rows.parquet``, all of them or none."""
    with atomic_folder(folder) as parts:
        with atomic_file(parts / "rows.parquet") as path:
            write_rows(explanation, path)
        write_bytes(parts / "units.csv", explanation.units.write_csv().encode())
        write_json(parts / "explanation.json", _as_json(explanation))


def _as_json(explanation: Explanation) -> dict[str, object]:
    gates = [
        {
            "gate": gate.gate,
            "subject": gate.subject,
            "result": gate.result,
            "measured": gate.measured,
            "threshold": gate.threshold,
            "advice": gate.advice,
        }
        for gate in explanation.gates
    ]
    return {
        "claim": dict(explanation.claim),
        "gates": gates,
        "design": explanation.design.to_dicts(),
        "recomputed": explanation.recomputed,
        "agrees": explanation.agrees,
        "units": {"file": "units.csv", "count": explanation.units.height},
        "rows": {"file": "rows.parquet", "count": explanation.n_rows},
    }
