"""What agents learned, as claims, where each state was judged by itself."""

from __future__ import annotations

import polars as pl
import pytest
import synthetic

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims


def states(agent: str, changes: dict[str, float], clear: set[str]) -> pl.DataFrame:
    return from_rows(
        "transfer_states",
        [
            {
                "agent": agent,
                "control": control,
                "template": "all",
                "labels": "action1/action2",
                "table_order": "original",
                "scenario": f"IPD.{state}",
                "own_previous": state[0],
                "opponent_previous": state[1],
                "change_log_odds": change * (1.0 if control == "trained" else 0.5),
                "unit": "orders",
                "n_units": 4,
                "reference": control == "trained",
                "keeps_sign": True if state in clear else None,
            }
            for control in ("trained", "new_wording")
            for state, change in changes.items()
        ],
    )


@pytest.mark.parametrize(
    ("learned", "verdict"),
    [
        ("move", "supported"),
        ("order", "supported"),
        ("undecided", "not distinguishable from noise"),
    ],
)
def test_states_judged_one_by_one_give_the_size_of_the_clear_ones(
    learned: str, verdict: str
) -> None:
    tables = synthetic.build()
    tables["learned"] = pl.DataFrame(
        [{"agent": "game", "learned": learned, "sentence": "Said.", "basis": "each state"}]
    )
    changes = {"CC": -3.0, "CD": 2.0, "DC": -4.0, "DD": 9.0}
    tables["transfer_states"] = states("game", changes, {"CC", "CD", "DC"})
    claims = make_claims(tables, draws=99).filter(pl.col("id") == "learned:game")
    (row,) = claims.iter_rows(named=True)
    assert row["verdict"] == verdict
    assert row["estimate"] == 3.0  # of 3, 2 and 4; the state that is not clear has no part
    assert row["low"] is None
    assert row["test"].startswith("sign of the change from base in each state under each control")
    found = pl.SQLContext(tables).execute(row["query"], eager=True)
    assert found.item() == row["estimate"]
