"""Rows and prompts that repeat each other are counted, and count once."""

import numpy as np
import polars as pl
import pytest
import synthetic
from gating import gate

from moralscope.core.errors import TableError
from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.copies import repeated_rows
from moralscope.evidence.gates.judging import judge_gates


def test_repeated_rows_are_counted_per_table(sound: synthetic.Tables) -> None:
    twice = {**sound, "patching": pl.concat([sound["patching"], sound["patching"].head(30)])}
    rows = sound["patching"].height
    row = gate(twice, "duplicates", "rows patching")
    assert (row["measured"], row["threshold"], row["passed"]) == (30.0, 0.0, False)
    assert f"30 of {rows + 30} rows of patching repeat another in every column" in str(
        row["advice"]
    )
    rest = judge_gates(twice).filter(pl.col("subject") != "rows patching")
    assert rest.equals(judge_gates(sound))


def test_rows_that_contradict_each_other_are_refused(sound: synthetic.Tables) -> None:
    other = sound["patching"].head(1).with_columns(effect=pl.lit(9.0))
    with pytest.raises(TableError, match=r"different rows for the same source.*effect is .* and 9"):
        judge_gates({"patching": pl.concat([sound["patching"], other])})


def test_a_table_without_repeated_rows_passes() -> None:
    found = repeated_rows("norms", 10, 0)
    assert (found.passed, found.advice) == (True, "No row of norms repeats another.")


def test_copies_of_a_prompt_say_how_many_count_with_their_original(
    sound: synthetic.Tables,
) -> None:
    """One copy within its scenario, one in another."""
    first = sound["prompts"].row(0, named=True)
    text = {c: pl.lit(first[c]) for c in ("text", "sha256", "positive", "negative")}
    copied = synthetic.set_values(
        sound, "prompts", pl.col("prompt").is_in(["s0w12", "s5w01"]), **text
    )
    row = gate(copied, "duplicates", "prompts")
    assert (row["measured"], row["passed"]) == (2.0, False)
    assert "2 of 80 prompts repeat the text of another" in str(row["advice"])
    assert "1 of them stand in the scenario of their original" in str(row["advice"])


def test_scenarios_that_share_a_text_but_for_spaces_and_case_are_one(
    sound: synthetic.Tables,
) -> None:
    first = sound["prompts"].row(0, named=True)
    varied = {
        "text": pl.lit(f" {first['text'].upper()}  "),
        "positive": pl.lit(first["positive"]),
        "negative": pl.lit(first["negative"]),
    }
    copied = synthetic.set_values(sound, "prompts", pl.col("prompt") == "s5w01", **varied)
    row = gate(copied, "duplicates", "scenarios")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "1 texts stand in more than one scenario" in str(row["advice"])


def _answered_alike(sound: synthetic.Tables, step: float | None = None) -> synthetic.Tables:
    """Every scenario answers as the first of its five does, in every agent."""
    like = {f"s{s}": f"s{s - s % 5}" for s in range(20)}
    rows = sound["decisions"].with_columns(
        log_odds=pl.col("log_odds").first().over(
            pl.col("scenario").replace(like), "agent", pl.col("prompt").str.tail(3)
        )
    )  # fmt: skip
    if step is not None:
        rows = rows.with_columns((pl.col("log_odds") / step).round() * step)
    return {**sound, "decisions": rows.with_columns(fingerprint_log_odds=pl.col("log_odds"))}


@pytest.mark.parametrize("step", [None, 0.001])
def test_scenarios_that_every_agent_answers_alike_are_one(
    sound: synthetic.Tables, step: float | None
) -> None:
    """Their texts differ, or are not known at all."""
    copied = _answered_alike(sound, step)
    row = gate(copied, "duplicates", "scenarios")
    assert row["passed"] is False
    # Ten pairs of each five scenarios; four groups, four prompts in each scenario.
    assert row["measured"] == pytest.approx(160, abs=12)
    assert "get the same log-odds from every agent to the last digit" in str(row["advice"])
    claims = make_claims(copied, draws=199)
    changed = claims.filter(pl.col("id").str.starts_with("change:"))
    assert set(changed.get_column("verdict")) == {"artefact"}


def test_coarse_numbers_agree_by_chance(sound: synthetic.Tables) -> None:
    coarse = sound["decisions"].with_columns(pl.col("log_odds").round(1))
    assert gate({**sound, "decisions": coarse}, "duplicates", "scenarios")["passed"] is True


def _seeds(copies: int) -> synthetic.Tables:
    """Two rewards with seven seeds; some of the first are copies of one, last digits apart."""
    rng = np.random.default_rng(8)
    asked, who = synthetic.prompts(), synthetic.agents(7, ("game", "utilitarian"))
    rows = synthetic.decisions(who, asked, rng, {"game": 1.0, "utilitarian": 0.5})
    one = rows.filter(pl.col("agent") == "game-0")
    noise = pl.Series(1e-7 * rng.normal(size=one.height))
    twins = [f"game-{seed}" for seed in range(1, copies + 1)]
    copied = [
        one.with_columns(agent=pl.lit(twin), log_odds=pl.col("log_odds") + noise) for twin in twins
    ]
    return {
        "agents": who,
        "prompts": asked,
        "decisions": pl.concat([rows.filter(~pl.col("agent").is_in(twins)), *copied]),
    }


def test_copies_of_one_training_run_are_no_seeds() -> None:
    tables = _seeds(6)
    row = gate(tables, "duplicates", "seeds game of base")
    assert (row["measured"], row["passed"]) == (6.0, False)
    assert "6 of 7 agents trained with the game reward (such as game-1)" in str(row["advice"])
    assert gate(tables, "duplicates", "seeds utilitarian of base")["passed"] is True
    verdicts = dict(make_claims(tables, draws=199).select("id", "verdict").iter_rows())
    assert verdicts["reward:game"] == verdicts["rewards:game:utilitarian"] == "artefact"
    assert verdicts["reward:utilitarian"] != "artefact"


def test_seeds_that_differ_pass() -> None:
    assert gate(_seeds(0), "duplicates", "seeds game of base")["passed"] is True


def test_seeds_that_learned_nothing_are_left_to_liveness() -> None:
    tables = _seeds(0)
    base = tables["decisions"].filter(pl.col("agent") == "base").select("prompt", zero="log_odds")
    dead = tables["decisions"].join(base, on="prompt").with_columns(log_odds="zero").drop("zero")
    assert gate({**tables, "decisions": dead}, "duplicates", "seeds game of base")["passed"] is True


@pytest.mark.parametrize("name", ["other", "prompt", "scenario", "family"])
def test_an_agent_may_be_called_like_a_column(sound: synthetic.Tables, name: str) -> None:
    """Claims are the same by another name, whatever the package calls its columns."""
    claims = make_claims(sound, draws=199)
    agent = next(row["agent"] for row in sound["agents"].to_dicts() if row["kind"] != "base")
    called = {
        key: table.with_columns(
            pl.col(*own).replace({agent: name, f"{agent}>{agent}": f"{name}>{name}"})
        )
        if (own := {"agent", "source", "target", "subject"} & set(table.columns))
        else table
        for key, table in sound.items()
    }
    found = make_claims(called, draws=199)
    assert found.height == claims.height
    assert f"change:{name}" in found.get_column("id").to_list()
