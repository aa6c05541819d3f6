"""A table on disk follows its schema; a frame that does not is refused with the reason."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import TableError
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import (
    conform,
    from_rows,
    read_table,
    schema_of,
    write_table,
)

EXAMPLES = {"text": "x", "integer": 3, "number": 0.5, "flag": True}
VALUES = {
    "text": st.text(max_size=8),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
}


def a_row(name: str, **changes: object) -> dict[str, object]:
    return {c.name: EXAMPLES[c.kind] for c in schema_of(name).columns} | changes


def without(row: dict[str, object], column: str) -> dict[str, object]:
    return {key: value for key, value in row.items() if key != column}


def rows_of(name: str) -> st.SearchStrategy[list[dict[str, object]]]:
    schema = schema_of(name)
    row = st.fixed_dictionaries(
        {
            c.name: st.none() | VALUES[c.kind] if c.nullable else VALUES[c.kind]
            for c in schema.columns
        }
    )
    return st.lists(row, max_size=6, unique_by=lambda r: tuple(r[key] for key in schema.key))


MAY_BE_NULL = {("transfer", "table_order"), ("update_norms", "layer")}
"""Parts of a key that some rows have none of: no table in the text, no layer of the model."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_complete(name: str):
    schema = schema_of(name)
    columns = {column.name: column for column in schema.columns}
    assert len(columns) == len(schema.columns)
    assert schema.row
    assert schema.key
    for key in schema.key:
        assert not columns[key].nullable or (name, key) in MAY_BE_NULL
    for column in schema.columns:
        assert column.kind in EXAMPLES
        assert column.unit
        assert column.meaning


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_comes_back_from_disk_as_written(name: str, tmp_path_factory):
    @settings(max_examples=25)
    @given(rows_of(name))
    def comes_back(rows: list[dict[str, object]]) -> None:
        folder = tmp_path_factory.mktemp(name)
        frame = from_rows(name, rows)
        assert write_table(name, frame, folder) == folder / f"{name}.parquet"
        stored = read_table(name, folder)
        assert stored.rows(named=True) == rows
        assert stored.schema == schema_of(name).dtypes()

    comes_back()


def test_equal_tables_are_equal_files(tmp_path: Path):
    for place in ("one", "two"):
        write_table("norms", from_rows("norms", [a_row("norms")]), tmp_path / place)
    one, two = ((tmp_path / place / "norms.parquet").read_bytes() for place in ("one", "two"))
    assert one == two


def test_columns_are_put_in_order_and_missing_nullable_ones_filled():
    row = dict(reversed(a_row("agents").items()))
    frame = conform("agents", pl.DataFrame([without(row, "reward")]))
    assert frame.columns == list(schema_of("agents").dtypes())
    assert frame.get_column("reward").to_list() == [None]
    assert frame.get_column("reward").dtype == pl.String


def test_conforming_twice_changes_nothing():
    frame = from_rows("patching", [a_row("patching")])
    assert conform("patching", frame).equals(frame)


@pytest.mark.parametrize(
    ("series", "values"),
    [
        (pl.Series("value", [1, 2], dtype=pl.Int32), [1.0, 2.0]),
        (pl.Series("value", [0.5, 2.0], dtype=pl.Float32), [0.5, 2.0]),
        (pl.Series("value", [None, None], dtype=pl.Null), [None, None]),
    ],
)
def test_narrower_numbers_are_widened(series: pl.Series, values: list[float | None]):
    row = {"agent": "a", "site_b": "L0.mlp", "measure": "product", "n": 1}
    frame = pl.DataFrame([row | {"site_a": "L1.mlp"}, row | {"site_a": "L2.mlp"}])
    widened = conform("interactions", frame.with_columns(series)).get_column("value")
    assert widened.dtype == pl.Float64
    assert widened.to_list() == values


def test_dictionary_encoded_text_is_text():
    frame = pl.DataFrame([a_row("norms")])
    for dtype in (pl.Categorical, pl.Enum(["x"])):
        assert conform("norms", frame.cast({"agent": dtype}))["agent"].to_list() == ["x"]


def test_no_rows_give_an_empty_table(tmp_path: Path):
    empty = from_rows("claims", [])
    assert empty.schema == schema_of("claims").dtypes()
    write_table("claims", empty, tmp_path)
    assert read_table("claims", tmp_path).equals(empty)


