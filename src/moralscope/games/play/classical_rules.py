"""What does a classical strategy play, given all that was played? One short function each.

A rule reads two histories of equal length, its own moves and the other's, oldest first, as text
(``"CCD"``), and gives

    P(C now | own moves, the other's moves),

which is 0 or 1 for a deterministic strategy. A rule keeps nothing between rounds: what a strategy
has in mind is worked out again from the histories, so a rule is a pure function, can be asked about
any history, and sees a trembling hand as it saw the move. The literature's sources of the
strategies stand beside their names in ``classical``.
"""

# A rule takes both histories, whichever of them it reads.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

from collections.abc import Callable

Rule = Callable[[str, str], float]
"""P(C) given the own moves and the other's moves so far."""


def always_cooperate(own: str, other: str) -> float:
    """Cooperates."""
    return True


def always_defect(own: str, other: str) -> float:
    """Defects."""
    return False


def tit_for_tat(own: str, other: str) -> float:
    """Cooperates first, then repeats the other's last move."""
    return other[-1:] != "D"


def suspicious_tit_for_tat(own: str, other: str) -> float:
    """Defects first, then repeats the other's last move."""
    return other[-1:] == "C"


def bully(own: str, other: str) -> float:
    """Defects first, then plays the opposite of the other's last move."""
    return other[-1:] == "D"


def anti_tit_for_tat(own: str, other: str) -> float:
    """Cooperates first, then plays the opposite of the other's last move."""
    return other[-1:] != "C"


def win_stay_lose_shift(own: str, other: str) -> float:
    """Cooperates first and after rounds in which both played the same."""
    return own[-1:] == other[-1:]


def win_shift_lose_stay(own: str, other: str) -> float:
    """Defects first and after rounds in which both played the same."""
    return own[-1:] != other[-1:]


def alternator(own: str, other: str) -> float:
    """Cooperates first, then changes its move every round."""
    return own[-1:] != "C"


def cycler(cycle: str) -> Rule:
    """Plays these moves over and over, whatever the other does."""
    return lambda own, other: cycle[len(own) % len(cycle)] == "C"


def tit_for_two_tats(own: str, other: str) -> float:
    """Defects after two defections in a row."""
    return other[-2:] != "DD"


def two_tits_for_tat(own: str, other: str) -> float:
    """Defects twice after every defection."""
    return "D" not in other[-2:]


def hard_tit_for_tat(own: str, other: str) -> float:
    """Defects three times after every defection."""
    return "D" not in other[-3:]


def hard_tit_for_two_tats(own: str, other: str) -> float:
    """Defects when two defections in a row are among the other's last three moves."""
    return "DD" not in other[-3:]


def slow_tit_for_tat(own: str, other: str) -> float:
    """Takes up a move that the other made twice in a row; otherwise repeats its own."""
    if len(own) < 2:
        return True
    return (other[-1] if other[-2] == other[-1] else own[-1]) == "C"


def resurrection(own: str, other: str) -> float:
    """Tit-for-tat that stays with defection once it has defected five times in a row."""
    return own[-5:] != "DDDDD" and tit_for_tat(own, other)


_NYDEGGER = frozenset(
    (1, 6, 7, 17, 22, 23, 26, 29, 30, 31, 33, 38, 39, 45, 49, 54, 55, 58, 61)
)  # fmt: skip


def nydegger(own: str, other: str) -> float:
    """Tit-for-tat for three rounds, then a table of the last three rounds.

    With a = 2 for the other's defection plus 1 for its own, and the last round counted 16 times,
    the one before 4 times and the one before that once, it defects on the sums in the table.
    """
    if len(own) < 3:
        return other != "DC" and tit_for_tat(own, other)
    scores = [2 * (b == "D") + (a == "D") for a, b in zip(own[-3:], other[-3:], strict=True)]
    return scores[0] + 4 * scores[1] + 16 * scores[2] not in _NYDEGGER


def grim(own: str, other: str) -> float:
    """Cooperates until the other's first defection, and never again."""
    return "D" not in other


def easy_go(own: str, other: str) -> float:
    """Defects until the other's first defection, and never again."""
    return "D" in other


def davis(own: str, other: str) -> float:
    """Cooperates for ten rounds, then is grim."""
    return len(own) < 10 or grim(own, other)


def fool_me_once(own: str, other: str) -> float:
    """Forgives one defection, and no second one."""
    return other.count("D") < 2


def spiteful_tit_for_tat(own: str, other: str) -> float:
    """Tit-for-tat until two defections in a row, which it never forgives."""
    return "DD" not in other and tit_for_tat(own, other)


def grudging_alternator(own: str, other: str) -> float:
    """Cooperates until the other's first defection, then changes its move every round."""
    return grim(own, other) or alternator(own, other)


def soft_majority(own: str, other: str) -> float:
    """Cooperates if the other cooperated at least as often as it defected."""
    return 2 * other.count("C") >= len(other)


def hard_majority(own: str, other: str) -> float:
    """Cooperates if the other cooperated more often than it defected."""
    return 2 * other.count("C") > len(other)


