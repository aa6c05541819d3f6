"""How is an adapter made, trained and saved? LoRA factors beside a frozen base.

The base is wrapped for the length of a block and comes back untouched. Initialisation draws from
a generator of its own: ``A`` uniform in ``+- 1/sqrt(inputs)`` (Kaiming with a = sqrt 5, as PEFT
does), ``B`` zero, so training starts at the base.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from moralscope.core.files import make_folder, write_bytes, write_json
from moralscope.core.streams import integer_seed
from moralscope.models.libraries import peft, renamed_properties_tolerated, safetensors_torch
from moralscope.models.loading import LoadedModel
from moralscope.models.roster import CONFIG, WEIGHTS
from moralscope.training.config import LoraSettings

ADAPTER = "trained"


@contextlib.contextmanager
def adapted(base: LoadedModel, settings: LoraSettings, seed: int) -> Generator[Any]:
    """The base with a fresh adapter beside its frozen weights; yields the PEFT model.

    The base model leaves the block as it entered it.
    """
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=settings.rslora,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    with renamed_properties_tolerated():
        wrapped = peft.get_peft_model(base.model, config, adapter_name=ADAPTER)
    try:
        _initialise(wrapped, seed)
        wrapped.eval()
        yield wrapped
    finally:
        wrapped.unload()
        base.model.requires_grad_(False)


@torch.no_grad()
def _initialise(wrapped: nn.Module, seed: int) -> None:
    for name, parameter in wrapped.named_parameters():
        if ".lora_A." in name:
            generator = torch.Generator().manual_seed(integer_seed(seed, "lora", name))
            drawn = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            parameter.copy_(drawn)
        elif ".lora_B." in name:
            parameter.zero_()


def trainable(wrapped: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name, in a fixed order."""
    return {k: p for k, p in wrapped.named_parameters() if p.requires_grad}


def save_adapter(wrapped: Any, folder: Path, base_name: str) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT reads them."""
    tensors: dict[str, Tensor] = peft.get_peft_model_state_dict(
        wrapped, adapter_name=ADAPTER, save_embedding_layers=False
    )
    contiguous = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    config: dict[str, Any] = wrapped.peft_config[ADAPTER].to_dict()
    config["base_model_name_or_path"] = base_name
    config["inference_mode"] = True
    config["init_lora_weights"] = True
    make_folder(folder)
    write_bytes(folder / WEIGHTS, safetensors_torch.save(contiguous, metadata={"format": "pt"}))
    write_json(folder / CONFIG, {k: _plain(v) for k, v in config.items()})


def _plain(value: object) -> object:
    """Configuration values as JSON; sets become sorted lists."""
    if isinstance(value, set | frozenset):
        return sorted(str(member) for member in cast("set[object]", value))
    if value is None or isinstance(value, str | int | float | bool | list | dict):
        return cast("object", value)
    return str(getattr(value, "value", value))
