"""Who does best when everybody meets everybody? Round-robin tournaments.

Each player meets each other one and never itself. A pair without chance plays one match, since all
would be the same; any other pair plays several. With ``s(i, j)`` the mean points a round of player
i in its matches with j,

    score(i) = mean over j of s(i, j),

so that each opponent counts alike, however many matches it took (Axelrod, Journal of Conflict
Resolution 24 (1980), 3-25). Players with equal scores share a rank.

In a game that is not symmetric the two seats are different games. There a player's score is that of
the seat that the game is told from, over those who can take the other seat: every strategy, and
agents that were asked there. Who meets nobody has no score and no place in the standings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moralscope.core.errors import ConfigError
from moralscope.core.streams import stream
from moralscope.games.matrices import Game
from moralscope.games.play.matches import Entrant, Kind, Match, play_match

ROUNDS = 200
"""Rounds of a match in Axelrod's first tournament."""

REPETITIONS = 10
"""Matches of a pair with chance."""

_SAME = 1e-12


@dataclass(frozen=True)
class Standing:
    """How a player did.

    Attributes:
        player, kind: who.
        rank: 1 plus the number of players with a higher score.
        score: points, mean a round over opponents.
        against: mean points a round against each opponent, in the order of the tournament.
        cooperation: share of its rounds in which it played C, each opponent alike.
    """

    player: str
    kind: Kind
    rank: int
    score: float
    against: tuple[tuple[str, float], ...]
    cooperation: float


@dataclass(frozen=True)
class Tournament:
    """A round-robin tournament as it went.

    Attributes:
        game: the game.
        rounds: of a match.
        repetitions: of matches that are not deterministic.
        noise: probability that a move is turned into the other one.
        matches: pairs in the order of players, repetitions of a pair together.
        standings: the best first; equal ranks in the order of players.
    """

    game: Game
    rounds: int
    repetitions: int
    noise: float
    matches: tuple[Match, ...]
    standings: tuple[Standing, ...]


def round_robin(
    players: Sequence[Entrant],
    game: Game,
    *,
    seconds: Sequence[Entrant] | None = None,
    rounds: int = ROUNDS,
    repetitions: int = REPETITIONS,
    noise: float = 0.0,
    seed: int = 0,
) -> Tournament:
    """Play a tournament.

    Every match has a random stream of its own, named by game, players and repetition: who else
    takes part changes no match.

    Args:
        players: who is ranked; names are distinct.
        game: what is at stake each round.
        seconds: who can take the second seat of a game that is not symmetric; all players unless
            given. Players meet those with another name.
        rounds: of a match, at least 1.
        repetitions: matches of a pair with chance, at least 1.
        noise: probability that a move is turned into the other one.
        seed: of all draws.

    Raises:
        ConfigError: fewer than two players, two of the same name, a number out of range, second
            seats in a symmetric game, or nobody meets anybody.
        DependencyError: a strategy of the Axelrod library plays, which is not installed.
    """
    _check(players, game, seconds, repetitions)
    paid: dict[str, dict[str, list[tuple[float, float]]]] = {each.name: {} for each in players}
    matches: list[Match] = []
    for first, second in _pairs(players, game, seconds):
        fixed = first.deterministic and second.deterministic and noise == 0
        for repetition in range(1 if fixed else repetitions):
            rng = stream(seed, "match", game.name, first.name, second.name, repetition)
            match = play_match(
                first, second, game, rng, rounds=rounds, noise=noise, repetition=repetition
            )
            matches.append(match)
            share = match.first_moves.count("C") / rounds, match.second_moves.count("C") / rounds
            both = (match.first_score, share[0]), (match.second_score, share[1])
            paid[first.name].setdefault(second.name, []).append(both[0])
            if game.is_symmetric:
                paid[second.name].setdefault(first.name, []).append(both[1])
    _refuse_empty(paid)
    standings = _standings(players, paid)
    return Tournament(game, rounds, repetitions, noise, tuple(matches), standings)


def _pairs(
    players: Sequence[Entrant], game: Game, seconds: Sequence[Entrant] | None
) -> list[tuple[Entrant, Entrant]]:
    if game.is_symmetric:
        return [(one, other) for i, one in enumerate(players) for other in players[i + 1 :]]
    others = players if seconds is None else seconds
    return [(one, other) for one in players for other in others if one.name != other.name]


def _standings(
    players: Sequence[Entrant], paid: dict[str, dict[str, list[tuple[float, float]]]]
) -> tuple[Standing, ...]:
    order = {each.name: place for place, each in enumerate(players)}
    against: dict[str, tuple[tuple[str, float], ...]] = {}
    cooperation: dict[str, float] = {}
    for name, met in paid.items():
        if not met:
            continue
        # A symmetric pair is played once, so the ones met first stand in either's list.
        names = sorted(met, key=lambda other: order.get(other, len(order)))
        against[name] = tuple((other, _mean([s for s, _ in met[other]])) for other in names)
        cooperation[name] = _mean([_mean([c for _, c in met[other]]) for other in names])
    scores = {name: _mean([value for _, value in each]) for name, each in against.items()}
    standings = [
        Standing(
            each.name,
            each.kind,
            1 + sum(score > scores[each.name] + _SAME for score in scores.values()),
            scores[each.name],
            against[each.name],
            cooperation[each.name],
        )
        for each in players
        if each.name in scores
    ]
    return tuple(sorted(standings, key=lambda standing: standing.rank))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _check(
    players: Sequence[Entrant], game: Game, seconds: Sequence[Entrant] | None, repetitions: int
) -> None:
    if len(players) < 2:
        raise ConfigError(
            "A tournament needs somebody to meet",
            seen=f"{len(players)} players",
            allowed="two or more",
            remedy="add players or strategies",
        )
    for group in (players, seconds or ()):
        names = [each.name for each in group]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                "Two players of a tournament have the same name",
                seen=", ".join(twice),
                allowed="each name once",
                remedy="give them names of their own, or leave one out",
            )
    if seconds is not None and game.is_symmetric:
        raise ConfigError(
            "A symmetric game has no second seat of its own",
            seen=f"second players in {game.name}",
            allowed="second players in games whose seats differ",
            remedy="leave them out",
        )
    if repetitions < 1:
        raise ConfigError(
            "A tournament repeats no match",
            seen=f"repetitions {repetitions}",
            allowed="1 or more",
            remedy=f"use {REPETITIONS}",
        )


def _refuse_empty(paid: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    if not any(paid.values()):
        raise ConfigError(
            "Nobody in this tournament meets anybody",
            seen=", ".join(paid),
            allowed="players with at least one other in the second seat",
            remedy="add strategies, which can take both seats",
        )
