"""What does a claim rest on? From its sentence to the gates, the units and the rows behind it.

    estimate  <-  unit_means (one value per unit)  <-  evidence_rows (rows of the tables)

Both steps are parts of the claim's own query, so what is shown is what was counted, and the
estimate that they give is compared with the one that was printed:

    |recomputed - printed| <= 1e-9 max(1, |printed|)

Tables may be lazy scans of files that are larger than memory: the rows stay a lazy frame, and only
the first of them, the units and the estimate are computed.
"""

# The queries are those of the claims table; the two steps are parts of them.
# ruff: noqa: S608

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from moralscope.core.errors import EvidenceError, nearest
from moralscope.core.hashing import sha256_text

AGREES = 1e-9
FIRST_ROWS = 10
"""How many rows are shown unless told otherwise."""

SORTED_ROWS = 1_000_000
"""More rows than this are written in no order, because sorting them would take memory."""

# A query reads a table several times, each time other rows of it. To read it once and keep it for
# all of them would hold the whole table in memory.
_APART = pl.QueryOptFlags(comm_subplan_elim=False)

Claim = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Layers:
    """A claim's query, taken apart.

    Attributes:
        parts: everything before the last SELECT, with the named parts in it.
        last: the last SELECT.
    """

    parts: str
    last: str

    @property
    def units(self) -> str:
        """Gives one row per unit."""
        return f"{self.parts} SELECT * FROM unit_means"

    @property
    def rows(self) -> str:
        """Gives the rows of evidence."""
        return f"{self.parts} SELECT * FROM evidence_rows"


@dataclass(frozen=True, slots=True)
class GateShown:
    """One gate that a claim consulted; numbers are None where it was not judged."""

    gate: str
    subject: str
    result: str
    measured: float | None
    threshold: float | None
    advice: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """A claim and everything that it rests on.

    Attributes:
        claim: its row of the claims table.
        gates: the gates consulted, in the order in which the claim names them.
        design: rows of the table ``design`` about its unit of replication; empty without one.
        units: one row per unit of replication, with ``unit`` and ``value``, sorted by unit.
        first: the first rows of evidence, sorted by their columns in order.
        rows: all of them, lazily, in no order.
        n_rows: how many there are.
        recomputed: the estimate, made anew from the tables; None where there is none.
        agrees: whether it is the one that the claim states.
    """

    claim: Claim
    gates: tuple[GateShown, ...]
    design: pl.DataFrame
    units: pl.DataFrame
    first: pl.DataFrame
    rows: pl.LazyFrame
    n_rows: int
    recomputed: float | None
    agrees: bool


def explain_claim(
    tables: Mapping[str, pl.DataFrame | pl.LazyFrame],
    claims: pl.DataFrame,
    gates: pl.DataFrame,
    claim: str,
    *,
    shown: int = FIRST_ROWS,
) -> Explanation:
    """Walk from a claim down to the rows of the tables.

    Args:
        tables: result tables by name, in memory or as lazy scans.
        claims: the ``claims`` table.
        gates: the ``gates`` table.
        claim: id of the claim.
        shown: how many rows of evidence ``first`` holds.

    Raises:
        EvidenceError: there is no claim of this id, its query has no parts to walk through, or a
            table that it was made from is missing.
    """
    row = _row(claims, claim)
    layers = layers_of(str(row["query"]))
    context = pl.SQLContext({**tables, "gates": gates}, eager=False)
    with _readable(tables):
        rows = context.execute(layers.rows)
        recomputed = _collected(context.execute(f"{layers.parts} {layers.last}")).item()
        units = _collected(context.execute(layers.units))
        # A streamed join keeps no order; the first rows are the same ones every time.
        columns = rows.collect_schema().names()
        return Explanation(
            claim=row,
            gates=gates_shown(str(row["gates"]), gates),
            design=_design(tables, row),
            units=units.sort(units.columns),
            first=_collected(rows.bottom_k(shown, by=columns)).sort(columns),
            rows=rows,
            n_rows=int(_collected(rows.select(pl.len())).item()),
            recomputed=recomputed,
            agrees=_same(recomputed, row["estimate"]),
        )