def forgiver(own: str, other: str) -> float:
    """Cooperates unless the other defected in more than a tenth of all rounds."""
    return 10 * other.count("D") <= len(other)


def level_punisher(own: str, other: str) -> float:
    """Cooperates ten times, then unless the other defected in more than a fifth of all rounds."""
    return len(other) < 10 or 5 * other.count("D") <= len(other)


def doubler(own: str, other: str) -> float:
    """Tit-for-tat that overlooks a defection of one who cooperated more than twice as often."""
    return tit_for_tat(own, other) or other.count("C") > 2 * other.count("D")


def prober(own: str, other: str) -> float:
    """Plays DCC; defects for ever if that was answered with C and C, else plays tit-for-tat."""
    if len(own) < 3:
        return "DCC"[len(own)] == "C"
    return other[1:3] != "CC" and tit_for_tat(own, other)


def prober_two(own: str, other: str) -> float:
    """Plays DCC; cooperates for ever if that was answered with D and C, else plays tit-for-tat."""
    if len(own) < 3:
        return "DCC"[len(own)] == "C"
    return other[1:3] == "DC" or tit_for_tat(own, other)


def prober_three(own: str, other: str) -> float:
    """Plays DC; defects for ever if that was answered with C, else plays tit-for-tat."""
    if len(own) < 2:
        return "DC"[len(own)] == "C"
    return other[1] != "C" and tit_for_tat(own, other)


def hard_prober(own: str, other: str) -> float:
    """Plays DDCC; defects for ever if the first two were answered with C and C, else tit-for-tat.

    The answers are the other's second and third moves.
    """
    if len(own) < 4:
        return "DDCC"[len(own)] == "C"
    return other[1:3] != "CC" and tit_for_tat(own, other)


def detective(own: str, other: str) -> float:
    """Plays CDCC; defects for ever if the other took it without defecting, else tit-for-tat."""
    if len(own) < 4:
        return "CDCC"[len(own)] == "C"
    return "D" in other[:4] and tit_for_tat(own, other)


def gradual_killer(own: str, other: str) -> float:
    """Plays DDDDDCC; cooperates for ever unless both C were met with D."""
    if len(own) < 7:
        return "DDDDDCC"[len(own)] == "C"
    return other[5:7] != "DD"


def handshake(own: str, other: str) -> float:
    """Plays CD; cooperates for ever with one who did the same, and with nobody else."""
    if len(own) < 2:
        return "CD"[len(own)] == "C"
    return other[:2] == "CD"


def collective(own: str, other: str) -> float:
    """Plays CD; cooperates with one who did the same, until it defects again."""
    return handshake(own, other) and (len(own) < 2 or other.count("D") < 2)


def tester(own: str, other: str) -> float:
    """Defects, cooperates twice, and alternates for as long as the other puts up with it.

    After the other's first defection it cooperates once and then plays tit-for-tat.
    """
    first = other.find("D")
    if first >= 0:
        return len(other) == first + 1 or tit_for_tat(own, other)
    return len(own) in (1, 2) or (len(own) > 2 and alternator(own, other))


def sentencing(
    sentence: Callable[[int, str], tuple[int, int]],
    offence: Callable[[str], bool] = lambda other: other[-1:] == "D",
) -> Rule:
    """Cooperates; answers an offence with so many defections, then so many cooperations.

    What the other does while a sentence runs is not looked at. Sentences follow from the other's
    moves alone, so they are gone through from the first round on.

    Args:
        sentence: given how many there were, this one included, and the other's moves before it:
            how many defections, at least 1, and how many cooperations follow.
        offence: whether the other's moves call for a sentence; its last move was D unless given.
    """

    def rule(own: str, other: str) -> float:
        now, number = 0, 0
        while now <= len(other):
            seen = other[:now]
            if not offence(seen):
                now += 1
                continue
            number += 1
            defections, cooperations = sentence(number, seen)
            if len(other) < now + defections + cooperations:
                return len(other) >= now + defections
            now += defections + cooperations
        return True

    return rule


gradual = sentencing(lambda number, seen: (number, 2))
"""Answers the n-th offence with n defections and two cooperations."""

shubik = sentencing(lambda number, seen: (number, 1))
"""Answers the n-th offence with n defections. An offence is a defection against its cooperation,
so it cooperates at least once between two sentences."""

soft_grudger = sentencing(lambda number, seen: (4, 2))
"""Answers an offence with DDDDCC."""

forgetful_grudger = sentencing(lambda number, seen: (10, 0))
"""Answers an offence with ten defections."""

once_bitten = sentencing(lambda number, seen: (11, 0), lambda other: other[-2:] == "DD")
"""Answers two defections in a row with eleven."""

punisher = sentencing(lambda number, seen: (1 + 20 * seen.count("D") // len(seen), 0))
"""Answers an offence with 1 to 21 defections, more to one who has defected more often."""

inverse_punisher = sentencing(
    lambda number, seen: (1 + max(1, 20 * seen.count("C") // len(seen)), 0)
)
"""Answers an offence with 2 to 21 defections, more to one who has cooperated more often."""
