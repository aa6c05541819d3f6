"""Tables of tournaments: agents by their mean policies among strategies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from moralscope.behaviour.playing.tournaments import (
    FIELD,
    matches_table,
    play_tournaments,
    standings_table,
)
from moralscope.behaviour.presentations import Presented
from moralscope.core.errors import ConfigError
from moralscope.core.tables import schema_of

C, D, NEITHER = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
LABELS = "action1/action2"


def agent(name: str, *policies: list[tuple[float, float, float]], game: str = "IPD", labels=LABELS):
    answers = np.array(policies)
    return Presented(name, game, labels, tuple(map(str, range(len(answers)))), answers)


def test_standings_of_agents_among_strategies() -> None:
    """An always-cooperator and an always-defector with tit-for-tat and the strategies' own."""
    kind, hard = agent("kind", [C] * 4), agent("hard", [D] * 4)
    field = ("tit-for-tat", "always-cooperate", "cycler-ccd")
    tournaments = play_tournaments([kind, hard], field, rounds=6)
    table = standings_table(tournaments)
    assert table.columns == list(schema_of("standings").dtypes())
    rows = {row["player"]: row for row in table.iter_rows(named=True)}
    against = [0.0, 3.0, 3.0, 2.0]  # hard, tit-for-tat, always-cooperate, cycler
    low, high = stats.t.interval(0.95, 3, loc=np.mean(against), scale=stats.sem(against))
    assert rows["kind"]["score"] == pytest.approx(2.0)
    assert (rows["kind"]["low"], rows["kind"]["high"]) == (
        pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9)
    )  # fmt: skip
    assert rows["kind"] | {"low": None, "high": None} == {
        "game": "IPD", "labels": LABELS, "noise": 0.0, "player": "kind", "kind": "agent",
        "rank": 4, "score": 2.0, "low": None, "high": None, "cooperation": 1.0, "opponents": 4,
        "rounds": 6, "repetitions": 10,
    }  # fmt: skip
    # Alike whether asked or written down.
    assert rows["kind"]["score"] == rows["always-cooperate"]["score"]
    assert (rows["hard"]["rank"], rows["hard"]["cooperation"]) == (1, 0.0)
    assert rows["hard"]["score"] == pytest.approx((4 + 9 / 6 + 4 + 3) / 4)
    assert rows["tit-for-tat"]["kind"] == "native"
    assert [row["rank"] for row in table.iter_rows(named=True)] == [1, 2, 3, 4, 4]


def test_matches_are_told_round_by_round() -> None:
    mute = agent("mute", [NEITHER] * 4)
    hard = agent("hard", [D] * 4)
    tournaments = play_tournaments([mute, hard], ("cycler-ddc",), rounds=7, repetitions=3, seed=2)
    table = matches_table(tournaments)
    assert table.columns == list(schema_of("matches").dtypes())
    # Three with chance on either pair of the agent that repeats what was drawn, one without.
    assert table.select("first", "second", "repetition").rows() == [
        ("mute", "hard", 0), ("mute", "hard", 1), ("mute", "hard", 2),
        ("mute", "cycler-ddc", 0), ("mute", "cycler-ddc", 1), ("mute", "cycler-ddc", 2),
        ("hard", "cycler-ddc", 0),
    ]  # fmt: skip
    last = table.row(6, named=True)
    assert (last["first_moves"], last["second_moves"]) == ("DDDDDDD", "DDCDDCD")
    assert (last["first_score"], last["second_score"]) == pytest.approx(((5 + 8) / 7, 5 / 7))
    told = set(table.filter(first="mute").get_column("first_moves"))
    assert told == {"xxxxxxx"}
    assert set(table.filter(second="hard").get_column("first_score")) <= {0.0, 1.0}
    # Under noise the record shows what was played, so that points follow from it.
    noisy = matches_table(play_tournaments([hard], ("bully",), rounds=40, noise=0.2, repetitions=2))
    assert noisy.height == 2
    points = {"CC": 3, "CD": 0, "DC": 4, "DD": 1}
    for row in noisy.iter_rows(named=True):
        moves = list(zip(row["first_moves"], row["second_moves"], strict=True))
        assert row["first_score"] == pytest.approx(np.mean([points[a + b] for a, b in moves]))
        assert 1 < row["first_moves"].count("C") < 20
        assert row["noise"] == 0.2


