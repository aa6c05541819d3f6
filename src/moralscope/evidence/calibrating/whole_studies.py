"""Do gates and claims keep their word on whole studies? Tables in, verdicts out.

A gate is a rule, not a test: no sound study may fail it, so its nominal rate of false alarms is 0,
and its power is the share of planted faults that it names. Claims are simulated from tables to
verdicts: where nothing changed, at most 5% of studies may support any change.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import polars as pl

from moralscope.evidence.calibrating.cells import (
    FAMILY_WISE,
    TYPE_I,
    Cell,
    Procedure,
    Rate,
    attainable_size,
    error_rate,
    fewer,
    power_rate,
    share,
)
from moralscope.evidence.calibrating.studies import Plan, simulate_study
from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.statistics.resampling import EXACT_UNITS, sign_flip_floor
from moralscope.evidence.verdicts import SUPPORTED

EFFECT = 1.5
"""Planted change of both agents, in standard deviations between scenarios."""

DRAWS = 199
"""Sampled sign patterns of each simulated study."""

_CHANGES = r"^(change|difference|attribution):"
_WHAT = {
    "dead": "an adapter that retains 0.5% of its change",
    "cloned_prompts": "two of four prompts of each scenario are one text",
    "cloned_sites": "six sites with one vector",
    "coarse": "sites stored as bfloat16 in steps as large as their spread",
    "unsummed": "parts scaled one by one, so that they miss the log-odds",
}


def _gate(cell: Cell, gate: str, plant: str) -> Iterable[Rate]:
    rng = cell.rng("studies")

    def alarms(runs: int, planted: str) -> list[bool]:
        plan = Plan(cell.condition, cell.clusters, plant=planted)
        return [_fails(gate, judge_gates(simulate_study(plan, rng))) for _ in range(runs)]

    false = np.array(alarms(cell.runs, ""), dtype=np.float64)
    yield Rate(TYPE_I, share(false), cell.runs, 0.0, None, "sound studies that fail it")
    caught = np.array(alarms(cell.runs, plant), dtype=np.float64)
    yield power_rate(caught, _WHAT[plant])


def _fails(gate: str, judged: pl.DataFrame) -> bool:
    failed = pl.col("passed").not_() & (pl.col("gate") == gate)
    return judged.filter(failed).height > 0


def _claims(cell: Cell) -> Iterable[Rate]:
    rng = cell.rng("studies")

    def supported(effect: float, which: str) -> float:
        tables = simulate_study(Plan(cell.condition, cell.clusters, effect), rng)
        made = make_claims(tables, seed=int(rng.integers(2**31)), draws=DRAWS)
        stands = (pl.col("verdict") == SUPPORTED) & pl.col("id").str.contains(which)
        return float(made.filter(stands).height > 0)

    false = np.array([supported(0.0, _CHANGES) for _ in range(cell.runs)])
    floor = sign_flip_floor(cell.clusters, 0 if cell.clusters <= EXACT_UNITS else DRAWS)
    note = "any change, difference or site of two agents that did not change"
    yield error_rate(false, attainable=attainable_size(floor), quantity=FAMILY_WISE, note=note)
    found = np.array([supported(EFFECT, "^change:first$") for _ in range(fewer(cell.runs))])
    yield power_rate(found, f"a change of {EFFECT:g} SD in both agents and all sites")


def _judged(name: str, gate: str, plant: str) -> Procedure:
    simulate = partial(_gate, gate=gate, plant=plant)
    return Procedure(name, f"gate {gate}: {_WHAT[plant]}", simulate, share=0.01)


WHOLE_STUDIES = (
    _judged("gate_liveness", "liveness", "dead"),
    _judged("gate_duplicate_prompts", "duplicates", "cloned_prompts"),
    _judged("gate_duplicate_sites", "duplicates", "cloned_sites"),
    _judged("gate_resolution", "resolution", "coarse"),
    _judged("gate_completeness", "completeness", "unsummed"),
    Procedure("claims", "from result tables to verdicts", _claims, FAMILY_WISE, share=0.03),
)
"""Gates and the ledger, on whole studies."""
