"""Two versions of a table: what a walk over dictionaries finds, found at once."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.comparing import compare_tables
from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows

NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -2.5, 1.0 + 1e-12]))


def decisions(rows: dict[tuple[str, str], float | None]) -> pl.DataFrame:
    return from_rows(
        "decisions",
        [
            {
                "agent": agent, "prompt": prompt, "game": "IPD", "scenario": "s",
                "log_odds": value, "p_positive": 0.5, "p_negative": 0.5, "legal_mass": 1.0,
                "p_positive_given_legal": 0.5, "fingerprint_log_odds": None,
            }
            for (agent, prompt), value in rows.items()
        ],
    )  # fmt: skip


TABLES = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from("pqr")), NUMBERS, max_size=6
)


def agree(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))


@given(TABLES, TABLES, st.sampled_from([0.0, 1e-9]))
@settings(max_examples=60)
def test_differences_are_those_of_a_walk_over_dictionaries(
    first: dict[tuple[str, str], float | None],
    second: dict[tuple[str, str], float | None],
    tolerance: float,
) -> None:
    found = compare_tables("decisions", decisions(first), decisions(second), tolerance=tolerance)
    assert (found.rows_first, found.rows_second) == (len(first), len(second))
    assert found.only_first == len(first.keys() - second.keys())
    assert found.only_second == len(second.keys() - first.keys())
    shared = first.keys() & second.keys()
    off = [k for k in shared if not agree(first[k], second[k], tolerance)]
    changed = {column.column: column for column in found.columns}
    assert set(changed) == ({"log_odds"} if off else set())
    if off:
        sizes = [
            abs(a - b)
            for a, b in ((first[k], second[k]) for k in off)
            if a is not None and b is not None
        ]
        assert changed["log_odds"].rows == len(off)
        assert changed["log_odds"].largest == (max(sizes) if sizes else None)
    assert found.equal == (not off and first.keys() == second.keys())
    assert bool(found.sentence()) == (not found.equal)


def test_the_order_of_rows_does_not_matter() -> None:
    table = decisions({("a", "p"): 1.0, ("b", "p"): None, ("a", "q"): 2.0})
    assert compare_tables("decisions", table, table.reverse()).equal


def test_the_worst_row_is_the_one_that_is_shown() -> None:
    one = decisions({("a", "p"): 1.0, ("b", "p"): 1.0})
    other = decisions({("a", "p"): 1.5, ("b", "p"): -7.0})
    (column,) = compare_tables("decisions", one, other).columns
    assert (column.first, column.second, column.largest) == (1.0, -7.0, 8.0)
    assert column.key == {"agent": "b", "prompt": "p"}
    assert column.sentence() == "log_odds of b, p: 1.0 and -7.0"


def test_columns_that_may_differ_are_left_out() -> None:
    one = decisions({("a", "p"): 1.0})
    other = one.with_columns(game=pl.lit("ISH"), log_odds=pl.lit(3.0))
    found = compare_tables("decisions", one, other, ignored=["log_odds"])
    assert [column.column for column in found.columns] == ["game"]
    assert found.columns[0].largest is None


def test_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TableError, match="no table of this name"):
        compare_tables("decision", pl.DataFrame(), pl.DataFrame())
