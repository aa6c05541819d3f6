"""Few scenarios show too little of how divergences vary."""

import numpy as np
import polars as pl
import pytest
import synthetic

from moralscope.evidence.claims import make_claims


@pytest.mark.parametrize(("scenarios", "identified"), [(2, False), (4, False), (5, True)])
def test_who_decides_alike_takes_five_scenarios(scenarios: int, identified: bool) -> None:
    rng = np.random.default_rng(3)
    asked, who = synthetic.prompts(scenarios), synthetic.agents()
    tables = {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, synthetic.EFFECTS),
    }
    made = make_claims(tables, draws=99)
    row = made.filter(pl.col("id") == "alike:base:game").row(0, named=True)
    assert (row["verdict"] != "not identified by this design") is identified
    assert ("ask in 5 scenarios at least" in row["statement"]) is not identified
