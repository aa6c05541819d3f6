"""What the documents tell a reader to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from moralscope.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
PROMISED = {"demo", "test", "test-fast", "check", "bench", "docs"}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],  # noqa: S607
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip


def targets() -> set[str]:
    return set(re.findall(r"^  make ([a-z-]+)", make("help").stdout, re.MULTILINE))


def fenced(document: str) -> list[str]:
    """The lines of the shell blocks of a document."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def said(document: str) -> str:
    return (ROOT / document).read_text()


def test_the_promised_targets_exist():
    assert targets() >= PROMISED


@pytest.mark.parametrize("target", sorted(PROMISED | {"setup", "wheel", "picture"}))
def test_a_target_would_run(target: str):
    result = make("--dry-run", target)
    assert result.returncode == 0, result.stderr
    assert result.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_command_that_is_named_exists(document: str):
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", said(document), re.MULTILINE))
    assert named <= targets()


def test_the_readme_shows_both_commands():
    assert {"make demo", "make test"} <= {
        line.partition("#")[0].strip() for line in fenced("README.md")
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_moralscope_command_in_a_block_is_understood(document: str):
    for line in fenced(document):
        words = shlex.split(line, comments=True)
        if words[:1] == ["moralscope"]:
            command, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
            assert callable(command)
            assert bound is not None


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if not d.startswith("docs/")])
def test_local_links_lead_somewhere(document: str):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", said(document))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_tests_come_last_in_ci():
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line]
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"
    assert {f"make {name}" for name in ("lint", "types", "imports", "docs", "wheel")} <= set(lines)


def test_check_covers_what_ci_runs():
    ran = {
        line.split()[1]
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if line[:5] == "make "
    }
    (line,) = re.findall(r"^check: (.*?) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(line.split()) == ran - {"setup"}


def test_the_test_target_demands_coverage():
    assert "--cov-fail-under=90" in make("--dry-run", "test").stdout
    assert "not slow" in make("--dry-run", "test-fast").stdout
