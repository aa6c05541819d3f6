"""Are the sites of a sweep separate and resolved? Gates on what was measured site by site.

One subject per attribution (``attribution AGENT``), per sweep (``patching SOURCE>TARGET``), and for
what components write and the attention of heads (``norms AGENT``, ``projections AGENT``,
``attention AGENT``).
*Duplicates* compares the result vectors over prompts, last digits apart, and reports the number of
distinct sites; *dead sites* counts those that are exactly zero on every prompt; *resolution* counts
those that vary by no more than rounding (not judged of attention, whose masses are shares of 1).
``bias`` is left out: it is the same on every prompt by nature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.gates.site_quality import (
    MANTISSA_BITS,
    MIN_DISTINCT,
    distinct_columns,
    mantissa_bits,
    resolution,
)
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, matrix

Row = dict[str, object]

SITE_GATES = ("duplicates", "dead sites", "resolution")
"""The gates that concern single sites of a sweep."""

WRITES = {"norms": "norm", "projections": "projection"}
"""Tables of what components write, and the column of the number."""


@dataclass(frozen=True, slots=True)
class SiteResults:
    """What a sweep measured at every site.

    Attributes:
        subject: how gates call the sweep.
        bits: mantissa bits of the format in which it was measured; None if unknown.
        sites: the K sites.
        values: (prompts, K) what is analysed.
        stored: (prompts, K) the numbers that were rounded when stored.
    """

    subject: str
    bits: int | None
    sites: tuple[str, ...]
    values: Array
    stored: Array


@dataclass(frozen=True, slots=True)
class SiteFaults:
    """Sites of a sweep that cannot carry a claim of their own.

    Attributes:
        distinct: sites that remain when clones are collapsed and dead sites left out.
        cloned: sites whose results are identical to another site's.
        dead: sites that are exactly zero everywhere.
        rounded: sites that vary by no more than rounding.
    """

    distinct: tuple[str, ...]
    cloned: frozenset[str]
    dead: frozenset[str]
    rounded: frozenset[str]


def answer_rows(attribution: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Whole contributions summed over the answer, and the ``token`` that marks them.

    Raises:
        TableError: there are several answer tokens and no row for their sum.
    """
    whole = attribution.filter(pl.col("part") == "whole")
    tokens: list[int] = whole.get_column("token").unique().sort().to_list()
    if -1 in tokens or len(tokens) == 1:
        token = tokens[0]
        return whole.filter(pl.col("token") == token), token
    raise TableError(
        "The attribution table has no contributions to the whole answer",
        seen=f"part whole with tokens {tokens}",
        allowed="rows with token -1, the sum over the answer, or a single answer token",
        remedy="sum the contributions over the answer's tokens and store them with token -1",
    )


def sweeps(patching: pl.DataFrame) -> Iterator[tuple[str, str, str, str, pl.DataFrame]]:
    """Sweeps within the same prompt: source, target, positions, write, and their rows."""
    same = patching.filter(pl.col("source_prompt") == pl.col("prompt"))
    by = ["source", "target", "positions", "write"]
    for key, rows in same.group_by(by, maintain_order=True):
        source, target, positions, write = (str(part) for part in key)
        yield source, target, positions, write, rows


def sweep_name(source: str, target: str, positions: str, write: str) -> str:
    """How gates and claims call a sweep; the usual positions and write go without saying."""
    usual = {"answer_span", "write"}
    return " ".join([f"{source}>{target}", *(w for w in (positions, write) if w not in usual)])


def attribution_results(tables: Tables, agent: str) -> SiteResults:
    """The attribution of one agent, ``bias`` left out."""
    rows, _ = answer_rows(tables["attribution"])
    own = rows.filter((pl.col("agent") == agent) & (pl.col("site") != "bias"))
    found = matrix(own, "prompt", "site", "contribution")
    return SiteResults(
        f"attribution {agent}", _bits(tables, agent), found.columns, found.values, found.values
    )


def patching_results(tables: Tables, name: str, target: str, rows: pl.DataFrame) -> SiteResults:
    """One sweep without its full swap.

    Rounding happens in the patched log-odds; where they were not recorded, the effects stand in.
    """
    single = rows.filter(pl.col("site") != "all")
    effect = matrix(single, "prompt", "site", "effect")
    recorded = single.get_column("patched_log_odds").null_count() == 0
    stored = matrix(single, "prompt", "site", "patched_log_odds") if recorded else effect
    return SiteResults(
        f"patching {name}", _bits(tables, target), effect.columns, effect.values, stored.values
    )


def writes_results(tables: Tables, table: str, agent: str) -> SiteResults:
    """One agent's writes, which are measured in float32 whatever its weights are."""
    own = tables[table].filter(pl.col("agent") == agent)
    found = matrix(own, "prompt", "site", WRITES[table])
    bits = MANTISSA_BITS["float32"]
    return SiteResults(f"{table} {agent}", bits, found.columns, found.values, found.values)


