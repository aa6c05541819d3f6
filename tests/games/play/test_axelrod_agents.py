"""Agents in real matches and tournaments of the Axelrod library, against exact expectations."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import PAIRS
from moralscope.games.play.axelrod_agents import as_axelrod_player

ANSWERS = np.array([(0.8, 0.1, 0.1), (0.3, 0.5, 0.2), (0.5, 0.5, 0.0), (0.2, 0.4, 0.4)])
KIND = [(1.0, 0.0, 0.0)] * 4
OPPONENTS = {  # P(C) after its own and the agent's last move, and its first move
    "TitForTat": ({"CC": 1, "CD": 0, "DC": 1, "DD": 0}, 1.0),
    "WinStayLoseShift": ({"CC": 1, "CD": 0, "DC": 0, "DD": 1}, 1.0),
    "FirstByJoss": ({"CC": 0.9, "CD": 0, "DC": 0.9, "DD": 0}, 1.0),
    "Bully": ({"CC": 0, "CD": 1, "DC": 0, "DD": 1}, 0.0),
    "Random": (dict.fromkeys(("CC", "CD", "DC", "DD"), 0.5), 0.5),
}
TURNS, MATCHES = 60, 150


@pytest.fixture(scope="module")
def axelrod():
    return importlib.import_module("axelrod")


def exact_cooperation(table: dict[str, float], opening: float) -> float:
    """Share of the agent's C, round by round over the chances of what was played last."""
    cooperates = [
        row[0] + row[2] * (own == "C") for row, (own, _) in zip(ANSWERS, PAIRS, strict=True)
    ]
    first = float(np.mean(cooperates))
    total, now = first, {}
    for own, p in (("C", first), ("D", 1 - first)):
        now[(own, "C")], now[(own, "D")] = p * opening, p * (1 - opening)
    for _ in range(TURNS - 1):
        then = dict.fromkeys(PAIRS, 0.0)
        for (own, other), weight in now.items():
            p, q = cooperates[PAIRS.index((own, other))], table[other + own]
            for a, pa in (("C", p), ("D", 1 - p)):
                for b, pb in (("C", q), ("D", 1 - q)):
                    then[(a, b)] += weight * pa * pb
        now = then
        total += now[("C", "C")] + now[("C", "D")]
    return total / TURNS


def test_cooperation_in_real_matches_is_that_of_the_chain(axelrod) -> None:
    rates = {}
    for name, (table, opening) in OPPONENTS.items():
        player = as_axelrod_player("wavers", ANSWERS)
        shares = []
        for seed in range(MATCHES):
            match = axelrod.Match((player, getattr(axelrod, name)()), turns=TURNS, seed=seed)
            shares.append(sum(own.name == "C" for own, _ in match.play()) / TURNS)
        error = np.std(shares, ddof=1) / np.sqrt(MATCHES)
        rates[name] = exact_cooperation(table, opening)
        assert error < 0.02
        assert abs(np.mean(shares) - rates[name]) < 4 * error, name
    assert max(rates.values()) - min(rates.values()) > 0.1


def test_a_match_depends_on_its_seed_alone(axelrod) -> None:
    def moves(seed: int) -> list[object]:
        players = as_axelrod_player("wavers", ANSWERS), axelrod.Random()
        return axelrod.Match(players, turns=30, seed=seed).play()

    assert moves(1) == moves(1)
    assert moves(1) != moves(2)


def test_an_agent_without_chance(axelrod) -> None:
    player = as_axelrod_player("kind", KIND)
    assert axelrod.Classifiers["stochastic"](player) is False
    assert axelrod.Classifiers["stochastic"](as_axelrod_player("wavers", ANSWERS)) is True
    match = axelrod.Match((player, axelrod.Defector()), turns=3)
    assert [own.name + other.name for own, other in match.play()] == ["CD"] * 3
    mute = as_axelrod_player("mute", [(0.0, 0.0, 1.0)] * 4)
    seen = {
        "".join(own.name for own, _ in axelrod.Match((mute, axelrod.Random()), 5, seed=s).play())
        for s in range(20)
    }
    assert seen == {"CCCCC", "DDDDD"}


def test_agents_take_part_in_a_tournament_and_a_moran_process(axelrod) -> None:
    def players():
        return [
            as_axelrod_player("kind", KIND), as_axelrod_player("hard", [(0.0, 1.0, 0.0)] * 4),
            as_axelrod_player("wavers", ANSWERS), axelrod.TitForTat(),
        ]  # fmt: skip

    results = axelrod.Tournament(players(), turns=20, repetitions=3, seed=1).play(
        progress_bar=False
    )
    assert set(results.ranked_names) == {"kind", "hard", "wavers", "Tit For Tat"}
    assert results.ranked_names[-1] == "kind"
    place = results.players.index("kind")
    assert results.payoff_matrix[place][results.players.index("hard")] == 0.0
    process = axelrod.MoranProcess(players()[:2], turns=5, seed=3)
    process.play()
    assert process.winning_strategy_name == "hard"
    copy = players()[2].clone()
    assert (str(copy), copy) == ("wavers", players()[2])


def test_what_is_no_agent_is_refused() -> None:
    with pytest.raises(ConfigError, match="The answers of 'odd' are not probabilities"):
        as_axelrod_player("odd", [(0.5, 0.5)] * 4)


def test_without_the_library_the_remedy_is_told() -> None:
    code = """
import sys
from moralscope.core.errors import DependencyError
from moralscope.games.play.axelrod_agents import as_axelrod_player
from moralscope.games.play.classical import memory_depth
from moralscope.games.play.matches import strategy_entrant
assert not {"axelrod", "torch", "matplotlib", "pandas"} & set(sys.modules)
sys.modules["axelrod"] = None
for ask in (
    lambda: as_axelrod_player("kind", [(1, 0, 0)] * 4),
    lambda: strategy_entrant("axelrod(Random)"),
    lambda: memory_depth("axelrod(Random)"),
):
    try:
        ask()
    except DependencyError as error:
        sys.stdout.write(str(error).partition("Next: ")[2] + chr(10))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == 'run: pip install "moralscope[axelrod]".\n' * 3
