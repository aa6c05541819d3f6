"""How are adapters made, switched, trained and saved? LoRA factors beside a frozen base.

The base is wrapped for the length of a block and comes back untouched. Initialisation draws from
a generator of its own: ``A`` uniform in ``+- 1/sqrt(inputs)`` (Kaiming with a = sqrt 5, as PEFT
does), ``B`` zero, so training starts at the base.

Several adapters may share one base: two that learn, or one that learns beside one that is frozen.
Switching between them changes which of them the forward pass sees and nothing else: gradients of
one are kept while another speaks. The model is in evaluation mode throughout; dropout of the
adapters' inputs is on only inside ``adapter_dropout``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from moralscope.core.errors import AgentError, nearest
from moralscope.core.files import make_folder, remove_leftovers, write_bytes, write_json
from moralscope.core.streams import integer_seed
from moralscope.models.libraries import peft, renamed_properties_tolerated, safetensors_torch
from moralscope.models.loading import LoadedModel
from moralscope.models.roster import CONFIG, WEIGHTS, check_landed, find_adapter, read_adapter
from moralscope.models.weights import is_lora
from moralscope.training.config import LoraSettings
from moralscope.training.targets import target_modules

ADAPTER = "trained"


@dataclass(frozen=True, slots=True)
class Fresh:
    """An adapter that is to be trained.

    Attributes:
        settings: its size and places.
        seed: of its initialisation.
    """

    settings: LoraSettings
    seed: int


@dataclass(frozen=True, slots=True)
class Saved:
    """An adapter that was trained before, and is frozen: a PEFT folder or hub id."""

    folder: str


@contextlib.contextmanager
def adapted(base: LoadedModel, settings: LoraSettings, seed: int) -> Generator[Any]:
    """The base with one fresh adapter; yields the PEFT model. See ``adapted_together``."""
    with adapted_together(base, {ADAPTER: Fresh(settings, seed)}) as wrapped:
        yield wrapped


@contextlib.contextmanager
def adapted_together(base: LoadedModel, adapters: Mapping[str, Fresh | Saved]) -> Generator[Any]:
    """The base with several adapters beside its frozen weights; yields the PEFT model.

    The first speaks until ``speaking`` says otherwise. An adapter's initialisation depends on its
    own name, settings and seed, not on the others. The base model leaves the block as it entered
    it.

    Args:
        base: the base model, without adapters.
        adapters: by name, at least one.

    Raises:
        ConfigError: sites of an adapter that the model does not have.
        AgentError: a saved adapter cannot be read, belongs to another base, does not land whole
            or changes nothing.
    """
    wrapped: Any = None
    try:
        for name, adapter in adapters.items():
            config, tensors = _prepared(base, name, adapter)
            with renamed_properties_tolerated():
                if wrapped is None:
                    wrapped = peft.get_peft_model(base.model, config, adapter_name=name)
                else:
                    wrapped.add_adapter(name, config)
            if isinstance(adapter, Fresh):
                _initialise(wrapped, name, adapter.seed)
            else:
                peft.set_peft_model_state_dict(wrapped, dict(tensors), adapter_name=name)
                check_landed(name, wrapped, tensors)
        learning = {name for name, adapter in adapters.items() if isinstance(adapter, Fresh)}
        for name, parameter in wrapped.named_parameters():
            parameter.requires_grad_(_adapter_of(name) in learning)
        wrapped.eval()
        yield wrapped
    finally:
        if wrapped is not None:
            wrapped.unload()
        base.model.requires_grad_(False)


def _prepared(
    base: LoadedModel, name: str, adapter: Fresh | Saved
) -> tuple[Any, Mapping[str, Tensor]]:
    """What PEFT is told of an adapter, and the tensors of a saved one."""
    if isinstance(adapter, Saved):
        found, tensors = read_adapter(name, find_adapter(name, adapter.folder), base)
        found["base_model_name_or_path"] = None  # PEFT would remark on a base that has moved
        return peft.LoraConfig(**found, inference_mode=True), tensors
    settings = adapter.settings
    targets = list(target_modules(base.model, settings.sites)) if settings.sites else "all-linear"
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=settings.rslora,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    return config, {}


def _adapter_of(name: str) -> str | None:
    """Whose a parameter is, by its name; None for the base's."""
    _, mark, rest = name.rpartition(".lora_")
    return rest.split(".")[1] if mark else None


@torch.no_grad()
def _initialise(wrapped: nn.Module, adapter: str, seed: int) -> None:
    for name, parameter in wrapped.named_parameters():
        if f".lora_A.{adapter}." in name:
            generator = torch.Generator().manual_seed(integer_seed(seed, "lora", name))
            drawn = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            parameter.copy_(drawn)
        elif f".lora_B.{adapter}." in name:
            parameter.zero_()


