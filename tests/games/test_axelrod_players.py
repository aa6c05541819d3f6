"""Strategies of the Axelrod library against our own, the library's matches, and by hand."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import make_player, opponent_kind, response_table

SEEDS = range(6)


@pytest.fixture(scope="module")
def axelrod():
    return importlib.import_module("axelrod")


def moves(player, agent) -> str:
    return player.previous + "".join(player.move(move) for move in agent)


def drawn_moves(seed: int, length: int = 24) -> str:
    return "".join(np.random.default_rng([seed, 77]).choice(["C", "D"], length))


@pytest.mark.parametrize(
    ("native", "strategy", "opening"),
    [
        ("tit-for-tat", "Tit For Tat", None),
        ("grim", "Grudger", "C"),
        ("win-stay-lose-shift", "Win-Stay Lose-Shift", "C"),
        ("suspicious-tit-for-tat", "Suspicious Tit For Tat", "D"),
        ("always-cooperate", "Cooperator", "C"),
        ("always-defect", "Defector", "D"),
    ],
)
def test_native_opponents_play_as_the_library_does(native, strategy, opening) -> None:
    seen = set()
    for seed in SEEDS:
        agent = drawn_moves(seed)
        ours = moves(make_player(native, np.random.default_rng(seed)), agent)
        theirs = moves(make_player(f"axelrod({strategy})", np.random.default_rng(seed)), agent)
        assert ours[1:] == theirs[1:]
        if opening is not None:
            assert ours[0] == theirs[0] == opening
        seen.add(theirs[1:])
    assert (len(seen) > 1) == (strategy not in ("Cooperator", "Defector"))


def test_native_probabilities_are_those_of_the_library(axelrod) -> None:
    """Four-vectors of the library, whose own move comes first, for the package's points."""
    points = axelrod.Game(r=3, s=0, t=4, p=1)
    generous = axelrod.GTFT()
    generous.p = None  # it has made up its mind for the library's own points
    generous.set_match_attributes(game=points)
    # Hilbe, Nowak and Traulsen's form, with slope 1 / chi and phi chi times that of the paper.
    relation = importlib.import_module("axelrod.strategies.zero_determinant").LRPlayer
    extort = relation(phi=2 / 14, s=1 / 2, l=1)
    extort.set_match_attributes(game=points)
    for strategy, native in ((generous, "generous-tit-for-tat"), (extort, "zd-extortion")):
        player = make_player(native, np.random.default_rng(0))
        for (own, agent), p in strategy._four_vector.items():
            assert player._p[(agent.name, own.name)] == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize(
    "strategy", ["Tit For 2 Tats", "Adaptive", "Gradual", "EvolvedLookerUp2_2_2", "Meta Hunter"]
)
def test_a_game_is_a_match_of_the_library(axelrod, strategy: str) -> None:
    """The same strategy against the agent's moves, played by the library from start to end."""
    agent = drawn_moves(3, 30)
    actions = [getattr(axelrod.Action, move) for move in agent]
    cls = next(each for each in axelrod.strategies if each.name == strategy)
    match = axelrod.Match(
        (cls(), axelrod.MockPlayer(actions)), turns=len(agent),
        game=axelrod.Game(r=3, s=0, t=4, p=1), match_attributes={"length": -1, "noise": 0,
        "game": axelrod.Game(r=3, s=0, t=4, p=1)},
    )  # fmt: skip
    expected = "".join(own.name for own, _ in match.play())
    player = make_player(f"axelrod({strategy})", np.random.default_rng(0))
    # The agent's last move has nobody to answer it.
    assert moves(player, agent[:-1]) == expected
    assert {"C", "D"} <= set(expected) or strategy == "Meta Hunter"


def test_it_remembers_more_than_one_round() -> None:
    player = make_player("axelrod(Tit For 2 Tats)", np.random.default_rng(0))
    assert moves(player, "DCDDCDDDC") == "CCCCDCCDDC"


@pytest.mark.parametrize(
    "name",
    ["tit-for-2-tats", "TitFor2Tats", "TIT FOR 2 TATS", " Tit  For_2 Tats "],
)
def test_names_whatever_their_case_and_signs(name: str) -> None:
    assert moves(make_player(f"axelrod({name})", np.random.default_rng(0)), "DDC") == "CCDC"


