"""How large is every effect, roughly, and how good is that? Approximations and their agreement.

Three methods estimate the effect of patching each site in a few passes: attribution patching
(``approximation.gradients``), integrated gradients (``approximation.integrated``) and RelP
(``approximation.relevance``). None is exact: the tangent of attribution patching follows small
changes closely and can be unrelated to the effect of large ones; integrated gradients divide the
effect of all patches together; RelP's rules suit some models and not others. ``agreement_table``
therefore compares them with exact patches (``patching.tables``) on a sample of sites and prompts:
with ``x`` the estimate and ``y`` the exact effect of a patch,

    pearson = cov(x, y) / sqrt(var(x) var(y))        spearman = the same of their ranks

``evidence.approximation_gates`` refuses to rank by a method that does not correlate. Fewer than
three patches, or values that do not vary, have no correlation: null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.errors import ConfigError, SiteError, nearest
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.site import Site
from moralscope.core.tables import conform, from_rows
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    SpanActivity,
    activity_of,
    attribution_patching,
)
from moralscope.mechanisms.approximation.integrated import STEPS, integrated_gradients
from moralscope.mechanisms.approximation.relevance import relevance_patching
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.segments import ANSWER_SPAN, Segment, case_of, group_cases
from moralscope.mechanisms.patching.sweeps import Pairs, pairs_of
from moralscope.models.anatomy import Anatomy

Method = Literal["attribution_patching", "integrated_gradients", "relp"]
METHODS: tuple[Method, ...] = get_args(Method)

_FEWEST = 3
"""Fewest patches that have a correlation."""

_PATCH = ("source", "target", "prompt", "source_prompt", "site", "positions")


def approximation_table(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    *,
    methods: Sequence[Method] = METHODS,
    sites: Sequence[Site] | None = None,
    pairs: Pairs | None = None,
    steps: int = STEPS,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``approximations`` of one ordered pair of agents, at the answer span.

    Costs, for each pack of prompts, one forward and backward pass for attribution patching, one for
    RelP and ``steps`` for integrated gradients, however many sites there are.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that activations would come from.
        target: clean run of the agent that they would be put into.
        methods: how to estimate.
        sites: what to report; every head, attention layer and MLP unless given.
        pairs: (target prompt, source prompt); each prompt with itself unless given.
        steps: of integrated gradients.
        progress: called after each pack and method.

    Raises:
        SiteError: the decoder lacks a site, or effects of its kind are not estimated.
        ConfigError: there is no method of this name, or no step.
        ModelError: RelP has no rule for a part of the model.
        PromptError: the prompts of a pair do not align.
        AgentError: the two were not run on the same prompts, and no pairs are given.
    """
    chosen = anatomy.sites("head", "attn", "mlp") if sites is None else tuple(sites)
    _check(anatomy, methods, chosen)
    batches = _batches(source, target, pairs)
    rows: list[dict[str, object]] = []
    total = len(batches) * len(methods)
    for index, (pack, asked, activity) in enumerate(batches):
        positions = [position for position, _, _ in asked]
        for at, method in enumerate(methods):
            if method == "integrated_gradients":
                found = integrated_gradients(
                    model, anatomy, target, pack, activity, steps=steps, positions=positions
                )
            elif method == "relp":
                found = relevance_patching(
                    model, anatomy, target, pack, activity, positions=positions
                )
            else:
                found = attribution_patching(
                    model, anatomy, target, pack, activity, positions=positions
                )
            names = [(p, target.prompts[m].name, source.prompts[s].name) for p, m, s in asked]
            pair = {"source": source.agent, "target": target.agent, "method": method}
            rows += _rows(pair, chosen, names, found)
            done = index * len(methods) + at + 1
            progress(ProgressEvent(f"approximate {source.agent}>{target.agent}", done, total))
    return from_rows("approximations", rows)


def _check(anatomy: Anatomy, methods: Sequence[Method], sites: Sequence[Site]) -> None:
    for method in methods:
        if method not in METHODS:
            raise ConfigError(
                "There is no approximation of this name",
                seen=method,
                allowed=", ".join(METHODS),
                remedy=nearest(method, METHODS),
            )
    for site in sites:
        anatomy.check_site(site)
        if site.kind not in ("embed", "head", "attn", "mlp"):
            raise SiteError(
                "The effect of this site is not estimated",
                seen=str(site),
                allowed="embed, heads, attention layers and MLPs",
                remedy="patch it exactly",
            )


_Asked = tuple[int, int, int]
"""Position in the pack, target prompt, source prompt."""


def _batches(
    source: CleanRun, target: CleanRun, pairs: Pairs | None
) -> list[tuple[int, list[_Asked], SpanActivity]]:
    """For each pack: which pairs, and what would go in at the pack's kept nodes."""
    alike = source.prompts == target.prompts and len(source.packs) == len(target.packs)
    alike = alike and all(
        one.pack.members == other.pack.members
        for one, other in zip(source.packs, target.packs, strict=True)
    )
    wanted = pairs_of(source, target, pairs)
    if alike and all(mine == theirs for mine, theirs in wanted):
        members = {mine for mine, _ in wanted}
        by_pack = [
            [(at, m, m) for at, m in enumerate(part.pack.members) if m in members]
            for part in target.packs
        ]
        return [
            (index, asked, activity_of(source, index))
            for index, asked in enumerate(by_pack)
            if asked
        ]
    cases = [case_of(source, target, mine, theirs, ANSWER_SPAN) for mine, theirs in wanted]
    nodes = max(len(part.pack.tree) for part in target.packs)
    segments = group_cases(target, cases, share=True, max_nodes=nodes)
    return [
        (
            segment.pack,
            [(case.position, case.member, case.source_member) for case in segment.cases],
            _aligned(source, target, segment),
        )
        for segment in segments
    ]