def trainable(wrapped: nn.Module, adapter: str = ADAPTER) -> dict[str, nn.Parameter]:
    """An adapter's parameters by name, in a fixed order; none of a frozen one."""
    return {
        name: p
        for name, p in wrapped.named_parameters()
        if p.requires_grad and _adapter_of(name) == adapter
    }


def lora_layers(model: nn.Module) -> list[Any]:
    """The layers of a model that have adapters."""
    return [module for module in model.modules() if is_lora(module)]


@dataclass(frozen=True, slots=True)
class Voice:
    """Which adapters of a layer are in force.

    Attributes:
        adapters: their names.
        silent: whether all are switched off, and the base speaks.
    """

    adapters: tuple[str, ...]
    silent: bool


def voice_of(layer: Any) -> Voice:
    """Which adapters of a LoRA layer are in force now."""
    return Voice(tuple(layer.active_adapters), bool(layer.disable_adapters))


def give_voice(layer: Any, voice: Voice) -> None:
    """Put other adapters of a LoRA layer in force; which parameters have gradients stays as it is.

    PEFT freezes the adapters that it switches off. A gradient that is still to flow into one of
    them would be dropped without a word.
    """
    if voice_of(layer) == voice:
        return
    flags = [(p, p.requires_grad) for p in layer.parameters()]
    layer.enable_adapters(not voice.silent)
    layer.set_adapter(list(voice.adapters))
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


@contextlib.contextmanager
def speaking(wrapped: nn.Module, adapter: str | None) -> Generator[None]:
    """Let one adapter speak for the length of the block, or the base alone with None.

    Raises:
        AgentError: there is no such adapter.
    """
    untyped: Any = wrapped
    known: Sequence[str] = list(untyped.peft_config)
    if adapter is not None and adapter not in known:
        raise AgentError(
            "The base has no adapter of this name",
            seen=adapter,
            allowed=", ".join(known),
            remedy=nearest(adapter, known),
        )
    layers = lora_layers(wrapped)
    before = [voice_of(layer) for layer in layers]
    try:
        for layer, was in zip(layers, before, strict=True):
            names = was.adapters if adapter is None else (adapter,)
            give_voice(layer, Voice(names, adapter is None))
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            give_voice(layer, was)


@contextlib.contextmanager
def adapter_dropout(wrapped: nn.Module, on: bool, seed: int) -> Generator[None]:
    """Drop inputs of adapters at random for the length of the block, and nothing else.

    Args:
        wrapped: the PEFT model, in evaluation mode.
        on: False does nothing.
        seed: of all that is dropped; torch's own generators continue afterwards as if nothing
            had been drawn.
    """
    drops: list[nn.Dropout] = [
        drop
        for layer in lora_layers(wrapped)
        for drop in layer.lora_dropout.values()
        if isinstance(drop, nn.Dropout)
    ]
    if not on or not drops:
        yield
        return
    device = next(wrapped.parameters()).device
    library: Any = torch
    where: list[Any] = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    with library.random.fork_rng(where, device_type=kind):
        library.random.default_generator.manual_seed(seed)
        if where:
            getattr(library, device.type).manual_seed(seed)
        try:
            for drop in drops:
                drop.train()
            yield
        finally:
            for drop in drops:
                drop.eval()


def save_adapter(wrapped: Any, folder: Path, base_name: str, adapter: str = ADAPTER) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT reads them."""
    # PEFT looks for the adapter's name anywhere in a parameter's; another's would be taken for it.
    own = {k: v for k, v in wrapped.state_dict().items() if _adapter_of(k) == adapter}
    tensors: dict[str, Tensor] = peft.get_peft_model_state_dict(
        wrapped, state_dict=own, adapter_name=adapter, save_embedding_layers=False
    )
    contiguous = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    config: dict[str, Any] = wrapped.peft_config[adapter].to_dict()
    config["base_model_name_or_path"] = base_name
    config["inference_mode"] = True
    config["init_lora_weights"] = True
    remove_leftovers(make_folder(folder))
    write_bytes(folder / WEIGHTS, safetensors_torch.save(contiguous, metadata={"format": "pt"}))
    write_json(folder / CONFIG, {k: _plain(v) for k, v in config.items()})


def _plain(value: object) -> object:
    """Configuration values as JSON; sets become sorted lists."""
    if isinstance(value, set | frozenset):
        return sorted(str(member) for member in cast("set[object]", value))
    if value is None or isinstance(value, str | int | float | bool | list | dict):
        return cast("object", value)
    return str(getattr(value, "value", value))
