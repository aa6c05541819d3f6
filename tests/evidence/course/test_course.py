"""How far trainings have come, level by level, and whether their early states foretell the end."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.evidence.course.table import course_table
from moralscope.evidence.statistics.resampling import Array

TRAININGS, STEPS, WHOLE = 6, (5, 10), 20
SCENARIOS, WORDINGS = 8, 2
SITES = ("L0.mlp", "L1.mlp", "L1.h0")


def studied(lag: float, order: float, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Six trainings of one reward with two states each.

    Args:
        lag: how far attribution is behind behaviour on its way, as a share.
        order: how much of a training's own size is there from the beginning; the rest is noise.
        seed: of everything drawn.
    """
    rng = np.random.default_rng(seed)
    shape = (SCENARIOS, WORDINGS)
    direction = rng.normal(2.0, 0.5, shape)
    sites = rng.normal(1.0, 0.5, (*shape, len(SITES)))
    base = rng.normal(0.0, 0.5, shape)
    tables = Tables()
    tables.add("base", None, None, (base, 0.1 * sites))
    for k in range(TRAININGS):
        end = 1.0 + 0.3 * k
        for step in (*STEPS, WHOLE):
            way = step / WHOLE
            own = end if step == WHOLE else 1.0 + order * 0.3 * k + (1 - order) * rng.normal(0, 0.3)
            late = 1.0 if step == WHOLE else max(0.0, way - lag)
            name = f"kind-{k}" if step == WHOLE else f"kind-{k}-step{step}"
            reward = "kind" if step == WHOLE else f"kind until step {step}"
            noise = rng.normal(0, 0.02, shape)
            moved = base + way * own * direction + noise
            inner = (0.1 + late * end) * sites + rng.normal(0, 0.01, sites.shape)
            tables.add(name, reward, k, (moved, inner))
            if step != WHOLE:
                tables.states.append(
                    {"agent": name, "of": f"kind-{k}", "step": step, "steps": WHOLE,
                     "training_seed": k}
                )  # fmt: skip
    return tables.all()


class Tables:
    """Rows of the tables as they come."""

    def __init__(self) -> None:
        self.agents: list[dict[str, object]] = []
        self.decisions: list[dict[str, object]] = []
        self.attribution: list[dict[str, object]] = []
        self.states: list[dict[str, object]] = []
        self.whole: list[dict[str, object]] = []

    def add(self, name: str, reward: str | None, seed: int | None, of: tuple[Array, Array]) -> None:
        odds, inner = of
        self.agents.append(
            {"agent": name, "base": "m", "kind": "base" if reward is None else "adapter",
             "reward": reward, "opponent": None, "training_seed": seed, "adapter_sha256": None,
             "dtype": "float32"}
        )  # fmt: skip
        for g, w in itertools.product(range(SCENARIOS), range(WORDINGS)):
            p = float(1 / (1 + np.exp(-odds[g, w])))
            self.decisions.append(
                {"agent": name, "prompt": f"p{g}-{w}", "game": "IPD", "scenario": f"s{g}",
                 "log_odds": float(odds[g, w]), "p_positive": p, "p_negative": 1 - p,
                 "legal_mass": 1.0, "p_positive_given_legal": p, "fingerprint_log_odds": None}
            )  # fmt: skip
            # The sites drawn here are some of many, which together give the decision.
            self.whole.append(
                {"agent": name, "prompt": f"p{g}-{w}", "error": 0.0,
                 "logit_diff": float(odds[g, w]), "remainder": 0.0}
            )  # fmt: skip
            self.attribution += [
                {"agent": name, "prompt": f"p{g}-{w}", "token": -1, "site": site, "layer": 1,
                 "kind": "mlp", "head": None, "contribution": float(inner[g, w, i]),
                 "part": "whole"}
                for i, site in enumerate(SITES)
            ]  # fmt: skip

    def all(self) -> dict[str, pl.DataFrame]:
        prompts = [
            {"prompt": f"p{g}-{w}", "game": "IPD", "scenario": f"s{g}", "family": "clusters",
             "template": f"t{w}", "labels": "a/b", "option_order": 0, "answer_order": 0,
             "table_order": "none", "stem": "", "system": "", "chat_template": True,
             "own_previous": None, "opponent_previous": None, "others_cooperated": None,
             "text": f"{g} {w}", "sha256": f"{g}-{w}", "positive": "a", "negative": "b"}
            for g, w in itertools.product(range(SCENARIOS), range(WORDINGS))
        ]  # fmt: skip
        found = {
            "agents": from_rows("agents", self.agents),
            "prompts": from_rows("prompts", prompts),
            "decisions": from_rows("decisions", self.decisions),
            "attribution": from_rows("attribution", self.attribution),
            "completeness": from_rows("completeness", self.whole),
            "checkpoints": from_rows("checkpoints", self.states),
        }
        return {**found, "course": course_table(found)}


