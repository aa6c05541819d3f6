"""Who is speaking? Agents on one shared base, switched without copying or merging weights.

Agents that share a base share its weights in memory: an adapter is added beside them, un-merged,
and speaking as an agent means that its adapter is the active one (none, for the base). A full
checkpoint is a decoder of its own, and must have the base's anatomy and tokenizer.

An adapter is refused unless every one of its tensors is found, unchanged, in the live model
after loading: keys that do not match load silently in PEFT, and because ``lora_B`` starts at
zero, base against adapter then becomes base against base.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError, nearest
from moralscope.core.hashing import sha256_file
from moralscope.models.anatomy import Anatomy, dissect
from moralscope.models.libraries import (
    huggingface_hub,
    peft,
    renamed_properties_tolerated,
    safetensors_torch,
)
from moralscope.models.loading import LoadedModel, load_model, locate_model, tokenizer_hashes
from moralscope.models.weights import changes_nothing, is_lora, shape_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
# Of each kind of tensor in an adapter: how many axes it has, which of them is the layer's, and
# which of the layer's (out, in) that is.
_AXES = {
    "A.weight": (2, 1, 1),
    "B.weight": (2, 0, 0),
    "B.bias": (1, 0, 0),
    "magnitude_vector": (1, 0, 0),
}


@dataclass
class Roster:
    """Agents that can be compared with each other: one base, its adapters, full checkpoints.

    Attributes:
        base: the base model.
        specs: what each agent is, by name.
    """

    base: LoadedModel
    specs: dict[str, AgentSpec] = field(default_factory=dict[str, AgentSpec])
    _wrapped: Any = None
    _checkpoints: dict[str, LoadedModel] = field(default_factory=dict[str, LoadedModel])
    _hashes: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that all agents share."""
        return self.base.tokenizer

    def weights_sha256(self, name: str) -> str | None:
        """Hash of an agent's own weights; None for the base."""
        self._require(name)
        return self._hashes.get(name)

    def _require(self, name: str) -> AgentSpec:
        if name not in self.specs:
            raise AgentError(
                f"There is no agent {name!r}",
                seen=name,
                allowed=", ".join(self.specs),
                remedy=nearest(name, self.specs),
            )
        return self.specs[name]

    def add(self, spec: AgentSpec) -> None:
        """Load an agent beside the others.

        Raises:
            AgentError: the name is taken; the adapter is of another kind, belongs to another
                base, does not land whole or changes nothing; the checkpoint's anatomy or
                tokenizer differs from the base's.
            ModelError: a checkpoint cannot be loaded.
        """
        if spec.name in self.specs:
            raise AgentError(
                f"Two agents are called {spec.name!r}",
                seen=spec.name,
                allowed="each name once",
                remedy="rename one of them",
            )
        if spec.adapter is not None:
            folder = find_adapter(spec.name, spec.adapter)
            self._add_adapter(spec.name, folder)
            self._hashes[spec.name] = sha256_file(folder / WEIGHTS)
        elif spec.checkpoint is not None:
            self._add_checkpoint(spec.name, spec.checkpoint)
        self.specs[spec.name] = spec

    def _add_checkpoint(self, name: str, checkpoint: str) -> None:
        loaded = load_model(
            locate_model(checkpoint), dtype=self.base.dtype, device=self.base.device
        )
        same_anatomy = dissect(loaded.model).same_shape(dissect(self.base.model))
        if not same_anatomy or tokenizer_hashes(loaded.tokenizer) != tokenizer_hashes(
            self.tokenizer
        ):
            what = "tokenizer or chat template" if same_anatomy else "anatomy"
            raise unlike(name, what, checkpoint, self.base.source.name)
        self._checkpoints[name] = loaded
        self._hashes[name] = loaded.source.sha256

    def _add_adapter(self, name: str, folder: Path) -> None:
        settings, tensors = read_adapter(name, folder, self.base)
        try:
            self._attach(name, settings, tensors)
            check_landed(name, self._wrapped, tensors)
        except (RuntimeError, ValueError, TypeError, KeyError) as cause:
            self._detach(name)
            raise AgentError(
                f"The adapter of agent {name!r} does not fit its own configuration",
                seen=str(cause).splitlines()[-1].strip(),
                allowed=f"{CONFIG} and {WEIGHTS} as PEFT wrote them together",
                remedy="copy both files again, or save the adapter again",
            ) from cause
        except AgentError:
            self._detach(name)
            raise

    def _attach(self, name: str, settings: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
        lora = peft.LoraConfig(**settings, inference_mode=True)
        with renamed_properties_tolerated():
            if self._wrapped is None:
                self._wrapped = peft.PeftModel(self.base.model, lora, adapter_name=name)
            else:
                self._wrapped.add_adapter(name, lora)
        peft.set_peft_model_state_dict(self._wrapped, dict(tensors), adapter_name=name)
        self._wrapped.requires_grad_(False)
        self._wrapped.eval()

    def _detach(self, name: str) -> None:
        """Take a refused adapter off again, so that the others speak as before."""
        if self._wrapped is None or name not in self._wrapped.peft_config:
            return
        if len(self._wrapped.peft_config) > 1:
            self._wrapped.delete_adapter(name)
        else:
            self._wrapped.unload()
            self._wrapped = None

    def anatomy(self, name: str) -> Anatomy:
        """The parts of an agent's decoder."""
        return dissect(self._decoder(name))

    def _decoder(self, name: str) -> nn.Module:
        self._require(name)
        checkpoint = self._checkpoints.get(name)
        return self.base.model if checkpoint is None else checkpoint.model

    @contextlib.contextmanager
    def speaking(self, name: str) -> Generator[nn.Module]:
        """The decoder with this agent's weights in force, for the length of the block.

        For adapters this is the shared base with one adapter active; nothing is copied.
        """
        spec = self._require(name)
        decoder = self._decoder(name)
        if self._wrapped is None or spec.checkpoint is not None:
            yield decoder
        elif spec.adapter is None:
            with self._wrapped.disable_adapter():
                yield decoder
        else:
            self._wrapped.set_adapter(name)
            self._wrapped.requires_grad_(False)
            yield decoder


_PASSED_ON = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out",
    "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern",
    "layers_to_transform", "layers_pattern", "task_type", "base_model_name_or_path",
)  # fmt: skip
_NO_MATTER = (
    "peft_type", "auto_mapping", "revision", "inference_mode", "peft_version", "runtime_config",
    "init_lora_weights", "eva_config", "corda_config", "loftq_config", "lora_ga_config",
    "qalora_group_size", "megatron_core",
)  # fmt: skip
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Beginnings that leave the base as it is; others (PiSSA, OLoRA, ...) take something out of it."""


def unlike(name: str, what: str, checkpoint: str, base: str) -> AgentError:
    """The error of a checkpoint that differs from the base in what they must share."""
    return AgentError(
        f"Agent {name!r} cannot be compared with its base: the {what} differs",
        seen=checkpoint,
        allowed=f"a fine-tune of {base}",
        remedy="name the base that it was trained from",
    )


def find_adapter(name: str, adapter: str) -> Path:
    """The local folder of an adapter, fetched from the hub if need be.

    Raises:
        AgentError: there is no such adapter, or it has no safetensors weights.
    """
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        try:
            wanted = [CONFIG, WEIGHTS, "fingerprint.json"]
            folder = Path(huggingface_hub.snapshot_download(adapter, allow_patterns=wanted))
        except (OSError, ValueError) as cause:
            raise AgentError(
                f"The adapter of agent {name!r} was not found",
                seen=adapter,
                allowed="a PEFT adapter folder, or a hub id that is cached or can be reached",
                remedy="check the path or the id",
            ) from cause
    absent = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if absent:
        raise AgentError(
            f"The folder of agent {name!r} is not a PEFT adapter",
            seen=f"{adapter} without {' and '.join(absent)}",
            allowed=f"{CONFIG} and {WEIGHTS}; pickled weights can run code and are not read",
            remedy="save the adapter with save_pretrained, or give a full model as checkpoint",
        )
    return folder


def read_adapter(
    name: str, folder: Path, base: LoadedModel
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of an adapter folder for ``peft.LoraConfig``, and its tensors.

    Raises:
        AgentError: a file cannot be read, the adapter is of a kind that is not handled exactly,
            or it was made for another base.
    """
    config = _read_config(name, folder)
    tensors = _read_weights(name, folder)
    _check_fit(name, base, tensors)
    return {k: v for k, v in config.items() if k in _PASSED_ON}, tensors


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except ValueError as cause:
        raise AgentError(
            f"The adapter configuration of agent {name!r} is not JSON",
            seen=str(cause),
            allowed=f"{CONFIG} as PEFT writes it",
            remedy="save the adapter again",
        ) from cause
    _require_exact(name, config)
    return config


