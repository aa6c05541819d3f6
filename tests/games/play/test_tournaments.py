"""Tournaments against the Axelrod library's own, and by hand."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import GAMES
from moralscope.games.play.matches import agent_entrant, strategy_entrant
from moralscope.games.play.tournaments import round_robin

IPD = GAMES["IPD"]
FIELD = {
    "tit-for-tat": "TitForTat",
    "always-defect": "Defector",
    "always-cooperate": "Cooperator",
    "gradual": "OriginalGradual",
    "prober": "Prober",
    "win-stay-lose-shift": "WinStayLoseShift",
    "tester": "SecondByTester",
    "cycler-ddc": "CyclerDDC",
}


def entrants(*names: str):
    return [strategy_entrant(name) for name in names]


def test_scores_and_cooperation_are_those_of_the_library() -> None:
    axelrod = importlib.import_module("axelrod")
    theirs = axelrod.Tournament(
        [getattr(axelrod, name)() for name in FIELD.values()], turns=50, repetitions=1,
        game=axelrod.Game(r=3, s=0, t=4, p=1),
    ).play(progress_bar=False)  # fmt: skip
    ours = round_robin(entrants(*FIELD), IPD, rounds=50)
    found = {standing.player: standing for standing in ours.standings}
    for place, name in enumerate(FIELD):
        (scores,) = theirs.normalised_scores[place : place + 1]
        assert found[name].score == pytest.approx(scores[0], abs=1e-12)
        # The library's rates count a player's match with itself; here it plays none.
        met = [rate for i, rate in enumerate(theirs.normalised_cooperation[place]) if i != place]
        assert found[name].cooperation == pytest.approx(np.mean(met), abs=1e-12)
    order = [[*FIELD][place] for place in theirs.ranking]
    scores = [found[name].score for name in order]
    assert scores == sorted(scores, reverse=True)
    assert len(ours.matches) == 8 * 7 / 2
    assert len({standing.score for standing in ours.standings}) > 5


def test_standings_by_hand() -> None:
    """Against D: 0 and 4, or (0 + 1 + 1) / 3 and (4 + 1 + 1) / 3 for tit-for-tat."""
    ours = round_robin(entrants("always-cooperate", "always-defect", "tit-for-tat"), IPD, rounds=3)
    best, second, third = ours.standings
    assert (best.player, best.rank) == ("always-defect", 1)
    assert best.score == pytest.approx((4 + 2) / 2)
    assert best.against == (("always-cooperate", 4.0), ("tit-for-tat", pytest.approx(2)))
    assert (second.player, second.rank) == ("tit-for-tat", 2)
    assert second.score == pytest.approx((3 + 2 / 3) / 2)
    assert second.cooperation == pytest.approx((1 + 1 / 3) / 2)
    assert (third.player, third.rank, third.score) == ("always-cooperate", 3, 1.5)
    assert (third.kind, third.cooperation) == ("native", 1.0)


def test_equal_scores_share_a_rank() -> None:
    ours = round_robin(entrants("tit-for-tat", "always-defect", "grim", "gradual"), IPD, rounds=9)
    assert [(standing.player, standing.rank) for standing in ours.standings] == [
        ("tit-for-tat", 1), ("grim", 1), ("gradual", 3), ("always-defect", 4),
    ]  # fmt: skip


def test_pairs_with_chance_are_repeated_and_each_opponent_counts_once() -> None:
    agent = agent_entrant("wavers", np.array([(0.6, 0.3, 0.1)] * 4))
    ours = round_robin(
        [agent, *entrants("grim", "bully", "random")], IPD, rounds=20, repetitions=7, seed=4
    )
    counts: dict[tuple[str, str], int] = {}
    for match in ours.matches:
        counts[(match.first, match.second)] = counts.get((match.first, match.second), 0) + 1
    assert counts == {
        ("wavers", "grim"): 7, ("wavers", "bully"): 7, ("wavers", "random"): 7,
        ("grim", "bully"): 1, ("grim", "random"): 7, ("bully", "random"): 7,
    }  # fmt: skip
    assert len({m.first_moves for m in ours.matches if m.first == "wavers"}) == 21
    standing = {s.player: s for s in ours.standings}["grim"]
    by_hand = []
    for other in ("wavers", "bully", "random"):
        of = [m.first_score for m in ours.matches if (m.first, m.second) == ("grim", other)]
        of += [m.second_score for m in ours.matches if (m.first, m.second) == (other, "grim")]
        by_hand.append(float(np.mean(of)))
    assert [name for name, _ in standing.against] == ["wavers", "bully", "random"]
    assert [score for _, score in standing.against] == pytest.approx(by_hand, abs=1e-12)
    assert standing.score == pytest.approx(np.mean(by_hand), abs=1e-12)
    noisy = round_robin(entrants("grim", "bully"), IPD, rounds=20, repetitions=7, noise=0.1)
    assert len(noisy.matches) == 7


def test_a_match_does_not_depend_on_who_else_plays() -> None:
    def matches(*names: str, seed: int = 0):
        made = round_robin(entrants(*names), IPD, rounds=30, repetitions=2, seed=seed).matches
        return [m for m in made if (m.first, m.second) == ("random", "joss")]

    alone = matches("random", "joss")
    assert matches("random", "grim", "joss", "axelrod(Random)") == alone
    assert matches("random", "joss", seed=1) != alone
    assert alone[0].first_moves != alone[1].first_moves


def test_seats_of_a_game_that_is_not_symmetric() -> None:
    """In Bach or Stravinsky the first seat prefers C: everybody is scored there."""
    bos = GAMES["BOS"]
    ours = round_robin(entrants("always-cooperate", "always-defect", "tit-for-tat"), bos, rounds=4)
    assert len(ours.matches) == 6
    scores = {s.player: dict(s.against) for s in ours.standings}
    assert scores["always-cooperate"] == {"always-defect": 0.0, "tit-for-tat": 3.0}
    assert scores["always-defect"] == {"always-cooperate": 0.0, "tit-for-tat": 1.5}
    assert scores["tit-for-tat"] == {"always-cooperate": 3.0, "always-defect": 1.5}
    kind = agent_entrant("kind", np.array([(1.0, 0.0, 0.0)] * 4))
    hard = agent_entrant("hard", np.array([(0.0, 1.0, 0.0)] * 4))
    there = [agent_entrant("hard", np.array([(1.0, 0.0, 0.0)] * 4)), *entrants("tit-for-tat")]
    ours = round_robin([kind, hard], bos, seconds=there, rounds=4)
    met = {s.player: dict(s.against) for s in ours.standings}
    # Nobody sits opposite itself, and who was not asked there is not met.
    assert met == {"kind": {"hard": 3.0, "tit-for-tat": 3.0}, "hard": {"tit-for-tat": 1.5}}


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5))
def test_scores_add_up_to_what_is_paid(seed: int, noise: float) -> None:
    """All points of all matches, each opponent alike, whoever plays and whatever is drawn."""
    rng = np.random.default_rng(seed)
    agents = [agent_entrant(f"a{i}", rng.dirichlet([1, 1, 1], size=4)) for i in range(2)]
    ours = round_robin(
        [*agents, *entrants("gradual", "joss")], IPD, rounds=6, repetitions=2, noise=noise,
        seed=seed,
    )  # fmt: skip
    paid: dict[tuple[str, str], list[float]] = {}
    for match in ours.matches:
        paid.setdefault((match.first, match.second), []).append(
            match.first_score + match.second_score
        )
    total = sum(np.mean(each) for each in paid.values())
    assert sum(s.score for s in ours.standings) * 3 == pytest.approx(total, abs=1e-9)
    assert all(0 <= s.score <= 4 and 0 <= s.cooperation <= 1 for s in ours.standings)
    ranks = [s.rank for s in ours.standings]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1


def test_what_is_no_tournament_is_refused() -> None:
    with pytest.raises(ConfigError, match="A tournament needs somebody to meet. Seen: 1 players"):
        round_robin(entrants("grim"), IPD)
    with pytest.raises(ConfigError, match="have the same name. Seen: grim"):
        round_robin(entrants("grim", "Grim"), IPD)
    with pytest.raises(ConfigError, match="A tournament repeats no match. Seen: repetitions 0"):
        round_robin(entrants("grim", "bully"), IPD, repetitions=0)
    with pytest.raises(ConfigError, match="A symmetric game has no second seat of its own"):
        round_robin(entrants("grim", "bully"), IPD, seconds=entrants("grim"))
    with pytest.raises(ConfigError, match="Nobody in this tournament meets anybody. Seen: grim, b"):
        round_robin(entrants("grim", "bully"), GAMES["BOS"], seconds=[])
    some = round_robin(entrants("grim", "bully"), GAMES["BOS"], seconds=entrants("grim"))
    assert [standing.player for standing in some.standings] == ["bully"]
    with pytest.raises(ConfigError, match="A match has no rounds"):
        round_robin(entrants("grim", "bully"), IPD, rounds=0)
    assert math.isclose(round_robin(entrants("grim", "bully"), IPD, rounds=1).standings[0].score, 4)
