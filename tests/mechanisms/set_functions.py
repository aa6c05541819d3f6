"""Effects of sets of sites that are known by construction, and the smallest sets by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moralscope.core.site import Site
from moralscope.mechanisms.circuits.effects import FloatArray, SetEffects, SiteSet, Subject

SetFunction = Callable[[SiteSet], Sequence[float]]


@dataclass
class Made:
    """Effects, and every set that was asked for."""

    effects: SetEffects
    function: SetFunction
    asked: list[SiteSet] = field(default_factory=list)


def made(
    function: SetFunction,
    sites: Sequence[Site],
    full_swap: Sequence[float] = (1.0,),
    *,
    baseline: Sequence[float] | None = None,
    everything: Sequence[Site] | None = None,
) -> Made:
    """Effects of a function from a set to an effect on each prompt, in nats."""
    asked: list[SiteSet] = []

    def measure(sets: Sequence[SiteSet]) -> FloatArray:
        assert all(sets), "the empty set is not patched"
        asked.extend(sets)
        return np.array([list(function(sites)) for sites in sets], dtype=np.float64)

    start = [0.0] * len(full_swap) if baseline is None else baseline
    effects = SetEffects(
        Subject("a", "b"),
        tuple(sites),
        frozenset(sites if everything is None else everything),
        np.array(start, dtype=np.float64),
        np.array(full_swap, dtype=np.float64),
        measure,
    )
    return Made(effects, function, asked)


def additive(weights: dict[Site, float]) -> SetFunction:
    return lambda sites: [sum(weights[site] for site in sites)]


def heads(n: int, per_layer: int = 4) -> list[Site]:
    return [Site("head", i // per_layer, i % per_layer) for i in range(n)]


def share_of(made: Made, sites: Sequence[Site]) -> float:
    """The definition, written out prompt by prompt."""
    if not sites:
        return 0.0
    total = whole = 0.0
    for effect, swap in zip(
        made.function(frozenset(sites)), made.effects.full_swap.tolist(), strict=True
    ):
        total += effect if swap > 0 else -effect if swap < 0 else 0.0
        whole += abs(swap)
    return total / whole


def smallest(made: Made, threshold: float) -> list[tuple[Site, ...]]:
    """Every smallest set that reaches a share; empty where none does."""
    sites = sorted(made.effects.candidates)
    for size in range(1, len(sites) + 1):
        groups = itertools.combinations(sites, size)
        found = [group for group in groups if share_of(made, group) >= threshold - 1e-9]
        if found:
            return found
    return []