@pytest.mark.parametrize("height", [0, 1])
def test_an_unknown_column_is_refused_with_the_nearest(height: int):
    frame = pl.DataFrame([a_row("decisions") | {"log_ods": 1.0}]).head(height)
    expected = "'decisions' has an unknown column 'log_ods'.*did you mean 'log_odds'"
    with pytest.raises(TableError, match=expected):
        conform("decisions", frame)
    with pytest.raises(TableError, match=expected):
        from_rows("decisions", [a_row("decisions"), {"log_ods": 1.0}])


def test_a_missing_column_is_refused_with_its_meaning():
    row = without(a_row("decisions"), "p_positive")
    expected = "'decisions' lacks the column 'p_positive'.*add it: of the positive option"
    with pytest.raises(TableError, match=expected):
        conform("decisions", pl.DataFrame([row]))
    with pytest.raises(TableError, match=expected):
        from_rows("decisions", [row])


@pytest.mark.parametrize(
    ("column", "value"),
    [("agent", 1), ("value", "0.5"), ("value", True), ("n", 2.5), ("n", "2"), ("n", 2**64)],
)
def test_the_wrong_type_is_refused_not_converted(column: str, value: object):
    rows = [a_row("interactions", **{column: value})]
    expected = f"'interactions' has the wrong type in column '{column}'"
    with pytest.raises(TableError, match=expected):
        conform("interactions", pl.DataFrame(rows))
    if value is not True:  # a Python bool is an int, and counts as 1
        with pytest.raises(TableError, match=expected):
            from_rows("interactions", rows)


def test_a_mixed_column_is_refused_naming_its_types():
    rows = [a_row("norms", norm=1.0), a_row("norms", norm="1", agent="y")]
    with pytest.raises(TableError, match=r"column 'norm'. Seen: float, str"):
        from_rows("norms", rows)


def test_numpy_scalars_are_taken_as_they_are():
    row = a_row(
        "patching", layer=np.int64(4), effect=np.float32(0.1), flipped=np.bool_(True),
        baseline_log_odds=2,
    )  # fmt: skip
    (stored,) = from_rows("patching", [row]).rows(named=True)
    assert (stored["layer"], stored["flipped"], stored["baseline_log_odds"]) == (4, True, 2.0)
    assert stored["effect"] == float(np.float32(0.1))


def test_rows_may_leave_nullable_columns_out():
    rows = [without(a_row("agents", agent="a"), "reward"), a_row("agents", agent="b", reward="r")]
    assert from_rows("agents", rows).get_column("reward").to_list() == [None, "r"]


def test_a_null_where_none_may_be_is_refused():
    rows = [a_row("decisions", legal_mass=None, agent=agent) for agent in "ab"]
    expected = "'decisions' has nulls in column 'legal_mass'. Seen: 2 nulls"
    with pytest.raises(TableError, match=expected):
        from_rows("decisions", rows)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float):
    rows = [a_row("interactions"), a_row("interactions", value=value, agent="y")]
    expected = rf"'interactions' has values that are not finite in column 'value'. Seen: \[{value}"
    with pytest.raises(TableError, match=expected):
        from_rows("interactions", rows)


def test_a_repeated_key_is_refused():
    rows = [a_row("decisions"), a_row("decisions", log_odds=9.0), a_row("decisions", agent="y")]
    expected = r"'decisions' repeats its key \(agent, prompt\). Seen: 1 repeated rows"
    with pytest.raises(TableError, match=expected):
        from_rows("decisions", rows)


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(TableError, match="no table of this name. Seen: decision.*'decisions'"):
        schema_of("decision")


def test_a_refused_table_leaves_the_old_file(tmp_path: Path):
    good = from_rows("norms", [a_row("norms")])
    write_table("norms", good, tmp_path)
    with pytest.raises(TableError, match="not finite"):
        write_table("norms", good.with_columns(norm=pl.lit(math.nan)), tmp_path)
    assert read_table("norms", tmp_path).equals(good)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(TableError, match="Table 'norms' is missing. Seen: .*norms.parquet"):
        read_table("norms", tmp_path)


@pytest.mark.parametrize("data", [b"", b"PAR1 but not really", b"agent,prompt\n1,2\n"])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "norms.parquet").write_bytes(data)
    with pytest.raises(TableError, match="Table 'norms' cannot be read"):
        read_table("norms", tmp_path)


def test_a_table_of_another_kind_is_refused(tmp_path: Path):
    write_table("norms", from_rows("norms", [a_row("norms")]), tmp_path)
    (tmp_path / "norms.parquet").rename(tmp_path / "claims.parquet")
    with pytest.raises(TableError, match="'claims' has an unknown column 'agent'"):
        read_table("claims", tmp_path)
