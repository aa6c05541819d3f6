"""Does this place do what it was said to? Named hypotheses about patches, flips and attribution.

A hypothesis names its sites, so it is one test of one column: the mean over the named sites, per
scenario, by sign-flips of scenarios. No site is chosen by its size, and nothing is corrected for
the others. A named site that is a copy, dead or mere rounding makes the answer an artefact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from moralscope.evidence.findings.attribution import (
    attribution_rows,
    completeness_error,
    consult_attribution,
)
from moralscope.evidence.findings.patching import (
    Sweep,
    both_ways_rows,
    consult_sweeps,
    flips_finding,
    found_sweeps,
    pair_rows,
    ways_there,
)
from moralscope.evidence.findings.sites import blame_clones
from moralscope.evidence.gates.sites import SiteFaults, attribution_results, faults
from moralscope.evidence.hypotheses.direct import trained_base
from moralscope.evidence.hypotheses.grammar import Hypothesis, statement_of
from moralscope.evidence.hypotheses.site_queries import (
    sites_both_ways,
    sites_contribution,
    sites_effect,
)
from moralscope.evidence.hypotheses.stating import (
    Basis,
    as_stated,
    claim_of,
    lacking,
    require_agents,
    require_known,
    spread_of,
    untested,
)
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    OPEN,
    Consulted,
    Finding,
    Setting,
    Stated,
)
from moralscope.evidence.statistics.equivalence import DEFAULT_MARGIN_SHARE, default_margin
from moralscope.evidence.statistics.intervals import (
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.resampling import Array, max_t
from moralscope.evidence.units import inference_family, matrix, on_family, paired

_TEST = "sign-flips of scenarios; null: symmetric about zero"


@dataclass(frozen=True, slots=True)
class Column:
    """What the named sites do: one number per scenario, and what may be wrong with it.

    Attributes:
        values: (G,) mean over the named sites, nats.
        query: recomputes the mean.
        consulted: the gates of the sweep.
        faults: of each sweep that it was made from.
        noise: numerical noise floor, nats.
        default_margin: for the direction ``zero``; None where there is none.
    """

    values: Array
    query: str
    consulted: Consulted
    faults: tuple[SiteFaults, ...]
    noise: float
    default_margin: float | None


def patch_effect(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """The effect of taking sites from the first agent into the second."""
    ready = _sweep(setting, hypothesis, hypothesis.agents)
    if isinstance(ready, str):
        return untested(setting, hypothesis, ready)
    sweep, family = ready
    _require_sites(hypothesis, sweep.rows)
    values = _mean_over(sweep.rows, hypothesis.sites, "effect")
    column = Column(
        values,
        sites_effect(sweep.key, hypothesis.sites, family),
        consult_sweeps(setting, sweep),
        (sweep.faults,),
        sweep.noise,
        _share_of_swap(sweep.rows),
    )
    return _answer(setting, hypothesis, column)


def symmetric_effect(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """(A - B)/2 of a pair patched both ways."""
    return _both_ways(setting, hypothesis, "effect", "-")


def asymmetry(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """(A + B)/2 of a pair patched both ways."""
    return _both_ways(setting, hypothesis, "asymmetry", "+")


def _both_ways(setting: Setting, hypothesis: Hypothesis, kind: str, sign: str) -> Finding:
    first, second = hypothesis.agents
    both: list[Sweep] = []
    family = ""
    for pair in ((first, second), (second, first)):
        ready = _sweep(setting, hypothesis, pair)
        if isinstance(ready, str):
            return untested(setting, hypothesis, ready)
        sweep, family = ready
        both.append(sweep)
    ahead, back = both
    joined = both_ways_rows(ahead, back)
    _require_sites(hypothesis, joined)
    column = Column(
        _mean_over(joined, hypothesis.sites, kind),
        sites_both_ways(ahead.key, hypothesis.sites, family, sign),
        consult_sweeps(setting, ahead, back),
        (ahead.faults, back.faults),
        max(ahead.noise, back.noise),
        _share_of_swap(joined),
    )
    return _answer(setting, hypothesis, column)


def attribution_change(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """What sites contribute in an agent, minus the same in its base."""
    require_agents(setting, hypothesis)
    agent = hypothesis.agents[0]
    placed = attribution_rows(setting)
    if placed is None:
        reason = lacking(setting, hypothesis) or "no attribution is on a prompt of the table."
        return untested(setting, hypothesis, reason)
    base = trained_base(setting, hypothesis, agent)
    if base is None:
        return untested(setting, hypothesis, f"no base of {agent} is in the table of agents.")
    present = set(placed.rows.get_column("agent").to_list())
    absent = [name for name in (agent, base) if name not in present]
    if absent:
        reason = f"there is no attribution of {absent[0]} (stage explain-{absent[0]})."
        return untested(setting, hypothesis, reason)
    differences = paired(placed.rows, agent, base, "contribution", ("site",))
    _require_sites(hypothesis, differences)
    column = Column(
        _mean_over(differences, hypothesis.sites, "difference"),
        sites_contribution((agent, base), hypothesis.sites, placed.token, placed.family),
        consult_attribution(setting, agent, base),
        # A site may be dead in base and not in the agent.
        (faults(attribution_results(setting.tables, agent)),),
        completeness_error(setting, (agent, base)),
        _share_of_base(setting, base, placed.family),
    )
    return _answer(setting, hypothesis, column)


def flips(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """Whether one single site flips the preferred option anywhere."""
    ready = _sweep(setting, hypothesis, hypothesis.agents)
    if isinstance(ready, str):
        return untested(setting, hypothesis, ready)
    sweep, family = ready
    made = flips_finding(setting, sweep, family)
    seen = bool(made.estimate)
    holds = seen == (hypothesis.direction == "above")
    stated = Stated(CONFIRMED)
    if not holds:
        against = (
            f"such patches exist, in {made.estimate or 0.0:.1%} of scenarios."
            if seen
            else "no patch of one site flips the preferred option here."
        )
        # That none was seen is no proof that there is none.
        stated = Stated(CONTRADICTED if seen else OPEN, against)
    said = statement_of(hypothesis)
    return replace(
        made,
        id=claim_of(hypothesis),
        found=f"{said.rstrip('.')}, as hypothesis {hypothesis.id} says. {made.found}",
        observed=f"Hypothesis {hypothesis.id}: {said[:1].lower()}{said[1:]} {made.observed}",
        hypothesis=stated,
    )


def _sweep(
    setting: Setting, hypothesis: Hypothesis, pair: Sequence[str]
) -> tuple[Sweep, str] | str:
    """The sweep of a pair and its prompt family; or why there is none."""
    require_agents(setting, hypothesis)
    absent = lacking(setting, hypothesis)
    if absent is not None:
        return absent
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    family = inference_family(prompts, patching.get_column("prompt"))
    if family is None:
        return "no patch is on a prompt of the table of prompts."
    source, target = pair
    rows = pair_rows(patching, pair, hypothesis.positions, hypothesis.write)
    found = list(found_sweeps(setting, on_family(rows, prompts, family)))
    if not found:
        how = ", ".join(way for way in (hypothesis.positions, hypothesis.write) if way)
        where = f" {how}" if how else ""
        return (
            f"there is no sweep {source}>{target}{where}{ways_there(patching, pair)}; it comes "
            f"from the stage patch-{source}>{target} (mechanisms.pairs)."
        )
    return found[0], family


def _require_sites(hypothesis: Hypothesis, rows: pl.DataFrame) -> None:
    known: list[str] = rows.get_column("site").unique(maintain_order=True).to_list()
    require_known(hypothesis, "site", hypothesis.sites, known)


def _mean_over(rows: pl.DataFrame, sites: Sequence[str], value: str) -> Array:
    """(G,) mean over the named sites per scenario."""
    units = matrix(rows.filter(pl.col("site").is_in(list(sites))), "scenario", "site", value)
    return np.asarray(units.keep(sites).values.mean(axis=1), dtype=np.float64)


def _share_of_swap(rows: pl.DataFrame) -> float | None:
    """A tenth of the full swap's effect; None where it was not run."""
    swap = rows.filter(pl.col("site") == "all")
    if swap.is_empty():
        return None
    whole = float(matrix(swap, "scenario", "site", "effect").values.mean())
    return DEFAULT_MARGIN_SHARE * abs(whole)


