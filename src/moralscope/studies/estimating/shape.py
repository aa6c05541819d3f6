"""How large is a study? Sizes of its model and prompt sets, read without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moralscope.core.decision import Prompt
from moralscope.mechanisms.patching.plans import Sizes
from moralscope.mechanisms.patching.segments import PackedPrompts
from moralscope.models.libraries import transformers
from moralscope.models.loading import ModelSource
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.scoring import make_packs
from moralscope.studies.catalogue import all_prompts, fingerprint_prompts, mechanism_prompts
from moralscope.studies.study import Study

BYTES_PER_ROW = 24
"""Bytes of a row of a compressed table, as measured on the demo."""


@dataclass(frozen=True)
class Work:
    """What a stage has to do: forward passes, operations, bytes to write."""

    forwards: int = 0
    operations: float = 0.0
    disk_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.forwards + other.forwards,
            self.operations + other.operations,
            self.disk_bytes + other.disk_bytes,
        )


@dataclass(frozen=True)
class Shape:
    """Sizes of the model and of the prompt sets that stages run over.

    Attributes:
        study: what would be run.
        sizes: of a layer's arithmetic.
        n_kv_heads: key/value heads.
        linear_sides: inputs and outputs of all linear layers, which adapters are as wide as.
        tokenizer: the base model's.
    """

    study: Study
    sizes: Sizes
    n_kv_heads: int
    linear_sides: int
    tokenizer: Any

    def encode(self, prompts: Sequence[Prompt]) -> tuple[EncodedPrompt, ...]:
        """Prompts as tokens."""
        return encode_all(self.tokenizer, tuple(prompts))

    @cached_property
    def encoded(self) -> tuple[EncodedPrompt, ...]:
        """Every prompt that agents are measured on."""
        return self.encode(tuple(all_prompts(self.study)))

    @cached_property
    def fingerprinted(self) -> tuple[EncodedPrompt, ...]:
        """What trained agents are fingerprinted on."""
        return self.encode(tuple(fingerprint_prompts(self.study)))

    @cached_property
    def mechanisms(self) -> PackedPrompts:
        """What mechanisms are studied on."""
        return self.packed(tuple(mechanism_prompts(self.study)))

    def packed(self, prompts: Sequence[Prompt]) -> PackedPrompts:
        """Prompts as the study would run them."""
        encoded = self.encode(prompts)
        return PackedPrompts(encoded, make_packs(encoded, self.study.max_nodes))

    def operations(self, nodes: float) -> float:
        """Floating-point operations of that many tree nodes through the model."""
        return 2.0 * self.sizes.n_layers * self.sizes.layer_weights * nodes


def nodes_of(prompts: Sequence[EncodedPrompt], max_nodes: int) -> tuple[int, int]:
    """Packs of some prompts, and the tree nodes of all packs together."""
    packs = make_packs(prompts, max_nodes)
    return len(packs), sum(len(pack.tree) for pack in packs)


def shape_of(study: Study, source: ModelSource) -> Shape:
    """Read a study's sizes from the model's configuration and tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(source.folder), local_files_only=True
    )
    whole = transformers.AutoConfig.from_pretrained(str(source.folder), local_files_only=True)
    config = whole.get_text_config()
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or width // heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    kv = kv_heads * head_dim
    layers = int(config.num_hidden_layers)
    linear = [(width, heads * head_dim), (width, kv), (width, kv), (heads * head_dim, width)]
    linear += [(width, inner), (width, inner), (inner, width)]
    return Shape(
        study=study,
        sizes=Sizes(
            n_layers=layers,
            n_heads=heads,
            head_dim=head_dim,
            width=width,
            mlp_width=inner,
            layer_weights=sum(a * b for a, b in linear),
            element_bytes=2 if study.dtype == "bfloat16" else 4,
            masks=2 if getattr(config, "sliding_window", None) else 1,
            eager=False,
        ),
        n_kv_heads=kv_heads,
        linear_sides=layers * sum(a + b for a, b in linear),
        tokenizer=tokenizer,
    )