def _aligned(source: CleanRun, target: CleanRun, segment: Segment) -> SpanActivity:
    """The source's activity at the counterparts of a segment's edited nodes, zero elsewhere."""
    keep = target.packs[segment.pack].pack.keep
    places = np.searchsorted(keep, segment.nodes[segment.edited])
    total: SpanActivity | None = None
    packs: list[int] = np.unique(segment.counterparts[:, 0]).tolist()
    for index in packs:
        here = segment.counterparts[:, 0] == index
        found = activity_of(source, index)
        device = found.embed.device
        theirs = source.packs[index].pack.keep
        rows = torch.as_tensor(np.searchsorted(theirs, segment.counterparts[here, 1]))
        taken = found.at(rows.to(device))
        spread = _spread(taken, torch.as_tensor(places[here], device=device), len(keep))
        total = spread if total is None else _added(total, spread)
    if total is None:
        raise RuntimeError("a segment has edited nodes")
    return total


def _spread(taken: SpanActivity, places: Tensor, nodes: int) -> SpanActivity:
    def spread(values: Tensor, axis: int) -> Tensor:
        shape = list(values.shape)
        shape[axis] = nodes
        return values.new_zeros(shape).index_copy(axis, places, values)

    return SpanActivity(
        spread(taken.embed, 0),
        spread(taken.z, 1),
        spread(taken.attn_out, 1),
        spread(taken.mlp_out, 1),
        taken.out_weights,
    )


def _added(one: SpanActivity, other: SpanActivity) -> SpanActivity:
    return SpanActivity(
        one.embed + other.embed,
        one.z + other.z,
        one.attn_out + other.attn_out,
        one.mlp_out + other.mlp_out,
        one.out_weights,
    )


def _rows(
    pair: dict[str, str],
    sites: Sequence[Site],
    names: Sequence[tuple[int, str, str]],
    found: Estimates,
) -> list[dict[str, object]]:
    """Rows of one pack; ``names`` are positions with their prompt and source prompt."""
    rows: list[dict[str, object]] = []
    for site in sites:
        effects = found.of(site).double().cpu()
        for position, prompt, source_prompt in names:
            rows.append(
                {
                    **pair,
                    "prompt": prompt,
                    "source_prompt": source_prompt,
                    "site": str(site),
                    "layer": site.layer,
                    "kind": site.kind,
                    "head": site.head,
                    "positions": ANSWER_SPAN,
                    "estimate": float(effects[position]),
                }
            )
    return rows


def sample_sites(sites: Sequence[Site], n: int, generator: np.random.Generator) -> tuple[Site, ...]:
    """A sample of sites in which kinds and layers are as evenly represented as can be.

    Kinds take turns; within a kind, every layer gives a random site before any gives a second.

    Args:
        sites: what to choose from.
        n: how many; all of them where there are no more.
        generator: of the draw.

    Raises:
        ConfigError: nothing is asked for.
    """
    if n < 1:
        raise ConfigError(
            "A sample of sites has at least one",
            seen=n,
            allowed=f"1 to {len(sites)}",
            remedy=f"ask for {_FEWEST} or more of each kind, so that there is a correlation",
        )
    turns: list[tuple[int, Site]] = []
    for kind in sorted({site.kind for site in sites}):
        by_layer: dict[int, list[Site]] = {}
        for site in sites:
            if site.kind == kind:
                by_layer.setdefault(-1 if site.layer is None else site.layer, []).append(site)
        drawn = [
            (turn, float(generator.random()), found[index])
            for found in by_layer.values()
            for turn, index in enumerate(map(int, generator.permutation(len(found))))
        ]
        turns += [(nth, site) for nth, (_, _, site) in enumerate(sorted(drawn))]
    turns.sort(key=lambda t: t[0])
    return tuple(sorted(site for _, site in turns[:n]))


def agreement_table(approximations: pl.DataFrame, patching: pl.DataFrame) -> pl.DataFrame:
    """The table ``agreement``: how approximations correlate with exact patches.

    One row for each source, target, method and kind of site, and one for all kinds together. Only
    patches in both tables are compared: the same agents, prompts, site and positions, with the
    source's own contributions (``write``).

    Args:
        approximations: estimates, any number of pairs and methods.
        patching: exact patches of a sample of the sites and prompts, or of all.
    """
    exact = (
        conform("patching", patching).filter(pl.col("write") == "write").select(*_PATCH, "effect")
    )
    both = conform("approximations", approximations).join(exact, on=list(_PATCH), how="left")
    rows: list[dict[str, object]] = []
    by_method = both.group_by("source", "target", "method", maintain_order=True)
    for (source, target, method), found in by_method:
        kinds = found.get_column("kind").unique(maintain_order=True).to_list()
        for kind in (*kinds, "all"):
            one = found if kind == "all" else found.filter(pl.col("kind") == kind)
            one = one.drop_nulls("effect")
            x, y = one.get_column("estimate"), one.get_column("effect")
            rows.append(
                {
                    "source": source,
                    "target": target,
                    "method": method,
                    "kind": kind,
                    "n": len(x),
                    "pearson": _correlation(x.to_numpy(), y.to_numpy()),
                    "spearman": _correlation(x.rank().to_numpy(), y.rank().to_numpy()),
                }
            )
    return from_rows("agreement", rows)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """Pearson's correlation, or None where it is undefined."""
    if len(x) < _FEWEST or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return None
    # Scaled first, so that the squares of tiny effects do not vanish.
    x, y = ((v - v.mean()) / np.ptp(v) for v in (x, y))
    value = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return min(1.0, max(-1.0, value))
