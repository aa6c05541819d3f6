"""Updates multiplied out: each linear layer of an agent and of its base, run on unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import families
import numpy as np
import tiny
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from moralscope.core.agents import AgentSpec
from moralscope.models.roster import Roster

Array = NDArray[np.float64]

PARTS = {
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "phi3": ("self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    "gpt_neox": ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h",
                 "mlp.dense_4h_to_h"),
}  # fmt: skip
LLAMA = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


def parts(family: str) -> tuple[str, ...]:
    """Names of a decoder layer's linear layers."""
    return PARTS.get(family.removesuffix("_sequential"), LLAMA)


def layer(model: Any, index: int) -> Any:
    """A decoder layer, by the names that the tests have of their own."""
    own = families.named(model)
    return getattr(getattr(model, own.body), own.layers)[index]


def matrix(roster: Roster, name: str, index: int, part: str) -> Array:
    """What an agent's linear layer multiplies by, one unit vector at a time."""
    known = _KNOWN.setdefault(roster.base.model, {})
    if name not in known:
        known[name] = _matrices(roster, name)
    return known[name][index, part]


_KNOWN: WeakKeyDictionary[torch.nn.Module, dict[str, dict[tuple[int, str], Array]]] = (
    WeakKeyDictionary()
)


@torch.no_grad()
def _matrices(roster: Roster, name: str) -> dict[tuple[int, str], Array]:
    found: dict[tuple[int, str], Array] = {}
    with roster.speaking(name) as model:
        for index in range(model.config.num_hidden_layers):
            for part in parts(model.config.model_type):
                linear = layer(model, index).get_submodule(part)
                base = getattr(linear, "base_layer", linear)
                conv = type(base).__name__ == "Conv1D"
                n, dtype = base.weight.shape[0 if conv else 1], base.weight.dtype
                rows = linear(torch.eye(n, dtype=dtype)) - linear(torch.zeros(1, n, dtype=dtype))
                found[index, part] = rows.T.double().numpy()
    return found


def change(roster: Roster, name: str, index: int, part: str) -> Array:
    """The effective update, (outputs, inputs)."""
    return matrix(roster, name, index, part) - matrix(roster, "base", index, part)


def adapter_of(
    folder: Path, family: str, factors: dict[str, tuple[Array, Array]], *, seed: int = 1, rank: int
) -> Path:
    """An adapter beside every linear layer whose updates are zero except for some.

    Args:
        folder: where it is saved.
        family: of the base.
        factors: B (outputs, rank) and A (rank, inputs) by the full name of a linear layer, scaling
            excluded (it is 1); B is zero elsewhere, and A random.
        seed: of the other A.
        rank: of all.
    """
    tiny.save_adapter(folder, tiny.tiny_model(family), seed=seed, rank=rank, lora_alpha=rank)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for key in tensors:
        name, _, factor = key.removeprefix("base_model.model.").rpartition(".lora_")
        if name in factors:
            b, a = factors[name]
            tensors[key] = torch.from_numpy(np.ascontiguousarray(b if factor[0] == "B" else a))
        elif factor.startswith("B"):
            tensors[key] = torch.zeros_like(tensors[key])
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def roster_of(family: str, adapters: dict[str, Path], seeds: Sequence[int] = ()) -> Roster:
    """A base in float64 with some saved adapters."""
    roster = Roster(tiny.loaded(tiny.tiny_model(family)))
    roster.add(AgentSpec(name="base", base="tiny"))
    for index, (name, folder) in enumerate(adapters.items()):
        seed = seeds[index] if seeds else None
        roster.add(AgentSpec(name=name, base="tiny", adapter=str(folder), training_seed=seed))
    return roster
