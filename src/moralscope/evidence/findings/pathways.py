"""Does a change of wiring carry anything? Changes of correlation beside effects of the same paths.

Of each pair of agents and measure, pathways with large changes of correlation and random ones were
patched from each agent into the other (``pathways``). With c the size of a pathway's change and e
the size of its effect (mean over both directions of |mean over scenarios|), the claim is Spearman's
rank correlation of c and e. Unit: the pathway. Two nulls, of which the larger p counts: effects are
rearranged among pathways that end at like depth (early, middle, late third of the layers), because
both c and e depend on depth; and a jackknife over components (``statistics.dyads``), because
pathways that share one do not vary independently.

Changes that swapping the agents' labels gives as well are noise, and effects that follow noise mean
nothing: p is no smaller than that of the network (``evidence.wired``).
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.site import parse_site
from moralscope.evidence.findings.queries import layered, text
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    consult,
    noise_floor,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.dyads import dyadic_rank_p
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.ranks import (
    MIN_THINGS,
    RankCorrelation,
    detectable_rank_correlation,
    rank_correlation,
    rank_floor,
)
from moralscope.evidence.statistics.resampling import Array

_OF = {
    "norm_correlation": ("", "sizes of what components write"),
    "projection_correlation": (":projection", "pushes along the decision"),
}
_KEY = ["agent_a", "agent_b", "measure"]
_THIRDS = 3


@dataclass(frozen=True, eq=False)
class Followed:
    """The pathways of one pair of agents by one measure.

    Attributes:
        agents: both.
        measure: what is correlated.
        rows: of the table ``pathways``, one comparison's.
        changes, effects: (n,) sizes, as in the module.
        strata: (n,) depth at which each ends.
        network_p: corrected p of the network; None where it was not tested.
        result: the rank correlation; None where it cannot be had.
        robust_p: of the jackknife over components; None as for ``result``.
    """

    agents: tuple[str, str]
    measure: str
    rows: pl.DataFrame
    changes: Array
    effects: Array
    strata: tuple[int, ...]
    network_p: float | None
    result: RankCorrelation | None
    robust_p: float | None

    @property
    def p(self) -> float | None:
        """The largest p; None where one is missing."""
        if self.result is None or self.robust_p is None or self.network_p is None:
            return None
        return max(self.result.p, self.robust_p, self.network_p)


def pathway_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per pair of agents and measure with patched pathways; all are one family."""
    if not setting.has("pathways"):
        return
    followed = [
        _followed(setting, rows)
        for _, rows in setting.tables["pathways"].group_by(_KEY, maintain_order=True)
    ]
    tested = [each.p for each in followed]
    raw = np.array([p for p in tested if p is not None], dtype=np.float64)
    adjusted = iter(holm(raw).tolist() if raw.size else [])
    for each, p in zip(followed, tested, strict=True):
        corrected = None if p is None else max(float(next(adjusted)), each.network_p or 0.0)
        yield _finding(setting, each, corrected, len(raw))


def _followed(setting: Setting, every: pl.DataFrame) -> Followed:
    # A pair may belong to several comparisons; what was measured is the same.
    rows = every.filter(pl.col("comparison") == every.get_column("comparison")[0])
    row = rows.row(0, named=True)
    agents, measure = (row["agent_a"], row["agent_b"]), row["measure"]
    both = [rows.get_column(name).abs().to_numpy() for name in ("effect_a_to_b", "effect_b_to_a")]
    effects = (both[0] + both[1]) / 2.0
    changes = rows.get_column("difference").abs().to_numpy()
    strata = _depths(rows)
    result = robust = None
    if rows.height >= MIN_THINGS:
        rng = setting.rng("pathways", measure, *agents)
        result = rank_correlation(changes, effects, strata, rng, setting.draws)
        members = list(rows.select("sender", "receiver").iter_rows())
        robust = dyadic_rank_p(changes, effects, members)
    network_p = _network_p(setting, agents, measure)
    return Followed(agents, measure, rows, changes, effects, strata, network_p, result, robust)


