"""How far apart do patches put two agents?

A is the effect on the log-odds of writing what a site computes in one agent into the other, B the
reverse. In a linear model B = -A, so what the two agents' sites do differently is the symmetric
part, (A - B) / 2; where a pair was patched one way only, it is A. The distance is its root mean
square over scenarios and the distinct single sites. A second measure is the same of the full swap,
which for agents on one base is their distance in behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.evidence.gates.sites import faults, patching_results
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.distances import (
    Apart,
    Distances,
    apart,
    placed_rows,
    refuse_other_places,
)
from moralscope.evidence.synthesis.profiles import Pairs
from moralscope.evidence.units import Tables, matrix

FULL = "all"
_PLACE = ("positions", "write")
_USUAL = ("answer_span", "write")


def patching(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances in the effects of single sites, and in that of the full swap."""
    placed = placed_rows(tables, "patching")
    if placed is None:
        return
    rows = _one_way_of_patching(placed[0].filter(pl.col("source_prompt") == pl.col("prompt")))
    singles: dict[tuple[str, str], Array] = {}
    swaps: dict[tuple[str, str], Array] = {}
    scenarios: tuple[tuple[str, str], tuple[str, ...]] | None = None
    for first, second in pairs:
        ahead, back = _sweep(tables, rows, first, second), _sweep(tables, rows, second, first)
        effects = [(one, sign) for one, sign in ((ahead, 1.0), (back, -1.0)) if one is not None]
        if not effects:
            continue
        merged = _symmetric([one.with_columns(pl.col("effect") * s) for one, s in effects])
        sites, swap = merged.filter(pl.col("site") != FULL), merged.filter(pl.col("site") == FULL)
        for part, kept in ((sites, singles), (swap, swaps)):
            if part.height:
                units = matrix(part, "scenario", "site", "effect")
                order = np.argsort(np.array(units.names))
                names = tuple(sorted(units.names))
                if scenarios is not None and scenarios[1] != names:
                    alone = sorted(set(scenarios[1]) ^ set(names))
                    refuse_other_places((scenarios[0][1], second), "scenarios", alone)
                scenarios = scenarios or ((first, second), names)
                kept[first, second] = (units.values[order] ** 2).mean(axis=1)
    n = 0 if scenarios is None else len(scenarios[1])
    for measure, kept in (("site_effects", singles), ("full_swap", swaps)):
        if kept:
            found: dict[tuple[str, str], Apart] = {pair: apart(s) for pair, s in kept.items()}
            yield Distances("patching", measure, "nats", "scenarios", n, found, {})


def _one_way_of_patching(rows: pl.DataFrame) -> pl.DataFrame:
    """The usual positions and write, or else those that most patches have."""
    counts = rows.group_by(_PLACE).len().sort("len", *_PLACE, descending=[True, False, False])
    ways = counts.select(_PLACE).rows()
    if not ways:
        return rows
    chosen = _USUAL if _USUAL in ways else ways[0]
    return rows.filter((pl.col("positions") == chosen[0]) & (pl.col("write") == chosen[1]))


def _sweep(tables: Tables, rows: pl.DataFrame, source: str, target: str) -> pl.DataFrame | None:
    """Effects of distinct sites and the full swap, mean per scenario; None where not patched."""
    own = rows.filter((pl.col("source") == source) & (pl.col("target") == target))
    if own.is_empty():
        return None
    distinct = [FULL]
    if own.filter(pl.col("site") != FULL).height:
        results = patching_results(tables, f"{source}>{target}", target, own)
        distinct += faults(results).distinct
    kept = own.filter(pl.col("site").is_in(distinct))
    return kept.group_by("scenario", "site", maintain_order=True).agg(pl.col("effect").mean())


def _symmetric(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The mean of both ways over the sites that both have."""
    both = pl.concat(parts).group_by("scenario", "site", maintain_order=True)
    return both.agg(pl.col("effect").mean(), pl.len().alias("ways")).filter(
        pl.col("ways") == len(parts)
    )
