"""Opponents by expression, against hand-written rules, stationary play and published numbers."""

from __future__ import annotations

import pickle
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError
from moralscope.games import (
    OPPONENTS,
    PAIRS,
    Opponent,
    get_game,
    get_opponent,
    initial_states,
    opponent_kind,
)
from moralscope.games.memory_one import extortion

probabilities = st.floats(0, 1)


def played(expression: str) -> list[float]:
    """P(C) after CC, CD, DC, DD, the agent's last move first."""
    return [get_opponent(expression).p_cooperate_after[pair] for pair in PAIRS]


def test_the_names_that_need_no_settings() -> None:
    assert list(OPPONENTS) == [
        "tit-for-tat", "always-cooperate", "always-defect", "random", "grim",
        "win-stay-lose-shift", "generous-tit-for-tat", "suspicious-tit-for-tat", "zd-extortion",
    ]  # fmt: skip
    assert all(get_opponent(name) == opponent for name, opponent in OPPONENTS.items())
    assert all(opponent.name == name for name, opponent in OPPONENTS.items())


def test_each_rule_in_words() -> None:
    # The points are those of the prisoner's dilemma, from the opponent's own seat.
    points = {pair: get_game("IPD").payoffs[pair][1] for pair in PAIRS}
    for agent, own in PAIRS:

        def p(name: str, state=(agent, own)) -> float:
            return get_opponent(name).p_cooperate_after[state]

        repeated, changed = float(own == "C"), float(own == "D")
        satisfied = points[(agent, own)] >= 3
        assert p("win-stay-lose-shift") == (repeated if satisfied else changed)
        assert p("grim") == float(agent == own == "C")
        assert p("suspicious-tit-for-tat") == p("tit-for-tat") == float(agent == "C")
        assert p("generous-tit-for-tat(0.2)") == (1.0 if agent == "C" else 0.2)


def test_openings() -> None:
    opens_with_c = {name: opponent.p_cooperated_before for name, opponent in OPPONENTS.items()}
    assert opens_with_c == {
        "tit-for-tat": 0.5, "always-cooperate": 1.0, "always-defect": 0.0, "random": 0.5,
        "grim": 1.0, "win-stay-lose-shift": 1.0, "generous-tit-for-tat": 1.0,
        "suspicious-tit-for-tat": 0.0, "zd-extortion": 1.0,
    }  # fmt: skip
    np.testing.assert_allclose(
        initial_states(get_opponent("memory-one(1, 1, 1, 1, opening=0.2)")), [0.1, 0.4, 0.1, 0.4]
    )
    # Without an opening, one that always does the same has done so before.
    assert get_opponent("memory-one(.3, .3, .3, .3)").p_cooperated_before == 0.3
    assert get_opponent("memory-one(.3, .3, .3, .4)").p_cooperated_before == 0.5


def test_an_opening_crosses_a_process_boundary_and_tells_opponents_apart() -> None:
    suspicious = get_opponent("suspicious-tit-for-tat")
    again = pickle.loads(pickle.dumps(suspicious))  # noqa: S301 (own data)
    assert again == suspicious
    assert again.opening == 0.0
    other = Opponent(suspicious.name, suspicious.p_cooperate_after, 1.0)
    assert other != suspicious
    assert hash(other) != hash(suspicious)


def test_generosity_is_the_most_that_leaves_defection_without_gain() -> None:
    """Brute force over the forgiveness: the best reply to it still cooperates, and no more."""
    points = get_game("IPD").payoffs
    forgiveness = get_opponent("generous-tit-for-tat").p_cooperate_after[("D", "C")]
    assert Fraction(forgiveness).limit_denominator(100) == Fraction(2, 3)

    def mean_points(replies: dict[str, str], q: float) -> float:
        # The agent's move answers the opponent's last one; play of many rounds, averaged.
        state, total = np.array([1.0, 0, 0, 0]), 0.0
        for played_rounds in range(3000):
            after = np.zeros(4)
            for weight, (own, other) in zip(state, PAIRS, strict=True):
                now = replies[other]
                p = 1.0 if own == "C" else q
                after[PAIRS.index((now, "C"))] += weight * p
                after[PAIRS.index((now, "D"))] += weight * (1 - p)
            state = after
            if played_rounds >= 1000:
                total += sum(w * points[s][0] for w, s in zip(state, PAIRS, strict=True))
        return total / 2000

    cooperate, defect, alternate = ({"C": a, "D": b} for a, b in ("CC", "DD", "DC"))
    gains = {
        q: max(mean_points(r, q) for r in (defect, alternate)) - mean_points(cooperate, q)
        for q in (forgiveness - 0.01, forgiveness, forgiveness + 0.01)
    }
    below, at, above = gains.values()
    assert below < at < above
    assert at == pytest.approx(0, abs=1e-9)


