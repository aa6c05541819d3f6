"""Rows and prompts that repeat each other are counted, and count once."""

import polars as pl
import pytest
import synthetic
from gating import gate

from moralscope.core.errors import TableError
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
