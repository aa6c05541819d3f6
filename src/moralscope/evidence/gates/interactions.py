"""Is every correlation between sites defined, and more than an accident of few values?

A correlation with a column that does not vary is *undefined*: it is null, never 0. One with a
column of fewer than four values, or that varies in one scenario alone, is *degenerate*: |r| is 1
or nothing, and Fisher's z infinite. Two gates, each on a table of correlations
(``interactions AGENT``) and on what they are computed from (``norms AGENT``,
``projections AGENT``):

    undefined values        numbers where the correlation has no value; exact zeros of unrounded
                            Pearson correlations are such numbers
    degenerate correlations correlations with |r| > 0.999 or with a degenerate component;
                            of norms and projections: degenerate components

Both count, and nothing may be counted: what is undefined or degenerate is left out of every
comparison of correlations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.gates.channels import named
from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.gates.sites import WRITES
from moralscope.evidence.statistics.correlations import MAX_CORRELATION, degenerate
from moralscope.evidence.units import Tables, Units, matrix

UNDEFINED = "undefined values"
DEGENERATE = "degenerate correlations"

CORRELATION = r"(?i)^r$|corr|pearson|spearman|kendall"
"""Names of measures that are correlations."""

_RANKS = r"(?i)spearman|kendall|rank"
_ROUNDED = 1e-4


@dataclass(frozen=True, slots=True)
class Columns:
    """What an agent's correlations are computed from.

    Attributes:
        constant: components of the same size on every prompt.
        degenerate: those that take fewer than four values, or vary in one scenario alone; the
            constant ones among them.
        total: all components.
    """

    constant: frozenset[str]
    degenerate: frozenset[str]
    total: int


def judge_interactions(tables: Tables) -> Iterator[Gate]:
    """Both gates for the ``norms`` and the ``interactions`` of every agent."""
    columns = norm_columns(tables)
    for agent, found in columns.items():
        yield _of_writes(f"norms {agent}", found)
    for agent, found in norm_columns(tables, "projections").items():
        yield _of_writes(f"projections {agent}", found)
    if "interactions" in tables:
        pairs = tables["interactions"].filter(
            (pl.col("site_a") != pl.col("site_b")) & pl.col("measure").str.contains(CORRELATION)
        )
        for (agent,), rows in pairs.group_by("agent", maintain_order=True):
            known = columns.get(str(agent), Columns(frozenset(), frozenset(), 0))
            yield _undefined(str(agent), rows, known)
            yield _degenerate(str(agent), rows, known)


def norm_columns(tables: Tables, table: str = "norms") -> dict[str, Columns]:
    """For every agent with ``norms``, the components whose correlations mean nothing.

    Args:
        tables: result tables.
        table: ``norms``, or ``projections`` for those of pushes.
    """
    if table not in tables:
        return {}
    rows_of = tables[table]
    places: dict[str, str] = {}
    if "prompts" in tables:
        places = dict(tables["prompts"].select("prompt", "scenario").iter_rows())
    return {
        str(agent): _columns(matrix(rows, "prompt", "site", WRITES[table]), places)
        for (agent,), rows in rows_of.group_by("agent", maintain_order=True)
    }


def _columns(units: Units, places: Mapping[str, str]) -> Columns:
    constant = frozenset(
        site for k, site in enumerate(units.columns) if np.ptp(units.values[:, k]) == 0.0
    )
    one_scenario = _in_one_scenario(units, places)
    poor = frozenset(
        site
        for k, site in enumerate(units.columns)
        if one_scenario[k] or degenerate(units.values[:, k])
    )
    return Columns(constant, poor, len(units.columns))


def _in_one_scenario(units: Units, places: Mapping[str, str]) -> NDArray[np.bool_]:
    """Per column: whether it no longer varies once some scenario is left out."""
    scenarios = np.array([places.get(prompt, prompt) for prompt in units.names])
    order = np.argsort(scenarios, kind="stable")
    starts = np.unique(scenarios[order], return_index=True)[1]
    if len(starts) < 2:
        return np.zeros(len(units.columns), dtype=np.bool_)
    highest = np.maximum.reduceat(units.values[order], starts, axis=0)
    lowest = np.minimum.reduceat(units.values[order], starts, axis=0)
    every = np.arange(len(units.columns))
    found = np.zeros(len(units.columns), dtype=np.bool_)
    # Only leaving out the scenario with the largest or the smallest value can end the variation.
    for extreme in (highest.argmax(axis=0), lowest.argmin(axis=0)):
        up, down = highest.copy(), lowest.copy()
        up[extreme, every], down[extreme, every] = -np.inf, np.inf
        found |= up.max(axis=0) == down.min(axis=0)
    return found


def _of_writes(subject: str, found: Columns) -> Gate:
    sites = sorted(found.degenerate)
    advice = (
        f"All {found.total} components take four values or more, in more than one scenario."
        if not sites
        else f"{len(sites)} of {found.total} components ({named(sites)}) take fewer than four "
        "different values, or vary in one scenario alone, so their correlations are undefined or "
        "set by single prompts; none may be named. Leave them out, and measure in float32."
    )
    return Gate(DEGENERATE, subject, float(len(sites)), 0.0, not sites, advice)


def _undefined(agent: str, rows: pl.DataFrame, columns: Columns) -> Gate:
    subject, total = f"interactions {agent}", rows.height
    nulls = rows.get_column("value").null_count()
    numbers = rows.filter(pl.col("value").is_not_null())
    constant = _touches(columns.constant)
    invented = numbers.filter(constant | (_suspicious_zero(numbers) & (pl.col("value") == 0.0)))
    what = f"{nulls} of {total} correlations are undefined and kept so"
    if invented.is_empty():
        advice = f"{what}." if nulls else f"All {total} correlations are defined."
        return Gate(UNDEFINED, subject, 0.0, 0.0, True, advice)
    first = invented.row(0, named=True)
    return Gate(
        UNDEFINED, subject, float(invented.height), 0.0, False,
        f"{invented.height} of {total} correlations have a number where they can have none, such "
        f"as {first['value']:g} for {first['site_a']} and {first['site_b']}: a column that does "
        "not vary has no correlation, which is not available and never 0. Store it as null; "
        f"{what}.",
    )  # fmt: skip


def _suspicious_zero(numbers: pl.DataFrame) -> pl.Expr:
    """Whether an exact zero cannot be a value: not of ranks, which tie, nor of rounded figures."""
    scaled = (pl.col("value") / _ROUNDED).abs()
    rounded = (scaled - scaled.round()).abs() < 1e-6
    if numbers.is_empty() or numbers.select(rounded.all()).item():
        return pl.lit(value=False)
    return ~pl.col("measure").str.contains(_RANKS)


def _degenerate(agent: str, rows: pl.DataFrame, columns: Columns) -> Gate:
    subject, total = f"interactions {agent}", rows.height
    extreme = (pl.col("value").abs() > MAX_CORRELATION).fill_null(value=False)
    flagged = rows.filter(extreme | (_touches(columns.degenerate) & pl.col("value").is_not_null()))
    if flagged.is_empty():
        advice = f"All |r| of {total} correlations are at most {MAX_CORRELATION:g}."
        return Gate(DEGENERATE, subject, 0.0, 0.0, True, advice)
    large = flagged.filter(extreme)
    first = (flagged if large.is_empty() else large).row(0, named=True)
    return Gate(
        DEGENERATE, subject, float(flagged.height), 0.0, False,
        f"{flagged.height} of {total} correlations are degenerate: {large.height} have |r| above "
        f"{MAX_CORRELATION:g}, the others a component of fewer than four values or of one scenario "
        f"(such as {first['value']:.4g} for {first['site_a']} and {first['site_b']}). They pass "
        "any z test without evidence. Leave them out, and look for copies and for rounding.",
    )  # fmt: skip


def _touches(sites: frozenset[str]) -> pl.Expr:
    listed = sorted(sites)
    return pl.col("site_a").is_in(listed) | pl.col("site_b").is_in(listed)
