"""The public-goods game: closed forms, optima by brute force, settings, names."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import (
    GAMES,
    GROUP_TEXTS,
    WORDINGS,
    GroupState,
    PublicGoods,
    get_game,
    get_public_goods,
    is_public_goods,
)

GAME = PublicGoods(4, 4, 2)
DILEMMAS = [(2, 3.0, 1.5), (3, 4.0, 2.0), (4, 4.0, 2.0), (5, 10.0, 1.1), (10, 1.0, 9.5)]
OTHERS = [(3, 4.0, 0.5), (3, 4.0, 3.5)]


def payments(players: int, endowment: float, multiplier: float, moves: tuple[str, ...]):
    """Points by accounting: a pot that is filled, grows, and is paid out player by player."""
    purse = [0.0 if move == "C" else endowment for move in moves]
    pot = sum(endowment - kept for kept in purse) * multiplier
    return [kept + pot / players for kept in purse]


@pytest.mark.parametrize("settings", [*DILEMMAS, *OTHERS])
def test_points_are_those_of_the_pot(settings) -> None:
    players, _, _ = settings
    game = PublicGoods(*settings)
    for moves in product("CD", repeat=players) if players < 6 else [("C",) * 4 + ("D",) * 6]:
        own, *others = moves
        expected = payments(*settings, moves)
        assert game.points(own, others.count("C")) == pytest.approx(expected[0])
        assert list(game.others_points(own, tuple(others))) == pytest.approx(expected[1:])


def test_points_by_hand() -> None:
    assert [GAME.points("C", k) for k in range(4)] == [2, 4, 6, 8]
    assert [GAME.points("D", k) for k in range(4)] == [4, 6, 8, 10]
    assert GAME.others_points("D", ("C", "D", "C")) == (4.0, 8.0, 4.0)


def equilibria(game: PublicGoods) -> set[int]:
    """Numbers of contributors from which no player gains by leaving its move, by trying all."""
    found = set()
    for moves in product("CD", repeat=game.players):
        ways = [
            (game.points(move, rest), game.points("CD"[move == "C"], rest))
            for i, move in enumerate(moves)
            for rest in ((moves[:i] + moves[i + 1 :]).count("C"),)
        ]
        if all(kept >= changed for kept, changed in ways):
            found.add(moves.count("C"))
    return found


def optimum(game: PublicGoods) -> set[int]:
    """Numbers of contributors at which all players together have most, by trying all."""
    totals = {}
    for moves in product("CD", repeat=game.players):
        total = game.points(moves[0], moves[1:].count("C"))
        totals[moves.count("C")] = total + sum(game.others_points(moves[0], moves[1:]))
    best = max(totals.values())
    return {k for k, total in totals.items() if total == pytest.approx(best)}


@pytest.mark.parametrize("settings", [s for s in DILEMMAS if s[0] < 6])
def test_a_dilemma_has_nobody_contribute_and_everybody_ought_to(settings) -> None:
    game = PublicGoods(*settings)
    assert game.is_dilemma
    assert equilibria(game) == {0}
    assert optimum(game) == {game.players}


def test_what_is_no_dilemma_can_be_played_and_says_so() -> None:
    poor, rich = (PublicGoods(*settings) for settings in OTHERS)
    assert (poor.is_dilemma, rich.is_dilemma) == (False, False)
    assert equilibria(poor) == optimum(poor) == {0}
    assert equilibria(rich) == optimum(rich) == {3}
    assert not PublicGoods(4, 4, 1).is_dilemma
    assert not PublicGoods(4, 4, 4).is_dilemma


def test_two_players_play_a_prisoners_dilemma() -> None:
    """With payoffs that a two-player game of this name accepts."""
    game = PublicGoods(2, 4, 1.5)
    r, s, t, p = (game.points(own, k) for own, k in (("C", 1), ("C", 0), ("D", 1), ("D", 0)))
    assert get_game(f"IPD(R={r}, S={s}, T={t}, P={p})").payoffs[("C", "D")] == (s, t)


@given(st.integers(2, 10), st.integers(1, 90), st.integers(1, 90))
def test_points_obey_the_games_laws(players, endowment, tenths) -> None:
    game = PublicGoods(players, endowment, tenths / 10)
    whole = game.multiplier * endowment
    for k in range(players):
        # Contributing costs the same whatever others do, and so does what a contribution brings.
        gap = game.points("D", k) - game.points("C", k)
        assert gap == pytest.approx(endowment - whole / players)
        if k:
            assert game.points("D", k) - game.points("D", k - 1) == pytest.approx(whole / players)
    assert game.points("C", players - 1) == pytest.approx(whole)
    assert get_public_goods(game.name) == game
    assert is_public_goods(game.name)


def test_the_page_on_games_says_what_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "games.md").read_text()
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", page, re.MULTILINE))
    for name, game in GAMES.items():
        title, *cells = rows[name].split(" | ")[:5]
        assert title == game.title
        assert cells == [f"{own:g}, {other:g}" for own, other in game.payoffs.values()]
    texts = {row for row in rows if row.removesuffix("-mirrored") in WORDINGS}
    written = [r for r in rows if ("(" in r or "-" in r or r.startswith("PGG")) and r not in texts]
    assert len(written) == 7
    for expression in written:
        game = get_public_goods(expression) if is_public_goods(expression) else get_game(expression)
        assert game not in GAMES.values()
    assert rows["PGG4x2"]
    assert get_public_goods("PGG3x1.6_e20").endowment == 20
    assert all(f"`{text}`" in rows["public_goods_prompts"] for text in GROUP_TEXTS)


def test_states_come_in_a_fixed_order_with_names() -> None:
    states = PublicGoods(3, 4, 2).states
    assert [s.name for s in states] == ["C0", "C1", "C2", "D0", "D1", "D2"]
    assert states[5] == GroupState("D", 2)
    assert len(GAME.states) == 8


def test_expressions_name_games_and_games_name_themselves() -> None:
    assert get_public_goods("public-goods") == GAME == get_public_goods("PGG4x2")
    assert get_public_goods("public-goods(players=4, endowment=4, multiplier=2)") == GAME
    other = get_public_goods("public-goods(multiplier=1.6, players=3, endowment=20)")
    assert other == PublicGoods(3, 20, 1.6)
    assert other.name == "PGG3x1.6_e20"
    assert "3 players, endowment 20, multiplier 1.6" in other.title
    small = PublicGoods(2, 1e-5, 1e-7)
    assert get_public_goods(small.name) == small
    assert not any(map(is_public_goods, ("IPD", "matrix(R=3,S=0,T=5,P=1)", "PGG", "PGG4")))
    assert is_public_goods(" public-goods(players=3)")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("IPD", r"no public-goods game of this name. Seen: IPD.*begin with public-goods"),
        ("public-goods(player=4)", r"no setting of this name. Seen: player.*mean 'players'"),
        ("public-goods(players=2.5)", r"cannot be read. Seen: players=2.5.*a whole number"),
        ("public-goods(players=four)", r"cannot be read. Seen: players=four"),
        ("public-goods(4)", r"cannot be read. Seen: public-goods\(4\).*by name and each once"),
        ("public-goods(players=4, players=4)", r"cannot be read.*by name and each once"),
        ("public-goods(players=1)", r"number of players that it cannot have. Seen: 1.*2 to 10"),
        ("public-goods(players=11)", r"number of players that it cannot have. Seen: 11"),
        ("public-goods(endowment=0)", r"endowment .* is not a positive number. Seen: 0"),
        ("public-goods(multiplier=-2)", r"multiplier .* is not a positive number. Seen: -2"),
        ("public-goods(multiplier=1.23456789012345)", r"multiplier .*up to 12 digits"),
        ("public-goods(players=4", r"not a name with settings.*parentheses matched"),
    ],
)
def test_what_cannot_be_played_is_refused(expression, text) -> None:
    with pytest.raises(ConfigError, match=text):
        get_public_goods(expression)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_numbers_that_are_none_are_refused(value) -> None:
    with pytest.raises(ConfigError, match="multiplier of a public-goods game is not a positive"):
        PublicGoods(4, 4, value)
    with pytest.raises(ConfigError, match="endowment of a public-goods game is not a positive"):
        PublicGoods(4, value, 2)


@pytest.mark.parametrize("cooperators", [-1, 4])
def test_there_are_only_so_many_others(cooperators) -> None:
    with pytest.raises(ConfigError, match=r"not so many others in PGG4x2.*Allowed: 0 to 3"):
        GAME.points("C", cooperators)


@pytest.mark.parametrize("others", [(), ("C", "C"), ("C", "C", "D", "D")])
def test_every_other_player_needs_a_move(others) -> None:
    with pytest.raises(ConfigError, match=r"Not every other player of PGG4x2.*Allowed: 3"):
        GAME.others_points("C", others)
