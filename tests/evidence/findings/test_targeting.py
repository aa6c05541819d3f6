"""Parts that an analysis chose, against chance and against the whole training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.reports.export import render
from moralscope.reports.figure import Figure
from moralscope.reports.figure_targeting import has_targeting, targeting_curve
from moralscope.reports.run import run_of


def table(shares: dict[str, Sequence[float]]) -> pl.DataFrame:
    """Trainings of two sub-layers with these shares kept, seed 0 being chosen on."""
    rows: list[dict[str, object]] = []
    for strategy, kept in shares.items():
        for seed, share in enumerate(kept):
            rows.append(
                {
                    "agent": f"kind-{seed}-{strategy}2",
                    "of": f"kind-{seed}",
                    "strategy": strategy,
                    "budget": 60 if strategy == "all" else 2,
                    "training_seed": seed,
                    "chosen_here": seed == 0,
                    "parameters": 100,
                    "share": 0.1,
                    "behaviour_kept": share,
                    "low": None,
                    "high": None,
                    "n": 20,
                }
            )
    return from_rows("targeting", rows)


def agents(targeting: pl.DataFrame) -> pl.DataFrame:
    rows: list[dict[str, object]] = [
        {"agent": "base", "base": "m", "kind": "base", "reward": None, "opponent": None,
         "training_seed": None, "adapter_sha256": None, "dtype": "float32"}
    ]  # fmt: skip
    for row in targeting.iter_rows(named=True):
        rows.append(
            {**rows[0], "agent": row["agent"], "kind": "adapter", "training_seed":
             row["training_seed"], "reward": f"kind in 2 by {row['strategy']}"}
        )  # fmt: skip
    return from_rows("agents", rows)


def claims(shares: dict[str, Sequence[float]]) -> dict[str, dict[str, object]]:
    targeting = table(shares)
    tables = {"targeting": targeting, "agents": agents(targeting)}
    made = make_claims(tables)
    found = {row["id"]: row for row in made.iter_rows(named=True)}
    for row in found.values():
        again = pl.SQLContext(tables).execute(row["query"]).collect()["estimate"][0]
        assert again == pytest.approx(row["estimate"], abs=1e-12)
    return found


CHOSEN = [0.99, 0.93, 0.95, 0.94, 0.96, 0.95]
DRAWN = [0.5, 0.21, 0.43, 0.35, 0.28, 0.4]


def test_parts_judged_on_scenarios_that_share_a_text_are_an_artefact() -> None:
    """What is kept is a change of decisions, so what explains decisions explains it."""
    targeting = table({"patching": CHOSEN, "random": DRAWN})
    apart = synthetic.prompts(4, 1)
    alike = apart.with_columns(text=pl.lit("one text"), sha256=pl.lit("one"))
    verdicts = {}
    for name, prompts in (("apart", apart), ("alike", alike)):
        made = make_claims(
            {"targeting": targeting, "agents": agents(targeting), "prompts": prompts}
        )
        verdicts[name] = made.filter(id="targeting:patching:2")["verdict"].item()
    assert verdicts == {"apart": "supported", "alike": "artefact"}


def test_parts_that_keep_more_than_chance_are_claimed() -> None:
    row = claims({"patching": CHOSEN, "random": DRAWN})["targeting:patching:2"]
    assert row["verdict"] == "supported"
    # The seed that the parts were chosen on is left out: 5 against 5, by brute force.
    pooled = np.array([*CHOSEN[1:], *DRAWN[1:]])
    observed = abs(pooled[:5].mean() - pooled[5:].mean())
    ways = [
        abs(pooled[list(pick)].mean() - pooled[[i for i in range(10) if i not in pick]].mean())
        for pick in itertools.combinations(range(10), 5)
    ]
    assert row["p"] == pytest.approx(np.mean(np.array(ways) >= observed - 1e-9))
    assert row["estimate"] == pytest.approx(np.mean(CHOSEN[1:]) - np.mean(DRAWN[1:]))
    low, high = stats.ttest_ind(CHOSEN[1:], DRAWN[1:], equal_var=False).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_parts_that_keep_no_more_than_chance_are_not_claimed() -> None:
    row = claims({"patching": [0.9, *DRAWN[1:]], "random": DRAWN})["targeting:patching:2"]
    assert row["verdict"] != "supported"


def test_too_few_seeds_cannot_carry_it() -> None:
    row = claims({"patching": CHOSEN[:3], "random": DRAWN[:3]})["targeting:patching:2"]
    assert row["verdict"] == "not identified by this design"
    assert "2 and 2 training seeds cannot carry it" in str(row["reason"])


def test_a_share_of_all_is_told_from_less_by_two_one_sided_tests() -> None:
    found = claims({"patching": CHOSEN, "random": DRAWN})
    kept = found["kept:patching:2"]
    values = np.array(CHOSEN[1:]) - 1.0
    error = values.std(ddof=1) / np.sqrt(5)
    p = max(
        stats.t.sf((values.mean() + 0.1) / error, 4), stats.t.cdf((values.mean() - 0.1) / error, 4)
    )
    assert p < 0.025  # corrected for the two choices
    assert kept["estimate"] == pytest.approx(values.mean())
    # Without a fingerprint nobody knows that these agents act as trained.
    assert kept["verdict"] == "not identified by this design"
    assert found["kept:random:2"]["verdict"] != "equivalent"


def test_the_curve_is_drawn_from_every_training() -> None:

    run = run_of({"targeting": table({"all": [1.0] * 6, "patching": CHOSEN, "random": DRAWN})})
    assert has_targeting(run)
    figure = targeting_curve(run, {})
    assert isinstance(figure, Figure)
    svg = render(figure).svg
    for word in ("everything", "chosen by patching", "drawn at random", "Share of the change kept"):
        assert word in svg
    assert "6 training seeds" in figure.shows
