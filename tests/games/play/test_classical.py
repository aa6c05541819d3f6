"""Classical strategies against the matches of the Axelrod library, and by hand."""

from __future__ import annotations

import importlib
import math
import re
from itertools import product

import numpy as np
import pytest

from moralscope.core.errors import ConfigError
from moralscope.games import OPPONENTS, PAIRS, get_opponent
from moralscope.games.play.classical import (
    CLASSICAL,
    as_opponent,
    get_classical,
    memory_depth,
    refuse_long_memory,
)

ROUNDS = 60
LIBRARY = {
    "always-cooperate": "Cooperator",
    "always-defect": "Defector",
    "tit-for-tat": "TitForTat",
    "suspicious-tit-for-tat": "SuspiciousTitForTat",
    "bully": "Bully",
    "anti-tit-for-tat": "AntiTitForTat",
    "win-stay-lose-shift": "WinStayLoseShift",
    "win-shift-lose-stay": "WinShiftLoseStay",
    "alternator": "Alternator",
    "cycler-dc": "CyclerDC",
    "cycler-ccd": "CyclerCCD",
    "cycler-ddc": "CyclerDDC",
    "cycler-cccd": "CyclerCCCD",
    "tit-for-two-tats": "TitFor2Tats",
    "two-tits-for-tat": "TwoTitsForTat",
    "slow-tit-for-tat": "SlowTitForTwoTats2",
    "hard-tit-for-tat": "HardTitForTat",
    "hard-tit-for-two-tats": "HardTitFor2Tats",
    "nydegger": "FirstByNydegger",
    "resurrection": "Resurrection",
    "soft-grudger": "SoftGrudger",
    "forgetful-grudger": "ForgetfulGrudger",
    "once-bitten": "OnceBitten",
    "grim": "Grudger",
    "easy-go": "EasyGo",
    "davis": "FirstByDavis",
    "shubik": "FirstByShubik",
    "tester": "SecondByTester",
    "fool-me-once": "FoolMeOnce",
    "spiteful-tit-for-tat": "SpitefulTitForTat",
    "grudging-alternator": "GrudgerAlternator",
    "soft-majority": "GoByMajority",
    "hard-majority": "HardGoByMajority",
    "forgiver": "Forgiver",
    "level-punisher": "LevelPunisher",
    "doubler": "Doubler",
    "gradual": "OriginalGradual",
    "gradual-killer": "GradualKiller",
    "prober": "Prober",
    "prober-2": "Prober2",
    "prober-3": "Prober3",
    "hard-prober": "HardProber",
    "detective": "Detective",
    "handshake": "Handshake",
    "collective": "CollectiveStrategy",
    "punisher": "Punisher",
    "inverse-punisher": "InversePunisher",
}  # fmt: skip
DETERMINISTIC = [name for name, each in CLASSICAL.items() if each.deterministic]


@pytest.fixture(scope="module")
def axelrod():
    return importlib.import_module("axelrod")


def ours(first: str, second: str, rounds: int) -> tuple[str, str]:
    """A match without chance, written down here and not taken from the package."""
    a, b = "", ""
    for _ in range(rounds):
        pair = CLASSICAL[first].rule(a, b), CLASSICAL[second].rule(b, a)
        assert set(pair) <= {0, 1}
        a, b = a + "DC"[int(pair[0])], b + "DC"[int(pair[1])]
    return a, b


def test_every_pair_of_strategies_plays_as_in_the_library(axelrod) -> None:
    """Every ordered pair, its match with itself included, move by move."""
    assert list(LIBRARY) == DETERMINISTIC
    made = {name: getattr(axelrod, LIBRARY[name]) for name in DETERMINISTIC}
    games, wrong = set(), []
    for first, second in product(DETERMINISTIC, DETERMINISTIC):
        played = axelrod.Match((made[first](), made[second]()), turns=ROUNDS).play()
        theirs = tuple("".join(pair[seat].name for pair in played) for seat in (0, 1))
        found = ours(first, second, ROUNDS)
        games.add(found)
        if found != theirs:
            wrong.append((first, second, found, theirs))
    assert wrong == []
    assert len(DETERMINISTIC) >= 40
    assert len(games) > 500  # they do not all come to the same