@pytest.fixture(scope="module")
def lagging() -> dict[str, pl.DataFrame]:
    return studied(lag=0.2, order=1.0)


def claims(tables: dict[str, pl.DataFrame]) -> dict[str, dict[str, object]]:
    found = {row["id"]: row for row in make_claims(tables).iter_rows(named=True)}
    kept = {i: r for i, r in found.items() if i.startswith(("course:", "forecast:"))}
    for row in kept.values():
        again = pl.SQLContext(tables).execute(str(row["query"])).collect()["estimate"][0]
        assert again == pytest.approx(row["estimate"], abs=1e-9), row["id"]
    return kept


def test_the_way_is_measured_on_the_scale_of_the_whole_training(
    lagging: dict[str, pl.DataFrame],
) -> None:
    decisions = lagging["decisions"].group_by("agent", "scenario").agg(pl.col("log_odds").mean())
    wide = decisions.pivot(on="agent", index="scenario", values="log_odds")

    def far(a: str, b: str) -> float:
        return float(np.sqrt(((wide[a] - wide[b]) ** 2).mean()))

    rows = lagging["course"].filter(level="behaviour", of="kind-3").to_dicts()
    assert [row["step"] for row in rows] == list(STEPS)
    for row in rows:
        whole = far("base", "kind-3")
        assert row["moved"] == pytest.approx(far("base", row["agent"]) / whole)
        assert row["remaining"] == pytest.approx(far(row["agent"], "kind-3") / whole)
        assert row["low"] <= row["remaining"] <= row["high"]
        assert row["moved"] == pytest.approx(row["step"] / WHOLE, abs=0.03)


def test_a_level_that_lags_behind_is_found(lagging: dict[str, pl.DataFrame]) -> None:
    row = claims(lagging)["course:attribution"]
    assert row["estimate"] == pytest.approx(0.2, abs=0.03)
    assert row["p"] == pytest.approx(2 / 2**TRAININGS)
    assert row["verdict"] == "supported"
    assert "attribution lags behind behaviour" in str(row["statement"])


def test_a_lag_of_parts_that_do_not_sum_is_an_artefact(lagging: dict[str, pl.DataFrame]) -> None:
    broken = lagging["completeness"].with_columns(error=pl.lit(0.5))
    row = claims({**lagging, "completeness": broken})["course:attribution"]
    assert row["verdict"] == "artefact"
    assert "completeness (kind-0-step5)" in str(row["reason"])


def test_a_level_that_keeps_pace_is_not_claimed() -> None:
    row = claims(studied(lag=0.0, order=1.0))["course:attribution"]
    assert row["verdict"] != "supported"


def test_early_states_foretell_the_end_where_the_order_is_there(
    lagging: dict[str, pl.DataFrame],
) -> None:
    found = claims(lagging)
    for step in STEPS:
        row = found[f"forecast:kind:{step}"]
        assert row["verdict"] == "supported", row
        assert float(str(row["estimate"])) > 0.95


def test_early_states_that_are_noise_foretell_nothing() -> None:
    verdicts = [
        row["verdict"]
        for seed in range(4)
        for name, row in claims(studied(lag=0.0, order=0.0, seed=seed)).items()
        if name.startswith("forecast")
    ]
    assert len(verdicts) == 8
    assert verdicts.count("supported") <= 1  # of eight true nulls at a level of .05


def test_too_few_trainings_are_not_enough() -> None:
    whole = studied(lag=0.2, order=1.0)
    few = {f"kind-{k}" for k in range(3)}
    named = pl.col("agent").str.replace(r"-step\d+$", "")
    tables = {
        name: t if name == "prompts" else t.filter(named.is_in([*few, "base"]))
        for name, t in whole.items()
    }
    found = claims(tables)
    assert {row["verdict"] for row in found.values()} == {"not identified by this design"}
    assert "3 trainings cannot carry it" in str(found["course:attribution"]["reason"])
    assert "3 trainings cannot carry it; 5 with" in str(found["forecast:kind:5"]["reason"])


def test_without_states_there_is_no_course() -> None:
    assert course_table({}).is_empty()