def _row(claims: pl.DataFrame, claim: str) -> Claim:
    found = claims.filter(pl.col("id") == claim)
    if found.height == 1:
        return found.row(0, named=True)
    names: list[str] = claims.get_column("id").to_list()
    raise EvidenceError(
        "There is no claim of this name",
        seen=claim,
        allowed=f"one of the {len(names)} ids of the table claims",
        remedy=nearest(claim, names) if names else "run the study or the audit again",
    )


def layers_of(query: str) -> Layers:
    """Take a query apart at its last SELECT.

    Raises:
        EvidenceError: it does not have the parts ``evidence_rows`` and ``unit_means``.
    """
    depth, quoted, cut = 0, False, -1
    for index, letter in enumerate(query):
        if letter == "'":
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            if depth == 0 and query.startswith("SELECT ", index):
                cut = index
    parts = query[: max(cut, 0)].rstrip()
    if not all(f"{name} AS (" in parts for name in ("evidence_rows", "unit_means")):
        raise EvidenceError(
            "The query of a claim has no parts to walk through",
            seen=query,
            allowed="WITH evidence_rows AS (...), unit_means AS (...) SELECT ... AS estimate",
            remedy="make the claims again from the tables, with this version",
        )
    return Layers(parts, query[cut:])


def gates_shown(text: str, gates: pl.DataFrame) -> tuple[GateShown, ...]:
    """The gates that a claim's text names, with what they measured.

    Args:
        text: ``GATE (SUBJECT): RESULT`` joined by semicolons, as the claims table has it.
        gates: the ``gates`` table.
    """
    judged = {(row["gate"], row["subject"]): row for row in gates.iter_rows(named=True)}
    found: list[GateShown] = []
    for said in re.finditer(
        r"(?:^|; )(?P<gate>[a-z -]+) \((?P<subject>.*?)\): "
        r"(?P<result>passed|failed|not available)(?=; [a-z -]+ \(|$)",
        text,
        re.DOTALL,
    ):
        gate, subject, result = said["gate"], said["subject"], said["result"]
        row = judged.get((gate, subject))
        if row is None:
            found.append(GateShown(gate, subject, result, None, None, "It was not judged."))
            continue
        numbers = (row["measured"], row["threshold"])
        found.append(GateShown(gate, subject, result, *numbers, row["advice"]))
    return tuple(found)


def _design(tables: Mapping[str, pl.DataFrame | pl.LazyFrame], claim: Claim) -> pl.DataFrame:
    """What the table ``design`` says of a claim's unit; of families of sites only its own."""
    if "design" not in tables:
        return pl.DataFrame()
    replicate = str(claim["replicate"] or "scenarios")
    design = tables["design"].lazy()
    words = {replicate, replicate.removesuffix("s")}
    rows = _collected(design.filter(pl.col("unit").is_in(sorted(words))))
    subjects = [shown.subject for shown in gates_shown(str(claim["gates"]), rows.clear())]
    own = (pl.col("question") != "sites") | pl.col("subject").is_in(subjects)
    return rows.filter(own)


@contextlib.contextmanager
def _readable(tables: Mapping[str, object]) -> Generator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as cause:
        raise EvidenceError(
            "The rows behind a claim cannot be read from these tables",
            seen=str(cause).partition("\n")[0],
            allowed=f"the tables that it was made from; here are {', '.join(sorted(tables))}",
            remedy="keep the tables of a run together, or run the study or the audit again",
        ) from cause


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming", optimizations=_APART)


def write_rows(explanation: Explanation, path: Path) -> None:
    """Write all rows of evidence as Parquet, sorted unless they are very many.

    Raises:
        OSError: the file cannot be written.
    """
    rows = explanation.rows
    if explanation.n_rows <= SORTED_ROWS:
        rows = rows.sort(rows.collect_schema().names())
    rows.sink_parquet(path, optimizations=_APART)


def _same(recomputed: float | None, stated: object) -> bool:
    if recomputed is None or not isinstance(stated, float):
        return recomputed is None and stated is None
    return abs(recomputed - stated) <= AGREES * max(1.0, abs(stated))


def folder_name(claim: str) -> str:
    """A name for files about a claim that every file system takes, different for every id.

    Letters, digits, dots and dashes stay; whatever else becomes an underscore, and eight digits of
    the id's SHA-256 follow, so that ids which differ in case or in signs alone stay apart.

    >>> folder_name("change:game")
    'change_game-816fe17a'
    """
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", claim)[:60].strip(".")
    return f"{plain}-{sha256_text(claim)[:8]}"
