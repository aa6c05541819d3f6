"""The tracked files speak of the project alone, and keep the rules that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "docs", "examples", "benchmarks", "tools", ".ci", ".github")
TEXTS = {
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".txt",
    ".cff",
    ".html",
    ".css",
    ".js",
    ".jinja",
    "",
}
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 70

FORBIDDEN = {
    "machine path": r"(^|[^\w.~-])/(home|root|tmp|opt|srv|work|mnt)/[a-z.]",
    "index of packages": r"python[h]osted|p[y]pi\.org|download\.py[t]orch|find[-]links|index[-]url",
    "unfinished work": r"\b(TO[D]O|FIX[M]E|XX[X])\b",
    "blanket silence": r"(type|pyright): igno[r]e(?!\[)|# noq[a](?!:)|pragma: no cov[e]r",
    "how it was made": r"seed doc[u]ment|work[p]lace|\bissu[e] #\d",
}
GLOBAL_STATE = re.compile(
    r"np\.random\.(seed|rand|normal|choice|shuffle)\b|torch\.manual_seed|(?<!\w)random\.seed"
    r"|torch\.load\(|import pickle|trust_remote_code\s*=\s*True"
)


def texts() -> Iterator[Path]:
    """Every text file of the project, whether or not it is under version control."""
    yield from (p for p in ROOT.iterdir() if p.is_file() and p.suffix in TEXTS and p.name[0] != ".")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts:
                yield path


def sources() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def test_the_search_reaches_every_kind_of_file():
    found = {path.relative_to(ROOT).as_posix() for path in texts()}
    assert {"Makefile", ".ci/run", "constraints.txt", "README.md", "pyproject.toml"} <= found
    assert "src/moralscope/core/site.py" in found
    assert len(found) > 60


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_text_holds_what_does_not_belong(what: str):
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("machine path", "see " + "/ho" + "me/me/x"),
        ("index of packages", "pip install --find" + "-links x"),
        ("unfinished work", "# TO" + "DO later"),
        ("blanket silence", "x = 1  # type" + ": ignore"),
        ("how it was made", "as iss" + "ue #3 says"),
    ],
)
def test_the_patterns_find_what_they_forbid(what: str, line: str):
    assert re.search(FORBIDDEN[what], line)


def test_no_source_uses_global_randomness_or_unsafe_loading():
    assert GLOBAL_STATE.search("torch.manual_seed(0)")
    found = [path.name for path in sources() if GLOBAL_STATE.search(path.read_text())]
    assert found == []


def test_every_module_says_what_it_is_for():
    silent = [path.name for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_files_and_functions_fit_the_eye():
    long_files: dict[str, int] = {}
    long_functions: dict[str, int] = {}
    for path in sources():
        text = path.read_text()
        if (length := len(text.splitlines())) > LINES_OF_A_FILE:
            long_files[path.name] = length
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LINES_OF_A_FUNCTION:
                    long_functions[f"{path.name}:{node.name}"] = length
    assert (long_files, long_functions) == ({}, {})
