"""Is every observation one observation? Prompts, scenarios and rows that repeat each other.

*Prompts*: a text that stands under several names is one prompt; copies within a scenario count once
(``units.collapsed_prompts``). *Scenarios*: two of them that share a text are not separate units of
replication. *Rows*: those that repeat another in every column count once
(``units.collapse_rows``); two different rows for the same thing are an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables, collapsed_prompts


def judge_prompts(tables: Tables) -> Iterator[Gate]:
    """Copies among the prompts, and texts that scenarios share."""
    if "prompts" not in tables:
        return
    prompts = tables["prompts"]
    # The same text with other options is another decision.
    asked = prompts.select(
        "scenario",
        pl.concat_str(
            "sha256", pl.min_horizontal("positive", "negative"),
            pl.max_horizontal("positive", "negative"), separator="\0",
        ).alias("asked"),
    )  # fmt: skip
    clones = prompts.height - asked.get_column("asked").n_unique()
    collapsed = collapsed_prompts(prompts)[1]
    yield Gate(
        "duplicates", "prompts", float(clones), 0.0, clones == 0,
        f"All {prompts.height} prompts are different texts."
        if clones == 0
        else f"{clones} of {prompts.height} prompts repeat the text of another; they add rows and "
        f"no evidence. {collapsed} of them stand in the scenario of their original and count once "
        "with it. Word them differently or remove them.",
    )  # fmt: skip
    per_text = asked.group_by("asked").agg(pl.col("scenario").n_unique().alias("n"))
    shared = per_text.filter(pl.col("n") > 1).height
    yield Gate(
        "duplicates", "scenarios", float(shared), 0.0, shared == 0,
        "No two scenarios share a text."
        if shared == 0
        else f"{shared} texts stand in more than one scenario, so the scenarios are not separate "
        "units of replication; give each its own texts.",
    )  # fmt: skip


def judge_rows(given: Tables, known: Tables) -> Iterator[Gate]:
    """Tables that had rows repeated as they stand: as given, against as collapsed."""
    for name, frame in given.items():
        if frame.height > known[name].height:
            yield repeated_rows(name, frame.height, frame.height - known[name].height)


def repeated_rows(table: str, rows: int, repeated: int) -> Gate:
    """The gate on the rows of one table.

    Args:
        table: its name.
        rows: how many were given.
        repeated: how many of them repeat another in every column.
    """
    return Gate(
        "duplicates", f"rows {table}", float(repeated), 0.0, repeated == 0,
        f"No row of {table} repeats another."
        if repeated == 0
        else f"{repeated} of {rows} rows of {table} repeat another in every column; each counts "
        f"once, {rows - repeated} remain. Find out whether a file was joined to itself.",
    )  # fmt: skip
