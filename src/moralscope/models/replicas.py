"""How much do numbers change that nothing should change? The same weights, computed otherwise.

    kernel: attention by another implementation, which adds up the same numbers in another order
    dtype:  every weight rounded to a narrower dtype, arithmetic as before

Between an agent and itself there is no difference to be found, so what the two show is the
numerical floor of every difference between agents: of the arithmetic, and of how weights are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from moralscope.core.errors import ModelError
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import FloatArray

Change = Literal["kernel", "dtype"]

_OTHER = {"sdpa": "eager", "eager": "sdpa"}


def other_kernel(model: nn.Module) -> str | None:
    """The name of another attention kernel that computes the same; None where there is none.

    Fused attention knows no soft-cap of scores, so a model that has one keeps to plain attention.
    """
    config: Any = model.config
    other = _OTHER.get(_kernel(model))
    if other == "sdpa" and getattr(config, "attn_logit_softcapping", None) is not None:
        return None
    return other


def _kernel(model: nn.Module) -> str:
    config: Any = model.config
    return str(getattr(config, "_attn_implementation", ""))


@contextlib.contextmanager
def under_kernel(model: nn.Module, kernel: str) -> Generator[None]:
    """Compute attention by another kernel for the length of a block.

    Args:
        model: a Hugging Face decoder.
        kernel: ``eager`` or ``sdpa``.

    Raises:
        ModelError: the model cannot change its kernel.
    """
    untyped: Any = model
    was = _kernel(model)
    untyped.set_attn_implementation(kernel)
    if _kernel(model) != kernel:
        raise ModelError(
            "The model cannot change its attention kernel",
            seen=f"{was} after asking for {kernel}",
            allowed="a model whose attention goes through the library's attention interface",
            remedy="leave this control out: controls: {kernel: false}",
        )
    try:
        yield
    finally:
        untyped.set_attn_implementation(was)


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype) -> int:
    """Round every weight to a narrower dtype, in place, and keep holding it as before.

    In place because a copy would need the memory of the model once more; the model is another one
    afterwards and must be loaded again for anything else.

    Returns:
        How many numbers changed.
    """
    changed = 0
    for parameter in model.parameters():
        rounded = parameter.to(dtype).to(parameter.dtype)
        changed += int((rounded != parameter).count_nonzero())
        parameter.copy_(rounded)
    return changed


def replica_rows(
    agent: str,
    prompts: Sequence[EncodedPrompt],
    reference: FloatArray,
    found: FloatArray,
    *,
    how: tuple[Change, str],
) -> Iterator[dict[str, object]]:
    """Rows of the table ``replicas``.

    Args:
        agent: who was measured.
        prompts: on what.
        reference: its log-odds as everything else is measured, ``(prompts,)``, nats.
        found: measured otherwise.
        how: what was otherwise, and the kernel or dtype.
    """
    change, setting = how
    for prompt, before, after in zip(prompts, reference, found, strict=True):
        yield {
            "agent": agent,
            "prompt": prompt.name,
            "change": change,
            "setting": setting,
            "log_odds": None if np.isnan(after) else float(after),
            "reference_log_odds": None if np.isnan(before) else float(before),
        }
