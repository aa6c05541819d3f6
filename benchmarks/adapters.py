"""Who is compared? Agents with adapters on every linear layer, un-merged, on one base.

Their factors are random: speed does not depend on what was learned. ``B`` is not zero, as it
would be before training, so that the agents differ and a patch that does nothing is noticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from moralscope.core.agents import AgentSpec
from moralscope.core.streams import integer_seed
from moralscope.models.loading import LoadedModel
from moralscope.models.roster import Roster
from moralscope.training.config import LoraSettings
from moralscope.training.lora import adapted, save_adapter

SOURCE, TARGET = "source", "target"
SCALE = 0.02
"""Standard deviation of ``B``: each layer's output changes by some percent."""


@torch.no_grad()
def randomise(wrapped: nn.Module, seed: int) -> None:
    """Give every ``B`` of a fresh adapter random values."""
    for name, parameter in wrapped.named_parameters():
        if ".lora_B." in name:
            generator = torch.Generator().manual_seed(integer_seed(seed, "benchmark", name))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * SCALE)


def names(count: int) -> tuple[str, ...]:
    """Names of agents: ``source``, ``target``, and others by number."""
    return (SOURCE, TARGET, *(f"agent-{number}" for number in range(3, count + 1)))[:count]


def agents(base: LoadedModel, rank: int, folder: Path, *, count: int = 2) -> Roster:
    """A roster of agents the adapters of which were saved in folders and loaded again.

    Args:
        base: what they share; its layers carry the adapters afterwards.
        rank: of the adapters.
        folder: where they are saved, each under its agent's name.
        count: how many; ``source`` and ``target`` come first.
    """
    for seed, name in enumerate(names(count)):
        with adapted(base, LoraSettings(rank=rank), seed) as wrapped:
            randomise(wrapped, seed)
            untyped: Any = wrapped
            save_adapter(untyped, folder / name, base.source.name)
    roster = Roster(base)
    for name in names(count):
        roster.add(AgentSpec(name=name, base=base.source.name, adapter=str(folder / name)))
    return roster
