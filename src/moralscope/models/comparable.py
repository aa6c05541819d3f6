"""Can these agents be compared? Found out from configurations and shapes, before any weights.

An adapter must fit the base layer by layer; a checkpoint must have its sizes, its tokenizer and its
chat template. What only the weights can tell (an adapter that changes nothing, one that acts
otherwise than it did) is found when they are loaded (``models.roster``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from moralscope.models.libraries import transformers
from moralscope.models.loading import (
    LoadedModel,
    ModelSource,
    configuration,
    locate_model,
    tokenizer_hashes,
)
from moralscope.models.roster import find_adapter, read_adapter, unlike

_SIZES = (
    "model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "hidden_size",
)  # fmt: skip


def check_comparable(
    source: ModelSource, adapters: Mapping[str, str], checkpoints: Mapping[str, str]
) -> None:
    """Refuse agents that cannot be compared with their base.

    Args:
        source: the base's files.
        adapters: folders or hub ids of adapters, by agent.
        checkpoints: folders or hub ids of full models, by agent.

    Raises:
        AgentError: an adapter is missing, is of another kind or was made for another base; a
            checkpoint's anatomy, tokenizer or chat template differs.
        ModelError: a checkpoint cannot be found.
    """
    if adapters:
        base = _skeleton(source)
        for name, adapter in adapters.items():
            read_adapter(name, find_adapter(name, adapter), base)
    for name, checkpoint in checkpoints.items():
        other = locate_model(checkpoint)
        if _sizes(other) != _sizes(source):
            raise unlike(name, "anatomy", checkpoint, source.name)
        if tokenizer_hashes(_tokenizer(other)) != tokenizer_hashes(_tokenizer(source)):
            raise unlike(name, "tokenizer or chat template", checkpoint, source.name)


def _skeleton(source: ModelSource) -> LoadedModel:
    """The base without its weights: every layer has its shape and no memory."""
    with torch.device("meta"):
        model: Any = transformers.AutoModelForCausalLM.from_config(configuration(source))
    return LoadedModel(model, _tokenizer(source), source, "float32", "meta")


def _tokenizer(source: ModelSource) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(source.folder), local_files_only=True)


def _sizes(source: ModelSource) -> dict[str, object]:
    config = configuration(source).get_text_config()
    return {name: getattr(config, name, None) for name in _SIZES}
