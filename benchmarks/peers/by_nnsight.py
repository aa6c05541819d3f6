"""How long does a patched forward take in nnsight 0.8? A trace that writes into the model's own.

The wrapped model keeps the attention that transformers chose for it, fills no cache, and computes
the logits of every token or of the last alone; both are timed.
"""

from __future__ import annotations

from typing import Any

import torch
from nnsight import TransformersModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.serve import Cell, Driver, serve


class Traced:
    """A model behind nnsight's tracer."""

    def __init__(self, folder: str) -> None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self._head_dim = int(
            getattr(model.config, "head_dim", None)
            or model.config.hidden_size // model.config.num_attention_heads
        )
        self._model: Any = TransformersModel(model, tokenizer=tokenizer, task="text-generation")

    def patched(self, tokens: Tensor, cell: Cell, *, last_only: bool) -> Tensor:
        """Logits of the last token with one cell patched."""
        model, first, donor = self._model, cell.first, cell.donor
        layer = model.model.layers[cell.layer]
        part = slice(cell.head * self._head_dim, (cell.head + 1) * self._head_dim)
        with model.trace(_inputs(tokens), **_keep(last_only)):
            if cell.kind == "head":
                layer.self_attn.o_proj.input[:, first:, part] = donor
            elif cell.kind == "attn":
                layer.self_attn.o_proj.output[:, first:] = donor
            else:
                layer.mlp.output[:, first:] = donor
            logits = model.lm_head.output[0, -1].save()
        return logits  # noqa: RET504  # it has a value only after the trace

    def clean(self, tokens: Tensor, *, last_only: bool) -> Tensor:
        """Logits of the last token, with heads and MLPs saved."""
        model = self._model
        with model.trace(_inputs(tokens), **_keep(last_only)):
            kept = [].save()
            for layer in model.model.layers:
                kept.append(layer.self_attn.o_proj.input)
                kept.append(layer.mlp.output)
            logits = model.lm_head.output[0, -1].save()
        return logits  # noqa: RET504  # it has a value only after the trace


def _inputs(tokens: Tensor) -> dict[str, Tensor]:
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _keep(last_only: bool) -> dict[str, Any]:
    return {"use_cache": False, **({"logits_to_keep": 1} if last_only else {})}


def load(folder: str) -> Driver:
    """The driver of a model folder."""
    return Traced(folder)


if __name__ == "__main__":
    serve(load, ("nnsight", "transformers"))
