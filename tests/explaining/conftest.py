import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.explaining import Agents, load


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny base, two adapters on it, and a full fine-tune."""
    root = tmp_path_factory.mktemp("agents")
    alike = tiny.tiny_model("llama", dtype=tiny.torch.float32)
    return {
        "base": tiny.save_base(root / "base"),
        "game": tiny.save_adapter(root / "game", alike, seed=1),
        "moral": tiny.save_adapter(root / "moral", alike, seed=2),
        "full": tiny.save_base(root / "full", seed=5),
    }


@pytest.fixture(scope="session")
def agents(places: dict[str, Path]) -> Agents:
    """A tiny base and an adapter, in float64; tests leave them as they are."""
    return load(places["base"], dtype="float64", game=places["game"])


@pytest.fixture(scope="session")
def alone(places: dict[str, Path]) -> Agents:
    """The tiny base without other agents."""
    return load(places["base"], dtype="float64")
