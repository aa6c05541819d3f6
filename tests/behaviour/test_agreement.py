"""Sampled answers against log-odds: closed forms, and a scorer that is wrong is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from moralscope.behaviour.speaking.agreement import agreement_table
from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows

N = 12
P = np.linspace(0.1, 0.9, N)
PROMPTS = from_rows(
    "prompts",
    [
        {
            "prompt": f"p{i}", "game": "IPD", "scenario": f"s{i}", "family": family,
            "template": "plain", "labels": "A/B", "option_order": 0, "answer_order": 0,
            "table_order": "none", "stem": "", "system": "", "chat_template": True, "text": f"{i}",
            "sha256": f"{i}", "positive": "B", "negative": "A",
        }
        for i, family in enumerate(["structured"] * N + ["poetic"])
    ],
)  # fmt: skip


def decided(p: Any = P, mass: float = 0.8) -> pl.DataFrame:
    rows = [
            {
                "agent": "game", "prompt": f"p{i}", "game": "IPD", "scenario": f"s{i}",
                "log_odds": None if mass == 0 else float(np.log(value / (1 - value))),
                "p_positive": mass * value, "p_negative": mass * (1 - value), "legal_mass": mass,
                "p_positive_given_legal": float(value),
            }
        for i, value in enumerate([*p, 0.5])
    ]  # fmt: skip
    return from_rows("decisions", rows)


def answered(strict: dict[str, str], tolerant: dict[str, str] | None = None) -> pl.DataFrame:
    """Answers by prompt, a letter for each: + positive, - negative, x illegal."""
    told = {"+": "positive", "-": "negative", "x": "illegal"}
    rows = [
        {
            "agent": "game", "prompt": prompt, "sample": i, "answer": "", "strict": told[letter],
            "tolerant": told[(tolerant or strict)[prompt][i]], "finished": True, "log_p": -1.0,
            "n_tokens": 1,
        }
        for prompt, letters in strict.items()
        for i, letter in enumerate(letters)
    ]  # fmt: skip
    return from_rows("answers", rows)


def drawn(p: Any, *, n: int = 25, mass: float = 0.8, seed: int = 0) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    return {
        f"p{i}": "".join(rng.choice(["+", "-", "x"], n, p=[mass * v, mass * (1 - v), 1 - mass]))
        for i, v in enumerate(p)
    }


def row(table: pl.DataFrame, parser: str = "strict") -> dict[str, Any]:
    return table.filter(pl.col("parser") == parser).row(0, named=True)


def test_every_column_is_what_it_says() -> None:
    strict = {"p0": "+--x", "p3": "++xx", "p11": "+++-", "p5": "xxxx"}
    tolerant = strict | {"p5": "x+xx"}
    table = agreement_table(PROMPTS, decided(), answered(strict, tolerant))
    assert table.select("agent", "family", "parser").rows() == [
        ("game", "structured", "strict"), ("game", "structured", "tolerant"),
    ]  # fmt: skip
    found = row(table)
    shares, stated = [1 / 3, 1.0, 0.75], [P[0], P[3], P[11]]
    difference = np.subtract(shares, stated)
    interval = stats.ttest_1samp(difference, 0).confidence_interval()
    assert found["expected"] == pytest.approx(np.mean(stated))
    assert found["observed"] == pytest.approx(np.mean(shares))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["correlation"] == pytest.approx(stats.pearsonr(shares, stated).statistic)
    assert (found["legal_expected"], found["legal_observed"]) == pytest.approx((0.8, 9 / 16))
    assert (found["n_prompts"], found["n_answers"]) == (3, 16)
    other = row(table, "tolerant")
    assert (other["n_prompts"], other["legal_observed"]) == (4, 10 / 16)


def test_answers_drawn_as_scored_agree_and_others_are_refuted() -> None:
    honest = row(agreement_table(PROMPTS, decided(), answered(drawn(P))))
    assert honest["p"] > 0.01
    assert honest["low"] < 0 < honest["high"]
    assert honest["correlation"] > 0.8
    swapped = row(agreement_table(PROMPTS, decided(), answered(drawn(1 - P))))
    assert swapped["p"] < 1e-9
    assert swapped["correlation"] < -0.8
    leaning = row(agreement_table(PROMPTS, decided(P * 0.5), answered(drawn(P))))
    assert leaning["p"] < 1e-9
    assert leaning["low"] > 0


def test_no_legal_answer_and_no_legal_mass_are_null_and_never_divided_by() -> None:
    silent = row(agreement_table(PROMPTS, decided(), answered({"p0": "xx", "p1": "xx"})))
    massless = row(agreement_table(PROMPTS, decided(mass=0.0), answered({"p0": "+-", "p1": "++"})))
    for found in (silent, massless):
        nulls = ("expected", "observed", "low", "high", "correlation", "p")
        assert all(found[name] is None for name in nulls)
        assert found["n_prompts"] == 0
    assert (silent["legal_expected"], silent["legal_observed"]) == pytest.approx((0.8, 0.0))
    assert (massless["legal_expected"], massless["legal_observed"]) == (0.0, 1.0)


def test_families_are_apart_and_one_prompt_has_no_interval() -> None:
    table = agreement_table(PROMPTS, decided(), answered(drawn(P) | {f"p{N}": "++++"}))
    assert table.get_column("family").to_list() == ["structured"] * 2 + ["poetic"] * 2
    alone = table.row(2, named=True)
    assert alone["low"] is alone["correlation"] is None
    assert alone["p"] == pytest.approx(0.125)  # two-sided: all four alike, of 1/2 each
    assert agreement_table(PROMPTS, decided(), from_rows("answers", [])).is_empty()


def test_an_answer_without_a_score_is_refused() -> None:
    decisions = decided().filter(pl.col("prompt") != "p3")
    with pytest.raises(TableError, match="sampled where nothing was scored.*game on p3"):
        agreement_table(PROMPTS, decisions, answered({"p0": "+", "p3": "-"}))
