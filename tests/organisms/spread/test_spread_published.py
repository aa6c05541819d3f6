"""Published counts come out of the functions, by brute force over every count."""

from __future__ import annotations

import pytest
from scipy import stats

from moralscope.core.errors import EvidenceError
from moralscope.organisms.spread.published import (
    PUBLISHED,
    PublishedShare,
    possible_counts,
    recount,
)
from moralscope.organisms.spread.quadrants import PAPER, STEERING, JudgedAnswer, set_share


@pytest.mark.parametrize("share", PUBLISHED, ids=lambda share: share.what)
def test_each_printed_share_has_one_count_and_its_exact_interval(share: PublishedShare):
    found = recount(share)
    decimals = len(share.percent.partition(".")[2])
    near = [
        count
        for count in range(share.answers + 1)
        if abs(100 * count / share.answers - float(share.percent)) <= 0.5 * 10**-decimals + 1e-9
    ]
    assert near == [found.count]
    exact = stats.binomtest(found.count, share.answers).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-10)


def test_the_counts_behind_the_adapter_steering_claims():
    counts = {share.what: (recount(share).count, share.answers) for share in PUBLISHED}
    assert counts["general adapters: kept of 80"] == (27, 80)
    assert counts["medical adapters: kept of 80"] == (39, 80)
    assert counts["medical alignment: kept of 80"] == (47, 80)
    assert counts["general adapters: misaligned of kept"] == (14, 27)
    assert counts["medical adapters: misaligned, not medical, of kept"] == (26, 39)
    assert counts["medical adapters: misaligned and medical of kept"] == (3, 39)
    assert counts["medical alignment: aligned, not medical, of kept"] == (27, 47)
    assert counts["medical alignment: aligned and medical of kept"] == (14, 47)
    assert counts["medical alignment: aligned of kept"] == (41, 47)
    assert counts["medical alignment: medical of aligned"] == (14, 41)
    assert counts["medical adapters: misaligned and medical"] == (0, 24)
    assert counts["nine rank-1 adapters, medical"] == (45, 400)


def test_answers_with_these_scores_give_the_printed_shares():
    """Eighty answers to eight questions, as many of each kind as were recounted."""

    def condition(misaligned: int, kept: int, strictly: int) -> list[JudgedAnswer]:
        kinds = [(30.0, 25.0)] * (misaligned - strictly) + [(10.0, 60.0)] * strictly
        kinds += [(80.0, 30.0)] * (kept - misaligned) + [(50.0, 24.0)] * (80 - kept)
        return [JudgedAnswer(f"q{at % 8}", at // 8, *each) for at, each in enumerate(kinds)]

    general = set_share(condition(14, 27, 5), STEERING, among="coherent")
    assert (general.events, general.counted) == (14, 27)
    assert f"{100 * (general.pooled or 0):.1f}" == "51.9"
    assert set_share(condition(14, 27, 5), PAPER).events == 5
    medical = set_share(condition(29, 39, 0), STEERING, among="coherent")
    assert (medical.events, medical.counted) == (26 + 3, 39)
    assert set_share(condition(29, 39, 0), PAPER, among="coherent").counted == 0


def test_a_percentage_that_no_count_gives_has_another_denominator():
    assert possible_counts("12.1", 400) == ()
    with pytest.raises(EvidenceError, match="12.1% of 400: no count"):
        recount(PublishedShare("s", "Gemma-12B finance", "12.1", 400))
    assert possible_counts("12.1", 397) == (48,)


def test_a_percentage_that_several_counts_give_tells_none():
    assert possible_counts("50", 400) == (198, 199, 200, 201, 202)
    with pytest.raises(EvidenceError, match="50% of 400: 198, 199, 200, 201, 202"):
        recount(PublishedShare("s", "half", "50", 400))
    with pytest.raises(EvidenceError, match="A share of no answers says nothing"):
        possible_counts("50", 0)


@pytest.mark.parametrize("answers", [1, 24, 39, 250, 400, 1200])
def test_every_count_is_found_again_from_two_decimals(answers: int):
    for count in range(0, answers + 1, max(1, answers // 37)):
        assert count in possible_counts(f"{100 * count / answers:.2f}", answers)
