"""Audits stay within their bars of time and memory."""

import pytest
from benchmarks.audit_scale import measure


@pytest.mark.slow
def test_an_audit_of_fifty_thousand_rows_takes_half_a_minute() -> None:
    cost = measure(50_000, "csv")
    assert cost["rows"] > 50_000
    assert cost["cpu_seconds"] < 30.0
    assert cost["claims"] > 0


@pytest.mark.slow
def test_memory_hardly_grows_with_the_rows() -> None:
    """Judged at once, a million rows of patches alone would take more."""
    cost = measure(1_000_000, "parquet")
    assert cost["rows"] > 900_000
    assert cost["peak_memory_gib"] < 1.5
