"""Which parts carry the difference? Exhaustive patching across agents and prompts, as tables.

For an ordered pair (source, target) each site of the target is replaced by the source's, one at a
time or in named sets, and the effect on the decision is measured (``patching.sweeps``). The site
``all`` is the full swap: the ceiling with which every site is compared, left out where the options
of two prompts do not correspond. Two controls are measured in the same passes: writing *every* site
at once must reproduce the source, and patching an agent into itself must do nothing.

Two directions of one pair are compared in ``directions_table``: with ``e(a to b)`` the effect of
putting a's activity into b,

    symmetric = (e(a to b) - e(b to a)) / 2        asymmetry = (e(a to b) + e(b to a)) / 2

A site that carries the difference as such has equal and opposite effects and no asymmetry.

Where a patch starts and where the answer starts are kept as absolute positions in the rendered
prompt, because a patch at or after the first scored token cannot act on what predicts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import torch
from torch import nn

from moralscope.core.progress import Progress, silent
from moralscope.core.site import Site
from moralscope.core.tables import conform, from_rows
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Write
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import DEFAULT_MEMORY_BYTES, MAX_ROW_TOKENS
from moralscope.mechanisms.patching.segments import ALL, ANSWER_SPAN, case_of
from moralscope.mechanisms.patching.sweeps import Pairs, Sweep, same_prompts, sweep
from moralscope.models.anatomy import Anatomy

Chosen = Site | tuple[Site, ...]
"""One site, or several that are patched together."""


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
    """Every intervention at the answer span of one prompt.

    Returns:
        Baseline log-odds and patched log-odds in the order of ``interventions``, in nats.
    """
    if member not in range(len(same_prompts(source, target))):
        raise IndexError(member)
    found = sweep(
        model, anatomy, source, target, interventions,
        pairs=[(member, member)], write=write, max_row_tokens=max_row_tokens,
    )  # fmt: skip
    return float(found.baseline[0]), found.patched[:, 0]


def patching_table(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    *,
    sites: Sequence[Chosen] | None = None,
    members: Sequence[int] | None = None,
    pairs: Pairs | None = None,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``patching`` and ``controls`` of one ordered pair of agents.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that activations come from.
        target: clean run of the agent that they are put into, with its cache.
        sites: what to patch, tuples together; every head and MLP unless given.
        members: indices of the prompts to patch, each with itself; all unless given.
        pairs: (target prompt, source prompt) instead, for patching across prompts.
        positions: ``answer_span``, ``all`` or a named span.
        write: see ``patching.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass.
        progress: called after each pass.

    Raises:
        As ``sweeps.sweep``.
    """
    chosen = tuple(
        (site,) if isinstance(site, Site) else site
        for site in (anatomy.component_sites if sites is None else sites)
    )
    if pairs is None:
        every = same_prompts(source, target)
        pairs = every if members is None else [every[member] for member in members]
    # A span in the middle leaves the rest of the prompt the target's, whatever is written there.
    covers = positions in (ANSWER_SPAN, ALL)
    everything = Intervention((Site("embed"), *anatomy.component_sites))
    interventions = [Intervention(group) for group in chosen] + [everything] * covers
    found = sweep(
        model, anatomy, source, target, interventions, pairs=pairs, positions=positions,
        write=write, memory_bytes=memory_bytes, max_row_tokens=max_row_tokens,
        task=f"patch {source.agent}>{target.agent}", progress=progress,
    )  # fmt: skip
    how = {"positions": positions, "write": write}
    rows = _patch_rows(source, target, found, chosen, how)
    controls = _controls(source, target, found, covers=covers)
    return from_rows("patching", rows), from_rows("controls", controls)


