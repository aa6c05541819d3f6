"""Through how few directions does a difference pass? A subspace of the stream, learned and tested.

Distributed alignment search (Geiger et al. 2023, arXiv 2303.02536). Two readings of the stream
after layer l differ in one thing: two agents on one prompt, or one agent on two prompts that differ
in one thing. With R an orthonormal basis of k directions, ``(width, k)``, an *interchange* puts
the source's projection in the place of the target's,

    h' = h + R R' (h_source - h),

and the search turns R (through the QR factors of a free matrix, by Adam) until the interchange does
to the decision what exchanging the whole stream at this place does: ``k = width`` reaches it by
construction. The loss is the mean squared difference in log-odds on some of the scenarios; what is
reported is the share reached on the others,

    share = sum of effect x wanted / sum of wanted^2.

A search with hundreds of free numbers finds something on any dozen of prompts. Two controls: the
same search for *arbitrary* sides (for half of the scenarios, drawn at random, the effect is wanted
the other way round), which can be learned but must not carry over; and *random* subspaces. What a
search reaches by luck differs from search to search, so one of them says little: at one place, the
layer and dimension where on the scenarios that were searched the true sides lead the arbitrary ones
by most, the search is repeated for further arbitrary sides. Held-out scenarios take no part in the
choice of the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moralscope.core.errors import EvidenceError
from moralscope.mechanisms.representations.exchanging import (
    Continuation,
    Place,
    Speaking,
    continuation,
    places,
)

Control = Literal["none", "arbitrary", "random"]

Split = NDArray[np.bool_]
Values = NDArray[np.float64]

_LINALG: Any = torch.linalg

LEAST_BLOCKS = 4
"""Fewest blocks of scenarios to search: two on either side, one of each sign."""

NOTHING = 1e-4
"""Root mean square, in nats, below which exchanging the whole stream is taken to do nothing: what
two kernels make of one float32 model."""


@dataclass(frozen=True, eq=False)
class Readings:
    """Streams that are put into an agent's, prompt by prompt.

    Attributes:
        what: what they differ in.
        source: the agent that they come from.
        members: indices of the agent's prompts.
        prompts, source_prompts: names.
        units: the scenario of each prompt.
        blocks: scenarios that share readings have one block; halves are made of whole blocks.
        streams: the source's, ``(members, 1 + layers, width)``.
    """

    what: str
    source: str
    members: tuple[int, ...]
    prompts: tuple[str, ...]
    source_prompts: tuple[str, ...]
    units: tuple[str, ...]
    blocks: tuple[str, ...]
    streams: Tensor


@dataclass(frozen=True, slots=True)
class Search:
    """How subspaces are searched for.

    Attributes:
        dimensions: of the subspaces.
        steps: of Adam.
        rate: its step size; a direction has length 1.
        random: random subspaces drawn for each dimension.
        arbitrary: searches for arbitrary sides at the one place that is judged; elsewhere one.
    """

    dimensions: tuple[int, ...] = (1, 4)
    steps: int = 30
    rate: float = 0.02
    random: int = 4
    arbitrary: int = 8


@dataclass(frozen=True, eq=False)
class Found:
    """Effects of interchanges at one layer, in nats.

    Attributes:
        layer: after which the stream is exchanged.
        train: which prompts the search saw, ``(members,)``.
        full: of exchanging the whole stream, ``(members,)``.
        effects: by dimension, control and draw, ``(members,)``.
        wanted: what each search asked for, by control and draw.
        bases: the subspace that was found, by dimension, ``(width, k)``.
    """

    layer: int
    train: Split
    full: Values
    effects: dict[tuple[int, Control, int], Values]
    wanted: dict[tuple[Control, int], Values]
    bases: dict[int, Tensor]


def split_blocks(
    blocks: Sequence[str], rng: np.random.Generator, least: int = LEAST_BLOCKS
) -> tuple[Split, Split]:
    """Halve blocks at random: which entries are trained on, and which have the sign changed.

    Within each half every second block has its sign changed, so that both signs are as frequent.

    Raises:
        EvidenceError: there are fewer than ``least`` blocks.
    """
    names = list(dict.fromkeys(blocks))
    if len(names) < least:
        raise EvidenceError(
            "Too few scenarios to search a subspace on some and test it on others",
            seen=f"{len(names)} that share no reading",
            allowed=f"{least} or more",
            remedy="study mechanisms on more scenarios",
        )
    order = [names[int(i)] for i in rng.permutation(len(names)).tolist()]
    half = len(order) // 2
    train = set(order[:half])
    turned = {*order[:half:2], *order[half::2]}
    return (
        np.array([block in train for block in blocks]),
        np.array([block in turned for block in blocks]),
    )


def search_subspaces(
    agent: Speaking,
    readings: Readings,
    layers: Sequence[int],
    rng: np.random.Generator,
    search: Search | None = None,
) -> tuple[Found, ...]:
    """Search the subspaces of some layers, with their controls; halves and sides are the same.

    Args:
        agent: whose streams are exchanged.
        readings: what goes in.
        layers: after which.
        rng: draws halves, arbitrary sides and random subspaces.
        search: how.

    Raises:
        EvidenceError: as for ``split_blocks``.
    """
    how = search or Search()
    train, turned = split_blocks(readings.blocks, rng)
    learners = [m for m, seen in zip(readings.members, train, strict=True) if seen]
    task = _Task(
        agent, readings, places(agent.run, readings.members), places(agent.run, learners), how
    )
    found = [_search_layer(task, layer, (train, turned), rng) for layer in layers]
    judged = _judged_place(found)
    if judged is not None:
        at, k = judged
        found[at] = _with_more_sides(task, found[at], k, rng)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is searched: the agent, its readings, everybody's places, and those searched on."""

    agent: Speaking
    readings: Readings
    everybody: Sequence[Place]
    learners: Sequence[Place]
    how: Search


