"""Would any vector have done it? Vectors of known length and of known effect, written as patches.

A patch writes a change ``c`` at a site, and its effect is read as evidence about what ``c`` says.
Two controls go through the very same rows (``patching.rows``):

    random direction:  c' = |c| g / |g|, token by token, g standard normal, one for each site and
                       draw; what a change of this length does whatever it says (negative)
    planted:           c' = v, as long as the largest change seen, and half of it; its effect is
                       known from an ordinary forward of the whole model with a hook (positive)

The ordinary forward shares nothing with the rows but the model: other packs, no cache, every layer
run, and the tokens found by counting from the prompt's end. Where a patch changes nothing it gives
no length, and the effect of a direction without length is not zero but not available.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from moralscope.core.progress import Progress, silent
from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.changing import (
    Controlled,
    DonorsOf,
    Found,
    cases_of,
    dim_of,
    look,
    own_values,
    through_rows,
)
from moralscope.mechanisms.patching.donors import Donor
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import DEFAULT_MEMORY_BYTES
from moralscope.mechanisms.patching.planted import (
    PLANTED_PROMPTS,
    Planted,
    planted_kinds,
    planted_rows,
)
from moralscope.mechanisms.patching.sweeps import segments_for
from moralscope.models.anatomy import Anatomy
from moralscope.models.scoring import MAX_NODES

CONTROL_SITES = 24
"""Sites at which random directions are written, spread over depth and kinds."""


def spread_sites(sites: Sequence[Site], most: int = CONTROL_SITES) -> tuple[Site, ...]:
    """Some of the sites, equally many of each kind and evenly over depth.

    Args:
        sites: in depth order.
        most: how many to take, but at least one of each kind.
    """
    kinds = list(dict.fromkeys(site.kind for site in sites))
    chosen: list[Site] = []
    for kind in kinds:
        own = [site for site in sites if site.kind == kind]
        count = min(len(own), max(1, most // len(kinds)))
        chosen += [own[i] for i in np.linspace(0, len(own) - 1, count).round().astype(int)]
    return tuple(sorted(chosen))


@torch.no_grad()
def control_patches_table(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    wanted: Controlled,
    *,
    rng: np.random.Generator,
    patched: Mapping[tuple[str, str], float],
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``control_patches`` of one ordered pair of agents.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that activations come from.
        target: clean run of the agent that is patched, with its cache.
        wanted: what is controlled.
        rng: draws the directions.
        patched: effect of the patch itself, by (prompt, site), nats.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_nodes: largest pack of an ordinary forward.
        progress: called after each pass.

    Raises:
        As ``sweeps.sweep``.
    """
    for site in wanted.sites:
        anatomy.check_site(site)
    directions = {
        site: [_unit(rng, dim_of(anatomy, site, wanted.write)) for _ in range(wanted.draws)]
        for site in wanted.sites
    }
    aims = {kind: rng.standard_normal(anatomy.width) for kind in planted_kinds(wanted.sites)}
    found = [
        look(anatomy, source, target, segment, wanted)
        for segment in segments_for(source, target, wanted.pairs, wanted.positions)
    ]
    place = {"source": source.agent, "target": target.agent}
    task = f"control {source.agent}>{target.agent}"
    rows: list[dict[str, object]] = []
    if wanted.draws:
        asked = [
            Intervention((site,), draw) for site in wanted.sites for draw in range(wanted.draws)
        ]
        effects = through_rows(
            model, anatomy, target, found, asked,
            donors=_random_donors(anatomy, target, wanted, directions), write=wanted.write,
            memory_bytes=memory_bytes, task=task, progress=progress,
        )  # fmt: skip
        rows += [
            {**place, **row} for row in _random_rows(target, found, asked, effects, patched=patched)
        ]
    if wanted.planted:
        planted = [Planted.of(anatomy, found, kind, aim, wanted) for kind, aim in aims.items()]
        few = segments_for(source, target, wanted.pairs[:PLANTED_PROMPTS], wanted.positions)
        some = [look(anatomy, source, target, segment, wanted) for segment in few]
        rows += [
            {**place, **row}
            for row in planted_rows(
                model, anatomy, target, some, wanted, planted=planted,
                memory_bytes=memory_bytes, max_nodes=max_nodes, task=task, progress=progress,
            )
        ]  # fmt: skip
    return from_rows("control_patches", rows)


def _unit(rng: np.random.Generator, dim: int) -> Tensor:
    drawn = rng.standard_normal(dim)
    return torch.as_tensor(drawn / np.linalg.norm(drawn))


def _random_donors(
    anatomy: Anatomy,
    target: CleanRun,
    wanted: Controlled,
    directions: Mapping[Site, Sequence[Tensor]],
) -> DonorsOf:
    """The target's own activity, with a random direction as long as the patch's change added."""

    def donors(part: Found) -> list[Donor]:
        own = {
            site: own_values(anatomy, target, part.segment, site, wanted.write)
            for site in wanted.sites
        }
        return [
            Donor(
                own={
                    site: value
                    + (part.lengths[site][:, None] * directions[site][draw].to(value.device)).to(
                        value
                    )
                    for site, value in own.items()
                }
            )
            for draw in range(wanted.draws)
        ]

    return donors


def _random_rows(
    target: CleanRun,
    found: Sequence[Found],
    asked: Sequence[Intervention],
    effects: Tensor,
    *,
    patched: Mapping[tuple[str, str], float],
) -> Iterator[dict[str, object]]:
    for column, part, case in cases_of(found):
        prompt = target.prompts[case.member].name
        nodes = part.segment.nodes[part.segment.edited]
        its_own = torch.as_tensor(np.isin(nodes, list(case.counterparts)))
        for row, intervention in enumerate(asked):
            (site,) = intervention.sites
            norm = float(part.lengths[site].cpu()[its_own].pow(2).sum().sqrt())
            yield {
                "control": "random_direction",
                "prompt": prompt,
                "site": str(site),
                "draw": intervention.donor,
                "norm": norm,
                "effect": float(effects[row, column]) if norm > 0.0 else None,
                "expected": None,
                "source_effect": patched.get((prompt, str(site))),
            }
