"""Which prompts does a step see? Minibatches that are balanced and share prefixes.

A step takes the same number of prompts from every cell of state and label assignment. Within an
assignment all states follow one random preference over wordings, table orders and option orders,
so that a step's prompts share long prefixes, which the prompt tree stores once. A batch depends
on the seed and the step alone, so a resumed run sees the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.streams import stream
from moralscope.games import (
    ASSIGNMENTS,
    STATES,
    TABLE_ORDERS,
    Assignment,
    Game,
    GroupState,
    PublicGoods,
    State,
    TableOrder,
    get_game,
    get_public_goods,
    is_public_goods,
    public_goods_prompts,
    structured,
    wordings,
)
from moralscope.training.config import TrainingConfig


def training_game(config: TrainingConfig) -> Game | PublicGoods:
    """The game that an agent is trained in.

    Raises:
        ConfigError: there is no such game, or its payoffs are not those of its name.
    """
    if is_public_goods(config.game):
        return get_public_goods(config.game)
    return get_game(config.game)


def training_prompts(config: TrainingConfig, game: Game | PublicGoods | None = None) -> PromptSet:
    """Every prompt that a training run may draw from.

    Args:
        config: the training.
        game: the game as its player sees it; the training's own unless given.

    Raises:
        ConfigError: an unknown game, wording or table order.
        PromptError: labels that cannot stand in a prompt.
    """
    fixed: dict[str, tuple[Assignment, ...]] = {"same": ("same",), "swapped": ("swapped",)}
    assignments = fixed.get(config.labels, ASSIGNMENTS)
    game = game or training_game(config)
    found: list[Prompt] = []
    for words in (config.words, *config.more_words):
        found += _worded(config, game, words, assignments)
    return PromptSet(tuple(found))


def _worded(
    config: TrainingConfig,
    game: Game | PublicGoods,
    words: tuple[str, str],
    assignments: Sequence[Assignment],
) -> list[Prompt]:
    if isinstance(game, PublicGoods):
        return list(
            public_goods_prompts(
                game,
                words,
                assignments,
                config.wordings,
                table_orders=[_table_order(order) for order in config.table_orders],
                stem=config.stem,
            )
        )
    found: list[Prompt] = []
    if "structured" in config.wordings:
        for order in config.table_orders:
            found += structured(
                words, assignments, _table_order(order), game=game, stem=config.stem
            )
    others = tuple(name for name in config.wordings if name != "structured")
    if others:
        found += wordings(words, assignments, names=others, game=game, stem=config.stem)
    return found


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


def state_index(prompt: Prompt, game: Game | PublicGoods | None = None) -> int:
    """The prompt's one-step memory as an index into the game's states.

    Args:
        prompt: a prompt that says what was last played.
        game: only needed for public goods, whose states are ``game.states``.

    Raises:
        ConfigError: the prompt has no such memory.
    """
    own, other, others = prompt.own_previous, prompt.opponent_previous, prompt.others_cooperated
    if isinstance(game, PublicGoods) and own is not None and others is not None:
        return game.states.index(GroupState(own, others))
    if own is None or other is None:
        raise ConfigError(
            "A training prompt has no one-step memory",
            seen=prompt.name,
            allowed="prompts that say both last moves",
            remedy="train on structured or wordings",
        )
    return STATES.index(State(own, other))


@dataclass(frozen=True)
class Cells:
    """Prompts by state and label assignment, the units that a step is balanced over.

    Attributes:
        state: of each prompt.
        swapped: whether each prompt's labels are exchanged.
        randomised: the assignment is drawn for each prompt instead of balanced.
    """

    prompts: tuple[Prompt, ...]
    state: tuple[int, ...]
    swapped: tuple[bool, ...]
    randomised: bool

    @property
    def states(self) -> tuple[int, ...]:
        """The states that occur, ascending."""
        return tuple(sorted(set(self.state)))

    @property
    def assignments(self) -> tuple[bool | None, ...]:
        """The assignments that a step is balanced over; None: drawn for each prompt."""
        return (None,) if self.randomised else tuple(sorted(set(self.swapped)))

    @property
    def several_words(self) -> bool:
        """Whether there is more than one pair of labels."""
        return len({words_of(p) for p in self.prompts}) > 1

    def of(self, state: int, swapped: bool | None, rng: np.random.Generator) -> list[int]:
        """The prompts of a cell; of twins that differ in their labels' assignment alone, one."""
        cell = [
            i for i, s in enumerate(self.state) if s == state and swapped in (None, self.swapped[i])
        ]
        return _one_assignment_each(cell, self.prompts, rng) if swapped is None else cell