def attention_results(attention: pl.DataFrame, agent: str) -> SiteResults:
    """One agent's heads, each with its masses on every category of every prompt."""
    rows = attention.filter(pl.col("agent") == agent).select(
        pl.concat_str("prompt", "category", separator="\0").alias("place"),
        pl.format("L{}.h{}", "layer", "head").alias("site"),
        "mass",
    )
    found = matrix(rows, "place", "site", "mass")
    return SiteResults(f"attention {agent}", None, found.columns, found.values, found.values)


def _bits(tables: Tables, agent: str) -> int | None:
    if "agents" not in tables:
        return None
    found = tables["agents"].filter(pl.col("agent") == agent).get_column("dtype").to_list()
    return mantissa_bits(found[0]) if found else None


def faults(results: SiteResults) -> SiteFaults:
    """Which sites of a sweep are clones, dead or unresolved.

    Where the format is not known, the numbers alone show whether they were rounded.
    """
    groups = distinct_columns(results.values)
    rounded: frozenset[str] = frozenset()
    if len(results.values) >= MIN_DISTINCT:
        bits = MANTISSA_BITS["float64"] if results.bits is None else results.bits
        found = resolution(results.values, results.stored, bits)
        rounded = frozenset(
            site
            for index, (site, good) in enumerate(zip(results.sites, found.resolved, strict=True))
            if not good and index not in groups.dead
        )
    return SiteFaults(
        distinct=tuple(results.sites[i] for i in groups.distinct),
        cloned=frozenset(results.sites[i] for group in groups.clones for i in group),
        dead=frozenset(results.sites[i] for i in groups.dead),
        rounded=rounded,
    )


def judge_sites(tables: Tables) -> Iterator[Row]:
    """Rows of the gates table for everything that was measured site by site."""
    for agent in _agents(tables, "attribution"):
        yield from _judge(attribution_results(tables, agent))
    if "patching" in tables:
        for source, target, positions, write, rows in sweeps(tables["patching"]):
            name = sweep_name(source, target, positions, write)
            if rows.filter(pl.col("site") != "all").height:
                yield from _judge(patching_results(tables, name, target, rows))
    for table in WRITES:
        for agent in _agents(tables, table):
            yield from _judge(writes_results(tables, table, agent))
    for agent in _agents(tables, "attention"):
        yield from _judge_copies(attention_results(tables["attention"], agent))


def _agents(tables: Tables, table: str) -> list[str]:
    """Who has rows in a table, in order of appearance; nobody where it is not there."""
    if table not in tables:
        return []
    return tables[table].get_column("agent").unique(maintain_order=True).to_list()


def _judge(results: SiteResults) -> Iterator[Row]:
    found = faults(results)
    yield from _copies(results, found)
    yield _judge_resolution(results, found, len(results.sites) - len(found.dead))


def _judge_copies(results: SiteResults) -> Iterator[Row]:
    yield from _copies(results, faults(results))


def _copies(results: SiteResults, found: SiteFaults) -> Iterator[Row]:
    total, alive = len(results.sites), len(results.sites) - len(found.dead)
    distinct = len(found.distinct)
    advice = (
        f"All {alive} sites that are not dead differ in their results."
        if not found.cloned
        else f"{len(found.cloned)} sites are clones ({_some(found.cloned)}): only {distinct} of "
        f"{alive} are distinct measurements; patch and attribute heads at the input of the output "
        "projection."
    )
    yield _row(("duplicates", results.subject), distinct, alive, advice, passed=distinct == alive)
    advice = (
        f"None of {total} sites is exactly zero on every prompt."
        if not found.dead
        else f"{len(found.dead)} of {total} sites are exactly zero on every prompt "
        f"({_some(found.dead)}); they were never reached and are left out. Check their hooks."
    )
    yield _row(("dead sites", results.subject), len(found.dead), 0, advice, passed=not found.dead)


def _judge_resolution(results: SiteResults, found: SiteFaults, alive: int) -> Row:
    subject = ("resolution", results.subject)
    if results.bits is None and not found.rounded:
        return _row(
            subject,
            None,
            0,
            "Not available: the resolution of the dtype is not known; give the agent's dtype.",
            passed=None,
        )
    if len(results.values) < MIN_DISTINCT:
        advice = f"Not available: {len(results.values)} prompts, {MIN_DISTINCT} are needed."
        return _row(subject, None, 0, advice, passed=None)
    advice = (
        "Every site that is not dead varies by more than rounding."
        if not found.rounded
        else f"Rounding: {len(found.rounded)} of {alive} sites ({_some(found.rounded)}) vary by "
        "less than 4 units in the last place or take at most 3 values; measure in float32."
    )
    return _row(subject, len(found.rounded), 0, advice, passed=not found.rounded)


def _some(sites: frozenset[str]) -> str:
    named = sorted(sites)
    return ", ".join(named[:4]) + (", ..." if len(named) > 4 else "")


def _row(
    key: tuple[str, str], measured: int | None, threshold: int, advice: str, *, passed: bool | None
) -> Row:
    gate, subject = key
    return {
        "gate": gate,
        "subject": subject,
        "measured": None if measured is None else float(measured),
        "threshold": float(threshold),
        "passed": passed,
        "advice": advice,
    }
