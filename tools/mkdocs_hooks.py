"""Pages of the documentation that are written from the code, so that they cannot disagree with it.

A page says where: ``<!-- tables -->`` is replaced by every table's columns from
``moralscope.core.schemas``, ``<!-- commands -->`` by every command's help.
"""

from __future__ import annotations

from collections.abc import Iterator

from moralscope.cli.main import app
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import Schema, schema_of

TABLES, COMMANDS = "<!-- tables -->", "<!-- commands -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in the generated parts of a page; called by MkDocs for each page."""
    if TABLES in markdown:
        markdown = markdown.replace(TABLES, "\n".join(_all_tables()))
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, _commands())
    return markdown


def _all_tables() -> Iterator[str]:
    for name in SCHEMAS:
        yield from _table(schema_of(name))


def _table(schema: Schema) -> Iterator[str]:
    yield f"## {schema.name}\n"
    key = ", ".join(f"`{column}`" for column in schema.key)
    yield f"A row is {schema.row}. Unique by {key}.\n"
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in schema.columns:
        kind = f"{column.kind}, may be null" if column.nullable else column.kind
        cells = (f"`{column.name}`", kind, column.unit, column.meaning.replace("|", "\\|"))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _commands() -> str:
    text = app.generate_docs(output_format="markdown")
    return text[text.index("**Commands**") :]  # the page has its own title and contents
