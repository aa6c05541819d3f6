"""Studies of a tiny model: everything that a study does, in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from tiny_base import save_tiny

from moralscope.studies import Study, run_study

StudyOf = Callable[..., Study]


def tiny_settings(model: Path) -> dict[str, object]:
    """A study file's content: a base and one agent, two games, every method."""
    return {
        "model": str(model),
        "agents": {"base": {}, "game": {"reward": "game"}},
        "training": {
            "steps": 2,
            "learning_rate": 0.01,
            "checkpoint_every": 1,
            "lora": {"rank": 4, "alpha": 8},
        },
        "prompts": {
            "games": ["IPD", "ISH"],
            "wordings": ["rounds"],
            "scenarios": False,
            "table_orders": ["original"],
        },
        "mechanisms": {"scenarios": 4},
        "evidence": {"draws": 199},
    }


def tables_of(run: Path) -> dict[str, pl.DataFrame]:
    """Every table of a run, wall times left out."""
    found = {p.stem: pl.read_parquet(p) for p in sorted((run / "tables").iterdir())}
    found["training"] = found["training"].drop("seconds")
    return found


def assert_same_tables(run: Path, other: Path) -> None:
    """Two runs hold equal tables, to the last bit."""
    ours, theirs = tables_of(run), tables_of(other)
    assert list(ours) == list(theirs)
    for name, table in ours.items():
        assert table.equals(theirs[name]), name


@dataclass(frozen=True)
class Finished:
    """A finished run, the cache behind it and the study that it is of."""

    study: Study
    out: Path
    cache: Path
    same_tables: Callable[[Path], None]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny model of the same shape, with the same tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("other") / "model", seed=1)


@pytest.fixture(scope="session")
def settings(tiny_folder: Path) -> dict[str, object]:
    """The content of the tiny study's file."""
    return tiny_settings(tiny_folder)


@pytest.fixture(scope="session")
def study_of(settings: dict[str, object]) -> StudyOf:
    """The tiny study with some of its settings replaced."""
    return lambda **changes: Study.model_validate(settings | changes)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, study_of: StudyOf) -> Finished:
    """One whole run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        run_study(study_of(), folder / "run")
    out = folder / "run"
    return Finished(study_of(), out, folder / "cache", lambda run: assert_same_tables(run, out))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def warm_cache(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the finished run, to be read."""
    monkeypatch.setenv("MORALSCOPE_CACHE", str(finished.cache))
    return finished.cache
