"""What does the model do without a direction, or with more of it? Placed, and surely taken away.

    steer:       x <- x + c v_k              after layer k (model units; c = 0 is the identity)
    layer:       x <- x - u_k u_k^T x        after layer k
    own layers:  x <- x - u_l u_l^T x        after every layer l, each its own direction
    all layers:  x <- x - u_k u_k^T x        after every layer, the direction of layer k
    all writes:  the same at the embedding and at every write to the stream, so that nothing
                 between attention and MLP holds it either (``intervening.steering.project_out``)
    adapter:     B <- B - u u^T B            for every adapter that writes to the stream, u = u_k
                 or, without a layer, that of the adapter's own (``directions.adapters``)

with ``u = v / |v|``, at all tokens, those of the question included: the conditions of arXiv
2506.11618, section 3. Between blocks of *own layers* and *all layers*, what attention writes may
hold the direction until its block ends; *all writes* is the stricter condition. Everything acts in
whatever runs inside the block, scoring and generation alike. Decoder blocks may return the stream
alone or first in a tuple.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from moralscope.core.errors import ConfigError, ModelError, nearest
from moralscope.core.site import Site
from moralscope.mechanisms.intervening.placements import (
    Placement,
    at_stream,
    check_anatomy,
    check_direction,
    placed,
)
from moralscope.mechanisms.intervening.steering import (
    orthonormal,
    project_out,
    projecting,
    steer,
)
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import compute_dtype
from moralscope.organisms.directions.adapters import adapters_projected
from moralscope.organisms.directions.means import refuse_zero

Array = NDArray[np.float64]

Way = Literal["none", "steer", "layer", "own layers", "all layers", "all writes", "adapter"]

_NEEDS_LAYER: tuple[Way, ...] = ("steer", "layer", "all layers", "all writes")


@dataclass(frozen=True)
class Intervention:
    """What is done with directions.

    Attributes:
        way: how, see the module.
        layer: whose direction, and for ``steer`` and ``layer`` where; None for ``none`` and
            ``own layers``, and for ``adapter`` with the direction of each adapter's own layer.
        coefficient: how many times the direction is added; of ``steer`` alone.
        renormalise: whether each adapter's B is stretched to its old norm; of ``adapter`` alone.

    Raises:
        ConfigError: the way is not known, or what it needs is not given.
    """

    way: Way
    layer: int | None = None
    coefficient: float = 0.0
    renormalise: bool = False

    def __post_init__(self) -> None:
        if self.way not in get_args(Way):
            raise ConfigError(
                "There is no such way to intervene",
                seen=repr(self.way),
                allowed=", ".join(get_args(Way)),
                remedy=nearest(str(self.way), get_args(Way)),
            )
        needs, takes = self.way in _NEEDS_LAYER, self.way in (*_NEEDS_LAYER, "adapter")
        if (needs and self.layer is None) or (not takes and self.layer is not None):
            raise ConfigError(
                f"The layer does not go with the intervention {self.way!r}",
                seen=self.layer,
                allowed=f"a layer for {', '.join(_NEEDS_LAYER)}; one or none for adapter",
                remedy="give the layer whose direction is meant, or leave it out",
            )
        foreign = [
            name
            for name, given, way in (
                ("coefficient", self.coefficient != 0.0, "steer"),
                ("renormalise", self.renormalise, "adapter"),
            )
            if given and self.way != way
        ]
        if foreign:
            raise ConfigError(
                f"The intervention {self.way!r} does not take this",
                seen=", ".join(foreign),
                allowed="coefficient for steer, renormalise for adapter",
                remedy="leave it out",
            )

    @property
    def name(self) -> str:
        """Its name in tables, such as ``steer L4 x2`` or ``own layers``."""
        layer = "" if self.layer is None else f" L{self.layer}"
        times = f" x{self.coefficient:g}" if self.way == "steer" else ""
        return f"{self.way}{layer}{times}{' renormalised' if self.renormalise else ''}"


@contextlib.contextmanager
def applied(
    model: nn.Module, anatomy: Anatomy, vectors: Array, intervention: Intervention
) -> Generator[None]:
    """Keep an intervention in force for the length of a block, and never longer.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        vectors: one direction for the stream after each layer, ``(layers, width)``, model units.
        intervention: what is done with them.

    Raises:
        ModelError: the directions do not fit the model, or the anatomy is another model's; there
            is no adapter to project.
        SiteError: the layer does not exist.
        EvidenceError: a direction that is used has no length.
    """
    check_anatomy(model, anatomy)
    _check_vectors(model, anatomy, vectors)
    layer = intervention.layer
    if layer is not None:
        anatomy.check_site(Site("resid_post", layer))
    used = vectors if layer is None else vectors[[layer]]
    if intervention.way != "none":
        refuse_zero(
            used, "A direction that is zero cannot be intervened with", "find it on answers"
        )
    with _entered(model, anatomy, torch.as_tensor(vectors), intervention):
        yield


def _entered(
    model: nn.Module, anatomy: Anatomy, vectors: torch.Tensor, intervention: Intervention
) -> contextlib.AbstractContextManager[None]:
    way, layer = intervention.way, intervention.layer
    if way == "adapter":
        return adapters_projected(
            model, anatomy, vectors, layer=layer, renormalise=intervention.renormalise
        )
    if layer is None:
        everywhere = range(anatomy.n_layers if way == "own layers" else 0)
        return placed(_projections(anatomy, everywhere, [vectors[k] for k in everywhere]))
    one = vectors[layer]
    if way == "steer":
        return steer(model, anatomy, one, layer=layer, coefficient=intervention.coefficient)
    if way == "all writes":
        return project_out(model, anatomy, one)
    layers = [layer] if way == "layer" else list(range(anatomy.n_layers))
    return placed(_projections(anatomy, layers, [one] * len(layers)))


def _projections(
    anatomy: Anatomy, layers: Sequence[int], vectors: Sequence[torch.Tensor]
) -> list[Placement]:
    return [
        at_stream(anatomy, layer + 1, projecting(orthonormal(vector)))
        for layer, vector in zip(layers, vectors, strict=True)
    ]


def _check_vectors(model: nn.Module, anatomy: Anatomy, vectors: Array) -> None:
    if vectors.ndim != 2 or len(vectors) != anatomy.n_layers:
        raise ModelError(
            "The directions do not fit the model",
            seen=f"shape {vectors.shape}",
            allowed=f"one direction for each of {anatomy.n_layers} layers, of {anatomy.width} "
            "numbers",
            remedy="find them in an agent of this base",
        )
    check_direction("direction", torch.as_tensor(vectors), anatomy.width, compute_dtype(model))
