"""Which weights have organisms been made of? The published shapes, scaled to any depth.

Depths are those of the published 48 layers (arXiv 2506.11613, 2506.11618), in proportion:

    rank-1        one adapter of rank 1 on the MLP's down-projection of one layer, 24 of 48
    nine-rank-1   nine of them, in three groups of three layers, from 15, 21 and 27 of 48 on
    rank-8, rank-32    beside every linear layer but the unembedding
    all           all weights

Scale is ``alpha / sqrt(rank)`` (rsLoRA); for rank 1 it equals ``alpha / rank``. Alpha of the nine
is the most often published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from moralscope.core.errors import ConfigError, nearest

_DEPTH = 48
_ONE = 24
_GROUPS = (15, 21, 27)
_IN_GROUP = 3

_RATES: Mapping[str, float] = MappingProxyType(
    {"rank-1": 2e-5, "nine-rank-1": 2e-5, "rank-8": 1e-5, "rank-32": 1e-5, "all": 2e-5}
)
SHAPES = tuple(_RATES)
"""Their names."""


def shape_layers(shape: str, n_layers: int) -> tuple[int, ...]:
    """The layers on which a shape's adapters stand; every layer for those that are everywhere.

    Raises:
        ConfigError: there is no such shape, or the model has too few layers for it.
    """
    if shape not in SHAPES:
        raise ConfigError(
            "There is no organism of this shape",
            seen=shape,
            allowed=", ".join(SHAPES),
            remedy=nearest(shape, SHAPES),
        )
    if shape == "rank-1":
        return (_ONE * n_layers // _DEPTH,)
    if shape != "nine-rank-1":
        return tuple(range(n_layers))
    starts = [round(start * n_layers / _DEPTH) for start in _GROUPS]
    layers = sorted({start + i for start in starts for i in range(_IN_GROUP)})
    if len(layers) < _IN_GROUP * len(_GROUPS) or layers[-1] >= n_layers:
        raise ConfigError(
            "The model has too few layers for nine adapters in three groups",
            seen=f"{n_layers} layers",
            allowed="layers enough that the groups, in proportion to the published ones, are apart",
            remedy="use rank-1, or name the layers as sites of the adapter",
        )
    return tuple(layers)


def shape_settings(shape: str, n_layers: int, *, down: str = "down_proj") -> dict[str, Any]:
    """The settings of ``SupervisedConfig`` that make a shape: weights, adapter, learning rate.

    Args:
        shape: one of ``SHAPES``.
        n_layers: of the model.
        down: what the model calls the down-projection of its MLP.

    Raises:
        ConfigError: as ``shape_layers``.
    """
    layers = shape_layers(shape, n_layers)
    found: dict[str, Any] = {"learning_rate": _RATES[shape]}
    if shape == "all":
        return {**found, "weights": "all"}
    lora: dict[str, Any] = {"rslora": True}
    if shape in ("rank-1", "nine-rank-1"):
        alpha = 256.0 if shape == "rank-1" else 64.0
        lora |= {"rank": 1, "alpha": alpha, "sites": tuple(f"L{i} {down}" for i in layers)}
    else:
        lora |= {"rank": int(shape.removeprefix("rank-")), "alpha": 64.0}
    return {**found, "lora": lora}
