"""Every term against tables written by hand, and against brute force in groups."""

from __future__ import annotations

import inspect
import re
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import (
    BETRAYAL_PENALTY,
    GAMES,
    ILLEGAL_PENALTY,
    MOVES,
    PAIRS,
    REWARDS,
    Opponent,
    Round,
    expected_rewards,
    get_opponent,
    get_reward,
    pair_round,
)
from moralscope.games.reward_terms import TERMS

IPD = GAMES["IPD"]
EIGHT = list(product(PAIRS, PAIRS))
"""Moves of the round before and of this one, (own, other's)."""

# Points of the moves CC, CD, DC, DD in the iterated prisoner's dilemma.
BY_POINTS = {
    "game": (3, 0, 4, 1),
    "utilitarian": (6, 4, 4, 2),
    "virtue-equality": (1, 0, 0, 1),
    "virtue-kindness": (5, 5, 0, 0),
    "virtue-kindness(bonus=2)": (2, 2, 0, 0),
    "rawlsian": (3, 0, 0, 1),
    "inequity-aversion": (3, -4, 1.6, 1),
    "inequity-aversion(alpha=0.5, beta=0.25)": (3, -2, 3, 1),
    "inequity-aversion(0, 1)": (3, 0, 0, 1),
    "care": (4.5, 2, 4, 1.5),
    "care(1)": (6, 4, 4, 2),
    "care(weight=0)": (3, 0, 4, 1),
    "spite": (0, -4, 4, 0),
    "spite(0.5)": (1.5, -2, 4, 0.5),
}

