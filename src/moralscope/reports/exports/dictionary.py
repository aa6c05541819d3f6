"""What does each column mean? The data dictionary of a run, for spreadsheets, programs and people.

Made from the schemas that every table was written with, so it cannot differ from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import polars as pl

from moralscope.core.tables import schema_of


def dictionary_rows(names: Iterable[str]) -> pl.DataFrame:
    """One row a column: table, row (what a row is), key, column, kind, nullable, unit, meaning."""
    return pl.DataFrame(
        [
            (
                schema.name,
                schema.row,
                " ".join(schema.key),
                column.name,
                column.kind,
                column.nullable,
                column.unit,
                column.meaning,
            )
            for schema in map(schema_of, names)
            for column in schema.columns
        ],
        schema={
            "table": pl.String,
            "row": pl.String,
            "key": pl.String,
            "column": pl.String,
            "kind": pl.String,
            "nullable": pl.Boolean,
            "unit": pl.String,
            "meaning": pl.String,
        },
        orient="row",
    )


def dictionary_json(names: Iterable[str]) -> str:
    """The same as JSON, a table an object."""
    value = {
        schema.name: {
            "row": schema.row,
            "key": list(schema.key),
            "columns": [
                {
                    "name": column.name,
                    "kind": column.kind,
                    "nullable": column.nullable,
                    "unit": column.unit,
                    "meaning": column.meaning,
                }
                for column in schema.columns
            ],
        }
        for schema in map(schema_of, names)
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def dictionary_markdown(names: Iterable[str]) -> str:
    """The same as Markdown, a section a table."""
    lines = ["# Data dictionary", ""]
    for schema in map(schema_of, names):
        lines += [f"## {schema.name}", "", f"A row is {schema.row}. Key: {', '.join(schema.key)}."]
        lines += ["", "| column | kind | unit | meaning |", "|---|---|---|---|"]
        lines += [
            f"| {column.name} | {column.kind}{'?' if column.nullable else ''} | {column.unit} | "
            f"{column.meaning.replace('|', chr(92) + '|')} |"
            for column in schema.columns
        ]
        lines.append("")
    lines.append("A kind that ends in ? may be null: an undefined number is null, never zero.")
    return "\n".join(lines) + "\n"