def test_every_strategy_answers_any_history_as_in_the_library(axelrod) -> None:
    """Against moves that no strategy makes: states that matches of strategies do not reach."""
    for seed, share in enumerate((0.5, 0.85, 0.95)):
        drawn = np.random.default_rng(seed).random(ROUNDS) < share
        actions = ["DC"[int(move)] for move in drawn]
        mock = axelrod.MockPlayer([getattr(axelrod.Action, move) for move in actions])
        for name in DETERMINISTIC:
            match = axelrod.Match((getattr(axelrod, LIBRARY[name])(), mock), turns=ROUNDS)
            theirs = "".join(own.name for own, _ in match.play())
            own = ""
            for now in range(ROUNDS):
                own += "DC"[int(CLASSICAL[name].rule(own, "".join(actions[:now])))]
            assert own == theirs, name


def test_no_two_strategies_are_the_same() -> None:
    """Each name stands for a way of playing of its own, over all pairs."""
    seen = {name: tuple(ours(name, other, 30) for other in DETERMINISTIC) for name in DETERMINISTIC}
    assert len(set(seen.values())) == len(DETERMINISTIC)
    assert len({LIBRARY[name] for name in DETERMINISTIC}) == len(DETERMINISTIC)


def test_memory_is_that_of_the_library(axelrod) -> None:
    for name in DETERMINISTIC:
        told = getattr(axelrod, LIBRARY[name])().classifier["memory_depth"]
        assert memory_depth(name) == told, name


def test_a_short_memory_is_all_that_a_strategy_uses() -> None:
    """Two games that agree in the last rounds go on alike, if both are longer than openings."""
    generator = np.random.default_rng(5)
    for name in ("tit-for-two-tats", "two-tits-for-tat", "nydegger", "bully", "hard-tit-for-tat"):
        depth = int(memory_depth(name))
        for _ in range(50):
            one, two = ("".join(generator.choice(["C", "D"], 12)) for _ in "12")
            tail = ["".join(generator.choice(["C", "D"], depth)) for _ in "12"]
            rule = CLASSICAL[name].rule
            assert rule(one + tail[0], two + tail[1]) == rule(two + tail[0], one + tail[1])


def test_stochastic_strategies_have_the_probabilities_of_the_library(axelrod) -> None:
    points = axelrod.Game(r=3, s=0, t=4, p=1)
    generous = axelrod.GTFT()
    generous.p = None  # it has made up its mind for the library's own points
    generous.set_match_attributes(game=points)
    relation = importlib.import_module("axelrod.strategies.zero_determinant").LRPlayer
    extort = relation(phi=2 / 14, s=1 / 2, l=1)
    extort.set_match_attributes(game=points)
    vectors = {
        "generous-tit-for-tat": generous._four_vector,
        "zd-extortion": extort._four_vector,
        "joss": axelrod.FirstByJoss()._four_vector,
        "firm-but-fair": axelrod.FirmButFair()._four_vector,
        "random": dict.fromkeys(generous._four_vector, 0.5),
    }
    assert [name for name in CLASSICAL if name not in DETERMINISTIC] == [
        "random", "generous-tit-for-tat", "zd-extortion", "joss", "firm-but-fair",
    ]  # fmt: skip
    for name, vector in vectors.items():
        rule = CLASSICAL[name].rule
        for (own, other), p in vector.items():
            before = "DC"  # an earlier round changes nothing
            assert rule(before + own.name, before + other.name) == pytest.approx(p, abs=1e-12)
        assert rule("", "") == (0.5 if name == "random" else 1.0)


def test_sentences_by_hand() -> None:
    """The other defects once, then throughout; what is served is read off the move line."""
    once = "CD" + "C" * 12
    always = "D" * 14
    for name, against_once, against_always in (
        ("gradual", "CCDCCCCCCCCCCC", "CDCCDDCCDDDCCD"),
        ("shubik", "CCDCCCCCCCCCCC", "CDCDDCDDDCDDDD"),
        ("soft-grudger", "CCDDDDCCCCCCCC", "CDDDDCCDDDDCCD"),
        ("forgetful-grudger", "CCDDDDDDDDDDCC", "CDDDDDDDDDDDDD"),
        ("once-bitten", "CCCCCCCCCCCCCC", "CCDDDDDDDDDDDD"),
    ):
        rule = CLASSICAL[name].rule
        for other, expected in ((once, against_once), (always, against_always)):
            own = ""
            for now in range(14):
                own += "DC"[int(rule(own, other[:now]))]
            assert own == expected, name


