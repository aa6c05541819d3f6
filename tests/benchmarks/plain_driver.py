"""A stand-in for another library: transformers and hooks, asked in the same way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.serve import Cell, Driver, serve


class Plain:
    def __init__(self, folder: str) -> None:
        sys.stdout.write("libraries greet whoever listens\n")
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def patched(self, tokens: Tensor, cell: Cell, *, last_only: bool) -> Tensor:
        layer = self._model.model.layers[cell.layer]
        size = self._model.config.head_dim

        def head(_: object, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].clone()
            z[0, cell.first :, cell.head * size : (cell.head + 1) * size] = cell.donor
            return (z,)

        def output(_: object, __: object, written: Tensor) -> Tensor:
            return torch.cat([written[:, : cell.first], cell.donor[None]], 1)

        if cell.kind == "head":
            handle = layer.self_attn.o_proj.register_forward_pre_hook(head)
        else:
            part = layer.mlp if cell.kind == "mlp" else layer.self_attn.o_proj
            handle = part.register_forward_hook(output)
        logits = self.clean(tokens, last_only=last_only)
        handle.remove()
        return logits

    def clean(self, tokens: Tensor, *, last_only: bool) -> Tensor:
        return self._model(tokens, logits_to_keep=int(last_only), use_cache=False).logits[0, -1]


def load(folder: str) -> Driver:
    return Plain(folder)


if __name__ == "__main__":
    serve(load, ("transformers",))
