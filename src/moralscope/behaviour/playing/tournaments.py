"""How do agents fare among classical strategies? Round-robin tournaments and their tables.

One tournament for every game and pair of labels under which agents were asked: the agents, each by
its mean policy over presentations, and strategies, each meeting all others (``games.play``). A
score's interval is a t interval over the opponents, so it says how far the score hangs on the field
that was met; it is not sampling error, which the matches of pairs with chance average out.

In a game that is not symmetric everybody is scored in the first seat. An agent can be met there
only if it was asked in the mirrored game too; strategies can always.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.behaviour.presentations import Presented
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.games import get_game
from moralscope.games.play.matches import Entrant, Match, agent_entrant, strategy_entrant
from moralscope.games.play.tournaments import (
    REPETITIONS,
    ROUNDS,
    Standing,
    Tournament,
    round_robin,
)

FIELD = (
    "always-cooperate",
    "always-defect",
    "random",
    "tit-for-tat",
    "suspicious-tit-for-tat",
    "generous-tit-for-tat",
    "tit-for-two-tats",
    "two-tits-for-tat",
    "win-stay-lose-shift",
    "grim",
    "gradual",
    "soft-majority",
    "hard-majority",
    "prober",
    "tester",
    "bully",
    "alternator",
    "cycler-ccd",
    "cycler-ddc",
    "zd-extortion",
)
"""The strategies that agents meet unless others are named."""


@dataclass(frozen=True)
class AgentTournament:
    """A tournament with the labels that its agents were asked under."""

    labels: str
    played: Tournament


def play_tournaments(
    agents: Iterable[Presented],
    strategies: Sequence[str] = FIELD,
    *,
    rounds: int = ROUNDS,
    repetitions: int = REPETITIONS,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[AgentTournament, ...]:
    """Agents and strategies, each meeting all others, in every game and pair of labels.

    A strategy that has the name of an agent is called ``NAME (strategy)``.

    Args:
        agents: their policies, see ``presentations``.
        strategies: whom they meet besides each other, see ``matches.strategy_entrant``.
        rounds: of a match, at least 1.
        repetitions: matches of a pair with chance, at least 1.
        noise: probability that a move is turned into the other one.
        seed: of all draws.

    Raises:
        ConfigError: there is no such strategy, one is named twice, nobody is there to be met, or a
            number is out of range.
        DependencyError: a strategy of the Axelrod library plays, which is not installed.
    """
    field = [strategy_entrant(expression) for expression in strategies]
    by_table: dict[tuple[str, str], list[Presented]] = {}
    for each in agents:
        by_table.setdefault((each.game, each.labels), []).append(each)
    found: list[AgentTournament] = []
    for (name, labels), asked in by_table.items():
        game = get_game(name)
        players = [agent_entrant(each.agent, each.mean) for each in asked]
        mirrored = [] if game.is_symmetric else by_table.get((game.mirrored.name, labels), [])
        others = _renamed(field, {each.agent for each in (*asked, *mirrored)})
        seconds = None
        if not game.is_symmetric:
            seconds = [*(agent_entrant(each.agent, each.mean) for each in mirrored), *others]
        played = round_robin(
            [*players, *others], game, seconds=seconds, rounds=rounds, repetitions=repetitions,
            noise=noise, seed=seed,
        )  # fmt: skip
        found.append(AgentTournament(labels, played))
    return tuple(found)


def matches_table(tournaments: Iterable[AgentTournament]) -> pl.DataFrame:
    """Every match, round by round: the table ``matches``."""
    rows = [
        _match_row(tournament, match)
        for tournament in tournaments
        for match in tournament.played.matches
    ]
    return from_rows("matches", rows)


def standings_table(tournaments: Iterable[AgentTournament]) -> pl.DataFrame:
    """How everybody did, the best of each tournament first: the table ``standings``.

    Intervals are null for a player who met one opponent, or earned the same from all.
    """
    rows = [
        _standing_row(tournament, standing)
        for tournament in tournaments
        for standing in tournament.played.standings
    ]
    return from_rows("standings", rows)


def _renamed(field: Sequence[Entrant], taken: set[str]) -> list[Entrant]:
    """Strategies under names that no agent has."""
    return [
        Entrant(f"{each.name} (strategy)", each.kind, each.deterministic, each.begin)
        if each.name in taken
        else each
        for each in field
    ]


def _match_row(tournament: AgentTournament, match: Match) -> dict[str, object]:
    return {
        "game": match.game,
        "labels": tournament.labels,
        "noise": tournament.played.noise,
        "first": match.first,
        "second": match.second,
        "repetition": match.repetition,
        "rounds": match.rounds,
        "first_moves": _told(match.first_answers, match.first_moves),
        "second_moves": _told(match.second_answers, match.second_moves),
        "first_score": match.first_score,
        "second_score": match.second_score,
    }


def _told(answers: str, moves: str) -> str:
    """The moves that were played, and an x where the answer was neither option."""
    return "".join(
        answer if answer not in "CD" else move for answer, move in zip(answers, moves, strict=True)
    )


def _standing_row(tournament: AgentTournament, standing: Standing) -> dict[str, object]:
    played = tournament.played
    interval = cluster_t(np.array([score for _, score in standing.against]))
    return {
        "game": played.game.name,
        "labels": tournament.labels,
        "noise": played.noise,
        "player": standing.player,
        "kind": standing.kind,
        "rank": standing.rank,
        "score": standing.score,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
        "cooperation": standing.cooperation,
        "opponents": len(standing.against),
        "rounds": played.rounds,
        "repetitions": played.repetitions,
    }
