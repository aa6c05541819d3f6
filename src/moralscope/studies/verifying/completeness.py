"""Is everything there that was planned? Stages, agents, prompts, and every cell of every sweep.

A sweep measures some things (sites, layers, tokens) on some prompts, and all of the former on all
of the latter. So in every group of rows (an agent; a source and a target)

    rows(group) = parts(group) x prompts(group),    prompts(group) = prompts(any other group)

What a failed stage would have written is not missed; its failure is named instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import polars as pl

from moralscope.core.errors import MoralscopeError
from moralscope.core.sealing import MANIFEST
from moralscope.studies.catalogue import all_prompts
from moralscope.studies.study import Study, models_of, patched_pairs
from moralscope.studies.verifying.check import WHOLE, Check, holds, table_file
from moralscope.studies.verifying.opening import Opened


@dataclass(frozen=True, slots=True)
class Grid:
    """What of a table is measured on what.

    Attributes:
        group: columns that tell sweeps apart.
        on: columns that say on what (a prompt); equal for all sweeps of the table.
        parts: columns that say what was measured on each; none where that is one thing.
        alike: whether all values of the first column of the group have the same prompts.
    """

    group: tuple[str, ...]
    on: tuple[str, ...]
    parts: tuple[str, ...] = ()
    alike: bool = True


_PAIR = ("source", "target", "positions", "write")
_CROSSED = ("prompt", "source_prompt")

GRIDS: Mapping[str, Grid] = {
    "decisions": Grid(("agent",), ("prompt",)),
    "lens": Grid(("agent",), ("prompt", "token"), ("layer", "sublayer")),
    "lens_controls": Grid(("agent", "control"), ("prompt", "draw"), ("layer", "sublayer")),
    "stabilisation": Grid(("agent",), ("prompt",)),
    "completeness": Grid(("agent",), ("prompt",)),
    "attribution": Grid(("agent", "part"), ("prompt", "token"), ("site",)),
    "patching": Grid(_PAIR, _CROSSED, ("site",), alike=False),
    "approximations": Grid(
        ("source", "target", "positions", "method"), _CROSSED, ("site",), alike=False
    ),
    "edges": Grid(_PAIR, _CROSSED, ("sender", "receiver"), alike=False),
    "control_patches": Grid(
        ("control", "source", "target"), ("prompt",), ("site", "draw"), alike=False
    ),
    "replicas": Grid(("agent", "change"), ("prompt",)),
    "attention": Grid(("agent",), ("prompt",), ("layer", "head", "category")),
    "norms": Grid(("agent",), ("prompt",), ("site",)),
    "projections": Grid(("agent",), ("prompt",), ("site",)),
    "update_norms": Grid((), ("agent",), ("layer", "module"), alike=False),
    "representation_pairs": Grid(("agent_a", "agent_b"), ("prompt",), ("layer",), alike=False),
}
"""Tables that are sweeps."""


def completeness_checks(run: Opened) -> Iterator[Check]:
    """Stages, agents, prompts and sweeps of a run."""
    yield from _stages(run)
    if run.study is not None:
        yield from _agents(run, run.study)
        yield from _prompts(run, run.study)
        yield from _pairs(run, run.study)
    for name, grid in GRIDS.items():
        if name in run.tables:
            yield from _grid(name, grid, run.tables[name])


def _stages(run: Opened) -> Iterator[Check]:
    what = "every stage of the plan was computed"
    if not run.listed("planned"):
        found = "the manifest does not say what was planned"
        yield Check(WHOLE, MANIFEST, what, passed=None, found=found)
        return
    done = {
        str(cast("dict[str, object]", stage).get("name"))
        for stage in run.listed("stages")
        if isinstance(stage, dict)
    }
    wanting = [name for name in map(str, run.listed("planned")) if name not in done | {*run.failed}]
    yield from holds(WHOLE, MANIFEST, what, not wanting, f"missing: {', '.join(wanting)}")
    for name, why in run.failed.items():
        yield Check(WHOLE, MANIFEST, f"the stage {name} was computed", passed=None, found=why)


def _agents(run: Opened, study: Study) -> Iterator[Check]:
    if "agents" not in run.tables:
        yield from _absent(run, "agents", "the agents of the study are listed")
        return
    listed = set(run.tables["agents"].get_column("agent"))
    found = _apart(set(study.agents), listed, excused=run.failed)
    what = "the agents of the study are listed, and no others"
    yield from holds(WHOLE, table_file("agents"), what, not found, found)


def _prompts(run: Opened, study: Study) -> Iterator[Check]:
    what = "every agent decides on every prompt of the study"
    if "decisions" not in run.tables or "prompts" not in run.tables:
        yield from _absent(run, "decisions", what)
        return
    decisions = run.tables["decisions"]
    stray = set(decisions.get_column("prompt")) - set(run.tables["prompts"].get_column("prompt"))
    phrase = "prompts that are decided on are described"
    said = f"{len(stray)} are not in the table prompts: {_some(stray)}"
    yield from holds(WHOLE, table_file("prompts"), phrase, not stray, said)
    try:
        asked = {prompt.name for prompt in all_prompts(study)}
    except (MoralscopeError, OSError) as cause:
        said = f"the prompts of the study cannot be made here ({cause})".partition("\n")[0]
        yield Check(WHOLE, table_file("decisions"), what, passed=None, found=said)
        return
    gone = asked - set(decisions.get_column("prompt"))
    missing = [a for a in study.agents if a not in set(decisions.get_column("agent"))]
    silent = [name for name in missing if not _excused(name, run.failed)]
    said = "; ".join(
        [f"no decision on {_some(gone)}"] * bool(gone)
        + [f"no decision of {_some(silent)}"] * bool(silent)
    )
    yield from holds(WHOLE, table_file("decisions"), what, not said, said)


def _pairs(run: Opened, study: Study) -> Iterator[Check]:
    """Each table of a method has every agent, or every pair, that the study asks about."""
    methods = study.mechanisms.methods
    for method, name in (("lens", "lens"), ("attribution", "attribution")):
        if method not in methods:
            continue
        what = "every agent with weights is measured"
        if name not in run.tables:
            yield from _absent(run, name, what)
            continue
        measured = set(run.tables[name].get_column("agent"))
        found = _apart(set(models_of(study)), measured, excused=run.failed)
        yield from holds(WHOLE, table_file(name), what, not found, found)
    tables = {"patching": "patching", "approximations": "approximations", "paths": "edges"}
    for method, name in tables.items():
        if method not in methods:
            continue
        what = "every pair of the study is patched"
        if name not in run.tables:
            yield from _absent(run, name, what)
            continue
        wanted = {f"{source}>{target}" for source, target in patched_pairs(study)}
        rows = run.tables[name].select("source", "target").unique()
        found = _apart(wanted, {f"{s}>{t}" for s, t in rows.iter_rows()}, excused=run.failed)
        yield from holds(WHOLE, table_file(name), what, not found, found)


def _absent(run: Opened, name: str, what: str) -> Iterator[Check]:
    """A table that is not there: wrong, unless a stage failed or the table itself is damaged."""
    if name in run.damaged:
        return
    passed = None if run.failed else False
    yield Check(WHOLE, table_file(name), what, passed, "the table is missing")


def _excused(name: str, failed: Mapping[str, str]) -> bool:
    return any(
        name in (stage.partition("-")[2], *stage.partition("-")[2].split(">")) for stage in failed
    )


def _apart(wanted: set[str], found: set[str], *, excused: Mapping[str, str]) -> str:
    """What is missing and what is too many, in words; empty where nothing is."""
    missing = {name for name in wanted - found if not _excused(name, excused)}
    parts = [f"missing: {_some(missing)}"] * bool(missing)
    parts += [f"not of the study: {_some(found - wanted)}"] * bool(found - wanted)
    return "; ".join(parts)


def _some(names: object) -> str:
    listed = sorted(cast("set[str]", names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _grid(name: str, grid: Grid, table: pl.DataFrame) -> Iterator[Check]:
    group = [*grid.group] or [pl.lit(0).alias("all")]
    counts = table.group_by(group, maintain_order=True).agg(
        pl.struct(grid.on).n_unique().alias("prompts"),
        (pl.struct(grid.parts).n_unique() if grid.parts else pl.lit(1)).alias("parts"),
        pl.len().alias("rows"),
    )
    gaps = counts.filter(pl.col("rows") != pl.col("prompts") * pl.col("parts"))
    said = ""
    if gaps.height:
        row = gaps.row(0, named=True)
        of = ", ".join(str(row[column]) for column in grid.group) or "the table"
        said = f"{of}: {row['rows']} rows, not {row['prompts']} x {row['parts']}"
    what = "every part of a sweep is measured on every prompt"
    yield from holds(WHOLE, table_file(name), what, not gaps.height, said)
    if grid.alike:
        found = _unlike(grid, table)
        what = "every sweep has the same prompts"
        yield from holds(WHOLE, table_file(name), what, not found, found)


def _unlike(grid: Grid, table: pl.DataFrame) -> str:
    """Which prompt some agents lack that others have, in words; empty where all are alike."""
    who, *kinds = grid.group
    met = table.select(*kinds, *grid.on, who).unique()
    counted = met.group_by([*kinds, *grid.on], maintain_order=True).agg(pl.len().alias("having"))
    if kinds:
        whole = met.group_by(kinds).agg(pl.col(who).n_unique().alias("whole"))
        counted = counted.join(whole, on=kinds)
    else:
        counted = counted.with_columns(pl.lit(met.get_column(who).n_unique()).alias("whole"))
    lacking = counted.filter(pl.col("having") < pl.col("whole"))
    if not lacking.height:
        return ""
    row = lacking.sort([*kinds, *grid.on]).row(0, named=True)
    where = ", ".join(str(row[column]) for column in (*kinds, *grid.on))
    return f"{where} is measured for {row['having']} of {row['whole']}"
