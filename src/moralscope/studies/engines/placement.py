"""Which worker gets which GPU, and which stages need one?"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from moralscope.core.stage import Stage

VISIBLE = "CUDA_VISIBLE_DEVICES"


def needs_model(stage: Stage) -> bool:
    """Whether a stage loads a model; all others are computed from tables, on the processor.

    What a model is computed on determines the result and is therefore among the stage's inputs.
    """
    return "device" in stage.inputs


def on_any_gpu(device: str) -> bool:
    """Whether a device means *a* GPU, whichever is visible: ``cuda``, not ``cuda:1``."""
    return device == "cuda"


def visible_gpus(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """The GPUs that this process may hand out, as CUDA names them.

    Args:
        environment: of this process; ``CUDA_VISIBLE_DEVICES`` restricts and renames.
        count: GPUs that CUDA sees.
    """
    named = environment.get(VISIBLE)
    if named is None:
        return tuple(str(index) for index in range(count))
    return tuple(part.strip() for part in named.split(",") if part.strip())[:count]


def placements(device: str, workers: int, gpus: Sequence[str]) -> tuple[dict[str, str], ...]:
    """What each worker's environment says of GPUs: one each, in turn.

    Args:
        device: of the study. One GPU by its number is shared by all, as the study says.
        workers: how many there are.
        gpus: those that may be handed out.
    """
    if not on_any_gpu(device) or not gpus:
        return tuple({} for _ in range(workers))
    return tuple({VISIBLE: gpus[number % len(gpus)]} for number in range(workers))


def gpus_here(device: str) -> tuple[str, ...]:
    """The GPUs of this machine that may be handed out; none for another device."""
    if not on_any_gpu(device):
        return ()
    torch: Any = importlib.import_module("torch")
    return visible_gpus(os.environ, int(torch.cuda.device_count()))