def test_expressions() -> None:
    assert get_classical(" Tit For_Two-tats ") is CLASSICAL["tit-for-two-tats"]
    noisy = get_classical("noisy(tit-for-tat, 0.1)")
    assert noisy.name == "noisy(tit-for-tat, 0.1)"
    assert (noisy.memory, noisy.deterministic) == (1, False)
    assert noisy.rule("C", "D") == pytest.approx(0.1)
    assert noisy.rule("", "") == 0.5
    table = get_classical("memory-one(1, 0, 1, 0, opening=0)")
    # Written from the seat of the one who faces it: after its own C and the other's D it plays C's.
    assert [table.rule(own, other) for own, other in ("CC", "CD", "DC", "DD")] == [1, 1, 0, 0]
    assert table.rule("", "") == 0
    assert table.deterministic
    assert get_classical("memory-one(1, 1, 1, 1)").memory == 0
    assert get_classical("generous-tit-for-tat(0.25)").rule("C", "D") == 0.25


@pytest.mark.parametrize("name", sorted({*OPPONENTS} & {*CLASSICAL} - {"grim"}))
def test_strategies_agree_with_the_opponents_of_their_name(name: str) -> None:
    """After any last round; openings are those of the literature. Grim remembers more."""
    opponent = OPPONENTS[name]
    for agent, own in PAIRS:
        assert CLASSICAL[name].rule("C" + own, "C" + agent) == pytest.approx(
            opponent.p_cooperate_after[(agent, own)], abs=1e-12
        )
    if opponent.opening is not None:
        assert CLASSICAL[name].rule("", "") == opponent.opening


def test_a_policy_remembers_one_round() -> None:
    for name in (*OPPONENTS, "bully", "alternator", "joss", "noisy(grim, 0.1)", "cycler-dc"):
        refuse_long_memory(name)
    assert memory_depth("grim") == math.inf  # as a strategy; its table passes
    cases = {
        "tit-for-two-tats": "the last 2 rounds",
        "Hard Tit For Tat": "the last 3 rounds",
        "gradual": "the whole game",
        "axelrod(Tit For 2 Tats)": "the last 2 rounds",
    }
    for name, depth in cases.items():
        with pytest.raises(ConfigError) as caught:
            refuse_long_memory(name)
        assert str(caught.value) == (
            "This strategy needs more memory than a prompt holds, so it is no policy of an agent. "
            f"Seen: {name}, which looks at {depth}. Allowed: strategies that look at the last "
            "round alone, which is what a prompt tells. Next: let agents meet it as an opponent, "
            "or choose a policy such as tit-for-tat."
        )
        with pytest.raises(ConfigError, match="more memory than a prompt holds"):
            as_opponent(name)


def test_strategies_with_one_round_as_tables() -> None:
    assert as_opponent("tit-for-tat") == get_opponent("tit-for-tat")
    assert as_opponent("noisy(grim, 0.1)") == get_opponent("noisy(grim, 0.1)")
    for name, faced, opening in (
        ("bully", (0, 0, 1, 1), 0),
        ("alternator", (0, 1, 0, 1), 1),
        ("win-shift-lose-stay", (0, 1, 1, 0), 0),
        ("joss", (0.9, 0.9, 0, 0), 1),
    ):
        opponent = as_opponent(name)
        assert opponent.name == name
        assert tuple(opponent.p_cooperate_after[pair] for pair in PAIRS) == faced
        assert opponent.opening == opening


@pytest.mark.parametrize(
    ("expression", "problem", "told"),
    [
        ("tit-for-too-tats", "There is no classical strategy of this name", "tit-for-two-tats"),
        ("learner", "There is no classical strategy of this name", "Seen: learner"),
        ("axelrod(Grudger)", "There is no classical strategy of this name", "Seen: axelrod"),
        ("gradual(3)", "The strategy 'gradual' takes no settings", "write gradual alone"),
        ("tit-for-tat(3)", "The opponent 'tit-for-tat' has too many settings", "remove"),
        ("noisy(gradual, 0.1)", "There is no opponent of this name", "Seen: gradual"),
    ],
)
def test_what_is_no_strategy_is_refused(expression: str, problem: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        get_classical(expression)
    assert told in str(caught.value)
