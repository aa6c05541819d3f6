"""What does one component tell another? Path patching, exact and exhaustive.

The effect of a sender on the decision *through a chosen receiver only* (Wang et al. 2022,
Goldowsky-Dill et al. 2023), in two steps:

1. The sender is replaced by the source's. Every other component keeps its clean output, MLPs
   included, so the stream that the receiver reads changes by what the sender writes, and by nothing
   else: ``x + delta``. The receiver is computed on that.
2. The receiver's new value is put into an otherwise clean target, and everything after it reacts.

Receivers are a head's query (``L7.h2.q``), a key/value head's key or value (``L7.kv1.k``), a whole
attention layer, an MLP, or the residual stream itself; the stream after the last layer is the
decision, read directly. In families with post-norms ``delta`` is the change of the normed output.
Step 1 costs one layer for all senders of a receiver's layer, step 2 is a sweep of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from torch import nn

from moralscope.core.errors import SiteError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.site import Edge, Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.donors import Donor, Write
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import DEFAULT_MEMORY_BYTES, MAX_ROW_TOKENS, plan_sweep
from moralscope.mechanisms.patching.rows import run_rows
from moralscope.mechanisms.patching.segments import ANSWER_SPAN
from moralscope.mechanisms.patching.sweeps import Pairs, pairs_of, segments_for
from moralscope.mechanisms.paths.values import STREAMS, Patched, patched_at, receiver_values
from moralscope.models.anatomy import Anatomy

_SENDERS = ("embed", "head", "attn", "mlp")
_RECEIVERS = ("q", "k", "v", "attn", "mlp", *STREAMS)


def direct_to_decision(anatomy: Anatomy, sender: Site) -> Edge:
    """The path from a sender straight to the decision."""
    return Edge(sender, Site("resid_post", anatomy.n_layers - 1))


def check_edge(anatomy: Anatomy, edge: Edge) -> None:
    """Refuse a path that this decoder does not have.

    Raises:
        SiteError: a site does not exist, cannot send or receive, or the receiver does not come
            after the sender.
    """
    sender, receiver = edge.sender, edge.receiver
    anatomy.check_site(sender)
    anatomy.check_site(receiver)
    if sender.kind not in _SENDERS or receiver.kind not in _RECEIVERS:
        raise SiteError(
            "This is not a path between components",
            seen=str(edge),
            allowed=f"senders {', '.join(_SENDERS)}; receivers {', '.join(_RECEIVERS)}",
            remedy="send to a head through its query (L7.h2.q), key or value (L7.kv1.k, L7.kv1.v)",
        )
    if _reads_from(receiver) < _writes_to(sender, parallel=anatomy.parallel):
        raise SiteError(
            "The receiver of a path does not come after its sender",
            seen=str(edge),
            allowed="a receiver that reads the stream after the sender has written to it",
            remedy="exchange the two, or choose a later receiver",
        )


def _writes_to(sender: Site, *, parallel: bool) -> float:
    """Depth of the first stream that holds the sender's write."""
    if sender.kind == "embed":
        return 0.0
    middle = sender.kind in ("head", "attn") and not parallel
    return (sender.layer or 0) + (0.5 if middle else 1.0)


def _reads_from(receiver: Site) -> float:
    """Depth of the stream that the receiver reads, or is."""
    layer = receiver.layer or 0
    offset = {"mlp": 0.5, "resid_mid": 0.5, "resid_post": 1.0}.get(receiver.kind, 0.0)
    return layer + offset


def patch_paths(
    model: nn.Module,
    anatomy: Anatomy,
    source: CleanRun,
    target: CleanRun,
    edges: Sequence[Edge],
    *,
    pairs: Pairs | None = None,
    positions: str = ANSWER_SPAN,
    write: Write = "write",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``edges``: every path on every pair of prompts, both in the order given.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        source: clean run that senders' activations come from.
        target: clean run of the model that is patched, with its cache.
        edges: the paths.
        pairs: (target prompt, source prompt); each prompt with itself unless given.
        positions: where senders are replaced.
        write: for heads as senders, see ``patching.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass.
        progress: called after each pass.

    Raises:
        SiteError: a path does not exist; the rest as ``sweeps.sweep``.
    """
    for edge in edges:
        check_edge(anatomy, edge)
    chosen = pairs_of(source, target, pairs)
    segments = segments_for(source, target, chosen, positions)
    interventions = [Intervention((edge.receiver,)) for edge in edges]
    plan = plan_sweep(
        model, anatomy, segments, interventions,
        memory_bytes=memory_bytes, max_row_tokens=max_row_tokens,
    )  # fmt: skip
    measured = _Measured({}, {})
    task = f"paths {source.agent}>{target.agent}"
    for done, step in enumerate(plan.passes, start=1):
        segment = segments[step.segment]
        here = patched_at(source, target, segment)
        taken = {index: edges[index] for index in step.interventions}
        measured = measured.joined(_one_pass(model, anatomy, target, here, taken, write=write))
        progress(ProgressEvent(task, done, len(plan.passes)))
    rows: list[dict[str, object]] = []
    for pair in chosen if edges else ():
        baseline = measured.baselines[pair]
        place = {
            "source": source.agent,
            "target": target.agent,
            "prompt": target.prompts[pair[0]].name,
            "source_prompt": source.prompts[pair[1]].name,
            "positions": positions,
            "write": write,
            "baseline_log_odds": baseline,
        }
        for index, edge in enumerate(edges):
            effect = measured.effects[pair, index]
            rows.append({**place, **_edge_columns(edge, baseline, effect)})
    return from_rows("edges", rows)


def _edge_columns(edge: Edge, baseline: float, effect: float) -> dict[str, object]:
    return {
        "sender": str(edge.sender),
        "receiver": str(edge.receiver),
        "patched_log_odds": baseline + effect,
        "effect": effect,
    }


@dataclass(frozen=True)
class _Measured:
    """Clean log-odds by pair of prompts, and effects by pair and index of the path, in nats."""

    baselines: Mapping[tuple[int, int], float]
    effects: Mapping[tuple[tuple[int, int], int], float]

    def joined(self, later: _Measured) -> _Measured:
        """Both; the first pass's baseline stands for all, as effects are differences within one."""
        return _Measured({**later.baselines, **self.baselines}, {**self.effects, **later.effects})


def _one_pass(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    here: Patched,
    edges: Mapping[int, Edge],
    *,
    write: Write,
) -> _Measured:
    """Both steps for some paths on one segment."""
    taken = list(edges.values())
    with torch.no_grad():
        values = receiver_values(model, anatomy, target, here, edges=taken, write=write)
    # The receiver's value is known at every token of the segment, not at the edited ones alone.
    every = np.arange(len(here.segment.nodes), dtype=np.int64)
    clean, patched = run_rows(
        model, anatomy, target, replace(here.segment, edited=every),
        [Intervention((edge.receiver,), donor=row) for row, edge in enumerate(taken)],
        donors=[Donor(own={edge.receiver: v}) for edge, v in zip(taken, values, strict=True)],
    )  # fmt: skip
    effects = patched - clean
    pairs = [(case.member, case.source_member) for case in here.segment.cases]
    return _Measured(
        {pair: float(clean[column]) for column, pair in enumerate(pairs)},
        {
            (pair, index): float(effects[row, column])
            for column, pair in enumerate(pairs)
            for row, index in enumerate(edges)
        },
    )
