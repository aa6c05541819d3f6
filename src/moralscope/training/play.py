"""What happens at the table? Games played by sampling, in lock step, every draw with an address.

A step plays several games of a few rounds. In each round every game asks its agent one prompt: the
state it is in, in a wording and label assignment that are the same for all games of a group, so
that their prompts share prefixes and their rewards can be compared, and that are drawn anew for
every round or kept for the whole game. An answer is drawn

``score``     among C, D and "neither" by their scored probabilities, or
``generate``  token by token from the whole vocabulary; it is legal only if its text, stripped of
              space at both ends, is exactly one of the options (as in arXiv 2410.01639).

An illegal answer earns ``ILLEGAL_PENALTY`` and leaves the agent's own last move as it was; the
others always move. Draws depend on seed, step, game and round alone, so that a resumed run plays
the same games, however they are spread over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moralscope.core.decision import Move
from moralscope.core.streams import stream
from moralscope.games import (
    ILLEGAL_PENALTY,
    STATES,
    Game,
    GroupState,
    PublicGoods,
    Reward,
    State,
    round_of,
)
from moralscope.models.tree import Tokens
from moralscope.training.batches import Cells, Preference
from moralscope.training.config import TrainingConfig
from moralscope.training.others import Others


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the move, None where it is neither, and its tokens where it was generated."""

    move: Move | None
    tokens: Tokens = ()
    text: str = ""


Answering = Callable[[Sequence[int], Sequence[np.random.Generator]], list[Answer]]
"""Answers to prompts, given by their index; one generator for each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision of a game.

    Attributes:
        game, round: which, both from 0.
        prompt: index among the training's prompts.
        state: index into the game's states.
        answer: what the agent answered.
        others: what the others played at the same time.
        points: the reward, the penalty of an illegal answer in its place.
    """

    game: int
    round: int
    prompt: int
    state: int
    answer: Answer
    others: tuple[Move, ...]
    points: float


def play(
    config: TrainingConfig,
    game: Game | PublicGoods,
    reward: Reward,
    cells: Cells,
    others: Others,
    *,
    policy: NDArray[np.float64] | None,
    answer: Answering,
    step: int,
) -> tuple[Turn, ...]:
    """Play one step's games.

    Args:
        config: how many games, groups and rounds, and the seed.
        game: the game.
        reward: what a round earns.
        cells: the prompts by state and label assignment.
        others: who else plays.
        policy: the agent's policy table, for others that depend on it.
        answer: how prompts are answered.
        step: from 1.

    Returns:
        The turns, game after game and round after round within a game.
    """
    count, group = config.sampling.games, config.sampling.group
    states = game.states if isinstance(game, PublicGoods) else STATES
    # The others' draws are those of the group: what differs within one is the agent's answers.
    tables = [others.sit(policy, step, g // group) for g in range(count)]
    own: list[Move] = [_start(config.seed, step, g // group) for g in range(count)]
    before = [table.before for table in tables]
    rngs = [stream(config.seed, "answer", step, g) for g in range(count)]
    found: list[list[Turn]] = [[] for _ in range(count)]
    for number in range(config.sampling.rounds):
        state = [_state(game, own[g], before[g]) for g in range(count)]
        drawn = number if config.sampling.variant == "round" else 0
        asked = [
            _choose(config, cells, states.index(state[g]), (step, g // group, drawn))
            for g in range(count)
        ]
        answers = answer(asked, rngs)
        for g in range(count):
            moves = tables[g].move(own[g])
            move = answers[g].move
            points = ILLEGAL_PENALTY
            if move is not None:
                points = reward.value(round_of(game, state[g], move, moves))
                own[g] = move
            place = states.index(state[g])
            turn = Turn(g, number, asked[g], place, answers[g], moves, points)
            found[g].append(turn)
            before[g] = moves
    return tuple(turn for turns in found for turn in turns)


def _start(seed: int, step: int, group: int) -> Move:
    return "C" if stream(seed, "start", step, group).random() < 0.5 else "D"


def _state(
    game: Game | PublicGoods, own_previous: Move, others: tuple[Move, ...]
) -> State | GroupState:
    if isinstance(game, PublicGoods):
        return GroupState(own_previous, others.count("C"))
    return State(own_previous, others[0])


def _choose(config: TrainingConfig, cells: Cells, state: int, address: tuple[int, int, int]) -> int:
    """The prompt of a decision: one wording, order and assignment for a group's round."""
    rng = stream(config.seed, "variant", *address)
    assignments = cells.assignments
    # Assignments take turns over groups and rounds, so that a step holds as many of either.
    chosen = assignments[(address[1] + address[2] + address[0]) % len(assignments)]
    rank = Preference(rng, several_words=cells.several_words)
    cell = cells.of(state, chosen, stream(config.seed, "twin", *address))
    return min(cell, key=lambda i: rank(cells.prompts[i]))
