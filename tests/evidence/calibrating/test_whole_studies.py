"""Simulated studies: sound ones pass every gate, each fault is named by its gate, claims hold."""

import numpy as np
import polars as pl
import pytest

from moralscope.core.tables import conform
from moralscope.evidence.calibrating.cells import CONDITIONS, POWER, Cell
from moralscope.evidence.calibrating.procedures import PROCEDURES
from moralscope.evidence.calibrating.studies import PLANTS, Plan, simulate_study
from moralscope.evidence.gates.judging import judge_gates

GATES = {
    "dead": ("liveness", {"first"}),
    "cloned_prompts": ("duplicates", {"prompts"}),
    "cloned_sites": ("duplicates", {"attribution base", "attribution first"}),
    "coarse": ("resolution", {"attribution base", "attribution first"}),
    "unsummed": ("completeness", {"base", "first"}),
}


def failed(plan: Plan, seed: int) -> set[tuple[str, str]]:
    judged = judge_gates(simulate_study(plan, np.random.default_rng(seed)))
    rows = judged.filter(pl.col("passed").not_())
    return set(rows.select("gate", "subject").rows())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_sound_studies_pass_every_gate(condition: str) -> None:
    for seed in range(3):
        assert failed(Plan(condition, 10), seed) == set()


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_is_named_by_its_gate_alone(plant: str) -> None:
    gate, subjects = GATES[plant]
    assert failed(Plan("clustered", 6, plant=plant), 1) == {(gate, s) for s in subjects}


def test_studies_follow_the_schemas() -> None:
    for name, frame in simulate_study(Plan("rounded", 5), np.random.default_rng(2)).items():
        assert conform(name, frame).height == frame.height


def test_a_planted_change_is_in_the_tables() -> None:
    tables = simulate_study(Plan("independent", 400, effect=2.0), np.random.default_rng(3))
    of_agent = {
        agent: rows.get_column("log_odds").to_numpy()
        for (agent,), rows in tables["decisions"].group_by("agent")
    }
    change = of_agent["second"] - of_agent["base"]
    # Two standard deviations between scenarios, which are half a nat.
    assert change.mean() == pytest.approx(1.0, abs=0.1)
    assert change.reshape(400, 4).mean(axis=1).std() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", [name for name in PROCEDURES if name.startswith("gate_")])
def test_gates_raise_no_false_alarm_and_find_what_is_planted(name: str) -> None:
    false, power = PROCEDURES[name].simulate(Cell(name, "clustered", 10, 3, 0))
    assert (false.value, false.nominal, false.passed) == (0.0, 0.0, True)
    assert (power.quantity, power.value) == (POWER, 1.0)


def test_claims_support_what_is_there_and_nothing_else() -> None:
    false, power = PROCEDURES["claims"].simulate(Cell("claims", "clustered", 20, 8, 0))
    assert false.value is not None
    assert false.value <= 0.25
    assert false.passed is True
    assert power.value == 1.0
