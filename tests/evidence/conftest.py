import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import synthetic


@pytest.fixture(scope="session")
def sound() -> synthetic.Tables:
    """A study without any fault; tests that plant one copy it."""
    return synthetic.build()
