"""Who else is at the table, and what do they do there?

For the exact method the others turn an agent's policy into an encounter; for sampled play they sit
down at a table and move. Scripted ones with one step of memory do both from one table of
probabilities. A strategy with a longer memory answers the exact method with its response to this
very policy, estimated by playing against it, which costs no model. Another model, learning or
frozen, is a policy with one step of memory itself: its seat is the mirror image of the agent's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moralscope.core.calls import Call, parse_call
from moralscope.core.decision import Move
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.streams import stream
from moralscope.games import (
    STATES,
    Encounter,
    Game,
    GroupState,
    MemoryOnePlayer,
    Opponent,
    PublicGoods,
    Reward,
    State,
    get_opponent,
    make_player,
    meet,
    meet_group,
    opponent_kind,
    response_table,
)

Array = NDArray[np.float64]
COPIES = "copies"
_GAMES, _ROUNDS = 200, 20
"""Games, and rounds of each, from which the response of a long memory is estimated."""


class Table(Protocol):
    """One game in progress, from the agent's seat."""

    @property
    def before(self) -> tuple[Move, ...]:
        """What the others played before the first round."""
        ...

    def move(self, own_previous: Move) -> tuple[Move, ...]:
        """What the others play in this round, whose moves are simultaneous."""
        ...


class Others(Protocol):
    """Everyone but the agent."""

    @property
    def reacts(self) -> bool:
        """Whether sampled play needs the agent's policy, because others depend on it."""
        ...

    def encounter(self, reward: Reward, policy: Array, step: int) -> Encounter:
        """The game as a decision process, given the agent's present policy ``[states, 3]``."""
        ...

    def sit(self, policy: Array | None, step: int, group: int) -> Table:
        """A new game; its draws depend on the seed, the step and the group of games alone."""
        ...


def effective(policy: Array, states: Sequence[State | GroupState]) -> Array:
    """P(C) of each state as the others meet it: an answer that is neither repeats the last move."""
    stays = np.array([state.own_previous == "C" for state in states])
    return policy[:, 0] + policy[:, 2] * stays


def as_opponent(name: str, policy: Array) -> Opponent:
    """A policy with one step of memory, as the other player meets it.

    Its move before the first round is uniform, as every agent's is, whatever it plays later.

    Args:
        name: how tables call it.
        policy: probabilities of C, D and neither in its own states, ``[4, 3]``.
    """
    p = dict(zip(STATES, effective(policy, STATES).clip(0, 1).tolist(), strict=True))
    seen: dict[tuple[Move, Move], float] = {
        (s.own_previous, s.opponent_previous): p[State(s.opponent_previous, s.own_previous)]
        for s in STATES
    }
    return Opponent(name, seen, opening=0.5)


@dataclass(frozen=True)
class _PlayerTable:
    """A two-player game against a player."""

    before: tuple[Move, ...]
    reply: Callable[[Move], Move]

    def move(self, own_previous: Move) -> tuple[Move, ...]:
        return (self.reply(own_previous),)


@dataclass(frozen=True)
class MemoryOne:
    """A two-player game against a memory-one opponent, or against copies of the agent.

    Attributes:
        opponent: who is met; None for copies.
    """

    game: Game
    opponent: Opponent | None
    seed: int

    @property
    def reacts(self) -> bool:
        """Whether sampled play needs the agent's policy."""
        return self.opponent is None

    def _met(self, policy: Array | None) -> Opponent:
        if self.opponent is not None:
            return self.opponent
        if policy is None:
            raise ValueError("copies need the agent's policy")
        return as_opponent(COPIES, policy)

    def encounter(self, reward: Reward, policy: Array, step: int) -> Encounter:
        """The game as a decision process."""
        del step
        return meet(self.game, reward, self._met(policy))

    def sit(self, policy: Array | None, step: int, group: int) -> Table:
        """A new game."""
        rng = stream(self.seed, "opponent", step, group)
        player = MemoryOnePlayer(self._met(policy), rng)
        return _PlayerTable((player.previous,), player.move)


@dataclass(frozen=True)
class LongMemory:
    """A two-player game against a strategy that remembers more than one round."""

    game: Game
    expression: str
    seed: int

    @property
    def reacts(self) -> bool:
        """Whether sampled play needs the agent's policy."""
        return False

    def encounter(self, reward: Reward, policy: Array, step: int) -> Encounter:
        """The game against the strategy's estimated response to this policy."""
        p_legal = 1 - policy[:, 2]
        p_cooperate = policy[:, 0] / p_legal.clip(min=1e-12)
        response = response_table(
            self.expression,
            p_cooperate.clip(0, 1),
            p_legal.clip(0, 1),
            rounds=_ROUNDS,
            games=_GAMES,
            rng=stream(self.seed, "response", step),
        )
        return meet(self.game, reward, response.opponent)

    def sit(self, policy: Array | None, step: int, group: int) -> Table:
        """A new game."""
        del policy
        player = make_player(self.expression, stream(self.seed, "opponent", step, group))
        return _PlayerTable((player.previous,), player.move)


