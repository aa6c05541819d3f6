"""What does every patch do? Exhaustive sweeps over sites, prompts and positions.

For a source and a target, each intervention replaces the target's activity by the source's and the
effect on the decision is measured:

    effect = log_odds(patched target) - log_odds(target)

The source is another agent, another prompt, or both. The *full swap* is what the source itself
computes, read with the target's options: the ceiling with which every patch is compared. A sweep is
planned first (``patching.plans``), so that its cost is known and its passes fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError, PromptError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Donor, Write, donor_for
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import (
    DEFAULT_MEMORY_BYTES,
    MAX_ROW_TOKENS,
    SweepPlan,
    plan_sweep,
)
from moralscope.mechanisms.patching.rows import run_rows
from moralscope.mechanisms.patching.segments import (
    ALL,
    ANSWER_SPAN,
    Packed,
    Segment,
    case_of,
    group_cases,
    paths_of,
    where,
)
from moralscope.models.alignment import align
from moralscope.models.anatomy import Anatomy
from moralscope.models.scoring import MAX_NODES

DonorsOf = Callable[[Segment], Sequence[Donor]]

TOKENS_TOGETHER = 2
"""Changed tokens up to which prompts are patched in the same rows, but for all positions."""

Pairs = Sequence[tuple[int, int]]
"""(target prompt, source prompt), as indices into the prompts of the two clean runs."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found, in nats towards the positive option.

    Attributes:
        pairs: the prompts, in the order asked for.
        baseline: the target's own log-odds, ``(pairs,)``.
        patched: with each intervention, ``(interventions, pairs)``.
        full_swap: the source's own answer read with the target's options, ``(pairs,)``; NaN where
            the options do not align, which only patches at a named span allow.
    """

    pairs: tuple[tuple[int, int], ...]
    baseline: Tensor
    patched: Tensor
    full_swap: Tensor

    @property
    def effect(self) -> Tensor:
        """Patched minus baseline, ``(interventions, pairs)``."""
        return self.patched - self.baseline


def same_prompts(source: CleanRun, target: CleanRun) -> tuple[tuple[int, int], ...]:
    """Every prompt of the target with the same prompt of the source.

    Raises:
        AgentError: the two were not run on the same prompts.
    """
    if source.prompts != target.prompts:
        raise AgentError(
            "The two agents were not run on the same prompts",
            seen=f"{source.agent} and {target.agent}",
            allowed="clean runs over one list of prompts, or explicit pairs of prompts",
            remedy="run both agents on the same prompts",
        )
    return tuple((member, member) for member in range(len(target.prompts)))


def pairs_of(
    source: CleanRun, target: CleanRun, pairs: Pairs | None
) -> tuple[tuple[int, int], ...]:
    """The pairs asked for, or every prompt with itself, once activations can be put across.

    Raises:
        AgentError: the decoders differ, so that activations do not stand for the same things; or
            no pairs are given and the two were not run on the same prompts.
    """
    if source.shape != target.shape:
        raise AgentError(
            f"{source.agent!r} cannot be patched into {target.agent!r}: the anatomy differs",
            seen=source.shape,
            allowed=target.shape,
            remedy="patch between fine-tunes of one base",
        )
    return same_prompts(source, target) if pairs is None else tuple(pairs)


def segments_for(
    source: Packed,
    target: Packed,
    pairs: Pairs,
    positions: str,
    *,
    max_nodes: int = MAX_NODES,
) -> list[Segment]:
    """The segments that hold some pairs of prompts.

    At all positions the prompts of a pack are computed together, because they share most of their
    tokens. Spans of one token are computed two by two: every pass reads all weights, a good part of
    its time when rows are few. Longer spans are segments of their own, because rows of different
    prompts see each other in vain.

    Raises:
        PromptError: a pair does not align token by token.
    """
    cases = [case_of(source, target, mine, theirs, positions) for mine, theirs in pairs]
    most = max_nodes if positions == ALL else TOKENS_TOGETHER
    return group_cases(target, cases, share=True, max_nodes=most)


def full_swap(source: CleanRun, target: CleanRun, member: int, source_member: int) -> float:
    """The source's own answer to its prompt, read with the target's options, in nats.

    On one prompt this is the source's log-odds.

    Raises:
        PromptError: the options of the two prompts do not align.
    """
    prompt, other = target.prompts[member], source.prompts[source_member]
    align(prompt, other, ANSWER_SPAN)
    pack, _ = where(source, source_member)
    part = source.packs[pack]
    row_of = {int(node): row for row, node in enumerate(part.pack.keep)}
    paths = paths_of(source, source_member)
    log_p = part.captured.logits.log_softmax(-1)
    start = len(other.tokens) - 1
    forms = prompt.positive + prompt.negative
    totals = [
        sum(
            (log_p[row_of[int(path[start + step])], token] for step, token in enumerate(form)),
            start=log_p.new_zeros(()),
        )
        for form, path in zip(forms, paths, strict=True)
    ]
    stacked = torch.stack(totals)
    split = len(prompt.positive)
    return float(stacked[:split].logsumexp(0) - stacked[split:].logsumexp(0))


def sweep(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    interventions: Sequence[Intervention],
    *,
    pairs: Pairs | None = None,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    task: str = "patch",
    progress: Progress = silent,
) -> Sweep:
    """Measure every intervention on every pair of prompts.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that activations come from.
        target: clean run of the model that they are put into, with its cache. Positions other than
            the answer span need both runs with ``everywhere=True``.
        interventions: what is patched, one row each.
        pairs: prompts; each target prompt with itself unless given.
        positions: ``answer_span``, ``all`` or a named span of the prompts.
        write: see ``patching.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass.
        task: name for progress.
        progress: called after each segment.

    Raises:
        SiteError: the decoder lacks a site; PromptError: prompts do not align;
        AgentError: the runs do not belong together or kept too little;
        ResourceError: not even one row fits.
    """
    for intervention in interventions:
        for site in intervention.sites:
            anatomy.check_site(site)
    chosen = pairs_of(source, target, pairs)
    segments = segments_for(source, target, chosen, positions)
    plan = plan_sweep(
        model, anatomy, segments, interventions,
        memory_bytes=memory_bytes, max_row_tokens=max_row_tokens,
    )  # fmt: skip
    baseline, patched = run_plan(
        model, anatomy, target, segments, interventions, plan=plan,
        donors=lambda segment: [donor_for(source, segment)],
        write=write, task=task, progress=progress,
    )  # fmt: skip
    swaps = [
        full_swap(source, target, mine, theirs) if _options_align(source, target, mine, theirs)
        else float("nan")
        for mine, theirs in chosen
    ]  # fmt: skip
    where_is = {pair: at for at, pair in enumerate(_in_order(segments))}
    order = [where_is[pair] for pair in chosen]
    return Sweep(
        chosen, baseline[order], patched[:, order], torch.tensor(swaps, dtype=torch.float64)
    )


def _options_align(source: CleanRun, target: CleanRun, member: int, source_member: int) -> bool:
    try:
        align(target.prompts[member], source.prompts[source_member], ANSWER_SPAN)
    except PromptError:
        return False
    return True


def _in_order(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    return [(c.member, c.source_member) for segment in segments for c in segment.cases]


def run_plan(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    segments: Sequence[Segment],
    interventions: Sequence[Intervention],
    *,
    plan: SweepPlan,
    donors: DonorsOf,
    write: Write = "write",
    task: str = "patch",
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """Run the passes of a plan.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        segments: what the plan was made for.
        interventions: likewise.
        plan: the passes.
        donors: the donors of a segment, by ``Intervention.donor``.
        write: see ``patching.edits``.
        task: name for progress.
        progress: called after each pass.

    Returns:
        Baselines ``(cases,)`` and patched log-odds ``(interventions, cases)``, cases in the order
        of the segments.
    """
    first = [0]
    for segment in segments:
        first.append(first[-1] + len(segment.cases))
    baseline = torch.empty(first[-1], dtype=torch.float64)
    patched = torch.empty(len(interventions), first[-1], dtype=torch.float64)
    given: dict[int, Sequence[Donor]] = {}
    started: set[int] = set()
    for done, step in enumerate(plan.passes, start=1):
        segment = segments[step.segment]
        if step.segment not in given:
            given = {step.segment: donors(segment)}
        clean, values = run_rows(
            model, anatomy, target, segment, [interventions[i] for i in step.interventions],
            donors=given[step.segment], write=write,
        )  # fmt: skip
        columns = slice(first[step.segment], first[step.segment + 1])
        if step.segment not in started:
            # Effects are differences within a pass; the first pass's baseline stands for all.
            baseline[columns] = clean
            started.add(step.segment)
        patched[list(step.interventions), columns] = values - clean + baseline[columns]
        progress(ProgressEvent(task, done, len(plan.passes)))
    return baseline, patched