def _depths(rows: pl.DataFrame) -> tuple[int, ...]:
    """Which third of the layers each pathway ends in; the deepest receiver is the last layer."""
    layers = [parse_site(name).layer or 0 for name in rows.get_column("receiver").to_list()]
    return tuple(_THIRDS * layer // (max(layers) + 1) for layer in layers)


def _network_p(setting: Setting, agents: tuple[str, str], measure: str) -> float | None:
    if not setting.has("interaction_networks"):
        return None
    found = setting.tables["interaction_networks"].filter(
        (pl.col("agent_a") == agents[0])
        & (pl.col("agent_b") == agents[1])
        & (pl.col("measure") == measure)
    )
    values: list[float | None] = found.get_column("p_adjusted").to_list()
    return values[0] if values else None


def _finding(setting: Setting, each: Followed, adjusted: float | None, tests: int) -> Finding:
    first, second = each.agents
    suffix, of = _OF[each.measure]
    n, result, level = each.rows.height, each.result, setting.alpha / max(1, tests)
    figures = _figures(each, adjusted)
    subjects = [first, second, f"{first}>{second}", f"{second}>{first}"]
    return Finding(
        id=f"pathways:{first}:{second}{suffix}",
        found=f"Between {first} and {second}, pathways whose correlation changes more (in the {of})"
        f" carry larger effects when they are patched: {figures}.",
        observed=f"Between {first} and {second}, changes of correlation in the {of} are compared "
        f"with effects of the same pathways when they are patched: {figures}.",
        estimate=None if result is None else result.rho,
        interval=None,
        unit="rank correlation",
        n=n,
        replicate="pathways",
        test="rearranging effects among pathways that end at like depth, Spearman's rank "
        "correlation; a jackknife over components of the same; the test of the network; the "
        "largest p; null: a pathway's effect has nothing to do with its change",
        query=_query(each),
        consulted=consult(setting, each.agents, gates=[("duplicates", "scenarios")]),
        p=each.p,
        p_adjusted=adjusted,
        p_floor=None if each.p is None else rank_floor(each.strata, setting.draws),
        level=level,
        detectable=None if n < MIN_THINGS else detectable_rank_correlation(n, level),
        tests=tests or None,
        family=f"{tests} pair{'s' * (tests != 1)} of agents and measures with patched pathways",
        against=_against(each),
        missing=_missing(each, noise_floor(setting, subjects, patched=True)),
    )


def _figures(each: Followed, adjusted: float | None) -> str:
    chosen = each.rows.get_column("chosen_as") != "random"
    kept, drawn = each.effects[chosen.to_numpy()], each.effects[~chosen.to_numpy()]
    surviving = int(each.rows.get_column("survives").sum())
    rho = "not available" if each.result is None else signed(each.result.rho)
    n = each.rows.height
    return (
        f"over {n} pathways, {surviving} of which survive, rank correlation {rho} "
        f"({probability(adjusted)}); mean effect "
        f"{_mean(kept)} nats of the {len(kept)} chosen for their change and {_mean(drawn)} nats of "
        f"the {len(drawn)} random ones"
    )


def _mean(values: Array) -> str:
    return size(float(values.mean())) if values.size else "unknown"


def _against(each: Followed) -> str:
    if each.result is None or each.result.rho >= 0.0:
        return ""
    return "the pathways that change more carry smaller effects, not larger ones."


def _missing(each: Followed, noise: float) -> str | None:
    n = each.rows.height
    if n < MIN_THINGS:
        return (
            f"{n} pathways have no order to speak of; patch {MIN_THINGS} or more (setting "
            "mechanisms.interactions.pathways)."
        )
    if float(each.effects.max()) <= noise:
        return (
            f"no path has an effect above numerical noise ({size(noise)} nats), so there is "
            "nothing that changes of correlation could go with."
        )
    if each.result is None:
        return "all changes, or all effects, are equal, so they have no order."
    if each.network_p is None:
        return (
            "the networks of the two agents were not tested, so that it is not known whether their "
            "changes are more than noise; ask in more scenarios."
        )
    return None


def _query(each: Followed) -> str:
    first, second = each.agents
    comparison = each.rows.get_column("comparison")[0]
    rows = (
        "SELECT sender || '>' || receiver AS unit, difference, effect_a_to_b, effect_b_to_a, "
        "ABS(difference) AS change, (ABS(effect_a_to_b) + ABS(effect_b_to_a)) / 2 AS value "
        f"FROM pathways WHERE comparison = {text(comparison)} AND agent_a = {text(first)} "
        f"AND agent_b = {text(second)} AND measure = {text(each.measure)}"
    )
    means = (
        "SELECT unit, AVG(change) AS change, AVG(value) AS value FROM evidence_rows GROUP BY unit"
    )

    def rank(column: str) -> str:
        return (
            f"SUM(CAST(CASE WHEN y.{column} < x.{column} THEN 2 WHEN y.{column} = x.{column} "
            f"THEN 1 ELSE 0 END AS DOUBLE)) AS {column}_rank"
        )

    ranks = (
        f"SELECT x.unit, {rank('change')}, {rank('value')} FROM unit_means AS x "
        "CROSS JOIN unit_means AS y GROUP BY x.unit"
    )
    last = (
        f"SELECT CASE WHEN COUNT(*) >= {MIN_THINGS} THEN CORR(change_rank, value_rank) END "
        f"AS estimate FROM ({ranks}) AS ranks"
    )
    return layered(rows, means, last)
