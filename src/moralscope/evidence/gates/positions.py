"""Can the patch act on what is scored? The first patched token against the first scored one.

    passed: first_patched < first_scored, on every prompt of the sweep

Both are absolute positions in the rendered prompt. The token at position s is predicted from
positions before s, so a patch that starts at or after the first scored token leaves the prediction
of that token as it was: "the last position" of prompt and answer together is such a patch. Where
positions were not recorded, ``answer_span`` (from the last token of the prompt on) and ``all`` are
before by definition, and any other name is *not available*.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.gate import Gate, not_available
from moralscope.evidence.gates.sites import sweep_name
from moralscope.evidence.units import Tables

GATE = "position"
BY_DEFINITION = {
    "answer_span": "the last token of the prompt",
    "all": "the first token of the prompt",
}
"""Named positions that start before every scored token, and where they start."""


def judge_positions(tables: Tables) -> Iterator[Gate]:
    """One gate for each sweep of the patching table, across prompts or not."""
    if "patching" not in tables:
        return
    late = pl.col("first_patched") >= pl.col("first_scored")
    by = ["source", "target", "positions", "write"]
    found = (
        tables["patching"]
        .filter(pl.col("site") != "all")
        .group_by(by, maintain_order=True)
        .agg(
            pl.len().alias("n"),
            pl.col("first_patched").null_count().alias("no_first_patched"),
            pl.col("first_scored").null_count().alias("no_first_scored"),
            late.sum().alias("late"),
            pl.col("prompt", "first_patched", "first_scored")
            .filter(late)
            .first()
            .name.prefix("at_"),
        )
    )
    for row in found.iter_rows(named=True):
        yield _judge(row)


def _judge(row: dict[str, object]) -> Gate:
    source, target, positions, write = (
        str(row[name]) for name in ("source", "target", "positions", "write")
    )
    subject = f"patching {sweep_name(source, target, positions, write)}"
    n, late = row["n"], row["late"]
    if late:
        return Gate(
            GATE, subject, float(str(late)), 0.0, False,
            f"{late} of {n} patches start at or after the first scored token (on prompt "
            f"{row['at_prompt']!r} at position {row['at_first_patched']}, scored from "
            f"{row['at_first_scored']}), so they cannot act on what predicts it. Patch at the last "
            "token of the prompt or before, counted from the start of the prompt.",
        )  # fmt: skip
    missing = [name for name in ("first_patched", "first_scored") if row[f"no_{name}"]]
    if not missing:
        return Gate(
            GATE, subject, 0.0, 0.0, True,
            f"All {n} patches start before the first token that is scored.",
        )  # fmt: skip
    if positions in BY_DEFINITION:
        return Gate(
            GATE, subject, 0.0, 0.0, True,
            f"Patches at {positions} start at {BY_DEFINITION[positions]}, before the first token "
            f"that is scored; {' and '.join(missing)} not recorded.",
        )  # fmt: skip
    return not_available(
        GATE, subject, 0.0,
        f"{' and '.join(missing)} not recorded for patches at {positions!r}. They are absolute "
        "positions in the rendered prompt, of the first token that is replaced and of the first "
        "answer token that is scored; the tool that patched knows them.",
    )  # fmt: skip
