"""Hypotheses about levels: found where a difference was planted, and nowhere else."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import synthetic
from cascade_planted import study

from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError
from moralscope.core.tables import conform
from moralscope.evidence.claims import judge_findings, setting_of
from moralscope.evidence.concluding import conclude
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.cascade import cascade_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Hypothesis, Named, statement_of
from moralscope.evidence.hypotheses.judging import hypothesis_findings
from moralscope.evidence.synthesis.cascade import cascade_table

SEEDS = {"deontological": 5, "utilitarian": 5}
MEASURED = ("behaviour", "attribution", "weights")

Row = dict[str, object]


def said(at: str, **more: object) -> Hypothesis:
    words: Row = {
        "id": f"apart-{at}", "quantity": "levels_apart", "level": at, "rewards": list(SEEDS),
        "direction": "above",
    }  # fmt: skip
    return validate(Hypothesis, words | more, "a study")


def answers(tables: synthetic.Tables, *hypotheses: Hypothesis) -> list[Row]:
    """Claims about registered hypotheses, in their order."""
    setting = setting_of(tables, draws=99)
    named = [Named(one, True, "by construction") for one in hypotheses]
    return judge_findings(setting, hypothesis_findings(setting, named)).to_dicts()


@pytest.fixture(scope="module")
def planted() -> synthetic.Tables:
    tables = study(SEEDS, ("attribution",), levels=MEASURED)
    return {**tables, "gates": judge_gates(tables)}


def test_a_planted_level_is_confirmed_and_the_others_stay_open(planted: synthetic.Tables) -> None:
    acts, computes, writes = answers(planted, *(said(level) for level in MEASURED))
    assert (computes["verdict"], computes["outcome"]) == ("supported", "confirmed")
    assert computes["registered"] is True
    assert computes["q"] is None
    assert (computes["n_units"], computes["replicate"]) == (10, "training seeds")
    assert computes["p"] == pytest.approx(2 / 252)
    assert computes["p_adjusted"] == pytest.approx(3 * 2 / 252)
    assert "max-T" not in str(computes["test"])
    for row in (acts, writes):
        assert (row["verdict"], row["outcome"]) == ("not distinguishable from noise", "open")
        assert row["n_tests"] == 3


def test_without_the_plant_nothing_is_confirmed() -> None:
    tables = study(SEEDS, levels=MEASURED)
    found = answers(tables, *(said(level) for level in MEASURED))
    assert {row["outcome"] for row in found} == {"open"}


def test_p_counts_all_reassignments_of_this_level_alone(planted: synthetic.Tables) -> None:
    (row,) = answers(planted, said("behaviour"))
    wide = planted["decisions"].join(planted["prompts"].select("prompt"), on="prompt").pivot(
        on="agent", index="prompt", values="log_odds"
    ).join(planted["prompts"].select("prompt", "scenario"), on="prompt")  # fmt: skip
    names = [name for name in planted["agents"]["agent"] if name != "base"]
    means = wide.group_by("scenario").agg(pl.col(*names).mean()).select(names).to_numpy()
    far = {
        (i, j): float(np.sqrt(((means[:, i] - means[:, j]) ** 2).mean()))
        for i, j in itertools.combinations(range(10), 2)
        if i % 5 != j % 5
    }

    def statistic(first: frozenset[int]) -> float:
        across = [d for (i, j), d in far.items() if (i in first) != (j in first)]
        inside = [d for (i, j), d in far.items() if (i in first) == (j in first)]
        if not across or not inside:
            return np.inf
        return float(np.mean(across) - np.mean(inside))

    observed = statistic(frozenset(range(5)))
    others = [statistic(frozenset(g)) for g in itertools.combinations(range(10), 5)]
    assert row["estimate"] == pytest.approx(observed, abs=1e-12)
    assert row["p"] == pytest.approx(np.mean(np.array(others) >= observed - 1e-12), abs=1e-12)


def test_numbers_are_those_of_the_exploratory_claim(planted: synthetic.Tables) -> None:
    setting = setting_of(planted, draws=99)
    found = {finding.id: finding for finding in cascade_findings(setting)}
    for level, row in zip(MEASURED, answers(planted, *map(said, MEASURED)), strict=True):
        other = found[f"cascade:frameworks:{level}"]
        assert (row["estimate"], row["p"]) == (other.estimate, pytest.approx(other.p, abs=1e-12))
        assert other.interval == (row["low"], row["high"])
        assert row["query"] == other.query


def test_a_claim_leads_to_its_rows(planted: synthetic.Tables) -> None:
    tables = {**planted, "cascade": conform("cascade", cascade_table(planted))}
    setting = setting_of(tables, draws=99)
    named = [Named(said("weights"), True, "by construction")]
    claims = judge_findings(setting, hypothesis_findings(setting, named))
    found = explain_claim(tables, claims, tables["gates"], "hypothesis:apart-weights")
    assert found.agrees
    assert found.n_rows == 40  # all pairs of ten agents but the five of one seed


def test_the_second_question_rests_on_what_was_registered(planted: synthetic.Tables) -> None:
    tables = {name: table for name, table in planted.items() if name != "gates"}
    hypotheses = [said("attribution"), said("behaviour")]
    named = [Named(hypotheses[0], True, "before"), Named(hypotheses[1], False, "after")]
    questions = conclude(tables, alpha=0.05, seed=0, draws=99, named=named)["questions"]
    row = questions.row(1, named=True)
    assert row["evidence"].split() == [
        "cascade:frameworks:behaviour", "hypothesis:apart-attribution", "cascade:frameworks:weights"
    ]  # fmt: skip
    assert (row["verdict"], row["confidence"]) == ("supported", "high")
    assert "lie further apart than training seeds of one reward in attribution" in row["answer"]


def test_what_cannot_be_tested_says_why(planted: synthetic.Tables) -> None:
    (row,) = answers(planted, said("attention"))
    assert row["verdict"] == "not identified by this design"
    assert "the table attention is not there; it comes from the stages attend-AGENT" in str(
        row["reason"]
    )
    few = study({"deontological": 2, "utilitarian": 2}, levels=("behaviour",))
    (row,) = answers(few, said("behaviour"))
    assert row["verdict"] == "not identified by this design"
    assert "5 seeds of each would" in str(row["reason"])
    single = study({"deontological": 1, "utilitarian": 1}, levels=("behaviour",))
    (row,) = answers(single, said("behaviour"))
    assert "has two training seeds of one of them" in str(row["reason"])
    alone = {name: table for name, table in few.items() if name != "comparisons"}
    (row,) = answers(alone, said("behaviour"))
    assert "the table comparisons is not there" in str(row["reason"])


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"level": "atribution"}, "names the unknown level 'atribution'"),
        ({"direction": "below"}, "has a direction that levels_apart cannot have"),
        ({"direction": "differs"}, "has a direction that levels_apart cannot have"),
        ({"direction": "zero"}, "has a direction that levels_apart cannot have"),
        ({"direction": None, "margin": 0.1}, "has a margin that levels_apart cannot have"),
        ({"rewards": ["utilitarian"]}, "names the wrong number of rewards"),
        ({"agents": ["game"]}, "names agents, and levels_apart has none"),
        ({"level": None}, "lacks the key 'level'"),
    ],
)
def test_what_cannot_be_meant_is_refused(more: Row, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        said("behaviour", **more)


def test_an_unknown_reward_is_refused(planted: synthetic.Tables) -> None:
    with pytest.raises(ConfigError, match="names the unknown reward 'utility'") as caught:
        answers(planted, said("behaviour", rewards=["deontological", "utility"]))
    assert "utilitarian" in str(caught.value)


def test_it_is_said_in_words() -> None:
    assert statement_of(said("weights")) == (
        "At the level weights, the distance between agents of the rewards deontological and "
        "utilitarian minus that between training seeds of one reward lies above zero."
    )