def _search_layer(
    task: _Task, layer: int, halves: tuple[Split, Split], rng: np.random.Generator
) -> Found:
    """All dimensions at one layer, each with one search for arbitrary sides."""
    how, (train, turned) = task.how, halves
    whole = _parts(task.agent, task.everybody, task.readings, layer)
    full = _together(whole, [part.change(part.theirs[None])[0] for part in whole])
    wanted: dict[tuple[Control, int], Values] = {
        ("none", 0): full, ("arbitrary", 0): full * np.where(turned, -1.0, 1.0),
        **dict.fromkeys([("random", d) for d in range(how.random)], full),
    }  # fmt: skip
    learned: list[tuple[int, Control]] = [
        (k, control) for k in how.dimensions for control in ("none", "arbitrary")
    ]
    half = _parts(task.agent, task.learners, task.readings, layer)
    starts = [_start(half, k) for k, _ in learned]
    alive = float(np.sqrt(np.mean(full**2))) > NOTHING
    goals = [wanted[control, 0] for _, control in learned]
    bases = _descend(half, starts, goals, how) if alive else starts
    every: dict[tuple[int, Control, int], Tensor] = {
        (k, control, 0): basis for (k, control), basis in zip(learned, bases, strict=True)
    }
    for k in how.dimensions:
        every |= {(k, "random", d): _random(rng, starts[0], k) for d in range(how.random)}
    effects = dict(zip(every, _measured(whole, list(every.values())), strict=True))
    own = {k: basis for (k, control, _), basis in every.items() if control == "none"}
    return Found(layer, train, full, effects, wanted, own)


def _judged_place(found: Sequence[Found]) -> tuple[int, int] | None:
    """Index of the layer and the dimension at which true sides lead arbitrary ones in training."""
    lead: dict[tuple[int, int], float] = {}
    for at, one in enumerate(found):
        if float(np.sqrt(np.mean(one.full**2))) > NOTHING and one.full[one.train].any():
            for k in one.bases:
                lead[at, k] = _learned(one, k, "none") - _learned(one, k, "arbitrary")
    return max(lead, key=lambda place: lead[place]) if lead else None


def _learned(one: Found, k: int, control: Control) -> float:
    """Share that a search reaches on the prompts that it saw."""
    wanted = one.wanted[control, 0][one.train]
    return float((one.effects[k, control, 0][one.train] * wanted).sum() / (wanted**2).sum())


def _with_more_sides(task: _Task, one: Found, k: int, rng: np.random.Generator) -> Found:
    """The same search for further arbitrary sides, each with the halves of the first."""
    draws = range(1, task.how.arbitrary)
    if not draws:
        return one
    sides = [_turned_again(task.readings.blocks, one.train, rng) for _ in draws]
    goals = [one.full * np.where(turned, -1.0, 1.0) for turned in sides]
    half = _parts(task.agent, task.learners, task.readings, one.layer)
    bases = _descend(half, [_start(half, k) for _ in draws], goals, task.how)
    whole = _parts(task.agent, task.everybody, task.readings, one.layer)
    values = _measured(whole, bases)
    effects, wanted = dict(one.effects), dict(one.wanted)
    for draw, own, goal in zip(draws, values, goals, strict=True):
        effects[k, "arbitrary", draw] = own
        wanted["arbitrary", draw] = goal
    return replace(one, effects=effects, wanted=wanted)


