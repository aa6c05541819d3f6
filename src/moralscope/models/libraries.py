"""The model libraries, whose own annotations are incomplete, as values of type ``Any``.

Keeping them here means that the rest of the package is checked strictly, and that a missing
model stack is one clear error.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
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


def optional_library(name: str, *, extra: str) -> Any:
    """A library that only some models need, imported when one does.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        raise DependencyError(
            f"{name} is not installed",
            seen=f"no module named {cause.name!r}",
            allowed=f"{name}, for models that need it",
            remedy=f'run: pip install "moralscope[{extra}]"',
        ) from cause


def _load_peft() -> Any:
    # PEFT imports bitsandbytes wherever it is installed, which then warns of a kernel that it
    # does without.
    noise = logging.getLogger("bitsandbytes.backends.cpu.ops")
    was = noise.disabled
    noise.disabled = True
    try:
        return _load("peft")
    finally:
        noise.disabled = was


torch_library: Any = _load("torch")
transformers: Any = _load("transformers")
peft: Any = _load_peft()
huggingface_hub: Any = _load("huggingface_hub")
safetensors_torch: Any = _load("safetensors.torch")


@contextlib.contextmanager
def renamed_properties_tolerated() -> Generator[None]:
    """Silence PEFT's use of a transformers property that is being renamed.

    It is between the two libraries; there is nothing that a user could act on. Nor is there in
    its remarks that it reads ``fan_in_fan_out`` from the layer, that a bias cannot be merged, and
    that a bias has one axis where a matrix has two.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", "`lora_bias=True` was passed but the targeted layer")
        warnings.filterwarnings("ignore", r"Adapter .* LoRA tensor\(s\) have invalid shape")
        yield
