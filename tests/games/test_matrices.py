"""Payoffs against the published table, orderings against brute-force equilibria."""

from __future__ import annotations

import pickle
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


numbers = st.integers(-3000, 3000).map(lambda n: n / 100) | st.sampled_from([1e6, -1e-5, 2e9])
MINE = "matrix(CC=3:2, CD=-1:0.5, DC=0:0, DD=2:3)"


def cells_of(game: Game) -> list[tuple[float, float]]:
    return [game.payoffs[pair] for pair in PAIRS]


def test_payoffs_can_be_written_in_two_ways() -> None:
    symmetric = get_game("matrix(T=5, R=3, P=1, S=-0.5)")
    assert cells_of(symmetric) == [(3, 3), (-0.5, 5), (5, -0.5), (1, 1)]
    assert symmetric.name == "matrix_R3_S-0.5_T5_P1"
    assert symmetric.title == "two-player game, R 3, S -0.5, T 5, P 1"
    assert get_game("matrix(CC=3:3, CD=-0.5:5, DC=5:-0.5, DD=1:1)") == symmetric
    free = get_game(MINE)
    assert cells_of(free) == [(3, 2), (-1, 0.5), (0, 0), (2, 3)]
    assert free.name == "matrix_CC3_2_CD-1_0.5_DC0_0_DD2_3"
    assert free.title.endswith("CC 3:2, CD -1:0.5, DC 0:0, DD 2:3")


@given(st.lists(numbers, min_size=8, max_size=8), st.lists(numbers, min_size=8, max_size=8))
def test_a_name_says_the_payoffs_and_nothing_else_does(one, other) -> None:
    def written(points: list[float]) -> Game:
        pairs = zip(
            ["CC", "CD", "DC", "DD"], zip(points[::2], points[1::2], strict=True), strict=True
        )
        return get_game(f"matrix({', '.join(f'{k}={a!r}:{b!r}' for k, (a, b) in pairs)})")

    a, b = written(one), written(other)
    assert [x for cell in cells_of(a) for x in cell] == one
    assert get_game(a.name) == a
    assert get_game(a.mirrored.name) == a.mirrored
    assert (a.name == b.name) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_.+-]+", a.name)


def test_other_payoffs_under_a_known_name_have_its_order() -> None:
    axelrod = get_game("IPD(R=3, S=0, T=5, P=1)")
    assert cells_of(axelrod) == [(3, 3), (0, 5), (5, 0), (1, 1)]
    assert axelrod.name == "IPD_R3_S0_T5_P1" != get_game("IPD").name
    assert axelrod.title == "iterated prisoner's dilemma, R 3, S 0, T 5, P 1"
    assert get_game("IPD(R=3, S=0, T=4, P=1)") is GAMES["IPD"]
    assert get_game("matrix(R=3, S=0, T=4, P=1)") != GAMES["IPD"]
    twice = get_game("BOS(CC=6:4, CD=0:0, DC=0:0, DD=4:6)")
    assert pure_equilibria(twice) == {"CC", "DD"}
    for name, expression in (
        ("IPD", "IPD(R=3, S=0, T=6, P=1)"),  # 2R = T + S
        ("IPD", "IPD(R=3, S=0, T=2, P=1)"),
        ("ISH", "ISH(CC=4:4, CD=0:3, DC=3:1, DD=1:1)"),
        ("BOS", "BOS(R=3, S=0, T=0, P=2)"),
        ("BOS", "BOS(CC=2:3, CD=0:0, DC=0:0, DD=3:2)"),
    ):
        with pytest.raises(ConfigError, match=f"payoffs of '{name}' are not those of a game"):
            get_game(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("matrx(R=3,S=0,T=5,P=1)", r"no game of this name. Seen: matrx.*did you mean 'matrix'"),
        ("public-goods(players=3)", r"no game of this name.*Allowed: IPD, ISH"),
        ("matrix", r"not all given.*Allowed: R, S, T and P, or CC, CD, DC and DD"),
        ("matrix(R=3,S=0,T=5)", r"not all given.*Seen: matrix\(R=3,S=0,T=5\)"),
        ("matrix(3,0,5,1)", r"not all given.*each once and by name"),
        ("matrix(R=3,R=3,S=0,T=5)", r"not all given"),
        ("IPD(R=3,S=0,T=5,CC=1)", r"not all given.*write IPD\(R=3"),
        ("matrix(R=3,S=0,T=5,P=inf)", r"payoff of .* cannot be read. Seen: inf.*a finite number"),
        ("matrix(R=3,S=0,T=5,P=x)", r"cannot be read. Seen: x"),
        ("matrix(R=3,S=0,T=5,P=1.23456789012345)", r"Allowed: a finite number of up to 12 digits"),
        ("matrix(CC=3,CD=0:0,DC=0:0,DD=1:1)", r"Seen: 3.0. Allowed: own points:the other's"),
        ("matrix(CC=3:,CD=0:0,DC=0:0,DD=1:1)", r"cannot be read. Seen: . Allowed: a finite"),
        ("matrix(CC=3:1:2,CD=0:0,DC=0:0,DD=1:1)", r"cannot be read. Seen: 1:2"),
        ("matrix_R3_S0_T5", r"no game of this name. Seen: matrix_R3_S0_T5"),
        ("IPD_R3_S0_T2_P1", r"payoffs of 'IPD' are not those"),
        ("IPDD-mirrored", r"no game of this name. Seen: IPDD.*did you mean 'IPD'"),
        ("matrix(R=3", r"not a name with settings"),
    ],
)
def test_payoffs_that_cannot_be_read_are_refused(expression, text) -> None:
    with pytest.raises(ConfigError, match=text):
        get_game(expression)


def test_the_other_player_sees_the_same_game_from_its_side() -> None:
    for game in (GAMES["BOS"], get_game(MINE)):
        seen = game.mirrored
        assert seen != game
        for own, other in PAIRS:
            assert payoff(seen, own, other) == payoff(game, other, own)[::-1]
        assert pure_equilibria(seen) == {pair[::-1] for pair in pure_equilibria(game)}
        assert mixed_equilibrium(seen) == (mixed_equilibrium(game) or (None,))[::-1]
        assert seen.mirrored == game
        assert seen.name == f"{game.name}-mirrored"
        assert get_game(seen.name) == seen
        assert pickle.loads(pickle.dumps(seen)) == seen  # noqa: S301 (own data)
    assert cells_of(GAMES["BOS"].mirrored) == [(2, 3), (0, 0), (0, 0), (3, 2)]
    for game in (*GAMES.values(), get_game("matrix(R=1, S=2, T=3, P=4)")):
        assert (game.mirrored is game) == game.is_symmetric == (game.name != "BOS")
