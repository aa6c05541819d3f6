"""What does patching a whole set of sites do, as a share of all there is to explain?

With ``e_p(S)`` the effect on prompt p of patching the sites S together (``patching.sweeps``) and
``F_p`` that of the full swap, both in nats,

    share(S) = sum_p sign(F_p) e_p(S) / sum_p |F_p|

is the mean effect towards the source over the mean full swap: 1 for the full swap itself, above 1
for sets that overshoot, negative for sets that lead away from the source. Overshooting on one
prompt makes up for falling short on another; it does not in

    match(S) = 1 - sum_p |F_p - e_p(S)| / sum_p |F_p|

which is 1 for sets that do what the source does on every prompt, and for no others. *Flips* are
counted among the prompts on which the full swap flips the decision: the share of them on which S
flips it too.

Searches for circuits and their controls see sets only through ``SetEffects``, so they can be asked
about any function of sets; ``set_effects`` gives the one that patches a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from moralscope.core.errors import ConfigError, EvidenceError, SiteError, nearest
from moralscope.core.progress import Progress, silent
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Write, donor_for
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import DEFAULT_MEMORY_BYTES, MAX_ROW_TOKENS, plan_sweep
from moralscope.mechanisms.patching.segments import ANSWER_SPAN
from moralscope.mechanisms.patching.sweeps import Pairs, full_swap, pairs_of, run_plan, segments_for
from moralscope.models.anatomy import Anatomy

FloatArray = NDArray[np.float64]

SiteSet = frozenset[Site]

Evaluate = Callable[[Sequence[SiteSet]], FloatArray]
"""Effects of patching each set on each prompt, ``(sets, prompts)``, in nats."""

GoalKind = Literal["share", "match", "flip"]

TIE = 1e-9
"""Shares that differ by less are equal: rounding must not choose a site or miss a threshold."""

DEFAULT_SHARE = 0.8
"""The share that a circuit is asked for unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is patched into what, as the tables name it.

    Attributes:
        source, target: agents.
        positions: ``answer_span``, ``all`` or a named span.
        write: see ``patching.edits``.
    """

    source: str
    target: str
    positions: str = ANSWER_SPAN
    write: str = "write"

    def columns(self) -> dict[str, object]:
        """The columns that name it."""
        return {
            "source": self.source,
            "target": self.target,
            "positions": self.positions,
            "write": self.write,
        }


@dataclass(frozen=True, eq=False)
class SetEffects:
    """Effects of sets of sites, and what they are compared with.

    Attributes:
        subject: what is patched into what.
        candidates: the sites to choose from.
        everything: sites that together are the whole model, for sets that leave some out.
        baseline: the target's own log-odds, ``(prompts,)``, nats.
        full_swap: effect of the full swap, ``(prompts,)``, nats.
        measure: effects of sets; the empty set is never asked for.
    """

    subject: Subject
    candidates: tuple[Site, ...]
    everything: SiteSet
    baseline: FloatArray
    full_swap: FloatArray
    measure: Evaluate

    def __post_init__(self) -> None:
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise SiteError(
                "A circuit is chosen from different sites",
                seen=", ".join(map(str, self.candidates)) or "none",
                allowed="one site or more, each once",
                remedy="give anatomy.component_sites or some of them",
            )
        whole = np.isfinite(self.full_swap).all() and self.full_swap.shape == self.baseline.shape
        if not whole or not np.abs(self.full_swap).sum() > 0.0:
            raise EvidenceError(
                "There is no effect of which a set of sites could have a share",
                seen=f"full swap {self.full_swap.tolist()} nats, "
                f"baseline of {len(self.baseline)} prompts",
                allowed="one full swap a prompt, finite, not all of them zero",
                remedy="compare agents that decide differently, or prompts that differ",
            )

    @property
    def flippable(self) -> NDArray[np.bool_]:
        """Prompts on which the full swap changes the preferred option."""
        return self.flipped(self.full_swap)

    def flipped(self, effects: FloatArray) -> NDArray[np.bool_]:
        """Where effects change the preferred option."""
        return (self.baseline + effects > 0) != (self.baseline > 0)


@dataclass(frozen=True, slots=True)
class Goal:
    """When is a set of sites enough?

    Attributes:
        kind: ``share`` of the full swap's effect, ``match`` with it, or ``flip`` of the decision.
        threshold: what is asked for, above 0 and up to 1: this share, this match, or this share of
            the prompts that the full swap flips.
    """

    kind: GoalKind = "share"
    threshold: float = DEFAULT_SHARE

    def __post_init__(self) -> None:
        kinds = get_args(GoalKind)
        if self.kind not in kinds or not 0.0 < self.threshold <= 1.0:
            raise ConfigError(
                "A circuit cannot be asked for this",
                seen=f"{self.kind!r} of {self.threshold}",
                allowed="share, match or flip, with a threshold above 0 and up to 1",
                remedy=nearest(self.kind, kinds)
                if self.kind not in kinds
                else "give a share such as 0.8",
            )


@dataclass(frozen=True, eq=False)
class Scores:
    """What sets reach.

    Attributes:
        towards: effect towards the source on each prompt, ``(sets, prompts)``, nats.
        share: of the full swap's effect, ``(sets,)``.
        flipped: share of the prompts flipped by the full swap, ``(sets,)``; None where it flips
            none.
        value: what the goal counts, ``(sets,)``.
        reached: whether it is enough, ``(sets,)``.
    """

    towards: FloatArray
    share: FloatArray
    flipped: FloatArray | None
    value: FloatArray
    reached: NDArray[np.bool_]

    def rank(self, index: int) -> tuple[bool, int, int]:
        """What a set is compared by: the goal, then its share; ties stay ties."""
        value, share = (round(float(x[index]) / TIE) for x in (self.value, self.share))
        return bool(self.reached[index]), value, share

    def order(self) -> list[int]:
        """Sets from best to worst; equal ones as they were given."""
        return sorted(range(len(self.share)), key=self.rank, reverse=True)

    def one(self, index: int) -> Scores:
        """The score of one set."""
        at = slice(index, index + 1)
        flipped = None if self.flipped is None else self.flipped[at]
        return Scores(self.towards[at], self.share[at], flipped, self.value[at], self.reached[at])


def score(effects: SetEffects, sets: Sequence[SiteSet], goal: Goal | None = None) -> Scores:
    """Evaluate sets.

    Args:
        effects: what they do.
        sets: what to patch; the empty set has no effect.
        goal: what counts; 0.8 of the full swap unless given.

    Raises:
        EvidenceError: the evaluator gives no finite effect for each set and prompt, or flips are
            asked for where the full swap flips no prompt.
    """
    goal = Goal() if goal is None else goal
    found = _measured(effects, sets)
    towards = found * np.sign(effects.full_swap)
    share = towards.sum(1) / np.abs(effects.full_swap).sum()
    can = effects.flippable
    flipped = effects.flipped(found)[:, can].mean(1) if can.any() else None
    value = share if goal.kind == "share" else flipped
    if goal.kind == "match":
        value = 1.0 - np.abs(effects.full_swap - found).sum(1) / np.abs(effects.full_swap).sum()
    if value is None:
        raise EvidenceError(
            "No set of sites can flip the decision",
            seen=f"the full swap flips none of {len(can)} prompts",
            allowed="prompts on which source and target prefer different options",
            remedy="ask for a share of the effect instead, or choose prompts on which they differ",
        )
    return Scores(towards, share, flipped, value, value >= goal.threshold - TIE)


def _measured(effects: SetEffects, sets: Sequence[SiteSet]) -> FloatArray:
    asked = [index for index, sites in enumerate(sets) if sites]
    result = np.zeros((len(sets), len(effects.full_swap)))
    if not asked:
        return result
    found = effects.measure([sets[index] for index in asked])
    expected = (len(asked), result.shape[1])
    if found.shape != expected or not np.isfinite(found).all():
        raise EvidenceError(
            "Effects of sets of sites are undefined",
            seen=f"shape {found.shape}, {int((~np.isfinite(found)).sum())} not finite",
            allowed=f"shape {expected}, all finite",
            remedy="look for the first activation that is not finite in the clean runs",
        )
    result[asked] = found
    return result


def set_effects(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    *,
    candidates: Sequence[Site] | None = None,
    pairs: Pairs | None = None,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> SetEffects:
    """Effects of sets of sites in a model.

    What is returned runs the model whenever it is asked, so the target's weights must be in force
    then too: search inside ``with roster.speaking(target)``.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that activations come from.
        target: clean run of the model that they are put into.
        candidates: the sites to choose from; every head and MLP unless given. With attention
            layers among them, attention layers rather than heads make up the whole model.
        pairs: (target prompt, source prompt); each prompt with itself unless given.
        positions: ``answer_span``, ``all`` or a named span, beyond which the rest of the prompt
            stays the target's, so that everything may be less than the full swap.
        write: see ``patching.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass.
        progress: called after each pass.

    Raises:
        SiteError: the decoder lacks a site, or it cannot be patched, or one is named twice.
        EvidenceError: the full swap does nothing.
        AgentError, PromptError, ResourceError: as ``sweeps.sweep``.
    """
    chosen = anatomy.component_sites if candidates is None else tuple(sorted(candidates))
    for site in chosen:
        anatomy.check_site(site)
        Intervention((site,))
    asked = pairs_of(source, target, pairs)
    attention = "attn" if any(site.kind == "attn" for site in chosen) else "head"
    own = target.log_odds.double().numpy()
    baseline = np.array([own[mine] for mine, _ in asked])
    theirs = np.array([full_swap(source, target, mine, other) for mine, other in asked])
    measure = evaluator(
        model, anatomy, source, target, asked, positions=positions, write=write,
        memory_bytes=memory_bytes, max_row_tokens=max_row_tokens, progress=progress,
    )  # fmt: skip
    return SetEffects(
        Subject(source.agent, target.agent, positions, write),
        chosen,
        frozenset(anatomy.sites("embed", attention, "mlp")),
        baseline,
        theirs - baseline,
        measure,
    )


def evaluator(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    pairs: Pairs,
    *,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> Evaluate:
    """A function that patches sets of sites, one row each; arguments as for ``set_effects``."""
    segments = segments_for(source, target, pairs, positions)
    cases = [(c.member, c.source_member) for segment in segments for c in segment.cases]
    order = [cases.index(pair) for pair in pairs]
    task = f"patch sets {source.agent}>{target.agent}"
    edited = max((len(segment.edited) for segment in segments), default=1)
    # A pass is planned for one site a row; the values of larger sets get a quarter to themselves.
    values = memory_bytes // 4
    most = max(1, values // (8 * anatomy.width * max(1, edited)))

    def measure(sets: Sequence[SiteSet]) -> FloatArray:
        parts: list[FloatArray] = []
        for chunk in _chunks(sets, most):
            interventions = [Intervention(tuple(sorted(sites))) for sites in chunk]
            plan = plan_sweep(
                model, anatomy, segments, interventions,
                memory_bytes=memory_bytes - values, max_row_tokens=max_row_tokens,
            )  # fmt: skip
            baseline, patched = run_plan(
                model, anatomy, target, segments, interventions, plan=plan,
                donors=lambda segment: [donor_for(source, segment)],
                write=write, task=task, progress=progress,
            )  # fmt: skip
            parts.append((patched - baseline)[:, order].numpy())
        return np.concatenate(parts)

    return measure


def _chunks(sets: Sequence[SiteSet], most: int) -> Iterator[Sequence[SiteSet]]:
    """Runs of sets with at most so many sites together, but at least one set each."""
    start = total = 0
    for index, sites in enumerate(sets):
        if index > start and total + len(sites) > most:
            yield sets[start:index]
            start, total = index, 0
        total += len(sites)
    yield sets[start:]
