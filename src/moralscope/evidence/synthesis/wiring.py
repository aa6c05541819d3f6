"""How far apart are agents in how their sites vary together?

With r_jk the correlation over prompts of what sites j and k write,

    d = sqrt(mean over pairs j < k of (atanh r_jk - atanh s_jk)^2)

between two agents: of the sizes of the writes (``norms``), and of the writes along the decision
(``projections``). Where sub-layers were measured, heads, which are parts of them, are left out, as
are pairs of sites whose correlation is undefined in some agent, whichever scenario is left out.
A correlation over few prompts is uncertain, and the distance of two agents that are wired alike is
therefore not 0 but that of two seeds: the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from moralscope.evidence.findings.inner import COLUMNS, Inner, inner_values
from moralscope.evidence.statistics.correlations import MAX_CORRELATION
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.distances import Apart, Distances
from moralscope.evidence.synthesis.profiles import Pairs, present
from moralscope.evidence.units import Tables

MEASURES = {"norms": "norm_correlation", "projections": "projection_correlation"}
"""Tables of what sites write, and what their correlations are called."""

_FLAT = 1e-12


def wiring(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances in Fisher z, of the sizes of writes and of writes along the decision."""
    for table, measure in MEASURES.items():
        agents = present(tables, table, pairs) if table in COLUMNS else []
        inner = inner_values(tables, table, agents) if len(agents) > 1 else None
        if inner is None:
            continue
        found = _distances(inner, agents, pairs)
        if found:
            yield Distances("wiring", measure, "Fisher z", "scenarios", inner.scenarios, found, {})


def _distances(inner: Inner, agents: list[str], pairs: Pairs) -> dict[tuple[str, str], Apart]:
    sites = _sites(inner, agents)
    if len(sites) < 2:
        return {}
    clusters = np.array(inner.clusters)
    names = list(dict.fromkeys(inner.clusters))
    kept = [np.ones(len(clusters), dtype=bool), *(clusters != name for name in names)]
    values = {agent: inner.columns(agent, sites) for agent in agents}
    tested = _defined(values, kept, len(sites))
    if not tested.any():
        return {}
    wanted = [pair for pair in pairs if pair[0] in values and pair[1] in values]
    sums = np.empty((len(kept), len(wanted)))
    for row, those in enumerate(kept):
        z = {agent: fisher(own[those])[tested] for agent, own in values.items()}
        for column, (a, b) in enumerate(wanted):
            sums[row, column] = np.sqrt(np.mean((z[a] - z[b]) ** 2))
    left_out = sums[1:] if len(names) > 2 else np.empty((0, len(wanted)))
    return {
        pair: Apart(float(sums[0, column]), left_out[:, column])
        for column, pair in enumerate(wanted)
    }


def _sites(inner: Inner, agents: list[str]) -> list[str]:
    sound = inner.sound(agents)
    layered = [site for site in sound if site.rpartition(".")[2] in ("attn", "mlp")]
    return layered if any(site.endswith(".attn") for site in layered) else sound


def fisher(values: Array) -> Array:
    """(P,) Fisher z of every pair of columns, in the order of the upper triangle; NaN: undefined.

    Args:
        values: (n, K), one row per prompt.
    """
    centred = values - values.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    flat = size <= _FLAT * np.sqrt((values**2).sum(axis=0))
    unit = centred / np.where(flat, 1.0, size)
    r = np.clip(unit.T @ unit, -MAX_CORRELATION, MAX_CORRELATION)
    r[flat, :] = r[:, flat] = np.nan
    return np.arctanh(r[np.triu_indices(len(size), 1)])


def _defined(
    values: Mapping[str, Array], kept: list[NDArray[np.bool_]], sites: int
) -> NDArray[np.bool_]:
    """(P,) pairs of sites that have a correlation in every agent, whatever is left out."""
    varies = np.ones(sites, dtype=bool)
    for own in values.values():
        for those in kept:
            part = own[those]
            centred = part - part.mean(axis=0)
            varies &= (centred**2).sum(axis=0) > _FLAT**2 * (part**2).sum(axis=0)
    first, second = np.triu_indices(sites, 1)
    return varies[first] & varies[second]
