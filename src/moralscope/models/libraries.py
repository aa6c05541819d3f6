"""The model libraries, whose own annotations are incomplete, as values of type ``Any``.

Keeping them here means that the rest of the package is checked strictly, and that a missing
model stack is one clear error.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Generator
from typing import Any

from moralscope.core.errors import DependencyError


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        raise DependencyError(
            "The model stack is not installed",
            seen=f"no module named {cause.name!r}",
            allowed="torch, transformers, peft and safetensors",
            remedy='run: pip install "moralscope[models]"',
        ) from cause


torch_library: Any = _load("torch")
transformers: Any = _load("transformers")
peft: Any = _load("peft")
huggingface_hub: Any = _load("huggingface_hub")
safetensors_torch: Any = _load("safetensors.torch")


@contextlib.contextmanager
def renamed_properties_tolerated() -> Generator[None]:
    """Silence PEFT's use of a transformers property that is being renamed.

    It is between the two libraries; there is nothing that a user could act on.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        yield
