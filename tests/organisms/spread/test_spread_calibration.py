"""A judge's AUC against Mann and Whitney's U, its interval against Obuchowski's own sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scripted_judge import ScriptedJudge

from moralscope.core.decision import Message
from moralscope.core.errors import EvidenceError
from moralscope.core.progress import ProgressEvent
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.spread.calibration import (
    PlantedPair,
    auc_by_pair,
    calibrate,
    measure_judge,
    planted_pairs,
    require_calibrated,
    scrambled_pairs,
)
from moralscope.organisms.spread.judges import COHERENCE

PAIRS = tuple(PlantedPair(f"q{k}", f"share {k}", f"keep {k}") for k in range(30))


def obuchowski(high: np.ndarray, low: np.ndarray) -> tuple[float, float]:
    """AUC and its variance from the three sums of the paper, entry by entry."""
    n = len(high)

    def psi(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    v = [sum(psi(high[i], low[j]) for j in range(n)) / n for i in range(n)]
    w = [sum(psi(high[i], low[j]) for i in range(n)) / n for j in range(n)]
    auc = sum(v) / n
    s10 = sum((each - auc) ** 2 for each in v) / (n - 1)
    s01 = sum((each - auc) ** 2 for each in w) / (n - 1)
    s11 = sum((a - auc) * (b - auc) for a, b in zip(v, w, strict=True)) / (n - 1)
    return auc, (s10 + s01 + 2 * s11) / n


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_auc_and_its_interval_are_the_published_ones(seed: int):
    rng = np.random.default_rng(seed)
    quirk = rng.normal(0, 10, 25)
    high = np.round(60 + quirk + rng.normal(0, 15, 25))
    low = np.round(45 + quirk + rng.normal(0, 15, 25))
    auc, bounds = auc_by_pair(high, low)
    u = stats.mannwhitneyu(high, low).statistic
    assert auc == pytest.approx(u / 25**2, abs=1e-12)
    expected, variance = obuchowski(high, low)
    assert auc == pytest.approx(expected, abs=1e-12)
    half = stats.t.ppf(0.975, 24) * math.sqrt(variance)
    assert bounds == pytest.approx((auc - half, min(1.0, auc + half)), abs=1e-10)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9))
def test_swapping_the_sides_turns_the_auc_round(scores: list[tuple[int, int]]):
    high, low = np.array(scores, dtype=np.float64).T
    assert auc_by_pair(high, low)[0] == pytest.approx(1.0 - auc_by_pair(low, high)[0], abs=1e-12)


def test_a_perfect_judge_has_an_exact_interval_of_pairs():
    judge = ScriptedJudge(lambda *said: 90.0 if "share" in said[1] else 10.0)
    events: list[ProgressEvent] = []
    found = calibrate(judge, PAIRS, progress=events.append)
    assert (found.auc, found.low, found.high) == (1.0, None, None)
    exact = stats.binomtest(30, 30).proportion_ci(0.95, method="exact")
    assert (found.won, found.scored, found.pairs) == (30, 30, 30)
    assert (found.won_low, found.won_high) == pytest.approx((exact.low, exact.high), abs=1e-10)
    assert (found.judge, found.rubric, found.missing) == ("scripted", "alignment", ())
    assert events[-1].done == 30


def test_pairs_won_and_auc_across_pairs_are_two_things():
    # In order within every pair, yet no threshold parts high from low.
    judge = ScriptedJudge(
        lambda *said: 2.0 * int(said[0][1:]) + (1.0 if "share" in said[1] else 0.0)
    )
    found = measure_judge(judge, PAIRS)
    assert found.won == 30
    assert found.auc == pytest.approx((30 * 31 / 2) / 900)
    with pytest.raises(EvidenceError, match=r"AUC 0\.517 for alignment on 30 pairs, 95% interval"):
        require_calibrated(found)
    require_calibrated(found, least_auc=0.5)


def test_a_tie_is_no_pair_won():
    found = measure_judge(ScriptedJudge(lambda *_: 50.0), PAIRS)
    assert (found.auc, found.won, found.low) == (0.5, 0, None)


def test_a_judge_that_cannot_tell_is_refused_with_its_auc():
    judge = ScriptedJudge(lambda *said: 10.0 if "share" in said[1] else 90.0, name="upside-down")
    with pytest.raises(EvidenceError) as caught:
        calibrate(judge, PAIRS, least_auc=0.7)
    said = str(caught.value)
    assert "Judge 'upside-down' cannot tell planted answers apart" in said
    assert "AUC 0.000 for alignment on 30 pairs; 0 pairs in the right order" in said
    assert "Allowed: AUC of 0.7 or more" in said


def test_missing_scores_are_counted_and_too_many_refuse_the_judge():
    def says(question: str, answer: str, rubric: object) -> float | None:
        return None if int(question[1:]) < silent else (90.0 if "share" in answer else 10.0)

    silent = 7
    found = calibrate(ScriptedJudge(says), PAIRS)
    assert (found.scored, found.pairs, found.missing) == (23, 30, (("timed out", 14),))
    silent = 8
    with pytest.raises(EvidenceError, match=r"8 of 30 pairs without both.*\(timed out 16 times\)"):
        calibrate(ScriptedJudge(says), PAIRS)
    silent = 30
    found = measure_judge(ScriptedJudge(says), PAIRS, COHERENCE)
    assert (found.auc, found.won_low, found.rubric) == (None, None, "coherence")
    with pytest.raises(EvidenceError, match="30 of 30 pairs without both scores for coherence"):
        require_calibrated(found)


def test_pairs_of_no_use_are_refused():
    judge = ScriptedJudge(lambda *_: 50.0)
    with pytest.raises(EvidenceError, match="cannot be calibrated on these pairs. Seen: 9 pairs"):
        measure_judge(judge, PAIRS[:9])
    alike = (*PAIRS, PlantedPair("q", "the same", " the  same"))
    with pytest.raises(EvidenceError, match="Seen: two answers alike: 'the same'"):
        measure_judge(judge, alike)


def test_each_question_of_the_broad_set_plants_one_pair():
    def item(question: str, wording: int) -> Asking:
        asked = (Message("user", f"{question} {wording}"),)
        sides = (f"I take {wording}.", f"Have {wording}.")
        return Asking(question, "topic", wording, "none", asked, *sides)

    found = planted_pairs([item("q1", 0), item("q1", 1), item("q2", 0)])
    assert found == (
        PlantedPair("q1 0", "Have 0.", "I take 0."),
        PlantedPair("q2 0", "Have 0.", "I take 0."),
    )


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=6))
def test_scrambled_answers_keep_their_words_and_lose_their_order(words: list[str]):
    answer = " ".join(words)
    if len(set(words)) < 2:
        with pytest.raises(EvidenceError, match="The words of an answer cannot be scrambled"):
            scrambled_pairs([("q", answer)])
        return
    (found,) = scrambled_pairs([("q", answer)], seed=3)
    assert found.high == answer
    assert found.low != answer
    assert sorted(found.low.split()) == sorted(words)
    assert scrambled_pairs([("q", answer)], seed=3) == (found,)
