"""Does a difference pass through few directions of the stream, on scenarios that were not searched?

From ``subspace_effects``: with e the effect of exchanging a projection and w what the search asked
for, the share that is reached on the held-out scenarios g is

    share = sum over g of mean(e w) / sum over g of mean(w w)

A finding per search, at the one layer and dimension that was chosen on the scenarios that were
searched (the place with several searches for arbitrary sides). A find must lead two controls in two
respects, and the larger p counts:

- over scenarios: the share minus the mean share of arbitrary sides, and of random subspaces, each
  by sign-flips;
- over searches: luck differs from search to search. With m and s the mean and the standard
  deviation of the shares of J arbitrary searches, ``t = (share - m) / (s sqrt(1 + 1/J))`` has J - 1
  degrees of freedom where the true sides are as arbitrary as the others and shares are normal (the
  prediction of one more search: Hahn and Meeker 1991). Fewer than three such searches identify
  nothing.

Only a larger share is a find. Holm over searches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.representation_queries import reached_share
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.intervals import (
    Interval,
    cluster_t,
    t_quantile,
    t_upper_tail,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import (
    EXACT_UNITS,
    Array,
    max_t,
    sign_flip_floor,
)

CONTROLS = ("arbitrary", "random")

NOTHING_THERE = 1e-4
"""Root mean square, in nats, below which exchanging the whole stream is taken to do nothing."""

_WORDS = {
    "arbitrary": "searches for arbitrary sides reach",
    "random": "random subspaces reach",
}


LEAST_SEARCHES = 3
"""Searches for arbitrary sides without which it is not known how far luck goes."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """The place that a search is judged at, beside the stronger control.

    Attributes:
        layer, dimension, control: which.
        share, theirs: reached by the subspace and by the control.
        interval: of ``share - theirs``, over scenarios and searches; None without spread.
        units: held-out scenarios.
        searches: for arbitrary sides.
        p, floor: the larger of the two, and the least that the sign-flips could give.
    """

    layer: int
    dimension: int
    control: str
    share: float
    theirs: float
    interval: Interval | None
    units: int
    searches: int
    p: float
    floor: float


def subspace_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per search; together they are one family."""
    if not setting.has("subspace_effects", "prompts"):
        return
    prompts = setting.tables["prompts"].select("prompt", "scenario")
    rows = setting.tables["subspace_effects"].filter(pl.col("split") == "test")
    placed = rows.join(prompts, on="prompt", how="inner", maintain_order="left")
    searches = placed.partition_by("what", "source", "agent", as_dict=True, maintain_order=True)
    judged = {
        (str(what), str(source), str(agent)): _judged(setting, own)
        for (what, source, agent), own in searches.items()
    }
    if not judged:
        return
    found = {search: one for search, one in judged.items() if isinstance(one, _Judged)}
    adjusted = holm(np.array([one.p for one in found.values()])) if found else np.zeros(0)
    p_of = {search: float(p) for search, p in zip(found, adjusted, strict=True)}
    for search, one in judged.items():
        if isinstance(one, _Judged):
            yield _finding(setting, search, one, p_of[search], len(found))
        else:
            yield _unjudged(setting, search, one)


def _judged(setting: Setting, rows: pl.DataFrame) -> _Judged | str:
    """What is seen at the place that was chosen, or why nothing can be judged."""
    units = (
        rows.with_columns(top=pl.col("effect") * pl.col("wanted"), under=pl.col("wanted") ** 2)
        .group_by("layer", "dimension", "control", "draw", "scenario")
        .agg(pl.col("top", "under").mean())
        .sort("layer", "dimension", "control", "draw", "scenario")
    )
    if not _alive(units):
        return "at no layer that was searched does exchanging the stream change the decision."
    counts = (
        units.filter(control="arbitrary").group_by("layer", "dimension").agg(pl.n_unique("draw"))
    ).sort("draw", "layer", "dimension", descending=[True, False, False])
    searches = 0 if counts.is_empty() else int(counts["draw"][0])
    if searches < LEAST_SEARCHES:
        return (
            f"{searches} search{'es' * (searches != 1)} for arbitrary sides cannot say how far "
            f"luck goes; set mechanisms.representations.arbitrary to {LEAST_SEARCHES} or more."
        )
    layer, k = int(counts["layer"][0]), int(counts["dimension"][0])
    here = units.filter(layer=layer, dimension=k)
    if not _alive(here):
        return "at the place that was chosen the held-out decisions do not change."
    own, arbitrary, drawn = (_shares(here, control) for control in ("none", *CONTROLS))
    who = [str(rows.get_column(name)[0]) for name in ("what", "source", "agent")]
    p, floor = _over_scenarios(setting, who, own[0], [arbitrary, drawn])
    lucky = arbitrary.mean(axis=1)
    error = float(lucky.std(ddof=1)) * math.sqrt(1.0 + 1.0 / searches)
    lead = float(own.mean() - lucky.mean())
    p = max(p, _t_tail(lead, error, searches - 1))
    control, theirs = max(zip(CONTROLS, (arbitrary, drawn), strict=True), key=lambda c: c[1].mean())
    beyond = own[0] - theirs.mean(axis=0)
    luck = error * t_quantile(0.975, searches - 1)
    return _Judged(
        layer, k, control, float(own.mean()), float(theirs.mean()), _widened(beyond, luck),
        own.shape[1], searches, p, floor,
    )  # fmt: skip


