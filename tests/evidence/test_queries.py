"""Every claim's query, executed as it stands: its estimate, its units and its rows."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest
import synthetic
from findings import test_contrasts, test_learned, test_robustness
from planted import build

from moralscope.evidence.claims import make_claims
from moralscope.evidence.explaining import layers_of
from moralscope.evidence.findings.queries import ESTIMATE
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.units import checked

Tables = dict[str, pl.DataFrame]


def _texts() -> Tables:
    prompts = test_robustness.asked()
    decided = test_robustness.decisions(prompts)
    return {"agents": test_robustness.AGENTS, "prompts": prompts, "decisions": decided}


def _states_one_by_one() -> Tables:
    tables = synthetic.build()
    said = {"agent": "game", "learned": "move", "sentence": "Said.", "basis": "each state"}
    changes = {"CC": -3.0, "CD": 2.0, "DC": -4.0, "DD": 9.0}
    states = test_learned.states("game", changes, {"CC", "CD", "DC"})
    return {**tables, "learned": pl.DataFrame([said]), "transfer_states": states}


def _nothing_resolved() -> Tables:
    unmoved = {"effect": pl.lit(0.0), "patched_log_odds": pl.col("baseline_log_odds")}
    return synthetic.set_values(synthetic.build(), "patching", pl.lit(True), **unmoved)


def _cloned_prompts() -> Tables:
    """One prompt of a scenario under a second name, with answers of its own."""
    tables = synthetic.build()
    first = tables["prompts"].get_column("prompt")[0]
    new = pl.lit(f"{first} again")
    for name in ("prompts", "decisions", "attribution", "patching"):
        copy = tables[name].filter(pl.col("prompt") == first).with_columns(prompt=new)
        if name == "patching":
            copy = copy.with_columns(source_prompt=new)
        tables[name] = pl.concat([tables[name], copy])
    tables["decisions"] = tables["decisions"].with_columns(
        log_odds=pl.when(pl.col("prompt") == new).then(9.0).otherwise("log_odds")
    )
    return {name: tables[name] for name in ("agents", "prompts", "decisions", "attribution",
                                            "patching", "completeness", "controls")}  # fmt: skip


def _undefined() -> Tables:
    tables = synthetic.replicated(1, {"game": 2.0, "utilitarian": -1.0})
    gap = (pl.col("agent") == "game") & (pl.col("prompt") == pl.col("prompt").first())
    return synthetic.set_values(tables, "decisions", gap, log_odds=pl.lit(None, pl.Float64))


def _without_legal_answer() -> Tables:
    tables = build(test_contrasts.PLANTED)
    gap = (pl.col("agent") == "kind") & (pl.col("prompt") == pl.col("prompt").first())
    none = pl.lit(None, pl.Float64)
    return synthetic.set_values(tables, "decisions", gap, p_positive_given_legal=none)


STUDIES: dict[str, Callable[[], Tables]] = {
    "all kinds": synthetic.build,
    "seeds": lambda: synthetic.replicated(5, {"game": 2.0, "utilitarian": -1.0}),
    "situations": lambda: build(test_contrasts.PLANTED),
    "texts": _texts,
    "states one by one": _states_one_by_one,
    "nothing resolved": _nothing_resolved,
    "cloned prompts": _cloned_prompts,
    "undefined": _undefined,
    "no legal answer": _without_legal_answer,
}


@pytest.mark.parametrize("study", STUDIES)
def test_queries_lead_from_estimates_to_units_and_rows(study: str) -> None:
    tables = checked(STUDIES[study]())
    made = make_claims(tables, draws=199)
    assert made.height > 0
    context = pl.SQLContext({**tables, "gates": judge_gates(tables)})
    for row in made.iter_rows(named=True):
        name, query = str(row["id"]), str(row["query"])
        found = context.execute(query, eager=True)
        assert (found.columns, found.height) == (["estimate"], 1), name
        if row["estimate"] is None:
            assert found.item() is None, name
        else:
            assert found.item() == pytest.approx(row["estimate"], abs=1e-9), name
        layers = layers_of(query)
        rows = context.execute(layers.rows, eager=True)
        assert rows.height > 0, name
        assert {"unit", "value"} <= set(rows.columns), name
        units = context.execute(layers.units, eager=True)
        assert units.get_column("unit").null_count() == 0, name
        if row["estimate"] is not None and row["replicate"] != "memory-one states":
            assert units.n_unique("unit") == row["n_units"], name
            if query.endswith(ESTIMATE):
                assert units.height == row["n_units"], name
