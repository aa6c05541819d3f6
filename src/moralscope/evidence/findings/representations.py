"""Do two agents represent the same prompts differently, beyond what another seed makes of them?

From ``representation_pairs``, over the layers after the embedding, with

    d = |h_A - h_B| / |h_base|        on each prompt, averaged by scenario.

Unit: the scenario. The noise floor is the distance of two seeds of one reward, the positive control
that of the base from its agents. Any two trainings leave different streams, so that d exceeds 0
says nothing. The claim is that d exceeds that of *every* pair of seeds of one reward that was
measured: p is the largest of the sign-flip p over scenarios, one for each such pair, and no smaller
than ``1 / (pairs + 1)``, the chance that one more such pair would be the furthest apart. They are
*equivalent* where d lies below a tenth of the base's distance from the two. Holm over pairs.

Rewards are compared in ``representation_rewards``, subspaces in ``subspaces``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moralscope.evidence.findings.representation_distances import (
    TABLE,
    AgentPair,
    Apart,
    apart_of,
)
from moralscope.evidence.findings.representation_queries import (
    stream_distance,
)
from moralscope.evidence.findings.representation_rewards import reward_findings
from moralscope.evidence.findings.subspaces import subspace_findings
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    between,
    consult,
    probability,
    size,
)
from moralscope.evidence.pairs import compared
from moralscope.evidence.statistics.equivalence import (
    DEFAULT_MARGIN_SHARE,
    MIN_UNITS,
    corrected_tost,
)
from moralscope.evidence.statistics.intervals import cluster_interval
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, sign_flip, sign_flip_floor


def representation_findings(setting: Setting) -> Iterator[Finding]:
    """Pairs of agents, pairs of rewards, and subspaces."""
    if setting.has("prompts", TABLE):
        apart = apart_of(setting)
        if apart is not None:
            yield from _pairs(setting, apart)
            yield from reward_findings(setting, apart)
    yield from subspace_findings(setting)


def _pairs(setting: Setting, apart: Apart) -> Iterator[Finding]:
    pairs = compared(setting.tables)
    floor = [own for p in pairs if p.kind == "replicate" and (own := apart.stored(p.agents))]
    named = dict.fromkeys(
        own for p in pairs if p.kind == "named" and p.tested and (own := apart.stored(p.agents))
    )
    bases = {p.second: own for p in pairs if p.kind == "base" and (own := apart.stored(p.agents))}
    looked = [_look(setting, apart, pair, floor, bases) for pair in named]
    raw = [1.0 if one.p is None else one.p for one in looked]
    corrected = holm(np.array(raw, dtype=np.float64)) if looked else np.empty(0)
    for one, p in zip(looked, corrected, strict=True):
        like = None if one.margin is None else corrected_tost(one.values, one.margin, len(looked))
        adjusted = None if one.p is None else float(p)
        yield _pair_finding(setting, apart, replace(one, adjusted=adjusted, like=like), len(looked))


@dataclass(frozen=True, eq=False)
class _Looked:
    """A pair of agents beside its two ends: seeds of one reward, and the base.

    Attributes:
        pair: as the table has it.
        values: its distances by scenario.
        furthest: of the pairs of seeds of one reward; None without any.
        floors: their distances.
        margin: a tenth of the base's distance; None where it was not measured.
        p, p_floor, adjusted: that it is no further than every such pair, before and after Holm.
        like: that it is not within the margin, corrected.
    """

    pair: AgentPair
    values: Array
    furthest: AgentPair | None
    floors: Mapping[AgentPair, Array]
    margin: float | None
    p: float | None
    p_floor: float | None
    adjusted: float | None = None
    like: float | None = None


def _look(
    setting: Setting,
    apart: Apart,
    pair: AgentPair,
    replicates: Sequence[AgentPair],
    bases: Mapping[str, AgentPair],
) -> _Looked:
    values = apart.distances[pair]
    floors = {other: apart.distances[other] for other in replicates}
    controls = [apart.distances[bases[name]].mean() for name in pair if name in bases]
    margin = DEFAULT_MARGIN_SHARE * float(np.mean(controls)) if len(controls) == 2 else None
    if not floors:
        return _Looked(pair, values, None, floors, margin, None, None)
    chance = 1.0 / (len(floors) + 1)
    p = chance
    for other, theirs in floors.items():
        beyond = values - theirs
        rng = setting.rng("representations", *pair, *other)
        flipped = sign_flip(beyond, rng, setting.draws)[0] if beyond.mean() > 0.0 else 1.0
        p = max(p, flipped)
    furthest = max(floors, key=lambda other: float(floors[other].mean()))
    least = max(chance, sign_flip_floor(len(values), setting.draws if len(values) > 14 else 0))
    return _Looked(pair, values, furthest, floors, margin, p, least)


def _pair_finding(
    setting: Setting,
    apart: Apart,
    one: _Looked,
    tests: int,
) -> Finding:
    a, b = one.pair
    mean = float(one.values.mean())
    rng = setting.rng("representations", "interval", a, b)
    interval = cluster_interval(one.values, rng, draws=min(setting.draws, 1_999))
    if interval is not None:
        interval = max(0.0, interval[0]), interval[1]
    adjusted, like = one.adjusted, one.like
    beside = _beside(apart, one)
    figures = (
        f"they differ by {size(mean)} of the base's length over {len(one.values)} scenarios "
        f"({between(interval)}){beside}; adjusted {probability(adjusted)}"
    )
    # Where two agents are shown to be alike, how far seeds lie apart decides nothing.
    alike = like is not None and like < setting.alpha
    return Finding(
        id=f"representation:{a}:{b}",
        found=f"The streams of {a} and {b} lie further apart than those of any two seeds of one "
        f"reward: {figures}.",
        observed=f"Of the streams of {a} and {b} where the options part: {figures}.",
        estimate=mean,
        interval=interval,
        unit="share of the base's length",
        n=len(one.values),
        test="distance against every pair of seeds of one reward, sign-flips over scenarios, the "
        "largest p, no smaller than the chance of one more such pair to be the furthest; Holm",
        query=stream_distance(one.pair, apart.family),
        consulted=consult(setting, one.pair, [(DUPLICATES, "scenarios")]),
        p=None if alike else one.p,
        p_adjusted=None if alike else adjusted,
        p_floor=None if alike else one.p_floor,
        level=setting.alpha / tests,
        noise=0.0,
        equivalence_p=like,
        margin=one.margin,
        tests=tests,
        family=f"{tests} pair{'s' * (tests > 1)} of agents",
        missing=None if alike else _missing_pair(one),
    )


def _missing_pair(one: _Looked) -> str | None:
    if len(one.values) < MIN_UNITS:
        return (
            f"{len(one.values)} scenarios show too little of how distances vary; compare in "
            f"{MIN_UNITS} or more."
        )
    if one.furthest is None:
        return (
            "any two trainings leave different streams, and no two seeds of one reward were "
            "measured, which would show by how much; train each reward from several seeds."
        )
    return None


def _beside(apart: Apart, one: _Looked) -> str:
    """The two ends of the scale, and the likeness of the changes, in words."""
    words = ""
    if one.furthest is not None:
        middle = float(np.mean([values.mean() for values in one.floors.values()]))
        words += (
            f"; {len(one.floors)} pair{'s' * (len(one.floors) > 1)} of seeds of one reward by "
            f"{size(middle)} on average and {size(float(one.floors[one.furthest].mean()))} at most"
        )
    if one.margin is not None:
        words += f"; the base from them by {size(one.margin / DEFAULT_MARGIN_SHARE)}"
    if one.pair in apart.changes:
        cosine = 1.0 - float(apart.changes[one.pair].mean())
        words += f"; the cosine of their changes from base is {size(cosine)}"
        same = [1.0 - float(apart.changes[o].mean()) for o in one.floors if o in apart.changes]
        if same:
            words += f", of seeds of one reward {size(float(np.mean(same)))}"
    return words
