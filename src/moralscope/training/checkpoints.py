"""Where was training when it stopped? Checkpoints that make a resumed run equal to a whole one.

A checkpoint holds the adapter, the optimiser's moments and the rows of the training table. There
is no random state to store: batches are functions of seed and step. It is one folder that
appears whole or not at all; a damaged one, or one of another training, counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moralscope.core.files import atomic_folder, write_bytes, write_json
from moralscope.core.hashing import sha256_file
from moralscope.models.libraries import safetensors_torch

FOLDER = "checkpoint"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    work: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    rows: list[dict[str, object]],
    identity: str,
) -> None:
    """Write the state after the last row's step of the training that ``identity`` names."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
        state: dict[str, Any] = optimiser.state[parameter]
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = torch.as_tensor(state[moment]).cpu().contiguous()
    with atomic_folder(work / FOLDER) as folder:
        write_bytes(folder / "state.safetensors", safetensors_torch.save(tensors))
        digest = sha256_file(folder / "state.safetensors")
        write_json(folder / "state.json", {"identity": identity, "rows": rows, "sha256": digest})


@torch.no_grad()
def load_checkpoint(
    work: Path,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    identity: str,
) -> list[dict[str, object]]:
    """Restore the last checkpoint in place.

    Returns:
        The rows of the training table so far; empty where there is no intact checkpoint of the
        training that ``identity`` names.
    """
    folder = work / FOLDER
    try:
        record = json.loads((folder / "state.json").read_text())
        intact = record["identity"] == identity
        intact = intact and sha256_file(folder / "state.safetensors") == record["sha256"]
        rows: list[dict[str, object]] = list(record["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not intact:
        return []
    tensors: dict[str, Tensor] = safetensors_torch.load_file(str(folder / "state.safetensors"))
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"parameter/{name}"])
        optimiser.state[parameter] = {
            moment: tensors[f"{moment}/{name}"].to(parameter.device if moment != "step" else "cpu")
            for moment in _MOMENTS
        }
    return rows
