"""What comes of each question at each level: a distance on the common scale, and a test over seeds.

Of two agents the distance is theirs, with a jackknife interval over scenarios; nothing is tested,
because two agents of two rewards are one draw of each. Of two rewards the distance is the mean over
all pairs of their agents from different seeds, with a jackknife interval over training seeds, and
all levels are tested together by relabelling the seeds (``relabelling``). That takes five seeds of
each reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.core.streams import stream
from moralscope.evidence.designs import MIN_SEEDS
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.statistics.replicates import replicate_floor
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.comparing import Question
from moralscope.evidence.synthesis.distances import Apart, Distances, jackknife
from moralscope.evidence.synthesis.relabelling import Flags, Relabelled, relabel, without_seeds
from moralscope.evidence.synthesis.scale import SEEDS, Scale, Study, scale_for

INDISTINGUISHABLE = "indistinguishable from another seed"
BETWEEN = "between"
AS_LARGE = "as large as fine-tuning itself"

ANSWERS = (INDISTINGUISHABLE, BETWEEN, AS_LARGE)

NEARER = 0.5
"""Half way between the ends of the scale: beyond it a distance is nearer to fine-tuning."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one measure says of one question.

    Attributes:
        question: who is compared.
        measured: the distances.
        primary: whether claims rest on it.
        scale: its two ends.
        distance: of the two agents, or mean over pairs of the two rewards.
        relative, interval: on the common scale; None where it has no two ends.
        n, replicate: units of the interval.
        matrix: (N, N) distances of the agents of two rewards; None of two agents, or where a pair
            was not measured.
        counted: (N, N) which pairs count: agents of different seeds. All where none would.
        test: over the seeds of two rewards; None where it is not identified.
        at: place of the level in that test.
        missing: what the design lacks, as a sentence; None where it is tested.
    """

    question: Question
    measured: Distances
    primary: bool
    scale: Scale
    distance: Apart
    relative: float | None
    interval: Interval | None
    n: int
    replicate: str
    matrix: Array | None
    counted: Flags | None
    test: Relabelled | None
    at: int
    missing: str | None

    @property
    def p_adjusted(self) -> float | None:
        """Corrected over the levels; None where nothing was tested."""
        return None if self.test is None else float(self.test.p_adjusted[self.at])

    def answer(self, alpha: float) -> str | None:
        """Where it lies, as one of ``ANSWERS``; None where that is not identified."""
        if self.relative is None or self.scale.kind != SEEDS:
            return None
        low, high = self.interval or (self.relative, self.relative)
        if self.question.rewards is None:
            highest = self.scale.highest
            near = highest is not None and self.distance.whole <= highest
            if near or low <= 0.0:
                return INDISTINGUISHABLE
        elif self.p_adjusted is None:
            return None
        elif self.p_adjusted >= alpha:
            return INDISTINGUISHABLE
        # An interval that reaches from seeds to fine-tuning says nothing of how large it is.
        return AS_LARGE if high >= 1.0 and low > NEARER else BETWEEN


def outcomes(
    study: Study, question: Question, *, alpha: float, seed: int, draws: int
) -> Iterator[Outcome]:
    """Every measure of every level that was taken of the agents of a question.

    Args:
        study: its distances.
        question: who is compared.
        alpha: level of the test.
        seed: of random reassignments.
        draws: how many.
    """
    primary = _primary(study.measured, question)
    if question.rewards is None:
        for measured in study.measured:
            found = measured.between(*question.pairs[0].agents)
            if found is not None:
                yield _of_agents(study, question, measured, found, primary=measured in primary)
        return
    matrices = {id(m): _matrix(m, question) for m in study.measured}
    lacking = seeds_missing(question, alpha)
    counted = _counted(study, question)
    tested = [m for m in primary if matrices[id(m)] is not None]
    test = None
    if lacking is None and tested:
        rng = stream(seed, "claims", "cascade", question.name, *question.rewards)
        stacked = np.array([matrices[id(m)] for m in tested])
        test = relabel(stacked, len(question.sides[0]), rng, draws, counted)
    for measured in study.measured:
        matrix = matrices[id(measured)]
        there = [
            found
            for a, b in crossing(question, counted)
            if (found := measured.between(a, b)) is not None
        ]
        if not there:
            continue
        why = lacking
        if why is None and matrix is None:
            why = _unmeasured(measured, question)
        yield _of_rewards(
            study, question, _Seeds(measured, there, matrix, counted),
            primary=measured in primary,
            test=test if measured in tested else None,
            at=tested.index(measured) if measured in tested else 0,
            missing=why,
        )  # fmt: skip


def seeds_missing(question: Question, alpha: float) -> str | None:
    """Why two rewards cannot be told from training seeds; None where they can."""
    sizes = [len(side) for side in question.sides]
    if min(sizes) >= MIN_SEEDS and replicate_floor(sizes) < alpha:
        return None
    needed = MIN_SEEDS
    while replicate_floor([needed, needed]) >= alpha:
        needed += 1
    rewards = question.rewards or ("", "")
    each = " and ".join(
        f"{size} seed{'s' * (size != 1)} of {reward}"
        for size, reward in zip(sizes, rewards, strict=True)
    )
    return (
        f"what rewards do is told from what training seeds do by relabelling the seeds, and {each} "
        f"cannot carry it; {needed} seeds of each would."
    )


def _primary(measured: Sequence[Distances], question: Question) -> list[Distances]:
    """The first measure of each level that was taken of the question's agents."""
    found: dict[str, Distances] = {}
    for one in measured:
        pairs = (pair.agents for pair in question.pairs)
        if any(one.between(*agents) is not None for agents in pairs):
            found.setdefault(one.level, one)
    return list(found.values())


