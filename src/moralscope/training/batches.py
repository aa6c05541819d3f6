"""Which prompts does a step see? Minibatches that are balanced and share prefixes.

A step takes the same number of prompts from every cell of state and label assignment. Within an
assignment all states follow one random preference over wordings, table orders and option orders,
so that a step's prompts share long prefixes, which the prompt tree stores once. A batch depends
on the seed and the step alone, so a resumed run sees the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.streams import stream
from moralscope.games import (
    ASSIGNMENTS,
    STATES,
    TABLE_ORDERS,
    Assignment,
    State,
    TableOrder,
    structured,
    wordings,
)
from moralscope.training.config import TrainingConfig


def training_prompts(config: TrainingConfig) -> PromptSet:
    """Every prompt that a training run may draw from.

    Raises:
        ConfigError: an unknown wording or table order.
        PromptError: labels that cannot stand in a prompt.
    """
    fixed: dict[str, tuple[Assignment, ...]] = {"same": ("same",), "swapped": ("swapped",)}
    assignments = fixed.get(config.labels, ASSIGNMENTS)
    found: list[Prompt] = []
    if "structured" in config.wordings:
        for order in config.table_orders:
            found += structured(config.words, assignments, _table_order(order))
    others = tuple(name for name in config.wordings if name != "structured")
    if others:
        found += wordings(config.words, assignments, names=others)
    return PromptSet(tuple(found))


def _table_order(name: str) -> TableOrder:
    for known in TABLE_ORDERS:
        if name == known:
            return known
    raise ConfigError(
        "There is no such order of the payoff table",
        seen=name,
        allowed=", ".join(TABLE_ORDERS),
        remedy=nearest(name, TABLE_ORDERS),
    )


def state_index(prompt: Prompt) -> int:
    """The prompt's one-step memory as an index into ``games.STATES``."""
    if prompt.own_previous is None or prompt.opponent_previous is None:
        raise ConfigError(
            "A training prompt has no one-step memory",
            seen=prompt.name,
            allowed="prompts that say both last moves",
            remedy="train on structured or wordings",
        )
    return STATES.index(State(prompt.own_previous, prompt.opponent_previous))


def draw_batch(config: TrainingConfig, prompts: Sequence[Prompt], step: int) -> tuple[int, ...]:
    """Indices of the prompts of one step.

    Args:
        config: the training.
        prompts: what to draw from.
        step: from 1.

    Returns:
        ``prompts_per_step`` distinct indices (fewer where a cell holds too few), the same number
        from every cell.

    Raises:
        ConfigError: ``prompts_per_step`` cannot be divided over the cells.
    """
    assignments = sorted({p.labels for p in prompts})
    states = sorted({state_index(p) for p in prompts})
    randomised = config.labels == "random"
    cells = len(states) * (1 if randomised else len(assignments))
    each, rest = divmod(config.prompts_per_step, cells)
    if rest or not each:
        raise ConfigError(
            "The prompts of a step cannot be divided evenly",
            seen=f"prompts_per_step {config.prompts_per_step}",
            allowed=f"a multiple of {cells} (states times label assignments)",
            remedy=f"use {max(cells, config.prompts_per_step // cells * cells)}",
        )
    rng = stream(config.seed, "batch", step)
    chosen: list[int] = []
    for labels in [None] if randomised else assignments:
        rank = _Preference(rng)
        for state in states:
            cell = [
                i
                for i, p in enumerate(prompts)
                if state_index(p) == state and labels in (None, p.labels)
            ]
            if labels is None:
                cell = _one_assignment_each(cell, prompts, rng)
            cell.sort(key=lambda i: rank(prompts[i]))
            chosen += cell[:each]
    return tuple(chosen)


def _one_assignment_each(
    cell: Sequence[int], prompts: Sequence[Prompt], rng: np.random.Generator
) -> list[int]:
    """Of prompts that differ only in their label assignment keep one, drawn at random."""
    twins: dict[tuple[object, ...], list[int]] = {}
    for i in cell:
        p = prompts[i]
        key = (p.template, p.table_order, p.option_order, p.answer_order)
        twins.setdefault(key, []).append(i)
    return [group[int(rng.integers(len(group)))] for group in twins.values()]


class _Preference:
    """A random order over wordings, then table, option and answer orders, fixed once drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._drawn: dict[tuple[str, object], float] = {}

    def __call__(self, prompt: Prompt) -> tuple[float, ...]:
        levels: tuple[tuple[str, object], ...] = (
            ("template", prompt.template),
            ("table", prompt.table_order),
            ("option", prompt.option_order),
            ("answer", prompt.answer_order),
        )
        for level in levels:
            if level not in self._drawn:
                self._drawn[level] = float(self._rng.random())
        return tuple(self._drawn[level] for level in levels)
