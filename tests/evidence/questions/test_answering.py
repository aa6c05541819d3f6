"""Answers say what the claims say, and never more."""

from __future__ import annotations

import itertools

import polars as pl
import pytest
import synthetic
from cascade_planted import LEVELS, study

from moralscope.core.tables import conform, from_rows
from moralscope.evidence.claims import setting_of
from moralscope.evidence.findings.cascade import cascade_findings
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.questions.answering import answer_questions
from moralscope.evidence.verdicts import VERDICTS

SEEDS = {"deontological": 5, "utilitarian": 5}
SUPPORTED, EQUIVALENT, NOISE, ARTEFACT, NOT_IDENTIFIED = VERDICTS

Row = dict[str, object]


def claim(name: str, verdict: str, estimate: float = 1.0, replicate: str = "scenarios") -> Row:
    return {
        "id": name, "statement": "A sentence.", "estimate": estimate, "low": None, "high": None,
        "unit": "nats", "n_units": 12, "test": "a test", "p": 0.01, "p_adjusted": 0.01,
        "p_floor": 0.001, "q": 0.01, "n_tests": 1, "detectable": None, "gates": "none applies",
        "registered": False, "outcome": None, "verdict": verdict, "reason": f"Because of {name}.",
        "replicate": replicate, "query": "SELECT 1",
    }  # fmt: skip


def answers(tables: synthetic.Tables, *rows: Row) -> dict[str, Row]:
    table = answer_questions({**tables, "claims": from_rows("claims", list(rows))})
    assert conform("questions", table).equals(table)
    return {str(row["question"]): row for row in table.iter_rows(named=True)}


@pytest.fixture(scope="module")
def compared() -> synthetic.Tables:
    return {name: frame for name, frame in study(SEEDS, levels=()).items() if name != "prompts"}


def cascade(verdicts: dict[str, str]) -> list[Row]:
    return [
        claim(f"cascade:frameworks:{level}", verdict, replicate="training seeds")
        for level, verdict in verdicts.items()
    ]


def test_without_claims_nothing_is_identified(compared: synthetic.Tables) -> None:
    table = answer_questions(compared)
    assert table["question"].to_list() == ["RQ1", "RQ2", "RQ3"]
    assert set(table["verdict"]) == {NOT_IDENTIFIED}
    assert set(table["confidence"]) == {"none"}
    assert set(table["evidence"]) == {""}
    assert all(table["missing"].to_list())
    assert "moralscope run examples/targeted.yaml" in table["missing"][2]


@pytest.mark.parametrize(
    ("base", "start", "verdict", "confidence"),
    [
        (claim("question:RQ1:hybrid", SUPPORTED, -0.3), "Yes, where", SUPPORTED, "moderate"),
        (claim("question:RQ1:hybrid", SUPPORTED, 0.3), "No, the opposite", SUPPORTED, "moderate"),
        (claim("question:RQ1:hybrid", NOISE, -0.3), "That is not shown.", NOISE, "low"),
        (claim("question:RQ1:hybrid", ARTEFACT, -0.3), "That is not shown.", ARTEFACT, "none"),
        (claim("question:RQ1:hybrid", NOT_IDENTIFIED), "That is not", NOT_IDENTIFIED, "none"),
    ],
)
def test_suppression_is_said_as_it_was_claimed(
    compared: synthetic.Tables, base: Row, start: str, verdict: str, confidence: str
) -> None:
    beside = claim("question:RQ1:hybrid:game", SUPPORTED, -0.2)
    row = answers(compared, base, beside)["RQ1"]
    assert str(row["answer"]).startswith(start)
    assert (row["verdict"], row["confidence"]) == (verdict, confidence)
    assert row["evidence"] == "question:RQ1:hybrid question:RQ1:hybrid:game"
    assert "against agents of the reward game," in str(row["answer"])
    tested = verdict in (SUPPORTED, NOISE)
    assert ("not known of other seeds" in str(row["answer"])) is tested
    reason = "Because of question:RQ1:hybrid."
    assert row["missing"] == (reason if verdict == NOT_IDENTIFIED else "")


def test_claims_that_say_the_same_are_put_together(compared: synthetic.Tables) -> None:
    rows = [claim(f"question:RQ1:{name}", NOISE) for name in ("a", "b", "c")]
    answer = str(answers(compared, *rows)["RQ1"]["answer"])
    assert "In a, b and c agents no loss beyond that of matched sites" in answer


def test_rewards_that_agree_and_disagree_are_an_answer_in_part(compared: synthetic.Tables) -> None:
    rows = (claim("question:RQ1:a", SUPPORTED, -0.3), claim("question:RQ1:b", SUPPORTED, 0.3))
    assert str(answers(compared, *rows)["RQ1"]["answer"]).startswith("In part.")


@pytest.mark.parametrize(
    ("other", "start"),
    [(NOT_IDENTIFIED, "Yes, where"), (NOISE, "In some"), (ARTEFACT, "In some")],
)
def test_one_reward_of_two_is_no_yes(compared: synthetic.Tables, other: str, start: str) -> None:
    rows = [
        claim("question:RQ1:hybrid", SUPPORTED, -0.3),
        claim("question:RQ1:utilitarian", other, -0.1),
    ]
    assert str(answers(compared, *rows)["RQ1"]["answer"]).startswith(start)