def _share_of_base(setting: Setting, base: str, family: str) -> float | None:
    """The margin of behaviour: the study's, or a tenth of the base's mean absolute log-odds."""
    if setting.margin is not None:
        return setting.margin
    if not setting.has("decisions"):
        return None
    rows = on_family(setting.tables["decisions"], setting.tables["prompts"], family)
    of_base = rows.filter(pl.col("agent") == base).get_column("log_odds").drop_nulls()
    return default_margin(of_base.to_numpy()) if len(of_base) else None


def _answer(setting: Setting, hypothesis: Hypothesis, column: Column) -> Finding:
    """The answer about one column, tested by itself."""
    values, n = column.values, len(column.values)
    tested = max_t(values[:, None], setting.rng(claim_of(hypothesis)), setting.draws)
    made = Finding(
        id=claim_of(hypothesis),
        found="",
        observed="",
        estimate=float(values.mean()),
        interval=cluster_interval(
            values, setting.rng("interval", claim_of(hypothesis)), draws=setting.draws
        ),
        unit="nats",
        n=n,
        test=_TEST,
        query=column.query,
        consulted=_blamed(column, hypothesis.sites),
        p=float(tested.p[0]),
        p_floor=tested.floor,
        level=setting.alpha,
        noise=column.noise,
        detectable=None
        if n < 2
        else smallest_detectable_effect(standard_error(values), n - 1, setting.alpha),
    )
    basis = Basis(made, spread_of(values), default_margin=column.default_margin)
    return as_stated(setting, hypothesis, basis)


def _blamed(column: Column, sites: Sequence[str]) -> Consulted:
    """The gates, with what is wrong with the named sites themselves."""
    consulted = column.consulted
    for site in sites:
        consulted = blame_clones(consulted, site, column.faults)
        for fault in column.faults:
            if site in fault.dead:
                reason = f"dead sites: {site} is exactly zero on every prompt; it was not reached."
            elif site in fault.rounded:
                reason = f"resolution: {site} varies by no more than rounding; measure in float32."
            else:
                continue
            consulted = replace(consulted, failed=(*consulted.failed, reason))
    return replace(consulted, failed=tuple(dict.fromkeys(consulted.failed)))
