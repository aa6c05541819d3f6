"""Which rank-1 adapters does a model have, and where?

A rank-1 adapter beside a linear layer reads one number of the layer's input and writes one vector,

    W x  ->  W x + scaling * s * b,      s = a . x,

with ``a`` the one row of ``lora_A``, ``b`` the one column of ``lora_B`` and ``scaling`` = alpha for
rank one, rsLoRA or not. An adapter is named by its place: ``L15.mlp.down_proj``.

Strengths can be multiplied for the length of a block, by place: a factor of 1 changes nothing, 0
switches an adapter off, and afterwards every strength is what it was, bit for bit. Groups of
adapters are scaled in this way (Soligo et al. 2025, arXiv 2506.11618, appendix I), and a whole
adapter, to bring forward what it will do (Turner et al. 2025, arXiv 2506.11613, section 4).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError, ConfigError, nearest
from moralscope.mechanisms.weights.updates import linear_places
from moralscope.models.weights import is_lora, is_low_rank
from moralscope.training.lora import voice_of


@dataclass(frozen=True, eq=False)
class RankOne:
    """A rank-1 adapter beside one linear layer of a live model.

    Attributes:
        place: its name, such as ``L15.mlp.down_proj``.
        layer: decoder layer, from 0.
        linear: the layer with its adapter.
        adapter: PEFT's name of it.
    """

    place: str
    layer: int
    linear: nn.Module
    adapter: str

    @property
    def reads(self) -> Tensor:
        """The direction ``a`` that it reads, ``(inputs,)``, float32 or wider."""
        return _wide(self.down.weight)[0]

    @property
    def writes(self) -> Tensor:
        """The direction ``b`` that it writes, ``(outputs,)``, float32 or wider."""
        untyped: Any = self.linear
        return _wide(untyped.lora_B[self.adapter].weight)[:, 0]

    @property
    def scaling(self) -> float:
        """What ``s b`` is multiplied with now."""
        untyped: Any = self.linear
        return float(untyped.scaling[self.adapter])

    @property
    def down(self) -> Any:
        """The module that computes ``s``."""
        untyped: Any = self.linear
        return untyped.lora_A[self.adapter]


def _untyped(linear: Any) -> Any:
    return linear


def _wide(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32))


def place_name(layer: int, name: str) -> str:
    """``L15.mlp.down_proj`` of layer 15 and ``mlp.down_proj``."""
    return f"L{layer}.{name}"


def adapted_places(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with an adapter in force, by the name of their place, in depth order.

    Raises:
        ModelError: the architecture is not supported.
        AgentError: no layer has one.
    """
    found: dict[str, nn.Module] = {}
    for (layer, name), linear in linear_places(model).items():
        if is_lora(linear) and _in_force(linear):
            found[place_name(layer, name)] = linear
    if not found:
        raise AgentError(
            "The model has no adapter in force",
            seen=type(model).__name__,
            allowed="a model while an agent with a LoRA adapter speaks",
            remedy="let the agent speak, or give its adapter instead of a full checkpoint",
        )
    return found


def _in_force(linear: Any) -> list[str]:
    voice = voice_of(linear)
    return [] if voice.silent else [name for name in voice.adapters if name in linear.lora_A]


def rank_one_adapters(model: nn.Module) -> tuple[RankOne, ...]:
    """The rank-1 adapters in force, in depth order.

    Args:
        model: the decoder, while the agent speaks.

    Raises:
        ModelError: the architecture is not supported, or an adapter is merged.
        AgentError: no layer has an adapter in force, several adapters are in force at once, or one
            is no plain LoRA of rank one.
    """
    found: list[RankOne] = []
    for place, linear in adapted_places(model).items():
        names, layer = _in_force(linear), _untyped(linear)
        if len(names) > 1:
            raise AgentError(
                "Several adapters are in force at one place",
                seen=f"{place}: {', '.join(names)}",
                allowed="one adapter",
                remedy="let one agent speak at a time",
            )
        up = layer.lora_B[names[0]]
        low_rank, rank = is_low_rank(linear), int(up.weight.shape[1])
        if rank != 1 or up.bias is not None or not low_rank:
            biased = " with a bias" if up.bias is not None else ""
            raise AgentError(
                "An adapter has no single scalar",
                seen=f"{place}: {'LoRA' if low_rank else 'DoRA'} of rank {rank}{biased}",
                allowed="LoRA or rsLoRA of rank one, without bias",
                remedy="train the organism with rank one at each place",
            )
        found.append(RankOne(place, int(place[1:].split(".")[0]), linear, names[0]))
    return tuple(found)