@pytest.mark.parametrize(
    ("verdicts", "said", "verdict", "confidence"),
    [
        ({"behaviour": NOISE, "wiring": SUPPORTED, "weights": NOISE},
         "lie further apart than training seeds of one reward in wiring", SUPPORTED, "high"),
        ({"behaviour": SUPPORTED, "wiring": NOISE},
         "at no level inside was a difference shown", NOISE, "low"),
        ({"behaviour": EQUIVALENT, "wiring": EQUIVALENT},
         "less than a tenth of what fine-tuning does in behaviour and wiring", EQUIVALENT, "high"),
        ({"behaviour": EQUIVALENT, "wiring": NOISE},
         "were not told apart from training seeds", NOISE, "low"),
        ({"behaviour": NOT_IDENTIFIED, "wiring": NOT_IDENTIFIED},
         "is not known", NOT_IDENTIFIED, "none"),
        ({"behaviour": NOISE, "weights": ARTEFACT},
         "A failed check explains the figures of weights", ARTEFACT, "none"),
    ],
)  # fmt: skip
def test_frameworks_differ_where_their_claims_stand(
    compared: synthetic.Tables,
    verdicts: dict[str, str],
    said: str,
    verdict: str,
    confidence: str,
) -> None:
    row = answers(compared, *cascade(verdicts))["RQ2"]
    assert said in str(row["answer"])
    assert (row["verdict"], row["confidence"]) == (verdict, confidence)
    assert str(row["evidence"]).split() == [f"cascade:frameworks:{level}" for level in verdicts]
    said = "Not measured for all of these agents: attribution (table attribution), patching (table"
    assert said in str(row["missing"])


@pytest.mark.parametrize("reward", ["game", "spite"])
def test_rewards_that_ask_for_nothing_moral_are_no_framework(reward: str) -> None:
    tables = study({reward: 5, "utilitarian": 5}, levels=())
    row = answers(tables, *cascade({"wiring": SUPPORTED}))["RQ2"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert "five training seeds of each" in str(row["missing"])


@pytest.mark.parametrize(
    ("chosen", "kept", "said", "verdict"),
    [
        (claim("targeting:patching:8", SUPPORTED, 0.2), claim("kept:patching:8", EQUIVALENT),
         ("with as many parts drawn at random is kept by 8 sub-layers chosen by patching",
          "All of it, within a tenth, is kept by 8 sub-layers"), SUPPORTED),
        (claim("targeting:patching:8", SUPPORTED, -0.2), claim("kept:patching:8", NOISE),
         ("No choice of parts was shown to keep more", "Less than at random is kept by 8",
          "No choice of parts was shown to keep all"), SUPPORTED),
        (claim("targeting:patching:8", NOISE, 0.2), claim("kept:patching:8", NOT_IDENTIFIED),
         ("No choice of parts was shown to keep more behaviour",), NOISE),
        (claim("targeting:patching:8", NOT_IDENTIFIED), claim("kept:patching:8", NOT_IDENTIFIED),
         ("No choice of parts was shown to keep more behaviour",), NOT_IDENTIFIED),
    ],
)  # fmt: skip
def test_parts_are_needed_where_their_claims_stand(
    compared: synthetic.Tables, chosen: Row, kept: Row, said: tuple[str, ...], verdict: str
) -> None:
    row = answers(compared, chosen, kept)["RQ3"]
    assert all(words in str(row["answer"]) for words in said)
    assert row["verdict"] == verdict
    assert row["evidence"] == "targeting:patching:8 kept:patching:8"


@pytest.mark.parametrize("verdicts", [*itertools.product(VERDICTS, repeat=2)])
def test_no_answer_is_stronger_than_its_claims(
    compared: synthetic.Tables, verdicts: tuple[str, str]
) -> None:
    rows = cascade(dict(zip(("weights", "wiring"), verdicts, strict=True)))
    row = answers(compared, *rows)["RQ2"]
    assert (row["verdict"] == SUPPORTED) is (SUPPORTED in verdicts)
    assert (row["verdict"] == EQUIVALENT) is (set(verdicts) == {EQUIVALENT})
    assert ("lie further apart" in str(row["answer"])) is (SUPPORTED in verdicts)
    assert ("less than a tenth" in str(row["answer"])) is (EQUIVALENT in verdicts)
    high = row["confidence"] == "high"
    assert high is (row["verdict"] in (SUPPORTED, EQUIVALENT))


@pytest.mark.parametrize("planted", [(), ("attention",)])
def test_from_tables_to_the_answer(planted: tuple[str, ...]) -> None:
    tables = study(SEEDS, planted)
    setting = setting_of(tables, draws=99)
    row = answers(tables, *claim_rows(setting, list(cascade_findings(setting))))["RQ2"]
    assert row["missing"] == ("Not measured for all of these agents: patching (table patching).")
    assert str(row["evidence"]).split() == [f"cascade:frameworks:{level}" for level in LEVELS]
    if planted:
        assert row["verdict"] == SUPPORTED
        assert "one reward in attention (where their heads look)" in str(row["answer"])
    else:
        assert row["verdict"] in (NOISE, EQUIVALENT)
        assert "Deontological and utilitarian agents were not told apart" in str(row["answer"])
    assert isinstance(tables["comparisons"], pl.DataFrame)
