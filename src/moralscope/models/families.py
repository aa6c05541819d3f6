"""How does each architecture name its parts? One entry for each supported ``model_type``.

A new family joins by one entry here and one line in the conformance suite
(``tests/conformance/families.py``), which then checks anatomy, lens, attribution, rows and tree on
it. Paths are relative to the causal language model (``core``, ``unembed``), to the core
(``layers``, ``embed``, ``final_norm``), or to a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moralscope.models.projections import Layout


@dataclass(frozen=True)
class Family:
    """How a family of decoders names its parts.

    Attributes:
        core, unembed: within the model.
        layers, embed, final_norm: within the core.
        out_proj, mlp: within a layer.
        query, key, value: projections within a layer, where they are apart.
        fused: the projection that computes all three, where they are not.
        interleaved: whether a fused projection goes head by head instead of in three blocks.
        query_norm, key_norm: norms on queries and keys, or None.
        norm_layout: shape of those norms' output, see ``projections.Projection``.
        attention_norm, mlp_norm: norms between the residual stream and what a sub-layer reads, or
            None where it reads the stream as it is.
        attention_post_norm, mlp_post_norm: norms between a sub-layer's output and the residual
            stream, or None.
        unit_offset: whether norm gains are ``1 + weight``.
        parallel_flag: configuration key that says whether attention and MLP work in parallel.
        grouped: whether query heads may share key/value heads; a family without ignores the key.
    """

    core: str = "model"
    unembed: str = "lm_head"
    layers: str = "layers"
    embed: str = "embed_tokens"
    final_norm: str = "norm"
    out_proj: str = "self_attn.o_proj"
    mlp: str = "mlp"
    query: str = "self_attn.q_proj"
    key: str = "self_attn.k_proj"
    value: str = "self_attn.v_proj"
    fused: str | None = None
    interleaved: bool = False
    query_norm: str | None = None
    key_norm: str | None = None
    norm_layout: Layout = "token_head"
    attention_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    attention_post_norm: str | None = None
    mlp_post_norm: str | None = None
    unit_offset: bool = False
    parallel_flag: str | None = None
    grouped: bool = True


_LLAMA = Family()
_QUERY_NORM = "self_attn.q_norm"
_KEY_NORM = "self_attn.k_norm"
_AFTER_ATTENTION = "post_attention_layernorm"
_BEFORE_MLP = "pre_feedforward_layernorm"
_AFTER_MLP = "post_feedforward_layernorm"

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": Family(query_norm=_QUERY_NORM, key_norm=_KEY_NORM),
    "gemma2": Family(
        mlp_norm=_BEFORE_MLP,
        attention_post_norm=_AFTER_ATTENTION,
        mlp_post_norm=_AFTER_MLP,
        unit_offset=True,
    ),
    "gemma3_text": Family(
        query_norm=_QUERY_NORM,
        key_norm=_KEY_NORM,
        norm_layout="head_token",
        mlp_norm=_BEFORE_MLP,
        attention_post_norm=_AFTER_ATTENTION,
        mlp_post_norm=_AFTER_MLP,
        unit_offset=True,
    ),
    "gpt2": Family(
        core="transformer",
        layers="h",
        embed="wte",
        final_norm="ln_f",
        out_proj="attn.c_proj",
        fused="attn.c_attn",
        attention_norm="ln_1",
        mlp_norm="ln_2",
        grouped=False,
    ),
    "phi3": Family(fused="self_attn.qkv_proj"),
    "olmo2": Family(
        query_norm=_QUERY_NORM,
        key_norm=_KEY_NORM,
        norm_layout="features",
        attention_norm=None,
        mlp_norm=None,
        attention_post_norm=_AFTER_ATTENTION,
        mlp_post_norm=_AFTER_MLP,
    ),
    "gpt_neox": Family(
        core="gpt_neox",
        embed="embed_in",
        final_norm="final_layer_norm",
        out_proj="attention.dense",
        fused="attention.query_key_value",
        interleaved=True,
        parallel_flag="use_parallel_residual",
        grouped=False,
    ),
}
"""Supported ``model_type`` values of Hugging Face configurations."""
