"""Is a patch that changes nothing zero, and does writing everything give the source?

    self-patch: largest |effect| <= 5e-5 nats, in float32
    write-all:  largest |patched - source| / max(1, |source|) <= 1e-4, log-odds in nats

Both come from the table ``controls``. What another kernel or dtype does stands in
``gates.replicas``.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables

GATE = "noise floor"

MAX_SELF_PATCH = 5e-5
"""Largest effect of a patch that changes nothing, in nats, float32."""

MAX_WRITE_ALL = 1e-4
"""Largest deviation from the source when everything is written, share of max(1, |log-odds|)."""


def judge_noise(tables: Tables) -> Iterator[Gate]:
    """``self-patch AGENT`` and ``write-all SOURCE>TARGET``."""
    if "controls" not in tables:
        return
    controls = tables["controls"]
    self_patch = controls.filter(pl.col("control") == "self_patch")
    for subject, worst in _worst(self_patch, pl.col("value").abs()):
        passed = worst <= MAX_SELF_PATCH
        advice = (
            f"A patch with nothing to change moves the log-odds by at most {worst:.1e} nats."
            if passed
            else f"A patch with nothing to change moves the log-odds by {worst:.1e} nats "
            f"({MAX_SELF_PATCH:.0e} is allowed); the patch is not where it claims to be, or the "
            "kernel is too coarse. Check the hook, and measure in float32."
        )
        yield Gate(GATE, f"self-patch {subject}", worst, MAX_SELF_PATCH, passed, advice)
    written = controls.filter(pl.col("control") == "write_all")
    for subject, worst in _worst(_with_scale(written, tables), pl.col("value").abs() / "scale"):
        passed = worst <= MAX_WRITE_ALL
        advice = (
            f"Writing every site reproduces the source within {worst:.1e} of its log-odds."
            if passed
            else f"Writing every site misses the source by {worst:.1e} of its log-odds "
            f"({MAX_WRITE_ALL:.0e} is allowed); the sites do not cover the model, so single-site "
            "effects are not what they seem. Add the sites that are missing."
        )
        yield Gate(GATE, f"write-all {subject}", worst, MAX_WRITE_ALL, passed, advice)


def _worst(rows: pl.DataFrame, measure: pl.Expr) -> Iterator[tuple[str, float]]:
    yield from rows.group_by("subject", maintain_order=True).agg(measure.max()).iter_rows()


def _with_scale(rows: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Rows of SOURCE>TARGET with ``scale`` = max(1, |log-odds of the source|), 1 if unknown."""
    with_source = rows.with_columns(pl.col("subject").str.split(">").list.first().alias("agent"))
    known = tables.get("decisions", pl.DataFrame(schema={
        "agent": pl.String, "prompt": pl.String, "log_odds": pl.Float64
    })).select("agent", "prompt", pl.col("log_odds").abs().alias("scale"))  # fmt: skip
    joined = with_source.join(known, on=["agent", "prompt"], how="left", maintain_order="left")
    return joined.with_columns(pl.max_horizontal(pl.lit(1.0), pl.col("scale")).alias("scale"))