def _turned_again(blocks: Sequence[str], train: Split, rng: np.random.Generator) -> Split:
    """New arbitrary sides: in either half every second block, in an order drawn at random."""
    turned: set[str] = set()
    for side in (True, False):
        own = [b for b, seen in zip(blocks, train.tolist(), strict=True) if seen == side]
        names = list(dict.fromkeys(own))
        turned |= {names[int(i)] for i in rng.permutation(len(names)).tolist()[::2]}
    return np.array([block in turned for block in blocks])


@dataclass(frozen=True, eq=False)
class _Part:
    """The readings of one place; ``at`` says where they stand among all of them."""

    agent: Speaking
    place: Place
    layer: int
    at: NDArray[np.int64]
    mine: Tensor
    theirs: Tensor
    clean: Tensor
    known: dict[int, Continuation]

    def change(self, streams: Tensor) -> Tensor:
        """Change of log-odds with streams ``(copies, members, width)``, ``(copies, members)``."""
        copies = len(streams)
        if copies not in self.known:
            self.known[copies] = continuation(self.agent, self.place, copies)
        return self.known[copies].log_odds(self.layer, streams) - self.clean

    def exchange(self, bases: Sequence[Tensor]) -> Tensor:
        """Change of log-odds when projections are exchanged, ``(bases, members)``."""
        difference = self.theirs - self.mine
        moved = [self.mine + (difference @ basis) @ basis.T for basis in bases]
        return self.change(torch.stack(moved))


@torch.no_grad()
def _parts(agent: Speaking, where: Sequence[Place], readings: Readings, layer: int) -> list[_Part]:
    place_of = {member: at for at, member in enumerate(readings.members)}
    found: list[_Part] = []
    for place in where:
        at = np.array([place_of[member] for member in place.members])
        mine = place.clean(layer)
        theirs = readings.streams[torch.as_tensor(at), layer + 1].to(mine)
        once = continuation(agent, place, 1)
        # The clean side goes through the same kernels as what is compared with it.
        clean = once.log_odds(layer, mine[None])[0]
        found.append(_Part(agent, place, layer, at, mine, theirs, clean, {1: once}))
    return found


@torch.no_grad()
def _measured(parts: Sequence[_Part], bases: Sequence[Tensor]) -> list[Values]:
    """What exchanging each projection does to every prompt, by basis."""
    changes = [part.exchange(bases) for part in parts]
    return [_together(parts, [own[at] for own in changes]) for at in range(len(bases))]


def _together(parts: Sequence[_Part], values: Sequence[Tensor]) -> Values:
    whole = np.empty(sum(len(part.at) for part in parts))
    for part, own in zip(parts, values, strict=True):
        whole[part.at] = own.detach().double().cpu().numpy()
    return whole


def _start(parts: Sequence[_Part], k: int) -> Tensor:
    """The k directions along which the readings differ most."""
    seen = torch.cat([part.theirs - part.mine for part in parts])
    # Padded with unit vectors where the readings differ in fewer directions than are wanted.
    spare = torch.eye(seen.shape[1], dtype=seen.dtype, device=seen.device)[:k]
    size = float(seen.square().sum().sqrt()) or 1.0
    found: Tensor = _LINALG.svd(torch.cat([seen / size, 1e-6 * spare]), full_matrices=False)[2]
    return found[:k].T.contiguous()


def _random(rng: np.random.Generator, like: Tensor, k: int) -> Tensor:
    drawn = np.linalg.qr(rng.standard_normal((like.shape[0], k)))[0]
    return torch.as_tensor(drawn).to(like)


def _descend(
    parts: Sequence[_Part], starts: Sequence[Tensor], targets: Sequence[Values], how: Search
) -> list[Tensor]:
    """Adam on all searches of a layer side by side; their losses share nothing."""
    free = [start.clone().requires_grad_(True) for start in starts]
    optimiser: Any = torch.optim.Adam(free, lr=how.rate)
    goals = [
        torch.stack([torch.as_tensor(t[part.at]).to(part.clean) for t in targets]) for part in parts
    ]
    scale = torch.cat(goals, 1).square().sum(1, keepdim=True).clamp_min(NOTHING**2)
    for _ in range(how.steps):
        with torch.enable_grad():
            bases: list[Tensor] = [_LINALG.qr(matrix)[0] for matrix in free]
            losses = [
                ((part.exchange(bases) - goal).square() / scale).sum()
                for part, goal in zip(parts, goals, strict=True)
            ]
            # Gradients of the bases alone: the model's own parameters are none of the search.
            gradients = torch.autograd.grad(torch.stack(losses).sum(), free)
        for matrix, gradient in zip(free, gradients, strict=True):
            matrix.grad = gradient
        optimiser.step()
    with torch.no_grad():
        return [_LINALG.qr(matrix)[0] for matrix in free]
