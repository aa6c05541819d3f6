"""Where are the parts of this decoder? Layers, heads, projections, norms, unembedding.

Every mechanism is written against this description, never against a model class. A supported
family is one entry of ``FAMILIES``: paths to its parts, and whether its norm gains are stored as
``1 + weight``. What the entry says is checked on the live model before it is used: shapes must
agree with the configuration and each norm must compute
``gain * x / sqrt(mean(x^2) + eps)``. An unknown architecture is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.core.site import Site
from moralscope.models.forward import full_precision
from moralscope.models.weights import in_features


@dataclass(frozen=True)
class Family:
    """How a family of decoders names its parts, relative to a decoder layer.

    Attributes:
        attention_post_norm, mlp_post_norm: norms between a sub-layer's output and the residual
            stream; None for families without them.
        unit_offset: whether norm gains are ``1 + weight``.
    """

    attention_post_norm: str | None = None
    mlp_post_norm: str | None = None
    unit_offset: bool = False


_LLAMA = Family()
_GEMMA = Family("post_attention_layernorm", "post_feedforward_layernorm", unit_offset=True)

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
}
"""Supported ``model_type`` values of Hugging Face configurations."""


@dataclass(frozen=True)
class Block:
    """The parts of one decoder layer.

    Attributes:
        layer: the layer itself; its input is the residual stream before attention.
        out_proj: attention's output projection; heads live at its input.
        mlp: the MLP.
        attention_post_norm, mlp_post_norm: norms applied to a sub-layer's output before it is
            added to the residual stream, or None.
    """

    layer: nn.Module
    out_proj: nn.Module
    mlp: nn.Module
    attention_post_norm: nn.Module | None
    mlp_post_norm: nn.Module | None


@dataclass(frozen=True)
class Anatomy:
    """A decoder taken apart.

    Attributes:
        model_type: the family's name.
        n_layers, n_heads, n_kv_heads, head_dim, width: its sizes.
        blocks: its layers.
        embed: token embedding; its output is what enters the residual stream.
        final_norm: the norm before the unembedding.
        unembed: the linear map to logits.
        softcap: ``c`` in ``c * tanh(logit / c)``, or None.
        unit_offset: whether norm gains are ``1 + weight``.
    """

    model_type: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int
    blocks: tuple[Block, ...]
    embed: nn.Module
    final_norm: nn.Module
    unembed: nn.Module
    softcap: float | None
    unit_offset: bool

    @property
    def component_sites(self) -> tuple[Site, ...]:
        """Every head and MLP, in depth order: ``n_layers * (n_heads + 1)`` sites."""
        return tuple(
            site
            for layer in range(self.n_layers)
            for site in (
                *(Site("head", layer, head) for head in range(self.n_heads)),
                Site("mlp", layer),
            )
        )

    def same_shape(self, other: Anatomy) -> bool:
        """Whether activations of one can be put into the other."""
        sizes = ("model_type", "n_layers", "n_heads", "n_kv_heads", "head_dim", "width")
        return all(getattr(self, name) == getattr(other, name) for name in sizes)


def gain(norm: nn.Module, *, unit_offset: bool) -> Tensor:
    """The elementwise gain of a root-mean-square norm, shape ``(width,)``."""
    weight: Tensor = norm.get_parameter("weight").detach()
    return weight + 1.0 if unit_offset else weight


def epsilon(norm: nn.Module) -> float:
    """The constant under the root of a root-mean-square norm."""
    for name in ("variance_epsilon", "eps"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    raise ModelError(
        "A norm of this model has no epsilon that is understood",
        seen=type(norm).__name__,
        allowed="a root-mean-square norm with variance_epsilon or eps",
        remedy="use a supported family: " + ", ".join(sorted(FAMILIES)),
    )


def inverse_rms(norm: nn.Module, x: Tensor) -> Tensor:
    """``1 / sqrt(mean(x^2) + eps)`` over the last axis, kept as a trailing axis of one."""
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon(norm))


def dissect(model: nn.Module) -> Anatomy:
    """Find the parts of a decoder.

    Args:
        model: a Hugging Face causal language model, with or without PEFT layers.

    Raises:
        ModelError: the architecture is not supported, or does not look as its family should;
            the message names what is missing.
    """
    config: Any = model.config
    name = str(getattr(config, "model_type", type(model).__name__))
    if name not in FAMILIES:
        raise ModelError(
            f"The architecture {name!r} is not supported",
            seen=type(model).__name__,
            allowed=", ".join(sorted(FAMILIES)),
            remedy="use a model of a supported family; behaviour can be scored on any decoder, "
            "attribution and patching need its anatomy",
        )
    family = FAMILIES[name]
    core = _part(model, "model", name)
    layers = _part(core, "layers", name)
    n_heads = int(config.num_attention_heads)
    anatomy = Anatomy(
        model_type=name,
        n_layers=int(config.num_hidden_layers),
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // n_heads),
        width=int(config.hidden_size),
        blocks=tuple(_block(layer, family, name) for layer in layers.children()),
        embed=_part(core, "embed_tokens", name),
        final_norm=_part(core, "norm", name),
        unembed=_part(model, "lm_head", name),
        softcap=getattr(config, "final_logit_softcapping", None),
        unit_offset=family.unit_offset,
    )
    _verify(model, anatomy)
    return anatomy


def _part(parent: nn.Module, path: str, family: str) -> nn.Module:
    try:
        return parent.get_submodule(path)
    except AttributeError as cause:
        raise ModelError(
            f"This {family} model lacks the part {path!r}",
            seen=type(parent).__name__,
            allowed="a causal language model of the family as transformers builds it",
            remedy="load it with AutoModelForCausalLM, not as a bare encoder or a wrapped copy",
        ) from cause


def _block(layer: nn.Module, family: Family, name: str) -> Block:
    def norm(path: str | None) -> nn.Module | None:
        return None if path is None else _part(layer, path, name)

    return Block(
        layer,
        _part(layer, "self_attn.o_proj", name),
        _part(layer, "mlp", name),
        norm(family.attention_post_norm),
        norm(family.mlp_post_norm),
    )


@torch.no_grad()
def _verify(model: nn.Module, anatomy: Anatomy) -> None:
    """Check the description against the live model."""
    found = {(in_features(b.out_proj), len(anatomy.blocks)) for b in anatomy.blocks}
    expected = {(anatomy.n_heads * anatomy.head_dim, anatomy.n_layers)}
    if found != expected:
        raise ModelError(
            f"This {anatomy.model_type} model is not built as its configuration says",
            seen=f"(inputs of the output projection, layers) {sorted(found)}",
            allowed=f"{sorted(expected)}",
            remedy="check that the weights and config.json belong together",
        )
    norms = [anatomy.final_norm]
    for block in anatomy.blocks:
        norms += [n for n in (block.attention_post_norm, block.mlp_post_norm) if n is not None]
    with full_precision(model):
        for norm in norms:
            weight = norm.get_parameter("weight")
            x = torch.linspace(-2.0, 3.0, weight.numel(), device=weight.device).to(weight.dtype)
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            expected_y = (
                wide * inverse_rms(norm, wide) * gain(norm, unit_offset=anatomy.unit_offset)
            )
            tolerance = 1e-2 if weight.element_size() == 2 else 1e-5
            if not torch.allclose(
                norm(x).to(wide.dtype), expected_y.to(wide.dtype), atol=tolerance
            ):
                raise ModelError(
                    f"A norm of this {anatomy.model_type} model is not a root-mean-square norm",
                    seen=type(norm).__name__,
                    allowed="gain * x / sqrt(mean(x^2) + eps)",
                    remedy="use a supported family: " + ", ".join(sorted(FAMILIES)),
                )