@settings(max_examples=25)
@given(
    chi=st.floats(1, 20),
    agent=st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4),
)
def test_an_extortioner_gains_its_multiple_whatever_the_agent_plays(chi, agent) -> None:
    met = get_opponent(f"zd-extortion({chi!r})")
    matrix = np.zeros((4, 4))
    for i, (pair, p) in enumerate(zip(PAIRS, agent, strict=True)):
        q = met.p_cooperate_after[pair]
        matrix[i] = [p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)]
    # The stationary distribution: v (M - 1) = 0, sum v = 1.
    system = np.vstack([(matrix - np.eye(4)).T, np.ones(4)])
    v = np.linalg.lstsq(system, np.array([0, 0, 0, 0, 1.0]), rcond=None)[0]
    own, other = np.array([get_game("IPD").payoffs[pair] for pair in PAIRS]).T
    assert v @ other - 1 == pytest.approx(chi * (v @ own - 1), abs=1e-7)
    assert v @ own - 1 > 1e-4  # both sides are of a size that shows a wrong factor


def test_an_extortioner_keeps_a_wrong_factor_apart() -> None:
    """Neighbouring factors are other strategies, and 1 treats both alike."""
    assert extortion(1.0) == (1.0, 0.5, 0.5, 0.0)
    assert extortion(2.0) != extortion(2.1)
    np.testing.assert_allclose(extortion(2.0), [6 / 7, 5 / 14, 1 / 2, 0])


@given(flip=probabilities, table=st.lists(probabilities, min_size=4, max_size=4), o=probabilities)
def test_noise_flips_each_move(flip, table, o) -> None:
    inner = f"memory-one({', '.join(map(repr, table))}, opening={o!r})"
    noisy = get_opponent(f"noisy({inner}, {flip!r})")
    meant = [*played(inner), o]
    seen = [*played(noisy.name), noisy.opening]
    # A flipped move is C if D was meant: the chances of (meant, flipped), added up.
    for p, q in zip(meant, seen, strict=True):
        assert q == pytest.approx(p - flip * p + flip - flip * p, abs=1e-12)


def test_noise_on_noise_and_its_ends() -> None:
    assert played("noisy(tit-for-tat, 0)") == played("tit-for-tat")
    assert played("noisy(tit-for-tat, 1)") == [0, 0, 1, 1]
    np.testing.assert_allclose(
        played("noisy(noisy(tit-for-tat, 0.1), 0.2)"), played("noisy(tit-for-tat, 0.26)")
    )
    assert get_opponent("noisy(tit-for-tat, 0.1)").p_cooperated_before == 0.5
    assert get_opponent("noisy(suspicious-tit-for-tat, 0.1)").opening == pytest.approx(0.1)
    assert get_opponent("noisy(always-cooperate, 0.1)").p_cooperated_before == pytest.approx(0.9)