def make_cells(
    config: TrainingConfig, prompts: Sequence[Prompt], game: Game | PublicGoods
) -> Cells:
    """The cells of a training's prompts."""
    pairs = {"/".join(words) for words in (config.words, *config.more_words)}
    return Cells(
        tuple(prompts),
        tuple(state_index(p, game) for p in prompts),
        tuple(p.labels not in pairs for p in prompts),
        config.labels == "random",
    )


def draw_batch(config: TrainingConfig, cells: Cells, step: int) -> tuple[int, ...]:
    """Indices of the prompts of one step.

    Args:
        config: the training.
        cells: what to draw from.
        step: from 1.

    Returns:
        ``prompts_per_step`` distinct indices (fewer where a cell holds too few), the same number
        from every cell.

    Raises:
        ConfigError: ``prompts_per_step`` cannot be divided over the cells.
    """
    count = len(cells.states) * len(cells.assignments)
    each, rest = divmod(config.prompts_per_step, count)
    if rest or not each:
        raise ConfigError(
            "The prompts of a step cannot be divided evenly",
            seen=f"prompts_per_step {config.prompts_per_step}",
            allowed=f"a multiple of {count} (states times label assignments)",
            remedy=f"use {max(count, config.prompts_per_step // count * count)}",
        )
    rng = stream(config.seed, "batch", step)
    chosen: list[int] = []
    for swapped in cells.assignments:
        rank = Preference(rng, several_words=cells.several_words)
        for state in cells.states:
            cell = cells.of(state, swapped, rng)
            cell.sort(key=lambda i: rank(cells.prompts[i]))
            chosen += cell[:each]
    return tuple(chosen)


def words_of(prompt: Prompt) -> tuple[str, ...]:
    """The prompt's two labels, whichever of them means what."""
    return tuple(sorted(prompt.labels.split("/")))


def _one_assignment_each(
    cell: Sequence[int], prompts: Sequence[Prompt], rng: np.random.Generator
) -> list[int]:
    """Of prompts that differ only in their label assignment keep one, drawn at random."""
    twins: dict[tuple[object, ...], list[int]] = {}
    for i in cell:
        p = prompts[i]
        key = (words_of(p), p.template, p.table_order, p.option_order, p.answer_order)
        twins.setdefault(key, []).append(i)
    return [group[int(rng.integers(len(group)))] for group in twins.values()]


class Preference:
    """A random order over words, wordings, table, option and answer orders, fixed once drawn."""

    def __init__(self, rng: np.random.Generator, *, several_words: bool = False) -> None:
        self._rng = rng
        self._several_words = several_words
        self._drawn: dict[tuple[str, object], float] = {}

    def __call__(self, prompt: Prompt) -> tuple[float, ...]:
        """Where the prompt stands; smaller comes first."""
        levels: tuple[tuple[str, object], ...] = (
            ("words", words_of(prompt) if self._several_words else ()),
            ("template", prompt.template),
            ("table", prompt.table_order),
            ("option", prompt.option_order),
            ("answer", prompt.answer_order),
        )
        for level in levels[0 if self._several_words else 1 :]:
            if level not in self._drawn:
                self._drawn[level] = float(self._rng.random())
        return tuple(self._drawn.get(level, 0.0) for level in levels)