def chosen(adapters: Sequence[RankOne], places: Collection[str]) -> tuple[RankOne, ...]:
    """Some of the adapters, in their order.

    Raises:
        ConfigError: there is no adapter at a place.
    """
    _require_places(places, [adapter.place for adapter in adapters])
    return tuple(adapter for adapter in adapters if adapter.place in places)


def _require_places(named: Collection[str], known: Collection[str]) -> None:
    for place in named:
        if place not in known:
            raise ConfigError(
                "There is no adapter at this place",
                seen=place,
                allowed=", ".join(known),
                remedy=nearest(place, known),
            )


@contextlib.contextmanager
def scaled(model: nn.Module, factors: Mapping[str, float]) -> Generator[None]:
    """Multiply the strength of adapters in force for the length of the block.

    Args:
        model: the decoder, while the agent speaks; adapters of any rank.
        factors: by place; places that are not named keep their strength. Below zero an adapter
            writes the opposite.

    Raises:
        ConfigError: there is no adapter at a place, or a factor is not finite.
        AgentError: no layer has an adapter in force.
        ModelError: an adapter of these is merged, or is no LoRA or rsLoRA.
    """
    layers = adapted_places(model)
    _require_places(factors, layers)
    for place, factor in factors.items():
        if not math.isfinite(factor) or not is_low_rank(layers[place]):
            raise ConfigError(
                "An adapter cannot be scaled",
                seen=f"{place}: {factor}"
                + ("" if is_low_rank(layers[place]) else ", DoRA, whose strength is not linear"),
                allowed="a finite factor of LoRA or rsLoRA: 1 keeps it, 0 switches it off",
                remedy="give a number",
            )
    before = [
        (strengths, name, strengths[name])
        for place in factors
        for strengths, name in _strengths(layers[place])
    ]
    try:
        for place, factor in factors.items():
            for strengths, name in _strengths(layers[place]):
                strengths[name] = strengths[name] * factor
        yield
    finally:
        for strengths, name, was in before:
            strengths[name] = was


def _strengths(linear: Any) -> list[tuple[dict[str, float], str]]:
    return [(linear.scaling, name) for name in _in_force(linear)]


def of_groups(
    places: Sequence[str], groups: Mapping[str, Collection[str]], factors: Mapping[str, float]
) -> dict[str, float]:
    """Factors by place from factors by group; what is in no group is switched off.

    Published: one group at 20 or 30, all others at 0.

    Args:
        places: every adapter's.
        groups: places by the name of their group, no place in two.
        factors: by group.

    Raises:
        ConfigError: a group has no factor or a factor no group, a place is in two groups, or
            there is no adapter at it.
    """
    unknown = sorted(set(groups) ^ set(factors))
    if unknown:
        raise ConfigError(
            "Groups of adapters and their factors do not belong together",
            seen=", ".join(unknown),
            allowed=f"one factor for each of {', '.join(groups)}",
            remedy="name every group once",
        )
    found = dict.fromkeys(places, 0.0)
    for name, members in groups.items():
        _require_places(members, places)
        for place in members:
            other = next(g for g in groups if place in groups[g])
            if other != name:
                raise ConfigError(
                    "An adapter is in two groups",
                    seen=f"{place}: {other} and {name}",
                    allowed="each place in one group",
                    remedy="take it out of one of them",
                )
            found[place] = factors[name]
    return found
