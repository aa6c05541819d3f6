"""The page and the summaries: every figure in its place, misses in bold, reasons once."""

import polars as pl
import pytest

from moralscope.core.tables import from_rows
from moralscope.evidence.calibrating.pages import calibration_page, missed, summaries, verdict


def row(test: str, clusters: int, quantity: str, value: float | None, **more: object) -> dict:
    settings = {
        "test": test, "condition": "clustered", "clusters": clusters, "quantity": quantity,
        "value": value, "nominal": None, "attainable": None, "limit": None, "runs": 100,
        "passed": None, "note": "",
    }  # fmt: skip
    return settings | more


@pytest.fixture
def table() -> pl.DataFrame:
    """One test with a miss, one interval, one that does not apply to a condition."""
    return from_rows(
        "calibration",
        [
            row("sign_flip", 5, "type_I", 0.0, attainable=0.0, passed=True),
            row("sign_flip", 5, "power", 0.0, note="an effect of 1 SD"),
            row("sign_flip", 10, "type_I", 0.2, attainable=0.049, passed=False, limit=0.08,
                note="simulated again: 0.2100 of 25 studies missed the limit"),
            row("sign_flip", 10, "power", 0.75, note="an effect of 1 SD"),
            row("cluster_t", 20, "coverage", 0.948, passed=True),
            row("cluster_t", 40, "coverage", 0.951, passed=True),
            row("dependent_z", 5, "type_I", None, runs=0, note="Not applicable: of a reason."),
            row("dependent_z", 10, "type_I", None, runs=0, note="Not applicable: of a reason."),
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "|  |  | rounded | 0.000 / 0.000 / 0.00 | **0.200** / 0.049 / 0.75 | – | – |",
        "| `cluster_t` | Student's interval, cluster means | clustered | – | – | 0.948 | 0.951 |",
        "| `sign_flip` | an effect of 1 SD |",
        "| `sign_flip` | clustered | 10 | 0.2100 of 25 studies missed the limit | **0.200** |",
    ],
)
def test_figures_stand_beside_each_other(table: pl.DataFrame, line: str) -> None:
    again = table.filter(pl.col("test") == "sign_flip").with_columns(condition=pl.lit("rounded"))
    assert line in calibration_page(pl.concat([table, again])).splitlines()


def test_reasons_stand_once_with_their_units(table: pl.DataFrame) -> None:
    page = calibration_page(table)
    assert "| `dependent_z` | clustered, with 5, 10 units | of a reason |" in page
    assert page.count("of a reason") == 1


def test_a_test_is_named_in_its_first_line_only(table: pl.DataFrame) -> None:
    again = table.with_columns(condition=pl.lit("rounded"))
    page = calibration_page(pl.concat([table, again]))
    section = page.split("## ")[1]
    assert section.count("`sign_flip`") == 1
    assert "|  |  | rounded | 0.000 / 0.000 / 0.00 |" in section


def test_sections_without_rows_are_left_out(table: pl.DataFrame) -> None:
    page = calibration_page(table.filter(pl.col("test") == "cluster_t"))
    assert page.startswith("All 2 rates of 1 tests keep their limit.\n\n## Coverage")
    assert page.count("## ") == 1


def test_verdict_counts_and_names(table: pl.DataFrame) -> None:
    assert verdict(table) == "1 of 4 rates of 3 tests miss their limit: sign_flip."
    assert missed(table).select("test", "clusters").rows() == [("sign_flip", 10)]
    kept = table.filter(pl.col("passed").fill_null(value=True))
    assert verdict(kept) == "All 3 rates of 3 tests keep their limit."


def test_summaries_give_the_worst(table: pl.DataFrame) -> None:
    flips, student, z = summaries(table)
    assert (flips.worst, flips.attainable, flips.kept, flips.judged) == (0.2, 0.049, 1, 2)
    assert flips.power == (0.0, 0.75)
    assert (student.quantity, student.worst, student.power) == ("coverage", 0.948, None)
    assert (z.worst, z.judged, z.inapplicable) == (None, 0, 2)
