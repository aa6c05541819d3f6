"""A tiny organism: rank-1 adapters on every down-projection, and plain runs of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from moralscope.models.roster import Roster
from moralscope.organisms.scalars.adapters import RankOne, rank_one_adapters

SETTINGS: dict[str, Any] = {"rank": 1, "size": 0.5, "target_modules": ["down_proj"]}


@dataclass(frozen=True)
class Organism:
    """A roster of a base and its agent ``game``."""

    roster: Roster

    @property
    def model(self) -> Any:
        return self.roster.base.model

    @property
    def adapters(self) -> tuple[RankOne, ...]:
        return rank_one_adapters(self.model)


def organism(
    folder: Path,
    family: str = "llama",
    dtype: torch.dtype = torch.float64,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Organism:
    """A base with one agent whose adapters are random."""
    chosen = SETTINGS | (settings or {})
    roster = tiny.tiny_roster(
        folder, family, dtype=dtype, adapters=("game",), settings=chosen, **changes
    )
    return Organism(roster)


def texts(count: int, seed: int = 0, length: int = 14) -> list[tuple[int, ...]]:
    """Token sequences that share beginnings, of several lengths."""
    prompts = tiny.token_prompts(count, seed=seed, length=length)
    return [prompt.tokens for prompt in prompts]


def flowing(
    model: Any, tokens: Sequence[int], modules: Sequence[Any]
) -> list[tuple[Tensor, Tensor]]:
    """Input and output of some modules in a plain run."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_: Any, args: Any, output: Tensor) -> None:
            kept[index] = (args[0][0].clone(), output[0].clone())

        return hook

    handles = [module.register_forward_hook(keep(at)) for at, module in enumerate(modules)]
    try:
        tiny.plain_logits(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    return [kept[at] for at in range(len(modules))]