@pytest.mark.parametrize("name", ["N Tit(s) For M Tat(s)", "$\\phi$", "EvolvedLookerUp1_1_1"])
def test_names_with_odd_signs(axelrod, name: str) -> None:
    response = response_table(
        f"axelrod({name})", np.full(4, 0.5), np.ones(4), rounds=2, games=1,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert response.opponent.name == f"axelrod({name})"
    assert name in {each.name for each in axelrod.strategies}


def test_no_two_strategies_share_a_name(axelrod) -> None:
    known = importlib.import_module("moralscope.games.axelrod_players")._strategies()
    assert len(set(known.values())) == len(axelrod.strategies) > 200
    assert all(known["".join(filter(str.isalnum, s.__name__.lower()))] is s
               for s in axelrod.strategies)  # fmt: skip


@pytest.mark.parametrize("strategy", ["Random", "GTFT", "First by Joss"])
def test_draws_depend_on_the_generator_alone(strategy: str) -> None:
    agent = "CD" * 12
    games = [
        moves(make_player(f"axelrod({strategy})", np.random.default_rng(seed)), agent)
        for seed in (1, 1, 2, 3, 4)
    ]
    assert games[0] == games[1]
    assert len(set(games[1:])) > 1


def test_players_share_no_memory() -> None:
    first, second = (make_player("axelrod(Grudger)", np.random.default_rng(0)) for _ in "12")
    assert moves(first, "DD") == "CDD"
    assert moves(second, "CC") == "CCC"


def test_the_response_of_a_long_memory_by_hand() -> None:
    """Tit for two tats against a coin: it defects if the agent's last two moves were D.

    In the first round the history holds one move, so it cooperates. From the second on, after the
    agent's D its answer is D with the chance that the move before was D too. Given that its own
    last move was D, the agent's move before was D for sure.
    """
    response = response_table(
        "axelrod(Tit For 2 Tats)", np.full(4, 0.5), np.ones(4), rounds=3, games=2500,
        rng=np.random.default_rng(8),
    )  # fmt: skip
    table = response.opponent.p_cooperate_after
    assert response.opponent.opening == 1.0
    assert table[("C", "C")] == table[("C", "D")] == 1.0
    assert table[("D", "D")] == 0.0
    # Rounds 1 to 3: state DC has weight 1/2, 1/2 and 3/8; it defects with 0, 1/2 and 1/3 of it.
    weights, defects = np.array([1 / 2, 1 / 2, 3 / 8]), np.array([0, 1 / 2, 1 / 3])
    assert table[("D", "C")] == pytest.approx(1 - weights @ defects / weights.sum(), abs=0.03)
    np.testing.assert_allclose(response.visitation, [11 / 24, 1 / 24, 11 / 24, 1 / 24], atol=0.02)


def test_an_unknown_strategy_is_refused() -> None:
    rng = np.random.default_rng(0)
    for name, remedy in [
        ("Tit For Two Tatts", r"did you mean 'Tit(For| For) 2 Tats'|did you mean '[\w ]*Tat"),
        ("Grujer", "did you mean 'Grudger'"),
        ("zzzzqqqq", "choose one from https"),
        ("Darwin", "Seen: Darwin"),
    ]:
        assert opponent_kind(f"axelrod({name})") == "axelrod"
        with pytest.raises(ConfigError, match=f"no strategy of this name. Seen: {name}") as caught:
            make_player(f"axelrod({name})", rng)
        assert len(str(caught.value)) < 300
        with pytest.raises(ConfigError, match=remedy):
            make_player(f"axelrod({name})", rng)


def test_the_library_is_imported_when_asked_for_and_missed_by_name() -> None:
    """In a process of its own, in which it cannot be imported."""
    code = """
import sys
import numpy as np
import moralscope.games as games
from moralscope.core.errors import DependencyError
for name in (*games.OPPONENTS, "noisy(grim, 0.1)"):
    games.make_player(name, np.random.default_rng(0)).move("C")
assert games.opponent_kind("axelrod(Random)") == "axelrod"
assert not {"axelrod", "torch", "matplotlib", "pandas"} & set(sys.modules)
sys.modules["axelrod"] = None
try:
    games.make_player("axelrod(Random)", np.random.default_rng(0))
except DependencyError as error:
    sys.stdout.write(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == (
        "The Axelrod library is not installed. Seen: no module named 'axelrod'. Allowed: axelrod, "
        'for the opponents that it names. Next: run: pip install "moralscope[axelrod]".'
    )
