"""From rows to units: repeated rows and cloned prompts add no weight."""

import numpy as np
import planted
import polars as pl
import pytest
import synthetic

from moralscope.core.errors import TableError
from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.units import checked, collapse_rows, collapsed_prompts, matrix, on_family


def test_rows_repeated_as_they_stand_are_counted_and_collapsed() -> None:
    frame = pl.DataFrame({"agent": ["a", "b", "a", "a"], "prompt": ["p"] * 4, "x": [1.0, 2, 1, 1]})
    kept, count = collapse_rows(frame, ["agent", "prompt"])
    assert (kept.rows(), count) == ([("a", "p", 1.0), ("b", "p", 2.0)], 2)
    assert collapse_rows(kept, ["agent", "prompt"])[1] == 0


def test_two_values_for_one_thing_are_refused_and_both_are_shown() -> None:
    frame = pl.DataFrame(
        {"agent": ["b", "a", "b"], "prompt": [None, "p", None], "x": [2.0, 1.0, 2.5]}
    )
    with pytest.raises(TableError) as caught:
        collapse_rows(frame, ["agent", "prompt"], "decisions")
    assert str(caught.value).startswith(
        "Table 'decisions' has different rows for the same agent, prompt. "
        "Seen: {'agent': 'b', 'prompt': None}: x is 2.0 and 2.5. "
    )


def test_repeated_rows_of_a_table_are_collapsed_before_it_is_checked(
    sound: synthetic.Tables,
) -> None:
    twice = pl.concat([sound["decisions"], sound["decisions"].head(7)])
    assert checked({"decisions": twice})["decisions"].height == sound["decisions"].height
    changed = twice.with_columns(
        log_odds=pl.when(pl.int_range(pl.len()) == twice.height - 1).then(9.0).otherwise("log_odds")
    )
    with pytest.raises(TableError, match=r"log_odds is -?[\d.]+ and 9.0"):
        checked({"decisions": changed})


def cloned(sound: synthetic.Tables) -> synthetic.Tables:
    """The second wording of scenario 0 repeats the text of the first, and its answers."""
    tables = sound
    for labels in "12":
        original = tables["prompts"].row(
            by_predicate=pl.col("prompt") == f"s0w0{labels}", named=True
        )
        tables = synthetic.set_values(
            tables, "prompts", pl.col("prompt") == f"s0w1{labels}",
            **{c: pl.lit(original[c]) for c in ("text", "sha256", "positive", "negative")},
        )  # fmt: skip
        answers = tables["decisions"].filter(pl.col("prompt") == f"s0w0{labels}")
        rest = tables["decisions"].filter(pl.col("prompt") != f"s0w1{labels}")
        copies = answers.with_columns(prompt=pl.lit(f"s0w1{labels}"))
        tables = {**tables, "decisions": pl.concat([rest, copies.select(rest.columns)])}
    return tables


def test_a_cloned_prompt_has_no_weight_in_its_scenario(sound: synthetic.Tables) -> None:
    """Three texts, one of them twice under another name: the mean is that of three texts."""
    prompts = sound["prompts"]
    one = prompts.filter(pl.col("scenario") == "s0")
    again = one.head(1).with_columns(prompt=pl.lit("zz again"))
    own = sound["decisions"].filter(pl.col("agent") == "game")
    copied = own.filter(pl.col("prompt") == one["prompt"][0]).with_columns(
        prompt=pl.lit("zz again")
    )
    rows = on_family(pl.concat([own, copied]), pl.concat([prompts, again]), "clusters")
    mean = matrix(rows, "scenario", "agent", "log_odds").values[0, 0]
    values = own.filter(pl.col("scenario") == "s0").get_column("log_odds").to_numpy()
    assert mean == pytest.approx(np.mean(values), rel=1e-12)


def test_copies_are_those_of_one_scenario_with_the_same_options(sound: synthetic.Tables) -> None:
    kept, count = collapsed_prompts(cloned(sound)["prompts"])
    assert count == 2
    assert "s0w01" in kept["prompt"].to_list()
    assert "s0w11" not in kept["prompt"].to_list()
    for other in (pl.lit("s1").alias("scenario"), pl.lit("yes").alias("positive")):
        twin = sound["prompts"].head(1).with_columns(pl.lit("twin").alias("prompt"), other)
        assert collapsed_prompts(pl.concat([sound["prompts"], twin]))[1] == 0


def test_of_the_copies_one_that_was_measured_is_kept(sound: synthetic.Tables) -> None:
    tables = cloned(sound)
    measured = tables["decisions"].filter(pl.col("prompt") != "s0w01")
    rows = on_family(measured, tables["prompts"], "clusters")
    assert "s0w11" in rows["prompt"].to_list()
    assert "s0w12" not in rows["prompt"].to_list()


def test_a_cloned_text_adds_no_unit_to_any_claim() -> None:
    """One of eight texts again under another name, with its answers: nothing may change."""
    tables = planted.build(
        {"base": lambda *_: 0.0, "a": lambda _, cell: 1.0 if cell[0] == "C" else -0.5}
    )
    name = pl.col("prompt")
    copied = tables["prompts"].filter(pl.col("template") == "w3")
    answers = tables["decisions"].filter(name.is_in(copied.get_column("prompt").to_list()))
    again = {
        **tables,
        "prompts": pl.concat(
            [tables["prompts"], copied.with_columns(template=pl.lit("w99"), prompt="z" + name)]
        ),
        "decisions": pl.concat([tables["decisions"], answers.with_columns(prompt="z" + name)]),
    }
    assert again["decisions"].height > tables["decisions"].height
    told = ["id", "n_units", "p_adjusted", "verdict"]
    before, after = make_claims(tables, draws=99), make_claims(again, draws=99)
    assert after.select(told).equals(before.select(told))
    for column in ("estimate", "low", "high"):
        assert after[column].is_null().equals(before[column].is_null())
        known = before[column].drop_nulls().to_list()
        assert after[column].drop_nulls().to_list() == pytest.approx(known, rel=1e-9)
    context = pl.SQLContext({**again, "gates": judge_gates(again)})
    for row in after.filter(pl.col("estimate").is_not_null()).iter_rows(named=True):
        found = context.execute(row["query"]).collect().get_column("estimate")[0]
        assert found == pytest.approx(row["estimate"], rel=1e-9, abs=1e-12), row["id"]
