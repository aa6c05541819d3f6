"""Corrections over all claims against statsmodels, and the sentence that goes with each verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from statsmodels.stats.multitest import multipletests

from moralscope.evidence.claims import find_all, judge_findings, make_claims, setting_of
from moralscope.evidence.judged import claim_row, claim_rows
from moralscope.evidence.ledger import (
    CONFIRMED,
    CONTRADICTED,
    LATE,
    OPEN,
    PUBLISHED,
    REGISTERED,
    Consulted,
    Finding,
    Setting,
    Stated,
)
from moralscope.evidence.verdicts import (
    ARTEFACT,
    EQUIVALENT,
    NOISE,
    NOT_IDENTIFIED,
    SUPPORTED,
)

SETTING = Setting({}, {}, 0.05, 0, 199, None)
SOUND = Consulted("liveness (game): passed", (), True)
PLAIN = Finding(
    id="change:game",
    found="It changed.",
    observed="The change is +1 nats.",
    estimate=1.0,
    interval=(0.5, 1.5),
    unit="nats",
    n=20,
    test="sign-flips",
    query="SELECT 1.0 AS estimate",
    consulted=SOUND,
    p=0.01,
    p_adjusted=0.02,
    p_floor=1e-4,
    tests=3,
    family="3 agents",
    detectable=0.4,
)


def exploratory(*p_values: float | None, **changes: object) -> list[Finding]:
    return [
        replace(PLAIN, id=f"claim:{i}", p=p, p_adjusted=p, **changes)
        for i, p in enumerate(p_values)
    ]


def named(kind: str, outcome: str = CONFIRMED, **changes: object) -> Finding:
    return replace(PLAIN, id=f"hypothesis:{kind}", hypothesis=Stated(outcome, kind=kind), **changes)


def judged(*findings: Finding) -> dict[str, dict[str, object]]:
    return {str(row["id"]): row for row in claim_rows(SETTING, findings)}


# Exploratory claims


def test_q_is_that_of_an_independent_implementation() -> None:
    rng = np.random.default_rng(3)
    p = [float(x) for x in rng.uniform(0.0, 0.2, 30)] + [0.004, 0.004, 1.0]
    rows = judged(*exploratory(*p))
    q = [rows[f"claim:{i}"]["q"] for i in range(len(p))]
    expected = multipletests(p, method="fdr_bh")[1]
    np.testing.assert_allclose(np.array(q, dtype=float), expected, atol=1e-12)
    verdicts = [rows[f"claim:{i}"]["verdict"] == SUPPORTED for i in range(len(p))]
    assert verdicts == [bool(e < 0.05 and own < 0.05) for e, own in zip(expected, p, strict=True)]


def test_what_passes_in_its_family_alone_says_so() -> None:
    rows = judged(*exploratory(0.03, *[0.6] * 9))
    row = rows["claim:0"]
    assert (row["verdict"], row["q"]) == (NOISE, pytest.approx(0.3))
    assert row["reason"] == (
        "It passes among its own family (adjusted p = .030) but not among all 10 claims that were "
        "tested here (q = .300)."
    )
    assert str(row["statement"]).endswith(str(row["reason"]))
    unknown = exploratory(0.03, *[0.6] * 9, consulted=replace(SOUND, alive=None))
    late = judged(*unknown)["claim:0"]
    assert late["verdict"] == NOT_IDENTIFIED
    assert "(q = .300); liveness could not be checked" in str(late["reason"])


def test_equivalence_is_screened_over_all_margins() -> None:
    like = [0.001, 0.012, 0.03, *[0.9] * 5]
    findings = [
        replace(PLAIN, id=f"claim:{i}", p=0.5, p_adjusted=0.5, equivalence_p=p, margin=0.3)
        for i, p in enumerate(like)
    ]
    rows = judged(*findings)
    stands = multipletests(like, method="fdr_bh")[1] < 0.05
    assert stands.tolist() == [True, True, *[False] * 6]
    assert [rows[f"claim:{i}"]["verdict"] == EQUIVALENT for i in range(8)] == stands.tolist()
    assert rows["claim:2"]["reason"] == (
        "It lies within the margin of 0.3 nats by itself (p = .030) but not among all 8 claims "
        "that a margin was set for (q = .080)."
    )


def test_what_no_test_decides_is_not_counted() -> None:
    blocked = [
        replace(PLAIN, id="artefact", consulted=replace(SOUND, failed=("duplicates: copies.",))),
        replace(PLAIN, id="dead", consulted=replace(SOUND, alive=False)),
        replace(PLAIN, id="no seeds", missing="one seed."),
        replace(PLAIN, id="few units", p_floor=0.0625),
        replace(PLAIN, id="counted", p=None, p_adjusted=None, decided=True),
    ]
    rows = judged(*exploratory(0.04, 0.03), *blocked)
    assert (rows["claim:0"]["q"], rows["claim:1"]["q"]) == (0.04, 0.04)
    assert [rows[f.id]["q"] for f in blocked] == [None] * 5
    assert [rows[f.id]["verdict"] for f in blocked] == [
        ARTEFACT, ARTEFACT, NOT_IDENTIFIED, NOT_IDENTIFIED, SUPPORTED,
    ]  # fmt: skip
    assert rows["counted"]["reason"] == (
        "It is a count or rests on intervals, not on a p; its gates pass."
    )


def test_every_claim_says_why(sound: synthetic.Tables) -> None:
    made = make_claims(sound, draws=199)
    for row in made.iter_rows(named=True):
        assert row["reason"], row["id"]
        assert row["replicate"], row["id"]
        assert row["outcome"] is None
        assert not row["registered"]
        assert (row["p_adjusted"] is None) <= (row["q"] is None), row["id"]
        if row["p_adjusted"] is not None:
            assert row["n_tests"] >= 1, row["id"]
        if row["verdict"] == SUPPORTED:
            assert row["q"] is None or row["q"] < 0.05
        else:
            assert row["statement"].endswith(row["reason"]), row["id"]
    reason = made.filter(id="change:game").get_column("reason")[0]
    assert "among 4 agents and its q" in reason
    assert "lie below 0.05, and its gates pass." in reason


def test_claims_without_any_effect_are_rarely_supported() -> None:
    """Screened together: at most 5% of studies without effect may support anything."""
    supported = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        findings = exploratory(*[float(p) for p in rng.uniform(0.0, 1.0, 50)])
        rows = judged(*findings)
        supported += any(row["verdict"] == SUPPORTED for row in rows.values())
    assert supported <= 2 + 3 * np.sqrt(40 * 0.05 * 0.95)


def test_findings_of_parts_are_corrected_together(sound: synthetic.Tables) -> None:
    whole = setting_of(sound, draws=199)
    assert judge_findings(whole, find_all(whole)).equals(make_claims(sound, draws=199))


# Hypotheses


def test_registered_hypotheses_get_holm_among_themselves() -> None:
    p = [0.012, 0.03, 0.2]
    many = [replace(named(REGISTERED), id=f"hypothesis:{i}", p_adjusted=x)
            for i, x in enumerate(p)]  # fmt: skip
    rows = judged(*exploratory(*[0.9] * 40), *many, named(PUBLISHED))
    adjusted = [rows[f"hypothesis:{i}"]["p_adjusted"] for i in range(3)]
    np.testing.assert_allclose(
        np.array(adjusted, dtype=float), multipletests(p, method="holm")[1], atol=1e-12
    )
    first = rows["hypothesis:0"]
    assert (first["verdict"], first["outcome"], first["q"]) == (SUPPORTED, CONFIRMED, None)
    assert (first["registered"], first["n_tests"]) == (True, 3)
    assert "among 3 registered hypotheses lies below 0.05" in str(first["reason"])
    assert [rows[f"hypothesis:{i}"]["outcome"] for i in (1, 2)] == [OPEN, OPEN]
    published = rows["hypothesis:published"]
    assert (published["p_adjusted"], published["registered"]) == (0.02, False)
    assert next(iter(rows)) == "hypothesis:0", "hypotheses come first"


def test_a_hypothesis_that_could_not_be_tested_counts_all_the_same() -> None:
    untested = replace(named(REGISTERED), id="hypothesis:no", p=None, p_adjusted=None,
                       p_floor=None, missing="one seed only.")  # fmt: skip
    rows = judged(replace(named(REGISTERED), p_adjusted=0.03), untested)
    assert rows["hypothesis:registered"]["p_adjusted"] == pytest.approx(0.06)
    assert rows["hypothesis:registered"]["verdict"] == NOISE
    no = rows["hypothesis:no"]
    assert (no["verdict"], no["outcome"], no["p_adjusted"]) == (NOT_IDENTIFIED, OPEN, None)


def test_a_late_hypothesis_is_screened_with_the_others() -> None:
    rows = judged(*exploratory(*[0.9] * 4), named(LATE))
    late = rows["hypothesis:late"]
    assert (late["q"], late["verdict"]) == (pytest.approx(0.1), NOISE)
    assert (late["registered"], late["outcome"]) == (False, OPEN)


def test_the_floor_of_a_hypothesis_must_reach_the_first_step_of_holm() -> None:
    six = [replace(named(REGISTERED), id=f"hypothesis:{i}", p_adjusted=0.03125, p_floor=0.03125)
           for i in range(2)]  # fmt: skip
    rows = judged(*six)
    assert {row["verdict"] for row in rows.values()} == {NOT_IDENTIFIED}
    assert "0.025 is needed" in str(rows["hypothesis:0"]["reason"])
    assert judged(six[0])["hypothesis:0"]["verdict"] == SUPPORTED


@pytest.mark.parametrize("alive", [True, None])
def test_the_opposite_sign_contradicts(alive: bool | None) -> None:
    against = "the change is positive."
    stated = Stated(CONTRADICTED, against=against, kind=REGISTERED)
    finding = replace(PLAIN, hypothesis=stated, consulted=replace(SOUND, alive=alive))
    row = claim_row(SETTING, finding)
    assert (row["verdict"], row["outcome"]) == (NOISE, CONTRADICTED)
    assert row["reason"] == f"It does not hold as stated: {against}"
    unclear = claim_row(SETTING, replace(finding, p_adjusted=0.4))
    assert unclear["outcome"] == OPEN
    dead = claim_row(SETTING, replace(finding, consulted=replace(SOUND, alive=False)))
    assert (dead["verdict"], dead["outcome"]) == (ARTEFACT, OPEN)


def test_a_hypothesis_of_equivalence_rests_on_its_own_p() -> None:
    stated = Stated(CONFIRMED, equivalence=True, kind=REGISTERED)
    finding = replace(PLAIN, hypothesis=stated, p_adjusted=0.9, equivalence_p=0.01, margin=2.0)
    row = judged(finding)["change:game"]
    assert (row["verdict"], row["outcome"]) == (EQUIVALENT, CONFIRMED)
    # Off zero and yet inside the margin: it says the latter, so that is what is decided.
    both = judged(replace(finding, p_adjusted=0.001))["change:game"]
    assert (both["verdict"], both["outcome"]) == (EQUIVALENT, CONFIRMED)
    two = judged(finding, replace(finding, id="other", equivalence_p=0.04))
    assert "p = .020, two one-sided tests" in str(two["change:game"]["reason"])
    assert two["other"]["verdict"] == EQUIVALENT
    three = judged(
        replace(finding, equivalence_p=0.03), replace(finding, id="o", equivalence_p=1.0)
    )
    assert (three["change:game"]["verdict"], three["change:game"]["outcome"]) == (NOISE, OPEN)


def test_an_effect_too_small_to_matter_contradicts_a_direction() -> None:
    stated = Stated(CONFIRMED, kind=REGISTERED)
    finding = replace(PLAIN, hypothesis=stated, p_adjusted=0.3, equivalence_p=0.001, margin=2.0)
    row = claim_row(SETTING, finding)
    assert (row["verdict"], row["outcome"]) == (EQUIVALENT, CONTRADICTED)
    assert "which is not what it says" in str(row["reason"])


def test_a_count_that_does_not_hold_says_why() -> None:
    stated = Stated(OPEN, against="of the 12, 8 are copies of one.", kind=PUBLISHED)
    finding = replace(PLAIN, hypothesis=stated, p=None, p_adjusted=None, decided=True)
    row = claim_row(SETTING, finding)
    assert (row["verdict"], row["outcome"]) == (NOISE, OPEN)
    assert row["reason"] == "It does not hold as stated: of the 12, 8 are copies of one."
