"""What follows from the columns that are there? A table with all documented columns.

    log_odds = log p_positive - log p_negative          effect = patched - baseline log-odds

Columns that follow from others are computed, those that no test needs are filled, and both are
said. What is neither stays undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import SiteError, TableError
from moralscope.core.site import Site, parse_site
from moralscope.core.tables import schema_of
from moralscope.evidence.auditing.layouts import layout_of

_SITE_COLUMNS = ("site", "site_a", "site_b", "sender", "receiver")


@dataclass(frozen=True, slots=True)
class Completed:
    """A table with its documented columns, and what was done for it."""

    frame: pl.LazyFrame
    notes: tuple[str, ...]


def completed(table: str, frame: pl.LazyFrame, decisions: pl.LazyFrame | None) -> Completed:
    """The frame with every column of the table's schema, in order.

    Args:
        table: its name.
        frame: typed columns, those that a reading requires at least.
        decisions: the completed decisions, which give patches their baseline; None if none.

    Raises:
        TableError: ``n`` of a square of interactions is not known.
    """
    frame, notes = _canonical_sites(frame)
    present = frame.collect_schema().names()
    if table == "decisions":
        frame, said = _decisions(frame, present)
    elif table == "patching":
        frame, said = _patching(frame, present, decisions)
    elif table == "interactions":
        frame, said = _interactions(frame, present, decisions)
    else:
        said = []
    notes += said
    present = frame.collect_schema().names()
    filled: list[str] = []
    columns: list[pl.Expr] = []
    fills = layout_of(table).fills or {}
    for column in schema_of(table).columns:
        name, dtype = column.name, schema_of(table).dtypes()[column.name]
        if name not in present:
            columns.append(pl.lit(fills.get(name), dtype=dtype).alias(name))
            if name in fills:
                filled.append(f"{name} ({fills[name]})" if fills[name] != "" else f"{name} (empty)")
        elif name in fills:
            columns.append(pl.col(name).fill_null(pl.lit(fills[name], dtype=dtype)))
        else:
            columns.append(pl.col(name).cast(dtype))
    if filled:
        notes.append(f"not recorded, and no test needs them: {', '.join(filled)}")
    return Completed(frame.select(columns), tuple(notes))


def _canonical_sites(frame: pl.LazyFrame) -> tuple[pl.LazyFrame, list[str]]:
    """Sites under their usual names, with layer, kind and head of the column ``site``."""
    notes: list[str] = []
    present = frame.collect_schema().names()
    for column in (name for name in _SITE_COLUMNS if name in present):
        names = frame.select(pl.col(column).unique()).collect(engine="streaming")
        known: list[str] = names.get_column(column).drop_nulls().sort().to_list()
        rows = [(name, *_anatomy(name)) for name in known]
        unknown = [name for name, _, _, kind, _ in rows if kind == "other"]
        renamed = [(name, ours) for name, ours, _, _, _ in rows if ours != name]
        if unknown:
            notes.append(
                f"names in {column} that no grammar knows are taken as they stand "
                f"({len(unknown)}, such as {unknown[0]})"
            )
        if renamed:
            notes.append(f"{column} {renamed[0][0]} is read as {renamed[0][1]}, others alike")
        schema = {column: pl.String, "ours": pl.String, "its layer": pl.Int64,
                  "its kind": pl.String, "its head": pl.Int64}  # fmt: skip
        table = pl.DataFrame(rows, schema=schema, orient="row").lazy()
        frame = frame.join(table, on=column, how="left", maintain_order="left")
        parts = {name: pl.col(f"its {name}") for name in ("layer", "kind", "head")}
        if column != "site":
            parts = {}
        for name in set(parts) & set(present):
            parts[name] = pl.when(pl.col("its kind") == "other").then(name).otherwise(parts[name])
        frame = frame.with_columns(pl.col("ours").alias(column), **parts)
        frame = frame.drop("ours", "its layer", "its kind", "its head")
    return frame, notes


def _anatomy(name: str) -> tuple[str, int | None, str, int | None]:
    """Canonical name, layer, kind and head of a site, or of several joined by +."""
    parts: list[Site] = []
    try:
        parts = [parse_site(part) for part in name.split("+")]
    except SiteError:
        return name, None, "other", None
    if len(parts) > 1:
        return "+".join(str(part) for part in parts), None, "set", None
    return str(parts[0]), parts[0].layer, parts[0].kind, parts[0].head


def _decisions(frame: pl.LazyFrame, present: Sequence[str]) -> tuple[pl.LazyFrame, list[str]]:
    notes: list[str] = []
    positive, negative = pl.col("p_positive"), pl.col("p_negative")
    if {"p_positive", "p_negative"} <= set(present):
        legal = positive + negative
        if "log_odds" not in present:
            both = (positive > 0.0) & (negative > 0.0)
            frame = frame.with_columns(
                log_odds=pl.when(both).then(positive.log() - negative.log()).otherwise(None)
            )
            notes.append("log_odds is log p_positive - log p_negative")
        if "legal_mass" not in present:
            frame = frame.with_columns(legal_mass=legal)
        if "p_positive_given_legal" not in present:
            given = pl.when(legal > 0.0).then(positive / legal).otherwise(None)
            frame = frame.with_columns(p_positive_given_legal=given)
        return frame, notes
    share = pl.col("p_positive_given_legal")
    if "p_positive_given_legal" not in present:
        frame = frame.with_columns(p_positive_given_legal=1.0 / (1.0 + (-pl.col("log_odds")).exp()))
    if "log_odds" not in present:
        inner = (share > 0.0) & (share < 1.0)
        frame = frame.with_columns(
            log_odds=pl.when(inner).then(share.log() - (1.0 - share).log()).otherwise(None)
        )
        notes.append("log_odds is the logit of p_positive_given_legal")
    notes.append(
        "probabilities are those given one of the two answers; how much mass both have together "
        "was not recorded and is taken as all of it"
    )
    return frame.with_columns(
        p_positive=share.fill_null(0.0),
        p_negative=(1.0 - share).fill_null(0.0),
        legal_mass=share.is_not_null().cast(pl.Float64),
    ), notes


def _patching(
    frame: pl.LazyFrame, present: Sequence[str], decisions: pl.LazyFrame | None
) -> tuple[pl.LazyFrame, list[str]]:
    notes: list[str] = []
    has = set(present)
    baseline, patched = pl.col("baseline_log_odds"), pl.col("patched_log_odds")
    if "source_prompt" not in has:
        frame = frame.with_columns(source_prompt=pl.col("prompt"))
    if "effect" not in has:
        frame = frame.with_columns(effect=patched - baseline)
        notes.append("effect is patched minus baseline log-odds")
    elif "baseline_log_odds" not in has and "patched_log_odds" in has:
        frame = frame.with_columns(baseline_log_odds=patched - pl.col("effect"))
    elif "baseline_log_odds" not in has and decisions is not None:
        own = decisions.select(target="agent", prompt="prompt", baseline_log_odds="log_odds")
        frame = frame.join(own, on=["target", "prompt"], how="left", maintain_order="left")
        notes.append("baselines are the log-odds of the table decisions")
    elif "baseline_log_odds" not in has:
        frame = frame.with_columns(baseline_log_odds=pl.lit(None, pl.Float64))
        notes.append(
            "baselines were not recorded: flips and the rounding of patched log-odds cannot be "
            "judged; add baseline_log_odds, or the table decisions"
        )
    if "patched_log_odds" not in has:
        frame = frame.with_columns(patched_log_odds=baseline + pl.col("effect"))
    if "flipped" not in has:
        frame = frame.with_columns(flipped=baseline.sign() != patched.sign())
    if "margin" not in has:
        frame = frame.with_columns(margin=patched * baseline.sign())
    return frame, notes


def _interactions(
    frame: pl.LazyFrame, present: Sequence[str], decisions: pl.LazyFrame | None
) -> tuple[pl.LazyFrame, list[str]]:
    if "n" in present:
        return frame, []
    if decisions is None:
        raise TableError(
            "The table 'interactions' lacks a column: n",
            seen=", ".join(present),
            allowed="n, on how many prompts each correlation rests, or the table decisions",
            remedy="add the column n; without it no correlation can be tested",
        )
    counted = decisions.group_by("agent").agg(pl.len().cast(pl.Int64).alias("n"))
    return frame.join(counted, on="agent", how="left", maintain_order="left"), [
        "n is the number of the agent's prompts in decisions"
    ]