def _of_agents(
    study: Study, question: Question, measured: Distances, found: Apart, *, primary: bool
) -> Outcome:
    scale = scale_for(study, measured, question.agents)
    return Outcome(
        question=question,
        measured=measured,
        primary=primary,
        scale=scale,
        distance=found,
        relative=scale.relative(found.whole),
        interval=scale.interval(found),
        n=measured.n,
        replicate=measured.replicate,
        matrix=None,
        counted=None,
        test=None,
        at=0,
        missing="two agents are one draw of what their training gives; whether training differs "
        f"takes {MIN_SEEDS} seeds of each of two rewards.",
    )


@dataclass(frozen=True, eq=False)
class _Seeds:
    """What one measure says of the agents of two rewards."""

    measured: Distances
    there: Sequence[Apart]
    matrix: Array | None
    counted: Flags


def _of_rewards(
    study: Study,
    question: Question,
    seeds: _Seeds,
    *,
    primary: bool,
    test: Relabelled | None,
    at: int,
    missing: str | None,
) -> Outcome:
    measured, matrix, counted = seeds.measured, seeds.matrix, seeds.counted
    scale = scale_for(study, measured, question.agents)
    whole = float(np.mean([found.whole for found in seeds.there]))
    relative, interval = scale.relative(whole), None
    if matrix is not None and relative is not None and min(map(len, question.sides)) > 1:
        left, _ = without_seeds(matrix, len(question.sides[0]), counted)
        moved = [scale.relative(float(one)) for one in left]
        interval = jackknife(relative, np.array(moved, dtype=np.float64))
    return Outcome(
        question=question,
        measured=measured,
        primary=primary,
        scale=scale,
        distance=Apart(whole, np.empty(0)),
        relative=relative,
        interval=interval,
        n=len(question.agents),
        replicate="training seeds",
        matrix=matrix,
        counted=counted,
        test=test,
        at=at,
        missing=missing,
    )


def _counted(study: Study, question: Question) -> Flags:
    """(N, N) pairs of agents from different seeds; all where no two rewards have such a pair."""
    seeds = [study.known[name].seed for name in question.agents]
    apart = np.array([[a is None or a != b for b in seeds] for a in seeds])
    first = len(question.sides[0])
    return apart if apart[:first, first:].any() else np.ones_like(apart)


def crossing(question: Question, counted: Flags) -> list[tuple[str, str]]:
    """The pairs of agents of different rewards that count."""
    first = len(question.sides[0])
    return [
        (a, b)
        for i, a in enumerate(question.sides[0])
        for j, b in enumerate(question.sides[1])
        if counted[i, first + j]
    ]


def _matrix(measured: Distances, question: Question) -> Array | None:
    """(N, N) distances of all agents of two rewards; None where a pair was not measured."""
    agents = question.agents
    found = np.zeros((len(agents), len(agents)))
    for i, one in enumerate(agents):
        for j, other in enumerate(agents[:i]):
            apart = measured.between(one, other)
            if apart is None:
                return None
            found[i, j] = found[j, i] = apart.whole
    return found


def _unmeasured(measured: Distances, question: Question) -> str:
    agents = question.agents
    missing = [
        (one, other)
        for i, one in enumerate(agents)
        for other in agents[:i]
        if measured.between(one, other) is None
    ]
    return (
        f"{len(missing)} of {len(agents) * (len(agents) - 1) // 2} pairs of their agents were not "
        f"measured at this level, such as {missing[0][1]} and {missing[0][0]}; the test over seeds "
        "needs all of them."
    )
