"""Which decoders must everything work on? One line each; a new family joins the suite by one.

A line gives the configuration of a tiny model and, where they are not Llama's, the names of its
parts as transformers has them. They are written down here a second time on purpose: the oracles of
the tests find the parts by these, and not by ``moralscope.models.families``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WINDOW = 16
"""Sliding windows, shorter than the prompts of the tests."""


@dataclass(frozen=True)
class TinyFamily:
    """A tiny decoder and the names of its parts.

    Attributes:
        config: name of its configuration class.
        settings: what differs from the sizes that all share.
        body: the decoder below the unembedding.
        layers, embed, final_norm: within the body.
        out_proj: within a layer.
        fused: the layer that computes queries, keys and values together, or None.
        interleaved: whether it goes head by head.
        query_norm: whether queries and keys are normed, and how their heads lie: ``token_head``,
            ``head_token`` or ``flat``.
        post_norm, mlp_post_norm: norms between a sub-layer's output and the residual stream.
        before_mlp: what reads the stream between attention and MLP, None where there is none.
        gain_offset: what is added to the weights of norms.
    """

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    body: str = "model"
    layers: str = "layers"
    embed: str = "embed_tokens"
    final_norm: str = "norm"
    out_proj: str = "self_attn.o_proj"
    fused: str | None = None
    interleaved: bool = False
    query_norm: str | None = None
    post_norm: str | None = None
    mlp_post_norm: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    gain_offset: float = 0.0


_AFTER: dict[str, Any] = {
    "post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
_GEMMA: dict[str, Any] = {**_AFTER, "before_mlp": "pre_feedforward_layernorm", "gain_offset": 1.0}
_NEOX: dict[str, Any] = {
    "body": "gpt_neox",
    "embed": "embed_in",
    "final_norm": "final_layer_norm",
    "out_proj": "attention.dense",
    "fused": "attention.query_key_value",
    "interleaved": True,
}
_GPT2: dict[str, Any] = {
    "body": "transformer",
    "layers": "h",
    "embed": "wte",
    "final_norm": "ln_f",
    "out_proj": "attn.c_proj",
    "fused": "attn.c_attn",
    "before_mlp": "ln_2",
}
_BIASES = {"attention_bias": True, "mlp_bias": True}
_LATE_WINDOW = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
_SCALED = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
_CAPPED = {
    **_SCALED,
    "num_hidden_layers": 4,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 8.0,
}
_MIXED = {**_SCALED, "layer_types": [f"{s}_attention" for s in ("sliding", "full", "sliding")]}

FAMILIES: dict[str, TinyFamily] = {
    "llama": TinyFamily("LlamaConfig", {"tie_word_embeddings": True}),
    "llama_bias": TinyFamily("LlamaConfig", _BIASES),
    "mistral": TinyFamily("MistralConfig", {"sliding_window": WINDOW}),
    "qwen2": TinyFamily("Qwen2Config"),
    "qwen2_window": TinyFamily("Qwen2Config", _LATE_WINDOW),
    "qwen3": TinyFamily("Qwen3Config", {"head_dim": 16}, query_norm="token_head"),
    "gemma2": TinyFamily("Gemma2Config", _CAPPED, **_GEMMA),
    "gemma3_text": TinyFamily("Gemma3TextConfig", _MIXED, query_norm="head_token", **_GEMMA),
    "gpt2": TinyFamily("GPT2Config", **_GPT2),
    "phi3": TinyFamily("Phi3Config", {"sliding_window": WINDOW}, fused="self_attn.qkv_proj"),
    "olmo2": TinyFamily("Olmo2Config", query_norm="flat", before_mlp="mlp", **_AFTER),
    "gpt_neox": TinyFamily("GPTNeoXConfig", before_mlp=None, **_NEOX),
    "gpt_neox_sequential": TinyFamily("GPTNeoXConfig", {"use_parallel_residual": False}, **_NEOX),
}


def named(model: Any) -> TinyFamily:
    """The line that a model's parts are named by."""
    kind = type(model.config).__name__
    alike = [family for family in FAMILIES.values() if family.config == kind]
    if kind == "GPTNeoXConfig":
        return alike[0] if model.config.use_parallel_residual else alike[1]
    return alike[0]
