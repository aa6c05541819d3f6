"""The generated pages hold all that the code holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from moralscope.core.hashing import LAYERS
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import schema_of
from moralscope.evidence.verdicts import VERDICTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "tools/mkdocs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(hooks: ModuleType, name: str) -> str:
    return hooks.on_page_markdown((ROOT / "docs" / name).read_text(), page=None)


def test_every_column_of_every_table_is_documented(hooks: ModuleType):
    sections = re.split(r"^## ", page(hooks, "tables.md"), flags=re.MULTILINE)[1:]
    told = {section.splitlines()[0]: section for section in sections}
    assert list(told) == list(SCHEMAS)
    for name, section in told.items():
        rows = re.findall(r"^\| `(\w+)` \| (.*)$", section, re.MULTILINE)
        columns = schema_of(name).columns
        assert [row[0] for row in rows] == [column.name for column in columns]
        for (_, rest), column in zip(rows, columns, strict=True):
            assert rest.startswith(column.kind)
            assert ("may be null" in rest.split(" | ")[0]) == column.nullable
            # A bar inside a cell would open another one.
            assert len(re.findall(r"(?<!\\)\|", rest)) == 3


@pytest.mark.parametrize("command", ["demo", "run", "report", "doctor"])
def test_every_command_is_documented(hooks: ModuleType, command: str):
    assert f"## moralscope {command}\n" in page(hooks, "cli.md")


def test_other_pages_are_left_alone(hooks: ModuleType):
    text = (ROOT / "docs/index.md").read_text()
    assert hooks.on_page_markdown(text, page=None) == text


def test_the_layers_are_drawn_as_they_are():
    drawn = " < ".join(" | ".join(layer) for layer in LAYERS)
    for document in ("docs/architecture.md", "CONTRIBUTING.md"):
        assert drawn in (ROOT / document).read_text()


def test_the_verdicts_are_those_of_the_code():
    for document, mark in (("docs/verdicts.md", "*"), ("README.md", "")):
        text = (ROOT / document).read_text()
        for verdict in VERDICTS:
            assert f"| {mark}{verdict}{mark} |" in text