@given(st.lists(probabilities, min_size=4, max_size=4), st.none() | probabilities)
def test_four_probabilities_and_their_name(table, opening) -> None:
    said = ", ".join(map(repr, table)) + (f", opening={opening!r}" if opening is not None else "")
    opponent = get_opponent(f"memory-one({said})")
    assert played(opponent.name) == table
    assert opponent.opening == opening
    assert get_opponent(opponent.name) == opponent


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        (" Tit_For Tat ", "tit-for-tat"),
        ("noisy( Grim ,flip=0.10)", "noisy(grim, 0.1)"),
        ("noisy(opponent=noisy(random, .5), flip=.25)", "noisy(noisy(random, 0.5), 0.25)"),
        ("generous-tit-for-tat(forgiveness=0.3)", "generous-tit-for-tat(0.3)"),
        ("generous-tit-for-tat()", "generous-tit-for-tat"),
        ("zd-extortion(chi=2)", "zd-extortion"),
        ("ZD-extortion(3)", "zd-extortion(3)"),
        ("memory-one(p_cc=1, p_cd=-0, p_dc=0.125, p_dd=1e-9)", "memory-one(1, 0, 0.125, 1e-09)"),
    ],
)
def test_names_are_written_in_one_way(expression: str, name: str) -> None:
    opponent = get_opponent(expression)
    assert opponent.name == name
    assert get_opponent(name) == opponent


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("grim", "memory-one"),
        ("noisy(tit-for-tat, 0.1)", "memory-one"),
        ("axelrod(N Tit(s) For M Tat(s))", "axelrod"),
        ("Axelrod (anything)", "axelrod"),
        ("learner", "learner"),
        ("agent(runs/game/adapter)", "agent"),
    ],
)
def test_kinds(expression: str, kind: str) -> None:
    assert opponent_kind(expression) == kind


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("win-stay", "no opponent of this name. Seen: win-stay. .*did you mean 'win-stay-lose-sh"),
        ("noisy(grimm, 0.1)", "no opponent of this name. Seen: grimm. .*did you mean 'grim'"),
        ("noisy(grim, 1.2)", "'flip' of the opponent 'noisy' cannot be used. Seen: flip=1.2."),
        ("memory-one(0, 0, -0.25, 0)", "'p_dc' of .* cannot be used. Seen: p_dc=-0.25. Allowed: n"),
        ("memory-one(0, 0, 0, 0, opening=2)", "'opening' of .* Seen: opening=2. .* from 0 to 1"),
        ("memory-one(0, 0, 0, nan)", "'p_dd' of .* Seen: p_dd=nan. "),
        ("memory-one(1, 1, 1)", r"lacks a setting. Seen: memory-one\(1, 1, 1\). .*: add p_dd"),
        ("noisy(grim)", r"'noisy' lacks a setting. Seen: noisy\(grim\). .*Next: add flip"),
        ("noisy(0.1)", r"does not say who is. Seen: noisy\(0.1\). .*like noisy\(tit-for-tat, 0"),
        ("memory-one(1, 1, 1, 1, 1, 1)", r"too many settings. Seen: 6 in .*p_dd, opening."),
        ("grim(1)", r"too many settings. Seen: 1 in grim\(1\). Allowed: no settings at all"),
        ("random(p=1)", r"no such setting. Seen: p in random\(p=1\). .*write random alone"),
        ("generous-tit-for-tat(forgive=1)", "Allowed: forgiveness. Next: did you mean .forgiv"),
        ("noisy(grim, 0.1, flip=0.2)", "the same setting twice. Seen: flip in noisy"),
        ("zd-extortion(0.5)", "'chi' of .* Seen: chi=0.5. Allowed: numbers from 1 to 1000"),
        ("noisy(axelrod(Random), 0.1)", r"not memory-one: .* Seen: axelrod\(Random\)."),
        ("noisy(learner, 0.1)", "not memory-one: .* Seen: learner."),
        ("noisy(grim, 0.1", "not a name with settings"),
    ],
)  # fmt: skip
def test_bad_expressions_are_refused(expression: str, text: str) -> None:
    for read in (get_opponent, opponent_kind):
        with pytest.raises(ConfigError, match=text):
            read(expression)


@pytest.mark.parametrize("expression", ["axelrod(Random)", "learner", "agent(somewhere)"])
def test_what_is_not_memory_one_has_no_table(expression: str) -> None:
    with pytest.raises(ConfigError, match="This opponent is not memory-one"):
        get_opponent(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("axelrod", r"not named. Seen: 'axelrod'. .*like axelrod\(Tit For 2 Tats\)"),
        ("axelrod()", r"not named. Seen: 'axelrod\(\)'"),
        ("axelrod(Random", r"not named. Seen: 'axelrod\(Random'"),
        ("learner(2)", r"A learner takes no settings. Seen: learner\(2\)"),
    ],
)
def test_bad_expressions_of_other_kinds_are_refused(expression: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        opponent_kind(expression)


def test_an_opening_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not a probability. Seen: -0\.1"):
        Opponent("shy", dict.fromkeys(PAIRS, 0.5), -0.1)


def test_the_documented_expressions_are_read_as_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/opponents.md").read_text()
    rows = re.findall(
        r"^\| `(.*?)` \| .* \| (uniform|C|D|as said|flipped as well) \|$", text, re.MULTILINE
    )
    told = {"uniform": 0.5, "C": 1.0, "D": 0.0, "as said": 1.0, "flipped as well": 0.5}
    documented = [get_opponent(expression) for expression, _ in rows]
    assert {opponent.name.partition("(")[0] for opponent in documented} >= set(OPPONENTS)
    assert [o.p_cooperated_before for o in documented] == [told[before] for _, before in rows]
    for opponent in documented:
        assert get_opponent(opponent.name) == opponent
