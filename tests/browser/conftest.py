"""Where there is a Chromium, the report is opened in it; elsewhere these tests are left out.

``.ci/run`` installs one where it can. What is left out is said in the header of the test run.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from moralscope.reports import build_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)

collect_ignore_glob = [] if FOUND else ["test_*.py"]


def pytest_report_header() -> str:
    """Say whether pages are opened."""
    return f"browser: {FOUND or 'none found, so tests/browser is left out'}"


def _helper(name: str, folder: Path) -> ModuleType:
    """Import a helper by path; test folders are no packages."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
for _name in ("synthetic_run", "synthetic_judged", "synthetic_further", "report_reading"):
    _helper(_name, HERE.parent / "reports")
_helper("driving", HERE)
_helper("full_run", HERE)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A Chromium without a network, closed at the end."""
    from driving import Browser  # noqa: PLC0415

    assert FOUND is not None
    with Browser(FOUND) as running:
        yield running


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hostile texts, failed stages and many rows, its report built."""
    from full_run import full_run  # noqa: PLC0415

    run = full_run(tmp_path_factory.mktemp("shown") / "run")
    build_report(run)
    return run
