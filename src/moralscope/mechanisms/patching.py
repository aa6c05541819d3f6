"""Which parts carry the difference between two agents? Exhaustive cross-model patching.

For an ordered pair (source, target) each head and MLP of the target has its write at the answer
span replaced by the source's, one at a time, and the effect on the decision is measured:

    effect = log_odds(patched target) - log_odds(target)

The site ``all`` is the source's own log-odds: the ceiling with which every site is compared. Two
controls are measured in the same passes: writing *every* site at once must reproduce the source,
and patching an agent into itself must do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch
from torch import nn

from moralscope.core.errors import AgentError, SiteError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanRun, span_of
from moralscope.mechanisms.edits import Intervention, Write, donor_of
from moralscope.mechanisms.rows import patch_rows
from moralscope.models.anatomy import Anatomy

MAX_ROW_TOKENS = 1024
"""Tokens of rows in one pass unless told otherwise; more cost memory and save nothing."""


def check_sites(anatomy: Anatomy, sites: Sequence[Site]) -> None:
    """Refuse sites that this decoder does not have.

    Raises:
        SiteError: names the first such site and the nearest existing one.
    """
    for site in sites:
        layer = min(max(site.layer or 0, 0), anatomy.n_layers - 1)
        head = None if site.head is None else min(site.head, anatomy.n_heads - 1)
        near = Site(site.kind, None if site.layer is None else layer, head)
        if near != site:
            raise SiteError(
                "The model has no such site",
                seen=str(site),
                allowed=f"layers 0 to {anatomy.n_layers - 1}, heads 0 to {anatomy.n_heads - 1}",
                remedy=f"the nearest is {near}",
            )


def sweep_prompt(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    *,
    member: int,
    interventions: Sequence[Intervention],
    write: Write = "write",
    max_row_tokens: int = MAX_ROW_TOKENS,
) -> tuple[float, torch.Tensor]:
    """Every intervention on one prompt, in as few passes as fit.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run of the agent that activations come from.
        target: clean run of the agent that they are put into, over the same prompts.
        member: index of the prompt.
        interventions: what to patch, one row each.
        write: see ``rows.patch_rows``.
        max_row_tokens: largest pass.

    Returns:
        Baseline log-odds and patched log-odds in the order of ``interventions``, in nats.

    Raises:
        AgentError: the clean runs are of different prompts or packs.
    """
    index, position = _find(target, member)
    part, other = target.packs[index], source.packs[index]
    if part.pack.members != other.pack.members or source.prompts != target.prompts:
        raise AgentError(
            "The two agents were not run on the same prompts",
            seen=f"{source.agent} and {target.agent}",
            allowed="clean runs over one list of prompts with one pack size",
            remedy="run both agents on the same prompts",
        )
    prompt = target.prompts[member]
    n_forms = len(prompt.positive) + len(prompt.negative)
    span = span_of(part, position, len(prompt.tokens), n_forms)
    donor = donor_of(source, other, span)
    per_pass = max(1, max_row_tokens // len(span.nodes) - 1)
    baselines: list[float] = []
    patched: list[torch.Tensor] = []
    for start in range(0, len(interventions), per_pass):
        chosen = interventions[start : start + per_pass]
        clean, values = patch_rows(
            model,
            anatomy,
            target,
            part=part,
            position=position,
            interventions=chosen,
            donor=donor,
            write=write,
        )
        baselines.append(clean)
        patched.append(values - clean)
    return baselines[0], torch.cat(patched) + baselines[0]


def _find(run: CleanRun, member: int) -> tuple[int, int]:
    for index, part in enumerate(run.packs):
        if member in part.pack.members:
            return index, part.pack.members.index(member)
    raise IndexError(member)


def patching_table(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    *,
    sites: Sequence[Site] | None = None,
    members: Sequence[int] | None = None,
    write: Write = "write",
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``patching`` and ``controls`` of one ordered pair of agents.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run of the agent that activations come from.
        target: clean run of the agent that they are put into, with its cache.
        sites: what to patch; every head and MLP unless given.
        members: indices of the prompts to patch; all unless given.
        write: see ``rows.patch_rows``.
        max_row_tokens: largest pass.
        progress: called after each prompt.
    """
    chosen = tuple(anatomy.component_sites if sites is None else sites)
    check_sites(anatomy, chosen)
    everything = Intervention(anatomy.component_sites)
    interventions = [*(Intervention((site,)) for site in chosen), everything]
    source_log_odds = source.log_odds
    rows: list[dict[str, object]] = []
    controls: list[dict[str, object]] = []
    pair = f"{source.agent}>{target.agent}"
    wanted = range(len(target.prompts)) if members is None else members
    for done, member in enumerate(wanted, start=1):
        prompt = target.prompts[member].name
        baseline, patched = sweep_prompt(
            model, anatomy, source, target, member=member, interventions=interventions,
            write=write, max_row_tokens=max_row_tokens,
        )  # fmt: skip
        ceiling = float(source_log_odds[member])
        values = [*map(float, patched[:-1]), ceiling]
        for site, value in zip((*chosen, Site("all")), values, strict=True):
            row = _patch_row(source.agent, target.agent, prompt, site, write)
            rows.append({**row, **_effect(baseline, value)})
        if source.agent == target.agent:
            control, deviation = "self_patch", float((patched - baseline).abs().max())
        else:
            control, deviation = "write_all", abs(float(patched[-1]) - ceiling)
        controls.append({"control": control, "subject": pair, "prompt": prompt, "value": deviation})
        progress(ProgressEvent(f"patch {pair}", done, len(wanted)))
    return from_rows("patching", rows), from_rows("controls", controls)


def _patch_row(
    source: str, target: str, prompt: str, site: Site, write: Write
) -> dict[str, object]:
    """What was patched, as columns of the table."""
    return {
        "source": source,
        "target": target,
        "prompt": prompt,
        "source_prompt": prompt,
        "site": str(site),
        "layer": site.layer,
        "kind": site.kind,
        "head": site.head,
        "positions": "answer_span",
        "write": write,
    }


def _effect(baseline: float, patched: float) -> dict[str, object]:
    """What the patch did, in nats towards the positive option."""
    return {
        "baseline_log_odds": baseline,
        "patched_log_odds": patched,
        "effect": patched - baseline,
        "flipped": (patched > 0) != (baseline > 0),
    }
