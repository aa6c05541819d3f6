"""The layers of the architecture hold, and the contracts that say so can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from moralscope.core.hashing import LAYERS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(root / 'src')!r})\n"
    code += "from importlinter.cli import lint_imports\n"
    code += (
        f"sys.exit(lint_imports(config_filename={str(root / 'pyproject.toml')!r}, no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, capture_output=True, text=True
    )


@pytest.fixture
def a_copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignore)
    return tmp_path


def test_the_source_keeps_its_layers():
    result = lint(ROOT)
    assert "0 broken" in result.stdout
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("package", "line", "contract"),
    [
        ("core", "from moralscope.cli import main", "Each layer imports only from those below"),
        ("games", "import moralscope.evidence", "Each layer imports only from those below"),
        ("mechanisms", "import moralscope.behaviour", "Each layer imports only from those below"),
        ("evidence", "import torch", "core, games and evidence never reach the model stack"),
        ("reports", "import transformers", "behaviour and reports leave the model stack"),
        ("behaviour", "import peft", "behaviour and reports leave the model stack"),
    ],
)
def test_a_forbidden_import_is_found(a_copy: Path, package: str, line: str, contract: str):
    (a_copy / "src/moralscope" / package / "intruder.py").write_text(f"{line}\n")
    result = lint(a_copy)
    assert result.returncode == 1
    broken = [told for told in result.stdout.splitlines() if " BROKEN" in told]
    assert any(told.startswith(contract) for told in broken)


def test_a_package_without_a_layer_is_found(a_copy: Path):
    (a_copy / "src/moralscope/plumbing").mkdir()
    (a_copy / "src/moralscope/plumbing/__init__.py").write_text("")
    result = lint(a_copy)
    assert result.returncode == 1
    assert "plumbing" in result.stdout


def test_the_contract_and_the_stage_hashes_know_the_same_layers():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    written = [{name.strip(" ()") for name in layer.split("|")} for layer in reversed(layers)]
    assert written == [set(layer) for layer in LAYERS]
