"""What would a model show that has learned nothing? One of the same shape with random weights.

A probe finds in any network whatever its tokens and positions carry along. The same probe on a
model of the same shape with weights as before training shows how much that is (Jawahar et al. 2019;
Zhang and Bowman 2018, arXiv 1809.10040). Weights are drawn as the model's own library draws them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from moralscope.models.libraries import transformers


def random_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model of the same shape, format and device with random weights, in evaluation mode.

    Args:
        model: a decoder of the library; its weights are not looked at.
        seed: of the weights. Equal seeds give equal weights; no other random stream is touched.
    """
    parameter = next(model.parameters())
    config: Any = model.config
    library: Any = torch
    with library.random.fork_rng(devices=[]):
        library.random.default_generator.manual_seed(seed)
        made: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    made = made.to(dtype=parameter.dtype, device=parameter.device).eval()
    made.requires_grad_(False)
    return made