def _patch_rows(
    source: CleanRun,
    target: CleanRun,
    found: Sweep,
    chosen: tuple[tuple[Site, ...], ...],
    how: dict[str, str],
) -> list[dict[str, object]]:
    """A row per prompt and group of sites, and one for the full swap where it is known."""
    rows: list[dict[str, object]] = []
    for at, (mine, theirs) in enumerate(found.pairs):
        place = {
            "source": source.agent,
            "target": target.agent,
            "prompt": target.prompts[mine].name,
            "source_prompt": source.prompts[theirs].name,
            **how,
            "first_scored": len(target.prompts[mine].tokens),
        }
        patched = {
            "first_patched": _first_patched(source, target, (mine, theirs), how["positions"])
        }
        baseline = float(found.baseline[at])
        for group, value in zip(chosen, found.patched[: len(chosen), at], strict=True):
            rows.append(
                {**place, **patched, **_site_columns(group), **_effect(baseline, float(value))}
            )
        ceiling = float(found.full_swap[at])
        if not math.isnan(ceiling):
            swap = {"first_patched": 0, **_site_columns((Site("all"),))}
            rows.append({**place, **swap, **_effect(baseline, ceiling)})
    return rows


def _first_patched(
    source: CleanRun, target: CleanRun, pair: tuple[int, int], positions: str
) -> int:
    """Position of the first token of the target's prompt that a row replaces, from 0.

    Read from the nodes that the rows edit, whose depth in the tree is their position.
    """
    case = case_of(source, target, *pair, positions)
    depth = target.layouts[case.pack].tree.depth
    return min(int(depth[node]) for node in case.counterparts)


def _site_columns(group: tuple[Site, ...]) -> dict[str, object]:
    """What was patched, as columns of the table."""
    first, *others = group
    if others:
        name = "+".join(str(site) for site in sorted(group))
        return {"site": name, "layer": None, "kind": "set", "head": None}
    site = first
    return {"site": str(site), "layer": site.layer, "kind": site.kind, "head": site.head}


def _effect(baseline: float, patched: float) -> dict[str, object]:
    """What the patch did, in nats towards the positive option."""
    return {
        "baseline_log_odds": baseline,
        "patched_log_odds": patched,
        "effect": patched - baseline,
        "margin": patched if baseline > 0 else -patched,
        "flipped": (patched > 0) != (baseline > 0),
    }


def _controls(
    source: CleanRun, target: CleanRun, found: Sweep, *, covers: bool
) -> list[dict[str, object]]:
    """What must hold exactly, and by how much it does not."""
    rows: list[dict[str, object]] = []
    for at, (mine, theirs) in enumerate(found.pairs):
        itself = source.agent == target.agent and (
            source.prompts[theirs].tokens == target.prompts[mine].tokens
        )
        if itself:
            control, deviation = "self_patch", float(found.effect[:, at].abs().max())
        elif covers:
            control = "write_all"
            deviation = abs(float(found.patched[-1, at] - found.full_swap[at]))
        else:
            continue
        prompt, other = target.prompts[mine].name, source.prompts[theirs].name
        pair = target.agent if itself else f"{source.agent}>{target.agent}"
        subject = pair if prompt == other else f"{pair} from {other}"
        rows.append({"control": control, "subject": subject, "prompt": prompt, "value": deviation})
    return rows


def directions_table(patching: pl.DataFrame) -> pl.DataFrame:
    """The table ``directions``: both directions of every pair that was patched in both.

    Each pair appears once, named in alphabetical order; across prompts the two directions exchange
    agents and prompts together.

    Args:
        patching: patches of any number of ordered pairs.
    """
    end = pl.concat_str
    forward = patching.filter(pl.col("site") != "all").with_columns(
        a=end("source", pl.lit("\n"), "source_prompt"), b=end("target", pl.lit("\n"), "prompt")
    )
    backward = forward.select("a", "b", "site", "positions", "write", back="effect")
    joined = forward.filter(pl.col("a") < pl.col("b")).join(
        backward,
        left_on=["a", "b", "site", "positions", "write"],
        right_on=["b", "a", "site", "positions", "write"],
    )
    table = joined.select(
        pl.col("source").alias("agent_a"),
        pl.col("source_prompt").alias("prompt_a"),
        pl.col("target").alias("agent_b"),
        pl.col("prompt").alias("prompt_b"),
        "site",
        "positions",
        "write",
        pl.col("effect").alias("effect_a_to_b"),
        pl.col("back").alias("effect_b_to_a"),
        ((pl.col("effect") - pl.col("back")) / 2).alias("symmetric"),
        ((pl.col("effect") + pl.col("back")) / 2).alias("asymmetry"),
    )
    return conform("directions", table)