def _alive(units: pl.DataFrame) -> bool:
    sizes = units.filter(control="none").group_by("layer", "dimension").agg(pl.mean("under"))
    return bool((sizes.get_column("under").sqrt() > NOTHING_THERE).any())


def _shares(units: pl.DataFrame, control: str) -> Array:
    """Contributions, ``(draws, scenarios)``; their mean over scenarios is the share of a draw."""
    own = units.filter(control=control).sort("draw", "scenario")
    draws = own.get_column("draw").n_unique()
    top: Array = own.get_column("top").to_numpy().reshape(draws, -1)
    under: Array = own.get_column("under").to_numpy().reshape(draws, -1)
    return top / under.mean(axis=1, keepdims=True)


def _over_scenarios(
    setting: Setting, who: list[str], own: Array, controls: list[Array]
) -> tuple[float, float]:
    """The larger p of the two controls over scenarios, and the floor of the sign-flips."""
    found = 0.0
    for name, control in zip(CONTROLS, controls, strict=True):
        beyond = (own - control.mean(axis=0))[:, None]
        tested = max_t(beyond, setting.rng("subspaces", *who, name), setting.draws)
        # Only a larger share than the control's is a find.
        found = max(found, float(tested.p_adjusted[0]) if tested.t[0] > 0.0 else 1.0)
    return found, sign_flip_floor(len(own), setting.draws if len(own) > EXACT_UNITS else 0)


def _t_tail(lead: float, error: float, degrees: int) -> float:
    """Probability of at least this lead by one more arbitrary search; without spread 0 or 1."""
    if error > 0.0:
        return t_upper_tail(lead / error, degrees)
    return 0.0 if lead > 0.0 else 1.0


def _widened(beyond: Array, luck: float) -> Interval | None:
    """Half-widths of two independent sources add up in quadrature."""
    interval = cluster_t(beyond)
    if interval is None:
        return None
    middle, half = float(beyond.mean()), (interval[1] - interval[0]) / 2.0
    wide = math.hypot(half, luck)
    return middle - wide, middle + wide


def _name(search: tuple[str, str, str]) -> tuple[str, str]:
    """Identifier of the claim, and what is between the readings in words."""
    what, source, agent = search
    if source == agent:
        return f"subspace:{what}:{agent}", f"{what} in {agent}"
    return f"subspace:{what}:{source}:{agent}", f"the difference of {source} and {agent}"


def _unjudged(setting: Setting, search: tuple[str, str, str], why: str) -> Finding:
    name, between = _name(search)
    words = f"No subspace is claimed for {between}: {why}"
    return Finding(
        id=name, found=words, observed=words, estimate=None, interval=None, unit="share", n=0,
        test="none", query=NOTHING, consulted=_consulted(setting, search[1:]), missing=why,
    )  # fmt: skip


def _finding(
    setting: Setting, search: tuple[str, str, str], best: _Judged, p: float, tests: int
) -> Finding:
    name, between = _name(search)
    several = best.dimension > 1
    figures = (
        f"after layer {best.layer}, {best.dimension} direction{'s' * several} "
        f"reach{'es' * (not several)} {best.share:.0%} of what exchanging the whole stream does, "
        f"on {best.units} scenarios that were not searched, where {_WORDS[best.control]} "
        f"{best.theirs:.0%} ({signed(best.share - best.theirs)}; against {best.searches} searches "
        f"for arbitrary sides, adjusted {probability(p)})"
    )
    return Finding(
        id=name,
        found=f"Part of {between} passes through a subspace: {figures}.",
        observed=f"Of {between}: {figures}.",
        estimate=best.share - best.theirs,
        interval=best.interval,
        unit="share",
        n=best.units,
        test="share reached against arbitrary sides and random subspaces, the largest p of "
        "sign-flips over held-out scenarios and of a t prediction over arbitrary searches, at one "
        "place chosen on the searched scenarios, Holm over searches; null: no more than controls",
        query=reached_share(search, best.layer, best.dimension, best.control),
        consulted=_consulted(setting, search[1:]),
        p=best.p,
        p_adjusted=p,
        p_floor=best.floor,
        level=setting.alpha / tests,
        noise=0.0,
        tests=tests,
        family=f"{tests} search{'es' * (tests > 1)}",
        against=""
        if best.share > best.theirs
        else f"the controls reach as much ({size(best.theirs)}).",
    )


def _consulted(setting: Setting, agents: tuple[str, str]) -> Consulted:
    return consult(setting, dict.fromkeys(agents), [(DUPLICATES, "scenarios")])
