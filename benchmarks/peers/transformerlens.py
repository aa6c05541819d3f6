"""How long does a patched forward take in TransformerLens 4.3? ``TransformerBridge`` and hooks.

The bridge forces eager attention. ``logits_to_keep`` is handed through to the model, which is not
documented there; both ways are timed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from benchmarks.peers.serve import Cell, Driver, serve

_HOOKS = {"head": "attn.hook_z", "attn": "hook_attn_out", "mlp": "hook_mlp_out"}


class Bridge:
    """A model behind TransformerLens's bridge."""

    def __init__(self, folder: str) -> None:
        self._model: Any = TransformerBridge.boot_transformers(
            folder, device="cpu", dtype=torch.float32
        )
        self._kept = [
            f"blocks.{layer}.{_HOOKS[kind]}"
            for layer in range(self._model.cfg.n_layers)
            for kind in ("head", "mlp")
        ]

    def patched(self, tokens: Tensor, cell: Cell, *, last_only: bool) -> Tensor:
        """Logits of the last token with one cell patched."""

        def put_in(value: Tensor, hook: object) -> Tensor:  # noqa: ARG001  # the library's shape
            if cell.kind == "head":
                value[:, cell.first :, cell.head] = cell.donor
            else:
                value[:, cell.first :] = cell.donor
            return value

        hook = (f"blocks.{cell.layer}.{_HOOKS[cell.kind]}", put_in)
        logits: Tensor = self._model.run_with_hooks(
            tokens, return_type="logits", fwd_hooks=[hook], **_keep(last_only)
        )
        return logits[0, -1]

    def clean(self, tokens: Tensor, *, last_only: bool) -> Tensor:
        """Logits of the last token, with heads and MLPs cached."""
        logits, _ = self._model.run_with_cache(
            tokens, return_type="logits", names_filter=self._kept, **_keep(last_only)
        )
        return logits[0, -1]


def _keep(last_only: bool) -> dict[str, int]:
    return {"logits_to_keep": 1} if last_only else {}


def load(folder: str) -> Driver:
    """The driver of a model folder."""
    return Bridge(folder)


if __name__ == "__main__":
    serve(load, ("transformer-lens", "transformers"))
