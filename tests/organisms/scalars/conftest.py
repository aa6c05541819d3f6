import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "models"))

from tiny_organism import Organism, organism


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("organisms")


@pytest.fixture(scope="session")
def shared(folder: Path) -> Organism:
    return organism(folder / "shared")


@pytest.fixture
def here(shared: Organism) -> Generator[Organism]:
    """Three rank-1 adapters in float64, while their agent speaks; tests leave them as they are."""
    with shared.roster.speaking("game"):
        yield shared
