"""A metric that sampled answers refute does not pass; one that they never met is not available."""

from __future__ import annotations

import re
from typing import Any

import pytest

from moralscope.core.tables import from_rows
from moralscope.evidence.gates.agreement import MARGIN, REFUTED, subject_of
from moralscope.evidence.gates.judging import judge_gates

ROW: dict[str, Any] = {
    "agent": "game", "family": "structured", "parser": "strict", "expected": 0.6, "observed": 0.62,
    "low": -0.03, "high": 0.07, "legal_expected": 0.9, "legal_observed": 0.88, "correlation": 0.9,
    "p": 0.4, "n_prompts": 16, "n_answers": 320,
}  # fmt: skip


def judged(**changes: Any) -> dict[str, Any]:
    gates = judge_gates({"metric_agreement": from_rows("metric_agreement", [ROW | changes])})
    assert gates.height == 1
    return gates.row(0, named=True)


@pytest.mark.parametrize(
    ("changes", "passed", "advice"),
    [
        ({}, True, "Sampled answers agree with the log-odds: 62.0% of legal answers are positive"),
        ({"p": REFUTED}, True, "exact p 0.001"),
        ({"p": REFUTED / 2}, False, "refute the log-odds.*no claim about log-odds"),
        ({"p": 1e-5, "parser": "tolerant"}, False, "in its own words"),
        ({"low": MARGIN + 0.01, "high": 0.4}, False, "refute"),
        ({"low": -0.4, "high": -MARGIN - 0.01}, False, "refute"),
        ({"low": -0.2}, None, "too few answers to tell.*Sample more"),
        # Nine answers that all agree have an interval of no width, and tell little.
        (
            {"low": 0.003, "high": 0.01, "n_answers": 16, "legal_observed": 9 / 16},
            None,
            "too few answers to tell.*56.2% of 16 sampled answers are legal",
        ),
        ({"n_answers": 36, "legal_observed": 1.0}, True, "agree"),
        ({"n_answers": 36, "legal_observed": 35 / 36}, None, "too few answers to tell"),
        ({"n_answers": 16, "p": 1e-5}, False, "refute"),
        ({"low": None, "high": None}, True, "agree"),
        ({"low": None, "high": None, "n_prompts": 1}, None, "one prompt can be compared"),
        (
            dict.fromkeys(("expected", "observed", "low", "high", "correlation", "p"))
            | {"n_prompts": 0, "legal_observed": 0.0},
            None,
            r"no answer can be compared \(0.0% of 320 sampled answers are legal, 90.0% expected",
        ),
    ],
)
def test_the_verdicts(changes: dict[str, Any], passed: bool | None, advice: str) -> None:
    gate = judged(**changes)
    assert gate["gate"] == "metric agreement"
    assert gate["subject"] == subject_of("game", "structured", changes.get("parser", "strict"))
    assert gate["passed"] is passed
    assert gate["threshold"] == MARGIN
    assert re.search(advice, gate["advice"]), gate["advice"]


def test_what_is_measured_is_the_far_end_of_the_interval() -> None:
    assert judged()["measured"] == 0.07
    assert judged(low=-0.09)["measured"] == 0.09
    assert judged(low=None, high=None)["measured"] == pytest.approx(0.02)


def test_without_samples_there_is_no_such_gate() -> None:
    assert judge_gates({}).is_empty()
    assert judge_gates({"metric_agreement": from_rows("metric_agreement", [])}).is_empty()
