"""The one gate of a name on a subject."""

from collections.abc import Mapping

import polars as pl

from moralscope.evidence.gates.judging import judge_gates


def gate(tables: Mapping[str, pl.DataFrame], name: str, subject: str) -> dict[str, object]:
    rows = judge_gates(tables).filter((pl.col("gate") == name) & (pl.col("subject") == subject))
    assert rows.height == 1, (name, subject)
    return rows.row(0, named=True)
