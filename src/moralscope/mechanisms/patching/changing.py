"""What does a patch change, token by token? What both agents compute where a patch would write.

A control writes another vector in the place of a patch's change, through the same rows, so it needs
to know what the target computes there itself, and how long the change is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moralscope.core.progress import Progress
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Donor, Write, donor_for, values_of
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import plan_sweep
from moralscope.mechanisms.patching.segments import ANSWER_SPAN, Case, Segment, kept_rows
from moralscope.mechanisms.patching.sweeps import Pairs, run_plan
from moralscope.models.anatomy import Anatomy


@dataclass(frozen=True)
class Controlled:
    """What is controlled.

    Attributes:
        pairs: (prompt, prompt) of both runs, as for sweeps.
        sites: where random directions are written; planted vectors go to one of each kind.
        draws: random directions at each site.
        planted: whether to plant known effects.
        positions: ``answer_span``, ``all`` or a named span.
        write: see ``patching.edits``.
    """

    pairs: Pairs
    sites: tuple[Site, ...]
    draws: int
    planted: bool
    positions: str = ANSWER_SPAN
    write: Write = "write"


@dataclass(frozen=True, eq=False)
class Found:
    """A segment, and how much a patch changes there.

    Attributes:
        segment: what rows compute again.
        lengths: Euclidean length of a patch's change at each edited token, by site, float64.
    """

    segment: Segment
    lengths: Mapping[Site, Tensor]


DonorsOf = Callable[[Found], Sequence[Donor]]


def dim_of(anatomy: Anatomy, site: Site, write: Write) -> int:
    """How many numbers a patch writes at a site, for each token."""
    by_head = site.kind in ("q", "k", "v") or (site.kind == "head" and write == "z")
    return anatomy.head_dim if by_head else anatomy.width


def look(
    anatomy: Anatomy, source: CleanRun, target: CleanRun, segment: Segment, wanted: Controlled
) -> Found:
    """How much patches of the source into the target change at the edited tokens of a segment."""
    theirs = donor_for(source, segment)
    lengths: dict[Site, Tensor] = {}
    for site in wanted.sites:
        after = values_of(theirs, [site], wanted.write, anatomy.n_heads)[0]
        change = after.double() - own_values(anatomy, target, segment, site, wanted.write).double()
        lengths[site] = change.pow(2).sum(-1).sqrt()
    return Found(segment, lengths)


def own_values(
    anatomy: Anatomy, target: CleanRun, segment: Segment, site: Site, write: Write
) -> Tensor:
    """What the target has at a site, at the edited tokens of a segment, ``(edited, dim)``."""
    nodes = segment.nodes[segment.edited]
    captured, kept = kept_rows(target.packs[segment.pack], nodes)
    device = captured.resid_final.device
    rows = torch.as_tensor(kept, device=device)
    mine = Donor(((captured, rows, torch.arange(len(nodes), device=device)),), target.out_weights)
    return values_of(mine, [site], write, anatomy.n_heads)[0]


def through_rows(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    found: Sequence[Found],
    asked: Sequence[Intervention],
    *,
    donors: DonorsOf,
    write: Write,
    memory_bytes: int,
    task: str,
    progress: Progress,
) -> Tensor:
    """Effects as patches are measured, ``(interventions, cases in the order of segments)``."""
    segments = [part.segment for part in found]
    of_segment = {id(part.segment): part for part in found}
    plan = plan_sweep(model, anatomy, segments, asked, memory_bytes=memory_bytes)
    baseline, patched = run_plan(
        model, anatomy, target, segments, asked, plan=plan,
        donors=lambda segment: donors(of_segment[id(segment)]),
        write=write, task=task, progress=progress,
    )  # fmt: skip
    return patched - baseline


def cases_of(found: Sequence[Found]) -> Iterator[tuple[int, Found, Case]]:
    """Every case with its column in the results of ``through_rows``, and its segment."""
    cases = [(part, case) for part in found for case in part.segment.cases]
    for column, (part, case) in enumerate(cases):
        yield column, part, case
