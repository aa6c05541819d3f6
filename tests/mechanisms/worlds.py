"""Agents on one tiny base, run clean over prompts: what every mechanism starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch

from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import Sweep, sweep
from moralscope.models.anatomy import Anatomy
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

BODY = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
"""Every linear layer but attention's output projection."""

MOVE = (7, 8, 9)
"""Tokens of the span ``move``."""


@dataclass
class World:
    """A roster, its prompts and the agents' clean runs."""

    roster: Roster
    prompts: tuple[EncodedPrompt, ...]
    runs: dict[str, CleanRun]

    def anatomy(self) -> Anatomy:
        return self.roster.anatomy("base")


def world(
    folder: Path,
    family: str = "llama",
    *,
    forms: str = "single",
    n: int = 4,
    dtype: torch.dtype = torch.float64,
    max_nodes: int = 2048,
    settings: dict[str, Any] | None = None,
    everywhere: bool = False,
    parts: str = "",
    length: int = 26,
    equal: bool = False,
    **changes: Any,
) -> World:
    """A base with two random adapters, un-merged, and their clean runs.

    Args:
        folder: where the adapters are saved.
        family: of the base.
        forms: see ``tiny.token_prompts``.
        n: how many prompts.
        dtype: of the weights.
        max_nodes: largest pack.
        settings: of the adapters.
        everywhere: keep activations at every token.
        parts: which of ``qkv`` to keep.
        length: tokens of a prompt.
        equal: cut the prompts to one length, and give each a span ``move`` of three tokens.
        changes: to the configuration of the base.
    """
    roster = tiny.tiny_roster(folder, family, dtype=dtype, settings=settings, **changes)
    prompts = tiny.token_prompts(n, forms=forms, length=length)
    if equal:
        prompts = tuple(
            dataclasses.replace(p, tokens=p.tokens[: length - 3], spans=(("move", MOVE),))
            for p in prompts
        )
    runs = clean_runs(roster, prompts, max_nodes=max_nodes, everywhere=everywhere, parts=parts)
    return World(roster, prompts, runs)


class Worlds:
    """Worlds by what they are made of, each built once; tests leave them as they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, World] = {}

    def __call__(self, family: str = "llama", **wanted: Any) -> World:
        key = repr((family, sorted(wanted.items())))
        if key not in self._built:
            place = self._folder / str(len(self._built))
            self._built[key] = world(place, family, **wanted)
        return self._built[key]


def clean_runs(
    roster: Roster, prompts: tuple[EncodedPrompt, ...], *, max_nodes: int = 2048, **kept: Any
) -> dict[str, CleanRun]:
    """A clean run of each agent."""
    runs: dict[str, CleanRun] = {}
    for name in roster.specs:
        with roster.speaking(name) as model:
            anatomy = roster.anatomy(name)
            runs[name] = run_clean(name, model, anatomy, prompts, max_nodes=max_nodes, **kept)
    return runs


def patched(
    here: World,
    interventions: Sequence[Sequence[Site]],
    *,
    source: str = "game",
    target: str = "moral",
    **chosen: Any,
) -> Sweep:
    """A sweep between two agents of a world."""
    with here.roster.speaking(target) as model:
        return sweep(
            model,
            here.roster.anatomy(target),
            here.runs[source],
            here.runs[target],
            [Intervention(tuple(sites)) for sites in interventions],
            **chosen,
        )
