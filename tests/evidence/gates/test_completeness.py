"""Parts that do not sum to the whole, in tables that bring their error and in those that do not."""

import polars as pl
import pytest
import synthetic
from gating import gate

from moralscope.core.tables import from_rows
from moralscope.evidence.gates.judging import judge_gates


def foreign(
    sound: synthetic.Tables, factor: float = 1.0, token: int = -1, *, wholes: bool = True
) -> synthetic.Tables:
    """Contributions whose sum is ``factor`` times the agent's log-odds, without completeness."""
    rows = sound["attribution"].with_columns(token=pl.lit(token))
    sums = rows.group_by("agent", "prompt").agg(pl.col("contribution").sum().alias("sum"))
    whole = sums.with_columns(log_odds=pl.col("sum") / factor).drop("sum")
    decisions = sound["decisions"].drop("log_odds").join(whole, on=["agent", "prompt"])
    tables = {"agents": sound["agents"], "prompts": sound["prompts"], "attribution": rows}
    return {**tables, "decisions": decisions} if wholes else tables


def test_parts_are_summed_where_their_error_is_not_given(sound: synthetic.Tables) -> None:
    row = gate(foreign(sound), "completeness", "game")
    assert row["measured"] == pytest.approx(0.0, abs=1e-12)
    assert (row["threshold"], row["passed"]) == (0.01, True)
    assert "Summed over sites, the parts give the log-odds" in str(row["advice"])


def test_parts_normalised_part_by_part_miss_the_whole(sound: synthetic.Tables) -> None:
    tables = foreign(sound, 10.0)
    row = gate(tables, "completeness", "game")
    x = tables["decisions"].filter(pl.col("agent") == "game").get_column("log_odds").to_numpy()
    # The sum is ten times the log-odds, so it misses them by nine times their size.
    assert row["measured"] == pytest.approx(max(9 * abs(v) / max(1.0, abs(v)) for v in x))
    assert row["passed"] is False
    assert "The parts do not sum to the whole: over 80 prompts they miss the log-odds" in str(
        row["advice"]
    )
    assert "biases included" in str(row["advice"])


def test_a_difference_that_further_forms_may_explain_is_not_available(
    sound: synthetic.Tables,
) -> None:
    row = gate(foreign(sound, 1.05), "completeness", "game")
    assert row["passed"] is None
    assert "which further forms or tokens of the options may explain" in str(row["advice"])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.05, False)])
def test_the_last_depth_of_the_lens_is_the_logit_difference_itself(
    sound: synthetic.Tables, factor: float, passed: bool, turned: bool
) -> None:
    """The same 5% fail where the whole is exact; earlier depths are not taken for it."""
    tables = foreign(sound, factor, token=0)
    whole = tables["decisions"].select("agent", "prompt", "log_odds").iter_rows()
    rows = [
        {"agent": a, "prompt": p, "token": 0, "is_branch": True, "layer": layer,
         "sublayer": sublayer, "logit_diff": x if (layer, sublayer) == (1, "mlp") else 77.0}
        for a, p, x in whole
        for layer, sublayer in ((1, "mlp"), (-1, "embed"), (1, "attn"), (0, "mlp"))
    ]  # fmt: skip
    lens = from_rows("lens", rows[::-1] if turned else rows)
    row = gate({**tables, "lens": lens}, "completeness", "game")
    assert row["passed"] is passed
    assert "logit difference at the last depth of the lens" in str(row["advice"])


def test_without_a_whole_completeness_is_not_available(sound: synthetic.Tables) -> None:
    row = gate(foreign(sound, wholes=False), "completeness", "game")
    assert (row["measured"], row["passed"]) == (None, None)
    assert "give the table completeness (agent, prompt, error, logit_diff), or decisions" in str(
        row["advice"]
    )


def test_what_the_table_says_is_not_judged_twice(sound: synthetic.Tables) -> None:
    gates = judge_gates(sound).filter(pl.col("gate") == "completeness")
    assert gates.get_column("subject").to_list() == ["base", "game"]
    assert gates.get_column("threshold").unique().to_list() == [1e-4]
    partly = {**sound, "completeness": sound["completeness"].filter(pl.col("agent") == "base")}
    row = gate(partly, "completeness", "game")
    assert row["threshold"] == 0.01