# Points of D after CC, CD, DC, DD (columns) against C and against D (rows); C always earns 0.
NORMS = {
    "deontological": ((-3, 0, -3, 0), (-3, 0, -3, 0)),
    "deontological(norm=previous)": ((-3, 0, -3, 0), (-3, 0, -3, 0)),
    "deontological(norm=own)": ((-3, -3, 0, 0), (-3, -3, 0, 0)),
    "deontological(norm=any)": ((-3, -3, -3, -3), (-3, 0, -3, 0)),
    "deontological(norm=strict)": ((-3, -3, -3, -3), (-3, -3, -3, -3)),
    "deontological(own, 1.5)": ((-1.5, -1.5, 0, 0), (-1.5, -1.5, 0, 0)),
    "deontological(penalty=0)": ((0, 0, 0, 0), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("expression", BY_POINTS)
def test_rewards_of_the_moves_in_the_dilemma(expression: str) -> None:
    value = get_reward(expression).value
    for before, now in EIGHT:
        expected = BY_POINTS[expression][PAIRS.index(now)]
        assert value(pair_round(IPD, now, before)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("expression", NORMS)
def test_rewards_of_the_norms_in_every_game(expression: str) -> None:
    norm = get_reward(expression).value
    hybrid = get_reward(expression.replace("deontological", "hybrid")).value
    for game, before, now in product(GAMES.values(), PAIRS, PAIRS):
        row = NORMS[expression][MOVES.index(now[1])]
        expected = 0 if now[0] == "C" else row[PAIRS.index(before)]
        assert norm(pair_round(game, now, before)) == expected
        assert hybrid(pair_round(game, now, before)) == expected + game.payoffs[now][0]


def test_every_term_has_a_table() -> None:
    assert set(REWARDS) == set(TERMS)
    assert set(REWARDS) <= {*BY_POINTS, *EXPRESSIONS}
    assert BETRAYAL_PENALTY == -3


def test_stated_ranges_in_the_dilemma() -> None:
    ranges = {}
    for name, reward in REWARDS.items():
        values = [reward.value(pair_round(IPD, now, before)) for before, now in EIGHT]
        ranges[name] = (min(values), max(values))
    assert ranges == {
        "game": (0, 4),
        "deontological": (-3, 0),
        "utilitarian": (2, 6),
        "hybrid": (-2, 4),
        "virtue-equality": (0, 1),
        "virtue-kindness": (0, 5),
        "rawlsian": (0, 3),
        "inequity-aversion": (-4, 3),
        "care": (1.5, 4.5),
        "spite": (-4, 4),
    }
    # No answer at all is worse than any answer.
    assert min(low for low, _ in ranges.values()) > ILLEGAL_PENALTY == -6


def test_the_documented_settings_and_ranges_are_those_in_force() -> None:
    text = (Path(__file__).parents[2] / "docs/rewards.md").read_text()
    rows = re.findall(
        r"^\| `([\w-]+)` \| (.*?) ?\| .* \| (\S+) to (\S+) \| .*? \|$", text, re.MULTILINE
    )
    assert [row[0] for row in rows] == list(TERMS)
    told: dict[str, dict[str, str]] = {}
    for name, keys, low, high in rows:
        told[name] = dict(re.findall(r"`(\w+)=([\w.]+)`", keys)) or told.get(keys[4:-1], {})
        values = [REWARDS[name].value(pair_round(IPD, now, before)) for before, now in EIGHT]
        assert (min(values), max(values)) == (float(low), float(high))
        parameters = list(inspect.signature(TERMS[name].value).parameters.values())[1:]
        usual = {p.name: p.default if isinstance(p.default, str) else f"{p.default:g}"
                 for p in parameters}  # fmt: skip
        assert told[name] == usual
        assert [setting.name for setting in TERMS[name].settings] == list(usual)


def test_both_players_count_where_their_points_differ() -> None:
    bos, before = GAMES["BOS"], ("C", "D")
    mutual = pair_round(bos, ("C", "C"), before)
    assert (mutual.own_points, mutual.others_points) == (3, (2,))
    assert (mutual.own_previous, mutual.others_previous) == ("C", ("D",))
    assert get_reward("utilitarian").value(mutual) == 5
    assert get_reward("virtue-equality").value(mutual) == pytest.approx(0.8)
    assert get_reward("virtue-equality").value(pair_round(bos, ("C", "D"), before)) == 1
    assert get_reward("rawlsian").value(mutual) == 2
    assert get_reward("game").value(pair_round(bos, ("D", "D"), before)) == 2


# In groups: one agent and one to four others with whole points.
points = st.integers(0, 9)
moves = st.sampled_from(MOVES)
other = st.tuples(moves, moves, points)


@st.composite
def group_rounds(draw: st.DrawFn) -> Round:
    others = draw(st.lists(other, min_size=1, max_size=4))
    now, before, theirs = zip(*others, strict=True)
    return Round(draw(moves), now, draw(moves), before, draw(points), theirs)


def by_brute_force(seen: Round) -> dict[str, Fraction | int]:
    """Every reward once more, by counting over pairs of players."""
    everybody = [seen.own_points, *map(int, seen.others_points)]
    pairs = [(a, b) for a in everybody for b in everybody]
    apart = sum(abs(a - b) for a, b in pairs)
    players = len(everybody)
    gini = Fraction(apart, 2 * players * sum(everybody)) if any(everybody) else Fraction(0)
    worse = [x - seen.own_points for x in seen.others_points if x > seen.own_points]
    better = [seen.own_points - x for x in seen.others_points if x < seen.own_points]
    betrayed = seen.own == "D" and any(move == "C" for move in seen.others_previous)
    return {
        "game": everybody[0],
        "deontological": -3 if betrayed else 0,
        "utilitarian": sum(everybody),
        "hybrid": everybody[0] - (3 if betrayed else 0),
        "virtue-equality": 1 - gini / Fraction(players - 1, players),
        "virtue-kindness": 5 if seen.own == "C" else 0,
        "rawlsian": -max(-x for x in everybody),
        "inequity-aversion": everybody[0]
        - Fraction(sum(worse), players - 1)
        - Fraction(6, 10) * Fraction(sum(better), players - 1),
        "care": everybody[0] + Fraction(-max(-x for x in everybody[1:]), 2),
        "spite": everybody[0] - Fraction(sum(everybody[1:]), players - 1),
    }


@settings(max_examples=60, deadline=None)
@given(group_rounds())
def test_rewards_in_groups_equal_brute_force(seen: Round) -> None:
    expected = by_brute_force(seen)
    assert set(expected) == set(REWARDS)
    for name, reward in REWARDS.items():
        assert reward.value(seen) == pytest.approx(float(expected[name]), abs=1e-12)


EXPRESSIONS = [*BY_POINTS, *NORMS, *(name.replace("deontological", "hybrid") for name in NORMS)]


@settings(max_examples=25, deadline=None)
@given(group_rounds(), st.sampled_from(EXPRESSIONS))
def test_the_order_of_the_others_never_matters(seen: Round, expression: str) -> None:
    value = get_reward(expression).value
    for order in permutations(range(len(seen.others))):
        moved = Round(
            seen.own,
            tuple(seen.others[i] for i in order),
            seen.own_previous,
            tuple(seen.others_previous[i] for i in order),
            seen.own_points,
            tuple(seen.others_points[i] for i in order),
        )
        assert value(moved) == pytest.approx(value(seen), abs=1e-12)


def test_one_cooperator_among_many_is_enough_to_be_betrayed() -> None:
    seen = Round("D", ("D", "D", "D"), "D", ("D", "C", "D"), 4, (1, 1, 1))
    simultaneous = Round("D", ("D", "C", "D"), "D", ("D", "D", "D"), 4, (1, 1, 1))
    assert get_reward("deontological").value(seen) == -3
    assert get_reward("deontological").value(simultaneous) == 0
    assert get_reward("deontological(norm=any)").value(simultaneous) == -3
    assert get_reward("deontological(norm=own)").value(seen) == 0


def test_equality_in_groups_runs_from_one_who_has_all_to_all_the_same() -> None:
    value = get_reward("virtue-equality").value
    four = (("C",) * 3, "C", ("C",) * 3)
    assert value(Round("C", *four, 8, (0, 0, 0))) == 0
    assert value(Round("C", *four, 0, (0, 8, 0))) == 0
    assert value(Round("C", *four, 2, (2, 2, 2))) == 1
    assert value(Round("C", *four, 0, (0, 0, 0))) == 1
    # Shares 4, 4, 0, 0: of six pairs four are apart, by 4 of 8 points each.
    assert value(Round("C", *four, 4, (0, 4, 0))) == pytest.approx(1 - 16 / 24)


def test_equality_is_refused_where_somebody_loses_points() -> None:
    seen = Round("C", ("D",), "C", ("C",), 2, (-1,))
    with pytest.raises(
        ConfigError, match=r"'virtue-equality' is not defined.*points 2, -1\. .*0 or"
    ):
        get_reward("virtue-equality").value(seen)


@pytest.mark.parametrize(
    ("others", "previous", "theirs"),
    [
        ((), (), ()),
        (("C",), ("C", "D"), (1,)),
        (("C",), ("C",), (1, 2)),
        (("C", "C"), ("D",), (1,)),
    ],
)
def test_rounds_in_which_somebody_is_missing_are_refused(others, previous, theirs) -> None:
    with pytest.raises(ConfigError, match="does not say the same of everybody else. Seen: "):
        Round("C", others, "C", previous, 1, theirs)


def test_expected_rewards_against_tit_for_tat_by_hand() -> None:
    tft = get_opponent("tit-for-tat")
    # Tit-for-tat answers the own last move: C after CC and CD, D after DC and DD.
    expected = {
        "game": [[3, 4], [3, 4], [0, 1], [0, 1]],
        "utilitarian": [[6, 4], [6, 4], [4, 2], [4, 2]],
        "deontological": [[0, -3], [0, 0], [0, -3], [0, 0]],
        "deontological(norm=any)": [[0, -3], [0, -3], [0, -3], [0, 0]],
        "game - deontological(own)": [[3, 7], [3, 7], [0, 1], [0, 1]],
    }
    for expression, table in expected.items():
        assert expected_rewards(get_reward(expression), IPD, tft).tolist() == table


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.sampled_from(sorted(REWARDS)),
    st.sampled_from(sorted(GAMES)),
)
def test_expected_rewards_are_the_mean_over_the_opponents_move(p_c, name, game) -> None:
    opponent = Opponent("drawn", dict(zip(PAIRS, p_c, strict=True)))
    table = expected_rewards(REWARDS[name], GAMES[game], opponent)
    assert table.shape == (4, 2)
    for (i, (mine, theirs)), own in product(enumerate(PAIRS), MOVES):
        earned = []
        for reply in MOVES:
            gained = GAMES[game].payoffs[own, reply]
            seen = Round(own, (reply,), mine, (theirs,), gained[0], (gained[1],))
            earned.append(float(by_brute_force(seen)[name]))
        mean = np.average(earned, weights=[p_c[i], 1 - p_c[i]])
        assert table[i, MOVES.index(own)] == pytest.approx(mean, abs=1e-12)


def test_what_each_reward_prefers_after_mutual_cooperation_with_a_cooperator() -> None:
    friend = get_opponent("always-cooperate")
    prefers = {
        name: "CD"[int(table[0, 1] > table[0, 0])]
        for name, table in (
            (name, expected_rewards(reward, IPD, friend)) for name, reward in REWARDS.items()
        )
    }
    selfish = {"game", "spite"}
    assert prefers == {name: "D" if name in selfish else "C" for name in REWARDS}
