"""How much memory would a study take? Weights, then the larger of training and of looking inside.

    peak = runtime + weights + adapters + max(training, clean runs + one pass of patches)

    weights    = parameters x bytes of the dtype
    training   = max_nodes x layers x (12 width + 5 MLP width) x bytes of the arithmetic
    clean runs = agents with weights x nodes x layers x 2 (keys, values) x key/value width x 4 bytes
    pass       = mechanisms.memory_mib, which passes are cut to

The factor of training is what automatic differentiation keeps of a layer; it agrees with what the
demo was measured to take. An estimate, to tell a laptop from what needs a large machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from moralscope.studies.study import Study, models_of, training_config

RUNTIME: Final = int(0.6 * 2**30)
"""Bytes of the interpreter and the libraries, before any model is loaded."""

BYTES: Final = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.6}
"""Bytes of a weight, by dtype."""

_KEPT_OF_WIDTH, _KEPT_OF_MLP = 12, 5


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A decoder's size, as its configuration has it."""

    layers: int
    width: int
    mlp: int
    heads: int
    head_dim: int
    kv_heads: int
    vocabulary: int
    tied: bool

    @property
    def linear_sides(self) -> int:
        """Inputs and outputs of all linear layers, which adapters are as wide as."""
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.width + inner) + 2 * (self.width + keys) + 3 * (self.width + self.mlp)
        return self.layers * sides

    @property
    def parameters(self) -> int:
        """Weights of all matrices."""
        inner, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = 2 * self.width * inner + 2 * self.width * keys + 3 * self.width * self.mlp
        embedded = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * layer + embedded


@dataclass(frozen=True, slots=True)
class Needed:
    """Bytes that a study would take, part by part."""

    weights: int
    adapters: int
    training: int
    clean_runs: int
    patches: int

    @property
    def peak(self) -> int:
        """The largest sum of parts that are in memory together."""
        together = max(self.training, self.clean_runs + self.patches)
        return RUNTIME + self.weights + self.adapters + together


def read_dimensions(folder: Path) -> Dimensions | None:
    """The dimensions in a model folder's ``config.json``; None where it does not say them."""
    try:
        value: object = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    config = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    nested = config.get("text_config")
    if isinstance(nested, dict):
        config = {**config, **cast("dict[str, object]", nested)}
    try:
        width, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
        return Dimensions(
            layers=_whole(config, "num_hidden_layers"),
            width=width,
            mlp=_whole(config, "intermediate_size", 4 * width),
            heads=heads,
            head_dim=_whole(config, "head_dim", width // heads),
            kv_heads=_whole(config, "num_key_value_heads", heads),
            vocabulary=_whole(config, "vocab_size"),
            tied=config.get("tie_word_embeddings") is not False,
        )
    except KeyError:
        return None


def _whole(config: Mapping[str, object], name: str, otherwise: int | None = None) -> int:
    value = config.get(name)
    if isinstance(value, int) and value > 0:
        return value
    if otherwise is None:
        raise KeyError(name)
    return otherwise


def memory_needed(study: Study, sizes: Dimensions, nodes: int) -> Needed:
    """Bytes that a study would take.

    Args:
        study: what would be run.
        sizes: of its base.
        nodes: tree nodes of the prompts that mechanisms are studied on.
    """
    configs = [c for name in study.agents if (c := training_config(study, name)) is not None]
    held = BYTES[study.dtype]
    narrow = any(c.compute_dtype == "bfloat16" for c in configs)
    arithmetic = 2 if narrow or study.dtype == "bfloat16" else 4
    kept = _KEPT_OF_WIDTH * sizes.width + _KEPT_OF_MLP * sizes.mlp
    training = study.max_nodes * sizes.layers * kept * arithmetic if configs else 0
    if configs and narrow and study.dtype == "float32":
        training += sizes.parameters * 2  # weights once more, as they are multiplied
    methods = set(study.mechanisms.methods)
    keys = 2 * sizes.kv_heads * sizes.head_dim
    clean = len(models_of(study)) * nodes * sizes.layers * keys * 4 if methods else 0
    patched = methods & {"patching", "approximations", "paths", "circuits"}
    rank = max((c.lora.rank for c in configs), default=8)
    adapted = len(models_of(study)) - 1
    return Needed(
        weights=int(sizes.parameters * held),
        adapters=adapted * sizes.linear_sides * rank * 4,
        training=training,
        clean_runs=clean,
        patches=(study.mechanisms.memory_mib << 20) if patched else 0,
    )
