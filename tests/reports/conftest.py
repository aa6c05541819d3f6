"""One synthetic run, reported once for all tests of the page and its files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from moralscope.reports import build_report


def _sibling(name: str) -> ModuleType:
    """Import a helper of this folder by path; the folder is not a package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_sibling("synthetic_run")
_sibling("synthetic_judged")
_sibling("synthetic_further")
_sibling("synthetic_play")
_sibling("synthetic_behaviour")
_sibling("behaviour_reading")
_sibling("report_reading")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with its report built; not to be changed."""
    from synthetic_run import write_run  # noqa: PLC0415

    run = write_run(tmp_path_factory.mktemp("reported") / "run")
    build_report(run)
    return run


@pytest.fixture(scope="session")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that asked for everything, its report built; not to be changed."""
    from synthetic_further import add_further  # noqa: PLC0415
    from synthetic_run import write_run  # noqa: PLC0415

    run = add_further(write_run(tmp_path_factory.mktemp("further") / "run"))
    build_report(run)
    return run