@dataclass
class _GroupTable:
    """A public-goods game against others who follow one table of probabilities."""

    game: PublicGoods
    p_others: Array
    rng: np.random.Generator
    before: tuple[Move, ...]

    def move(self, own_previous: Move) -> tuple[Move, ...]:
        index = {state: i for i, state in enumerate(self.game.states)}
        everyone = (own_previous, *self.before).count("C")
        p = [
            self.p_others[index[GroupState(last, everyone - (last == "C"))]] for last in self.before
        ]
        drawn = self.rng.random(len(p))
        moves: tuple[Move, ...] = tuple(
            "C" if u < q else "D" for u, q in zip(drawn, p, strict=True)
        )
        self.before = _contributors_first(moves)
        return moves


def _contributors_first(moves: Sequence[Move]) -> tuple[Move, ...]:
    """As a group's states are told."""
    return tuple(sorted(moves))


@dataclass(frozen=True)
class Group:
    """A public-goods game with others who all follow one rule, or are copies of the agent."""

    game: PublicGoods
    rule: str
    seed: int

    @property
    def reacts(self) -> bool:
        """Whether sampled play needs the agent's policy."""
        return self.rule == COPIES

    def _p_others(self, policy: Array | None) -> Array:
        if self.rule != COPIES:
            return np.array([GROUP_RULES[self.rule](self.game, s) for s in self.game.states])
        if policy is None:
            raise ValueError("copies need the agent's policy")
        return effective(policy, self.game.states).clip(0, 1)

    def encounter(self, reward: Reward, policy: Array, step: int) -> Encounter:
        """The game as a decision process."""
        del step
        return meet_group(self.game, reward, self._p_others(policy))

    def sit(self, policy: Array | None, step: int, group: int) -> Table:
        """A new game."""
        rng = stream(self.seed, "opponent", step, group)
        drawn = rng.random(self.game.players - 1) < 0.5
        before = _contributors_first(["C" if c else "D" for c in drawn])
        return _GroupTable(self.game, self._p_others(policy), rng, before)


GROUP_RULES: Mapping[str, Callable[[PublicGoods, GroupState], float]] = {
    "always-cooperate": lambda game, state: 1.0,  # noqa: ARG005
    "always-defect": lambda game, state: 0.0,  # noqa: ARG005
    "random": lambda game, state: 0.5,  # noqa: ARG005
    # Tit-for-tat of a group: contributes with the share of the others who did.
    "tit-for-tat": lambda game, state: state.cooperators / (game.players - 1),
}
"""What each of the others contributes with in a public-goods game, by the state that it is in."""


def scripted(expression: str, game: Game | PublicGoods, seed: int) -> Others | None:
    """The others that an expression names; None for another model.

    Raises:
        ConfigError: there is no such opponent, or not in this game.
    """
    if isinstance(game, PublicGoods):
        if expression not in (*GROUP_RULES, COPIES):
            raise ConfigError(
                "Nobody plays public goods under this name",
                seen=expression,
                allowed=", ".join((*GROUP_RULES, COPIES)),
                remedy=nearest(expression, (*GROUP_RULES, COPIES)),
            )
        return Group(game, expression, seed)
    if expression == COPIES:
        if not game.is_symmetric:
            raise ConfigError(
                "Copies of an agent cannot take the other seat of this game",
                seen=game.name,
                allowed="a game in which both players have the same payoffs",
                remedy="use opponent: learner, which sees the game from its own side",
            )
        return MemoryOne(game, None, seed)
    kind = opponent_kind(expression)
    if kind == "memory-one":
        return MemoryOne(game, get_opponent(expression), seed)
    return LongMemory(game, expression, seed) if kind == "axelrod" else None


def check_opponent(expression: str, game: Game | PublicGoods | None = None) -> None:
    """Refuse an opponent that does not exist, or does not play this game.

    Args:
        expression: as in a training's configuration.
        game: the game; None where it is not known, which leaves two-player opponents.

    Raises:
        ConfigError: there is no such opponent, or not in this game.
    """
    if isinstance(game, PublicGoods):
        scripted(expression, game, 0)
    elif expression != COPIES:
        opponent_kind(expression)
    elif game is not None:
        scripted(expression, game, 0)


def agent_folder(expression: str) -> str | None:
    """The folder of ``agent(FOLDER)``; None for anything else."""
    if opponent_kind(expression) != "agent":
        return None
    call = parse_call(expression)
    folder = call.arguments[0] if call.arguments else None
    if not isinstance(folder, Call) or len(call.arguments) != 1 or call.named:
        raise ConfigError(
            "A frozen opponent does not say where it is",
            seen=expression,
            allowed="agent(FOLDER) with one adapter folder",
            remedy="write it like agent(runs/tit-for-tat/game)",
        )
    return str(folder)
