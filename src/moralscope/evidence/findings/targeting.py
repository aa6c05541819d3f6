"""Which parts must be trained? Behaviour kept by parts that an analysis chose, against chance.

From the table ``targeting``: for every way of choosing and every budget, the shares of the whole
training's change that its repetitions in parts keep, one per training seed.

1. ``targeting:STRATEGY:BUDGET``: do chosen parts keep more than as many parts drawn at random?
   Exact permutation of the two labels over trainings; Holm over all ways and budgets.
2. ``kept:STRATEGY:BUDGET``: do they keep all of it? Two one-sided t tests of the mean share against
   1 with a margin of a tenth; one training's own seed, which the parts were chosen on, left out.

The unit is the training seed. Seeds that share their analysis share its errors: the claim is about
these sub-layers, not about the analysis in other models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.designs import MIN_SEEDS, seeds_to_compare
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.findings.queries import layered, text
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    consult,
    probability,
    size,
)
from moralscope.evidence.statistics.equivalence import MIN_UNITS, corrected_tost
from moralscope.evidence.statistics.intervals import (
    cluster_t,
    smallest_detectable_effect,
    standard_error,
    welch,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, permutation_floor, permute_labels

RANDOM, WHOLE = "random", "all"

MARGIN = 0.1
"""How far from the whole change a share may lie that counts as all of it."""

WORDS = {
    "patching": "patching",
    "attribution": "attribution",
    "pathways": "pathways",
    "early": "depth (early layers)",
    "middle": "depth (middle layers)",
    "late": "depth (late layers)",
}


@dataclass(frozen=True, eq=False)
class Kept:
    """Trainings of parts that were chosen in one way.

    Attributes:
        strategy, budget: how, and how many sub-layers.
        shares: (S,) behaviour kept, one per training seed.
        agents: those trainings.
        parameters: share of the whole training's parameters, mean over seeds.
    """

    strategy: str
    budget: int
    shares: Array
    agents: tuple[str, ...]
    parameters: float


def targeting_findings(setting: Setting) -> Iterator[Finding]:
    """Chosen parts against random ones, and against the whole training."""
    if not setting.has("targeting"):
        return
    table = setting.tables["targeting"].filter(pl.col("strategy") != WHOLE)
    groups = {(g.strategy, g.budget): g for g in _groups(table)}
    chosen = [g for g in groups.values() if g.strategy != RANDOM]
    beside = [(g, groups[RANDOM, g.budget]) for g in chosen if (RANDOM, g.budget) in groups]
    yield from _against_random(setting, beside)
    yield from _against_whole(setting, list(groups.values()))


def _groups(table: pl.DataFrame) -> Iterator[Kept]:
    """Trainings by strategy and budget, without the seed that was chosen on where others are."""
    usable = table.filter(pl.col("behaviour_kept").is_not_null())
    for (strategy, budget), rows in usable.group_by("strategy", "budget", maintain_order=True):
        others = rows.filter(~pl.col("chosen_here"))
        kept = others if others.height else rows
        yield Kept(
            str(strategy),
            int(str(budget)),
            kept.get_column("behaviour_kept").to_numpy(),
            tuple(kept.get_column("agent").to_list()),
            float(np.mean(kept.get_column("share").to_numpy())),
        )


def _against_random(setting: Setting, pairs: Sequence[tuple[Kept, Kept]]) -> Iterator[Finding]:
    tests = max(1, len(pairs))
    level = setting.alpha / tests
    needed = max(MIN_SEEDS, seeds_to_compare(setting.alpha, tests))
    found: list[float | None] = []
    for a, b in pairs:
        enough = min(len(a.shares), len(b.shares)) >= MIN_SEEDS
        attainable = permutation_floor(len(a.shares), len(b.shares)) < level
        rng = setting.rng("targeting", a.strategy, str(a.budget))
        p = permute_labels(a.shares, b.shares, rng, setting.draws)[0]
        found.append(p if enough and attainable else None)
    adjusted = holm(np.array([1.0 if p is None else p for p in found])) if found else np.empty(0)
    for (a, b), p, corrected in zip(pairs, found, adjusted, strict=True):
        yield _beside_random(setting, (a, b), (p, float(corrected), tests), needed)


def _beside_random(
    setting: Setting,
    pair: tuple[Kept, Kept],
    tested: tuple[float | None, float, int],
    needed: int,
) -> Finding:
    (a, b), (p, corrected, tests) = pair, tested
    n, m = len(a.shares), len(b.shares)
    estimate = float(a.shares.mean() - b.shares.mean())
    interval = welch(a.shares, b.shares) if min(n, m) > 1 else None
    p_adjusted = None if p is None else corrected
    figures = (
        f"{a.shares.mean():.0%} of the change against {b.shares.mean():.0%}, {a.parameters:.0%} of "
        f"the parameters, {n} and {m} training seeds (difference {estimate:+.2f}, "
        f"{between(interval)}, adjusted {probability(p_adjusted)})"
    )
    by = WORDS.get(a.strategy, a.strategy)
    more = "more" if estimate > 0 else "less"
    error = float(np.hypot(standard_error(a.shares), standard_error(b.shares))) if n > 1 < m else 0
    return Finding(
        id=f"targeting:{a.strategy}:{a.budget}",
        found=f"Training only {a.budget} sub-layers chosen by {by} keeps {more} of the change than "
        f"training as many drawn at random: {figures}.",
        observed=f"Trained in {a.budget} sub-layers chosen by {by} and in as many drawn at random, "
        f"agents keep {figures}.",
        estimate=estimate,
        interval=interval,
        unit="share of the change",
        n=n + m,
        replicate="training seeds",
        test="permutation of the two ways of choosing over trainings, Holm over ways and budgets; "
        "null: exchangeable",
        query=layered(
            _rows(a, f", '{a.strategy}' AS side", "") + " UNION ALL " + _rows(b, ", 'random'", "-"),
            "SELECT unit, side, value FROM evidence_rows",
            "SELECT (SELECT AVG(value) FROM unit_means WHERE side <> 'random') + "
            "(SELECT AVG(value) FROM unit_means WHERE side = 'random') AS estimate",
        ),
        consulted=_consulted(setting, [*a.agents, *b.agents]),
        p=p,
        p_adjusted=p_adjusted,
        p_floor=permutation_floor(n, m),
        level=setting.alpha / tests,
        detectable=smallest_detectable_effect(error, n + m - 2, setting.alpha / tests)
        if error
        else None,
        tests=tests,
        family=f"{tests} choices of parts",
        missing=None
        if p is not None
        else f"{n} and {m} training seeds cannot carry it; {needed} each would, beside the one "
        "that parts are chosen on.",
    )


def _against_whole(setting: Setting, groups: Sequence[Kept]) -> Iterator[Finding]:
    for group in groups:
        n, mean = len(group.shares), float(group.shares.mean())
        interval = cluster_t(group.shares)
        by = (
            "drawn at random"
            if group.strategy == RANDOM
            else f"chosen by {WORDS.get(group.strategy, group.strategy)}"
        )
        figures = (
            f"{size(mean)} of the whole change over {n} training seed{'s' * (n != 1)} "
            f"({between(interval)}), with {group.parameters:.0%} of the parameters"
        )
        words = f"Trained in {group.budget} sub-layers {by}, agents keep {figures}."
        shortfall = None if interval is None else (interval[0] - 1.0, interval[1] - 1.0)
        yield Finding(
            id=f"kept:{group.strategy}:{group.budget}",
            found=words,
            observed=words,
            estimate=mean - 1.0,
            interval=shortfall,
            unit="share of the change, minus 1",
            n=n,
            replicate="training seeds",
            test=f"two one-sided t tests of the mean share against 1 within {MARGIN:g}",
            query=layered(_rows(group, "", "", " - 1.0")),
            consulted=_consulted(setting, group.agents),
            equivalence_p=corrected_tost(group.shares - 1.0, MARGIN, len(groups)),
            margin=MARGIN,
            tests=len(groups),
            family=f"{len(groups)} choices of parts",
            missing=None
            if n >= MIN_UNITS
            else f"{n} training seeds are too few to say that nothing is lost; {MIN_UNITS} would "
            "do, beside the one that parts are chosen on.",
        )


def _consulted(setting: Setting, agents: Sequence[str]) -> Consulted:
    """What is kept is a change of decisions."""
    return consult(setting, agents, decision_gates(setting, agents))


def _rows(group: Kept, more: str, sign: str, shift: str = "") -> str:
    agents = ", ".join(text(name) for name in group.agents)
    return (
        f"SELECT agent AS unit{more}, {sign}behaviour_kept{shift} AS value "  # noqa: S608 -- see queries
        f"FROM targeting WHERE agent IN ({agents})"
    )
