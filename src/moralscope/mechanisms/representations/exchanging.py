"""What is decided when the stream is another one? A differentiable step from a depth to log-odds.

The stream after layer l, where a prompt's options part, is replaced; everything before that token
is frozen, and the layers after l, the final norm and the unembedding run as they are
(``models.resume``). All prompts of a group, and several copies of them with other streams, go
through in one pass. What is returned is a function of the streams given, and torch differentiates
it with respect to them. At other tokens nothing is replaced.

Where all forms of both options share the tokens before they part and go on with one token each, the
normaliser cancels, and one token of a prompt is enough:

    log_odds = logsumexp_positive logit - logsumexp_negative logit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.mechanisms.approximation.gradients import span_groups
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.patching.readings import read_log_odds
from moralscope.mechanisms.patching.rows import FrozenPrefix, masks_of_rows
from moralscope.mechanisms.patching.segments import Case, Segment, paths_of, where
from moralscope.mechanisms.representations.streams import branch_of, decision_node
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import compute_dtype, full_precision
from moralscope.models.resume import call_layer
from moralscope.models.weights import bias_of, effective_weight


@dataclass(frozen=True, eq=False)
class Speaking:
    """An agent whose weights are in force, and its clean run.

    Attributes:
        model: the decoder.
        anatomy: its parts.
        run: of this agent, with keys and values.
    """

    model: nn.Module
    anatomy: Anatomy
    run: CleanRun


@dataclass(frozen=True, eq=False)
class Place:
    """Prompts of one pack whose streams can be replaced together.

    Attributes:
        members: indices of the prompts in the clean run.
        part: their pack.
        segment: the tokens that are computed again, and those that stay.
        edited: which of the tokens is replaced, for each member, ``(members,)``.
        rows: rows of the tokens among the pack's kept ones, ``(tokens,)``.
        prefixes: for each layer the keys and values of the frozen tokens.
        options: for each member the tokens after the parting and which of them are positive, where
            one token of a prompt is enough; else None.
    """

    members: tuple[int, ...]
    part: CleanPack
    segment: Segment
    edited: Tensor
    rows: Tensor
    prefixes: tuple[FrozenPrefix | None, ...]
    options: tuple[tuple[Tensor, Tensor], ...] | None

    def clean(self, layer: int) -> Tensor:
        """The agent's own streams after a layer where options part, ``(members, width)``."""
        return self.part.captured.resid_post(layer)[self.rows[self.edited]]


@torch.no_grad()
def places(run: CleanRun, members: Sequence[int]) -> tuple[Place, ...]:
    """Divide prompts into groups that are replaced in one pass each.

    Args:
        run: the clean run of the agent, with keys and values.
        members: indices of its prompts, each once.

    Raises:
        AgentError: the clean run did not keep keys and values.
    """
    found: list[Place] = []
    by_pack: dict[int, list[int]] = {}
    for member in members:
        pack, position = where(run, member)
        by_pack.setdefault(pack, []).append(position)
    for pack, positions in sorted(by_pack.items()):
        part = run.packs[pack]
        found += [
            _place(run, pack, [part.pack.members[p] for p in group.positions])
            for group in span_groups(part.pack, positions)
        ]
    return tuple(found)


def _place(run: CleanRun, pack: int, members: Sequence[int]) -> Place:
    part = run.packs[pack]
    single = all(_one_token(run, member) for member in members)
    device = part.captured.resid_final.device
    cases: list[Case] = []
    changed: set[int] = set()
    relevant: set[int] = set()
    for member in members:
        paths = paths_of(run, member)
        start = len(run.prompts[member].tokens) - 1
        first = start + branch_of(run, member)
        nodes = {int(node) for path in paths for node in (path[: first + 1] if single else path)}
        span = {int(node) for path in paths for node in path[start:]}
        changed |= {decision_node(run, member)} if single else span
        relevant |= nodes
        position = part.pack.members.index(member)
        cases.append(Case(member, member, pack, position, tuple(sorted(nodes)), {}))
    nodes = np.array(sorted(changed), dtype=np.int64)
    frozen = np.array(sorted(relevant - changed), dtype=np.int64)
    at = [decision_node(run, member) for member in members]
    edited = np.searchsorted(nodes, at).astype(np.int64)
    segment = Segment(tuple(cases), frozen, nodes, edited, np.empty((0, 2), dtype=np.int64))
    prefix = torch.as_tensor(frozen, device=device)
    return Place(
        tuple(members),
        part,
        segment,
        torch.as_tensor(edited, device=device),
        torch.as_tensor(np.searchsorted(part.pack.keep, nodes), device=device),
        tuple(
            FrozenPrefix.of(part.cache, layer, prefix)
            for layer in range(len(part.captured.resid_pre))
        ),
        tuple(_options(run, member, device) for member in members) if single else None,
    )


