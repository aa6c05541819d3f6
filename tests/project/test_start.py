"""The package starts at once, and without the model stack."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "accelerate")
START_SECONDS = 0.3
HELP = "import sys; from moralscope.cli.main import main; main(['--help'])"
WITHOUT_TORCH = ("core", "games", "evidence", "behaviour", "reports", "cli.main", "studies.doctor")


def child(code: str) -> subprocess.CompletedProcess[str]:
    # Coverage would be measured, and paid for, in the child too.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean
    )


def loaded_by(code: str) -> set[str]:
    told = child(f"{code}\nimport sys\nsys.stderr.write(' '.join(sys.modules))").stderr
    return {name.partition(".")[0] for name in told.split()}


def test_the_probe_notices_a_heavy_import():
    assert "torch" in loaded_by("import torch")


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_the_torch_free_packages_load_no_model_stack(package: str):
    assert loaded_by(f"import moralscope.{package}").isdisjoint(HEAVY)


def test_help_loads_no_model_stack():
    assert loaded_by(HELP).isdisjoint(HEAVY)
    assert "demo" in child(HELP).stdout


@pytest.mark.parametrize("code", ["import moralscope", HELP])
def test_the_start_is_quick(code: str):
    child(code)
    seconds: list[float] = []
    for _ in range(10):
        start = time.perf_counter()
        child(code)
        seconds.append(time.perf_counter() - start)
        if min(seconds) <= START_SECONDS:
            break  # the fastest is what the program needs; slower ones measure the machine
    assert min(seconds) <= START_SECONDS


WITHOUT_STACK = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from moralscope.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_the_model_stack_the_demo_says_how_to_install_it(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_STACK, "demo", "--out", str(tmp_path / "demo")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    told = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 2
    assert "The model stack is not installed" in told
    assert 'pip install "moralscope[models]"' in told
    assert "Traceback" not in told
    assert not (tmp_path / "demo").exists()


def test_version_is_the_one_of_the_metadata():
    code = "import moralscope, importlib.metadata as m; print(moralscope.__version__)"
    code += "; print(m.version('moralscope'))"
    told, recorded = child(code).stdout.split()
    assert told == recorded
