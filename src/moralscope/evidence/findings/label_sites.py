"""Is a site one of the label or of the move? Patches under both assignments of the labels.

With effects e in log-odds of the positive *move*, and the two labels the one way round (A) and the
other (B), a site's effect in scenario g has two parts:

    move part   (e_A + e_B) / 2      the same whatever the moves are called
    label part  (e_A - e_B) / 2      pushes towards one of the two words, whichever move it names

The claims ``patching:`` are about the move part. Here the label part of every distinct site is
tested against zero: sign-flips of scenarios with max-T. A site that carries a word and not a move
has a label part as large as its effects and a move part near zero.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.evidence.findings.patching import Sweep, consult_sweeps, found_sweeps
from moralscope.evidence.findings.queries import asked, layered, sweep_of, text
from moralscope.evidence.findings.sites import (
    blame_clones,
    nothing_resolved,
    run_site_test,
    site_finding,
    sites_to_test,
)
from moralscope.evidence.ledger import Finding, Setting, signed, size
from moralscope.evidence.units import Units, inference_family, matrix, on_family


def label_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per sweep whose scenarios were asked with the labels both ways round."""
    if not setting.has("prompts", "patching"):
        return
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    family = inference_family(prompts, patching.get_column("prompt"))
    if family is None:
        return
    for sweep in found_sweeps(setting, on_family(patching, prompts, family)):
        ways = assignments(sweep.rows)
        if ways is not None and sweep.key[0] != sweep.key[1]:
            yield _finding(setting, sweep, ways, family)


def assignments(rows: pl.DataFrame) -> tuple[str, str] | None:
    """The two ways round that every scenario was asked in; None where there are not two."""
    found = sorted(set(rows.get_column("labels").to_list()))
    if len(found) != 2 or found[0].split("/")[::-1] != found[1].split("/"):
        return None
    ways = rows.group_by("scenario").agg(pl.col("labels").n_unique())
    return (found[0], found[1]) if ways.get_column("labels").eq(2).all() else None


def _parts(rows: pl.DataFrame, ways: tuple[str, str]) -> tuple[Units, Units]:
    """(G, K) label part and move part per scenario and site."""
    singles = rows.filter(pl.col("site") != "all")
    one, two = (
        matrix(singles.filter(pl.col("labels") == labels), "scenario", "site", "effect")
        for labels in ways
    )
    # Both hold the same sites; scenarios may come in another order.
    again = np.array([two.names.index(name) for name in one.names])
    other = two.keep(one.columns).values[again]
    return (
        Units(one.names, one.columns, (one.values - other) / 2.0),
        Units(one.names, one.columns, (one.values + other) / 2.0),
    )


def _finding(setting: Setting, sweep: Sweep, ways: tuple[str, str], family: str) -> Finding:
    source, target = sweep.key[:2]
    name = f"label:{sweep.name}"
    label, move = _parts(sweep.rows, ways)
    consulted = consult_sweeps(setting, sweep)
    chosen = sites_to_test(label, [sweep.faults])
    if not chosen:
        return nothing_resolved(name, f"the sweep {sweep.name}", label, [sweep.faults], consulted)
    outcome = run_site_test(setting, name, label.keep(chosen), sweep.noise)
    label_means, move_means = (u.keep(chosen).values.mean(axis=0) for u in (label, move))
    words = int((np.abs(label_means) > np.abs(move_means)).sum())
    beside = (
        f"its part for the move is {signed(float(move.column(outcome.site).mean()))} nats; over "
        f"all sites the label parts are {size(_rms(label_means))} and the move parts "
        f"{size(_rms(move_means))} nats (root mean square), and {words} of {outcome.sites} sites "
        "have the larger part for the label"
    )
    positive = ways[0].split("/")[1]
    return site_finding(
        outcome,
        name=name,
        found=f"{outcome.standing} of {outcome.sites} distinct sites of {target}, taken from "
        f"{source}, push a label and not only a move: clearest is {outcome.figures}, towards "
        f"{positive!r} where positive; {beside}.",
        observed=f"Of {outcome.sites} distinct sites of {target}, taken from {source}, the "
        f"clearest part for a label is {outcome.figures}; {beside}.",
        query=_query(sweep, outcome.site, ways, family),
        consulted=blame_clones(consulted, outcome.site, [sweep.faults]),
        alpha=setting.alpha,
        noise=sweep.noise,
    )


def _rms(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _query(sweep: Sweep, site: str, ways: tuple[str, str], family: str) -> str:
    return layered(
        "SELECT asked.scenario AS unit, asked.labels AS labels, patching.prompt AS prompt, "
        "patching.site AS site, patching.effect AS value FROM patching "
        f"JOIN {asked('patching', family)} AS asked ON patching.prompt = asked.prompt "
        f"WHERE {sweep_of(*sweep.key)} AND patching.site = {text(site)}",
        "SELECT unit, SUM(CASE WHEN labels = "
        f"{text(ways[0])} THEN value ELSE -value END) / 2 AS value FROM "
        "(SELECT unit, labels, AVG(value) AS value FROM evidence_rows GROUP BY unit, labels) "
        "AS halves GROUP BY unit",
    )
