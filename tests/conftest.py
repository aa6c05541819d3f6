"""Settings of every test, and what the slow ones share: the small real model, loaded once.

Property tests are reproducible and never fail for slowness alone.
"""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from moralscope.models.loading import LoadedModel

settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")

# Tests may import PEFT before the package does, which keeps this library's advice from the screen.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C means what it means in a terminal, also where a shell started this in the background.

    Such a process, and every one that it starts, would be deaf to SIGINT.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_base() -> LoadedModel:
    """The default model with its real weights in float32, converted once into the user's cache.

    Tests that put adapters on it take them off again.
    """
    from moralscope.models.loading import load_model, locate_model  # noqa: PLC0415

    return load_model(locate_model())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty stage cache in force, which shares the converted models of the user's own."""
    from moralscope.core.stage import cache_folder  # noqa: PLC0415

    models = cache_folder() / "models"
    models.mkdir(parents=True, exist_ok=True)
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "models").symlink_to(models, target_is_directory=True)
    monkeypatch.setenv("MORALSCOPE_CACHE", str(folder))
    return folder
