import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
for folder in ("conformance", "models", "mechanisms"):
    sys.path.insert(0, str(TESTS / folder))

from worlds import Worlds


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    return Worlds(tmp_path_factory.mktemp("worlds"))