def _one_token(run: CleanRun, member: int) -> bool:
    prompt, shared = run.prompts[member], branch_of(run, member)
    forms = (*prompt.positive, *prompt.negative)
    return all(len(form) == shared + 1 and form[:-1] == forms[0][:-1] for form in forms)


def _options(run: CleanRun, member: int, device: torch.device) -> tuple[Tensor, Tensor]:
    prompt = run.prompts[member]
    tokens = [form[-1] for form in (*prompt.positive, *prompt.negative)]
    positive = [True] * len(prompt.positive) + [False] * len(prompt.negative)
    return torch.tensor(tokens, device=device), torch.tensor(positive, device=device)


@dataclass(frozen=True, eq=False)
class Continuation:
    """An agent from some depth on, for one place and a number of copies.

    Attributes:
        agent: who decides.
        place: whose streams are given.
        copies: how many of them.
        masks: of each layer.
    """

    agent: Speaking
    place: Place
    copies: int
    masks: tuple[Tensor, ...]

    def log_odds(self, layer: int, streams: Tensor) -> Tensor:
        """Log-odds with other streams after a layer; differentiable in them.

        Args:
            layer: from 0.
            streams: ``(copies, members, width)``.

        Returns:
            ``(copies, members)``, nats, float32 or wider.
        """
        place, part = self.place, self.place.part
        own = part.captured.resid_post(layer)[place.rows]
        hidden = own.to(streams).repeat(self.copies, 1, 1)
        hidden = hidden.index_copy(1, place.edited, streams)
        dtype = compute_dtype(self.agent.model)
        nodes = torch.as_tensor(place.segment.nodes, device=own.device)
        flat = hidden.flatten(0, 1)[None].to(dtype)
        with full_precision(self.agent.model):
            for index in range(layer + 1, self.agent.anatomy.n_layers):
                flat = call_layer(
                    self.agent.anatomy.blocks[index].layer,
                    part.captured.calls[index],
                    flat,
                    nodes=nodes,
                    copies=self.copies,
                    mask=self.masks[index],
                    cache=place.prefixes[index],
                )
            rows = flat.view(self.copies, len(nodes), -1)
            if place.options is None:
                return read_log_odds(self.agent.anatomy, part.pack, place.segment, rows)
            return self._read(rows[:, place.edited])

    def _read(self, rows: Tensor) -> Tensor:
        weight: Tensor = effective_weight(self.agent.anatomy.unembed)
        bias, cap = bias_of(self.agent.anatomy.unembed), self.agent.anatomy.softcap
        hidden: Tensor = self.agent.anatomy.final_norm(rows)
        found: list[Tensor] = []
        for index, (tokens, positive) in enumerate(self.place.options or ()):
            logits = hidden[:, index].to(weight.dtype) @ weight[tokens].T
            if bias is not None:
                logits = logits + bias[tokens].to(logits.dtype)
            if cap is not None:
                logits = cap * (logits / cap).tanh()
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            found.append(wide[:, positive].logsumexp(-1) - wide[:, ~positive].logsumexp(-1))
        return torch.stack(found, 1)


def continuation(agent: Speaking, place: Place, copies: int) -> Continuation:
    """An agent from some depth on.

    Args:
        agent: who decides.
        place: from ``places``.
        copies: how many sets of streams go through side by side.
    """
    tree: Any = place.part.pack.tree
    masks = masks_of_rows(agent.model, agent.anatomy, tree, place.segment, copies)
    return Continuation(agent, place, copies, masks)