def _require_exact(name: str, config: Mapping[str, Any]) -> None:
    """Refuse what is not LoRA, rsLoRA or DoRA, and any option whose meaning is not known."""
    usual: dict[str, Any] = peft.LoraConfig().to_dict()
    known = (*_PASSED_ON, *_NO_MATTER)
    on = [k for k, v in config.items() if v and k not in known and v != usual.get(k)]
    start = config.get("init_lora_weights", True)
    if start not in _INITS:
        on.append(f"init_lora_weights {start}")
    if config.get("use_dora") and config.get("lora_bias"):
        on.append("use_dora with lora_bias")
    kind = config.get("peft_type")
    if kind != "LORA" or on:
        raise AgentError(
            f"The adapter of agent {name!r} is of a kind that is not handled exactly",
            seen=f"peft_type {kind}, bias {config.get('bias')}, set: {', '.join(on) or 'none'}",
            allowed="LoRA, rsLoRA or DoRA on linear layers, bias none",
            remedy="merge it into a full checkpoint with PEFT and give that as checkpoint",
        )


def _read_weights(name: str, folder: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors_torch.load_file(str(folder / WEIGHTS))
    except (SafetensorError, OSError) as cause:
        raise AgentError(
            f"The weights of agent {name!r} cannot be read",
            seen=f"{folder / WEIGHTS}: {cause}",
            allowed="a whole safetensors file",
            remedy="copy the adapter folder again, or save the adapter again",
        ) from cause
    return tensors


def _check_fit(name: str, base: LoadedModel, tensors: Mapping[str, Tensor]) -> None:
    """Refuse an adapter made for another base, before PEFT is asked to load it."""
    model: Any = base.model
    modules: dict[str, nn.Module] = dict(model.named_modules())
    for key, tensor in tensors.items():
        module, _, factor = key.removeprefix(_PREFIX).rpartition(".lora_")
        if factor.startswith("embedding_"):
            raise AgentError(
                f"The adapter of agent {name!r} is of a kind that is not handled exactly",
                seen=f"{key}: LoRA on an embedding",
                allowed="LoRA, rsLoRA or DoRA on linear layers",
                remedy="merge it into a full checkpoint with PEFT and give that as checkpoint",
            )
        found = modules.get(module)
        shape = None if found is None else shape_of(found)
        dimensions, own, theirs = _AXES.get(factor, (-1, 0, 0))
        if shape is None or tensor.ndim != dimensions or tensor.shape[own] != shape[theirs]:
            raise AgentError(
                f"The adapter of agent {name!r} was made for another base",
                seen=f"{key} of shape {tuple(tensor.shape)}; base: {shape or 'no such layer'}",
                allowed=f"LoRA factors for the linear layers of {base.source.name}",
                remedy="give the base that the adapter was trained on",
            )


def check_landed(name: str, wrapped: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse an adapter of which not every tensor is in the live model, or that changes nothing.

    Args:
        name: of the agent, and of its adapter.
        wrapped: the PEFT model.
        tensors: the adapter's, from ``read_adapter``.

    Raises:
        AgentError: says what was lost.
    """
    broken = sorted(key for key, value in tensors.items() if not torch.isfinite(value).all())
    if broken:
        raise AgentError(
            f"The adapter of agent {name!r} has weights that are not finite",
            seen=f"{len(broken)} of {len(tensors)} tensors, first {broken[0]}",
            allowed="finite numbers",
            remedy="its training has diverged: train it again with a lower learning rate",
        )
    with renamed_properties_tolerated():
        live: dict[str, Tensor] = peft.get_peft_model_state_dict(
            wrapped, adapter_name=name, save_embedding_layers=False
        )
    lost = sorted(set(tensors) ^ set(live))
    changed = [
        key
        for key in sorted(set(tensors) & set(live))
        if not torch.equal(tensors[key].to(live[key].dtype), live[key].cpu())
    ]
    if lost or changed:
        raise AgentError(
            f"The adapter of agent {name!r} did not land whole",
            seen=f"{len(lost)} keys unmatched, {len(changed)} values lost, "
            f"first {(lost + changed)[0]}",
            allowed="every tensor of the file in the live model, unchanged, and no other",
            remedy="check target_modules in adapter_config.json against the weights file",
        )
    modules: list[Any] = [m for m in wrapped.modules() if is_lora(m)]
    layers = [layer for layer in modules if name in layer.lora_A]
    if all(changes_nothing(layer, name) for layer in layers):
        raise AgentError(
            f"The adapter of agent {name!r} changes nothing",
            seen=f"{len(layers)} lora_B matrices, every update scaling * B A zero",
            allowed="at least one weight update that is not zero",
            remedy="train the adapter, or leave the agent out: it is the base",
        )