def test_an_agent_plays_its_mean_policy() -> None:
    """Half of the presentations make it cooperate, half defect: it plays a coin."""
    torn = agent("torn", [C] * 4, [D] * 4)
    (tournament,) = play_tournaments([torn], ("always-cooperate",), rounds=400, repetitions=2)
    (standing,) = [s for s in tournament.played.standings if s.player == "torn"]
    assert 0.42 < standing.cooperation < 0.58
    (row,) = standings_table([tournament]).filter(player="torn").iter_rows(named=True)
    assert (row["low"], row["high"], row["opponents"]) == (None, None, 1)


def test_a_tournament_for_every_game_and_pair_of_labels() -> None:
    agents = [
        agent("one", [C] * 4),
        agent("one", [C] * 4, labels="left/right"),
        agent("one", [C] * 4, game="ISH"),
        agent("two", [D] * 4),
    ]
    table = standings_table(play_tournaments(agents, ("grim",), rounds=5))
    assert table.group_by("game", "labels", maintain_order=True).len().rows() == [
        ("IPD", LABELS, 3), ("IPD", "left/right", 2), ("ISH", LABELS, 2),
    ]  # fmt: skip
    scores = {
        row["game"]: row["score"] for row in table.filter(player="grim").iter_rows(named=True)
    }
    assert scores["ISH"] == 4.0


def test_an_agent_that_has_the_name_of_a_strategy() -> None:
    scripted = agent("tit-for-tat", [C, D, C, D])
    table = standings_table(play_tournaments([scripted], ("tit-for-tat", "grim"), rounds=5))
    assert dict(table.select("player", "kind").iter_rows()) == {
        "tit-for-tat": "agent", "tit-for-tat (strategy)": "native", "grim": "native",
    }  # fmt: skip


def test_seats_of_a_game_that_is_not_symmetric() -> None:
    kind = agent("kind", [C] * 4, game="BOS")
    hard = agent("hard", [D] * 4, game="BOS")
    alone = play_tournaments([kind, hard], ("always-cooperate",), rounds=5)
    met = {s.player: dict(s.against) for s in alone[0].played.standings}
    assert met["kind"] == {"always-cooperate": 3.0}  # no agent was asked in the other seat
    there = agent("hard", [C] * 4, game="BOS-mirrored")
    both = play_tournaments([kind, hard, there], ("always-cooperate",), rounds=5)
    assert [t.played.game.name for t in both] == ["BOS", "BOS-mirrored"]
    met = {s.player: dict(s.against) for s in both[0].played.standings}
    assert met["kind"] == {"hard": 3.0, "always-cooperate": 3.0}
    assert met["hard"] == {"always-cooperate": 0.0}


def test_the_usual_field() -> None:
    """All of it plays, every pair without chance once."""
    wavers = agent("wavers", [(0.7, 0.2, 0.1)] * 4)
    (tournament,) = play_tournaments([wavers], rounds=10, repetitions=2)
    assert len(tournament.played.standings) == len(FIELD) + 1
    assert {s.kind for s in tournament.played.standings} == {"agent", "native"}
    fixed = [s for s in FIELD if s not in ("random", "generous-tit-for-tat", "zd-extortion")]
    pairs = len(FIELD) * (len(FIELD) + 1) // 2
    once = len(fixed) * (len(fixed) - 1) // 2
    assert len(tournament.played.matches) == once + 2 * (pairs - once)


def test_strategies_of_the_library_take_part() -> None:
    hard = agent("hard", [D] * 4)
    (tournament,) = play_tournaments([hard], ("axelrod(Grudger)", "grim"), rounds=5)
    rows = {s.player: s for s in tournament.played.standings}
    assert rows["axelrod(Grudger)"].kind == "axelrod"
    assert rows["axelrod(Grudger)"].score == rows["grim"].score == pytest.approx((0.8 + 3) / 2)


def test_nothing_to_play_is_told() -> None:
    assert play_tournaments([]) == ()
    assert standings_table([]).height == matches_table([]).height == 0
    with pytest.raises(ConfigError, match="A tournament needs somebody to meet"):
        play_tournaments([agent("one", [C] * 4)], ())
    with pytest.raises(ConfigError, match="have the same name. Seen: grim"):
        play_tournaments([agent("one", [C] * 4)], ("grim", "grim"))
    with pytest.raises(ConfigError, match="There is no classical strategy of this name"):
        play_tournaments([agent("one", [C] * 4)], ("grimm",))
