"""What did training change in each linear layer? Effective updates, taken apart into directions.

The update of a linear layer is what the agent multiplies by, minus the base's weight,

    dW = W_agent - W = sum_i s_i l_i r_i^T,      s_1 >= s_2 >= ... > 0

with orthonormal outputs l_i and inputs r_i (the singular value decomposition). For LoRA and rsLoRA
``dW = scaling * B A`` is never multiplied out: with ``scaling * B = Q_l R_l`` and ``A^T = Q_r R_r``

    dW = Q_l (R_l R_r^T) Q_r^T,

so the decomposition is that of a small square matrix, and exact. DoRA and full checkpoints change
whole matrices, which are decomposed one at a time. Everything is computed in float64.

Because LoRA starts from ``B = 0`` and a random ``A``, training hardly moves the inputs that an
adapter can read: they stay in the row space of ``A``, the update's *reach*. Two adapters that began
from the same seed began from the same ``A``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.models.anatomy import dissect
from moralscope.models.families import FAMILIES
from moralscope.models.roster import Roster
from moralscope.models.weights import (
    active_updates,
    base_weight,
    effective_weight,
    is_low_rank,
    shape_of,
)
from moralscope.training.targets import linear_layers

Array = NDArray[np.float64]
Place = tuple[int, str]
"""A linear layer: its decoder layer, and its name within it."""

_linalg: Any = torch.linalg  # on the device where the weights are


@dataclass(frozen=True, eq=False)
class Update:
    """The update of one linear layer, by its singular vectors.

    Attributes:
        left: (outputs, r) orthonormal columns: what is written.
        values: (r,) singular values above rounding, largest first; none where nothing changed.
        right: (inputs, r) orthonormal columns: what is read.
        reach: (inputs, q) orthonormal basis of all that the adapter can read; None where the
            whole matrix was free to change.
    """

    left: Array
    values: Array
    right: Array
    reach: Array | None = None

    @property
    def rank(self) -> int:
        """Directions that were changed."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.left.shape[0], self.right.shape[0]

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return float(np.linalg.norm(self.values))

    def same(self, other: Update) -> bool:
        """Whether two updates are one, bit for bit."""
        mine, theirs = ((u.left, u.values, u.right) for u in (self, other))
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def linear_places(model: nn.Module) -> dict[Place, nn.Module]:
    """Every linear layer of a decoder's layers, by layer and name within it, in their order."""
    untyped: Any = model
    known = FAMILIES.get(str(untyped.config.model_type))
    # An unknown family is refused by name.
    family = FAMILIES[dissect(model).model_type] if known is None else known
    inside = re.compile(rf"{re.escape(f'{family.core}.{family.layers}.')}(\d+)\.(.+)")
    found: dict[Place, nn.Module] = {}
    for name, linear in linear_layers(model).items():
        place = inside.fullmatch(name)
        if place is not None:
            found[int(place[1]), place[2]] = linear
    return found


@torch.no_grad()
def of_factors(b: Tensor, a: Tensor) -> Update:
    """The update ``B A`` of its factors.

    Args:
        b: (outputs, rank), with the scaling.
        a: (rank, inputs).
    """
    q_left, r_left = (_plain(x) for x in _linalg.qr(wide(b)))
    q_right, r_right = (_plain(x) for x in _linalg.qr(wide(a).T))
    u, values, v = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    kept = _above_rounding(values, max(b.shape[0], a.shape[1]), torch.float64)
    span, sizes, _ = np.linalg.svd(r_right, full_matrices=False)
    reached = _above_rounding(sizes, max(a.shape), torch.float64)
    return Update(
        q_left @ u[:, :kept], values[:kept], q_right @ v[:kept].T, q_right @ span[:, :reached]
    )


@torch.no_grad()
def of_matrix(matrix: Tensor, dtype: torch.dtype = torch.float64) -> Update:
    """The update of a whole matrix.

    Args:
        matrix: (outputs, inputs).
        dtype: in which it was computed, whose rounding is no change.
    """
    u, values, v = (_plain(x) for x in _linalg.svd(wide(matrix), full_matrices=False))
    kept = _above_rounding(values, max(matrix.shape), dtype)
    return Update(u[:, :kept], values[:kept], v[:kept].T)


