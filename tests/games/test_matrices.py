"""Payoffs against the published table, orderings against brute-force equilibria."""

from __future__ import annotations

import pickle
from itertools import product

import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import GAMES, MOVES, PAIRS, Game, get_game, payoff

PUBLISHED = {
    "IPD": "3,3 0,4 4,0 1,1",
    "ISH": "4,4 0,3 3,0 1,1",
    "ICN": "2,2 1,4 4,1 0,0",
    "BOS": "3,2 0,0 0,0 2,3",
    "ICD": "1,1 0,0 0,0 4,4",
    "IVD": "3,3 1,4 4,1 0,0",
}
PURE_EQUILIBRIA = {
    "IPD": {"DD"},
    "ISH": {"CC", "DD"},
    "ICN": {"CD", "DC"},
    "BOS": {"CC", "DD"},
    "ICD": {"CC", "DD"},
    "IVD": {"CD", "DC"},
}
# P(own C), P(opponent's C) of the equilibrium in which both mix; None where there is none.
MIXED_EQUILIBRIUM = {
    "IPD": None,
    "ISH": (1 / 2, 1 / 2),
    "ICN": (1 / 3, 1 / 3),
    "BOS": (3 / 5, 2 / 5),
    "ICD": (4 / 5, 4 / 5),
    "IVD": (1 / 2, 1 / 2),
}


def payoff_lists(game: Game) -> tuple[list[list[float]], list[list[float]]]:
    rows = [[payoff(game, own, other) for other in MOVES] for own in MOVES]
    return [[c[0] for c in row] for row in rows], [[c[1] for c in row] for row in rows]


def pure_equilibria(game: Game) -> set[str]:
    """By trying every deviation of either player."""
    found = set()
    for own, other in product(MOVES, MOVES):
        best = all(payoff(game, d, other)[0] <= payoff(game, own, other)[0] for d in MOVES)
        other_best = all(payoff(game, own, d)[1] <= payoff(game, own, other)[1] for d in MOVES)
        if best and other_best:
            found.add(own + other)
    return found


def mixed_equilibrium(game: Game, grid: int = 60) -> tuple[float, float] | None:
    """By search over a grid: no pure deviation of either player gains."""
    a, b = payoff_lists(game)
    for i, j in product(range(1, grid), range(1, grid)):
        p, q = i / grid, j / grid
        own = [a[m][0] * q + a[m][1] * (1 - q) for m in range(2)]
        other = [b[0][m] * p + b[1][m] * (1 - p) for m in range(2)]
        if abs(own[0] - own[1]) < 1e-9 and abs(other[0] - other[1]) < 1e-9:
            return p, q
    return None


@pytest.mark.parametrize("name", PUBLISHED)
def test_payoffs_are_the_published_ones(name: str) -> None:
    cells = [tuple(float(x) for x in cell.split(",")) for cell in PUBLISHED[name].split()]
    assert [payoff(GAMES[name], *pair) for pair in PAIRS] == cells


@pytest.mark.parametrize("name", PUBLISHED)
def test_equilibria_are_those_of_the_game_of_this_name(name: str) -> None:
    assert pure_equilibria(GAMES[name]) == PURE_EQUILIBRIA[name]
    expected = MIXED_EQUILIBRIUM[name]
    assert mixed_equilibrium(GAMES[name]) == (expected and pytest.approx(expected))


def test_only_bach_or_stravinsky_is_not_symmetric() -> None:
    asymmetric = {
        name
        for name, game in GAMES.items()
        if any(payoff(game, a, b) != payoff(game, b, a)[::-1] for a, b in PAIRS)
    }
    assert asymmetric == {"BOS"}


@pytest.mark.parametrize(("name", "other"), [p for p in product(GAMES, GAMES) if p[0] != p[1]])
def test_the_payoffs_of_one_game_are_refused_under_the_name_of_another(
    name: str, other: str
) -> None:
    with pytest.raises(ConfigError, match=f"payoffs of '{name}' are not those of a game"):
        Game(name, "impostor", GAMES[other].payoffs)


@pytest.mark.parametrize("name", GAMES)
def test_the_ordering_is_about_order_not_about_the_numbers(name: str) -> None:
    scaled = {p: (2 * a + 7, 2 * b + 7) for p, (a, b) in GAMES[name].payoffs.items()}
    assert Game(name, "scaled", scaled).payoffs[("C", "C")] == scaled[("C", "C")]


@pytest.mark.parametrize("name", ["IPD", "ISH", "ICN", "ICD", "IVD"])
def test_a_symmetric_game_with_one_changed_cell_is_refused(name: str) -> None:
    cells = dict(GAMES[name].payoffs)
    cells[("C", "D")] = (cells[("C", "D")][0], cells[("C", "D")][1] + 0.25)
    with pytest.raises(ConfigError, match="symmetric"):
        Game(name, "lopsided", cells)


def test_a_game_lacking_a_cell_or_with_an_infinite_payoff_is_refused() -> None:
    cells = dict(GAMES["IPD"].payoffs)
    with pytest.raises(ConfigError, match="not a finite number"):
        Game("mine", "infinite", {**cells, ("C", "D"): (float("inf"), 0.0)})
    del cells[("D", "C")]
    with pytest.raises(ConfigError, match=r"every pair of moves.*Seen: \['CC', 'CD', 'DD'\]"):
        Game("mine", "short", cells)


def test_a_game_of_another_name_is_free() -> None:
    cells = dict.fromkeys(PAIRS, (0.0, 0.0))
    assert payoff(Game("mine", "nothing at stake", cells), "C", "D") == (0.0, 0.0)


def test_a_game_does_not_change_with_the_mapping_it_was_built_from() -> None:
    cells = dict(GAMES["IPD"].payoffs)
    game = Game("IPD", "mine", cells)
    cells[("C", "C")] = (100.0, 100.0)
    assert payoff(game, "C", "C") == (3, 3)
    with pytest.raises(TypeError):
        game.payoffs[("C", "C")] = (100.0, 100.0)  # type: ignore[index]


def test_games_cross_a_process_boundary_and_hash() -> None:
    for game in GAMES.values():
        again = pickle.loads(pickle.dumps(game))  # noqa: S301 (own data)
        assert again == game
        assert hash(again) == hash(game)


def test_an_unknown_game_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no game of this name. Seen: IPDD.*did you mean 'IPD'"):
        get_game("IPDD")
    assert get_game("BOS") is GAMES["BOS"]