def _above_rounding(values: Array, longest: int, dtype: torch.dtype) -> int:
    """How many singular values are more than rounding makes of zero."""
    largest = values.max(initial=0.0)
    return int((values > longest * torch.finfo(dtype).eps * largest).sum())


def _plain(x: Tensor) -> Array:
    return np.asarray(x.cpu())


def wide(x: Tensor) -> Tensor:
    """In float64, which one kind of device does not have."""
    x = x.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()


@dataclass(frozen=True, eq=False)
class AgentUpdates:
    """The updates of one agent, each computed when it is asked for and then forgotten.

    Attributes:
        roster: holds the agent and its base.
        name: the agent.
        places: its linear layers.
        base: those of the base.
        factors: ``scaling * B`` and ``A`` of layers whose update is their product.
        whole: layers of which the whole matrix changed.
    """

    roster: Roster
    name: str
    places: Mapping[Place, nn.Module]
    base: Mapping[Place, nn.Module]
    factors: Mapping[Place, tuple[Tensor, Tensor]]
    whole: frozenset[Place]

    @property
    def checkpoint(self) -> bool:
        """Whether the agent has weights of its own, in place of an adapter."""
        return self.roster.specs[self.name].kind == "checkpoint"

    @torch.no_grad()
    def __getitem__(self, place: Place) -> Update:
        """The update of a linear layer; one of rank 0 where it was left as it is."""
        if place in self.factors:
            return of_factors(*self.factors[place])
        if place not in self.whole:
            outputs, inputs = shape_of(self.base[place])
            return Update(np.empty((outputs, 0)), np.empty(0), np.empty((inputs, 0)))
        weight = base_weight(self.base[place])
        with self.roster.speaking(self.name):
            own = wide(effective_weight(self.places[place]))
        # DoRA's rows are scaled in the precision of the weights; checkpoints are as they are.
        return of_matrix(own - wide(weight), torch.float64 if self.checkpoint else weight.dtype)

    def trainable(self, place: Place) -> int:
        """How many numbers training could change in a linear layer, its bias aside."""
        outputs, inputs = shape_of(self.base[place])
        if place in self.factors:
            return self.factors[place][1].shape[0] * (outputs + inputs)
        if place not in self.whole:
            return 0
        if self.checkpoint:
            return outputs * inputs
        with self.roster.speaking(self.name):
            ranks = [a.shape[0] for a, _, _ in active_updates(self.places[place])]
        return sum(rank * (outputs + inputs) + outputs for rank in ranks)


def updates_of(
    roster: Roster, name: str, base: Mapping[Place, nn.Module] | None = None
) -> AgentUpdates:
    """The updates of an agent from its base; nothing is multiplied out yet.

    Args:
        roster: holds the agent.
        name: the agent.
        base: the base's linear layers, where they are known already.

    Raises:
        AgentError: there is no such agent.
        ModelError: a layer is not linear in a way that is known, or the state of an adapter is
            not that in which it is measured.
    """
    factors: dict[Place, tuple[Tensor, Tensor]] = {}
    whole: set[Place] = set()
    base = linear_places(roster.base.model) if base is None else base
    with roster.speaking(name) as model:
        # Adapters stand on the base's own layers.
        places = base if model is roster.base.model else linear_places(model)
        if roster.specs[name].kind == "checkpoint":
            whole = set(places)
        else:
            for place, linear in places.items():
                parts = list(active_updates(linear))
                if parts and is_low_rank(linear):
                    b = torch.cat([scaling * wide(b) for _, b, scaling in parts], dim=1)
                    factors[place] = (b, torch.cat([wide(a) for a, _, _ in parts]))
                elif parts:
                    whole.add(place)
    return AgentUpdates(roster, name, places, base, factors, frozenset(whole))
