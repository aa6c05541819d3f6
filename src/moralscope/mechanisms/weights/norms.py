"""How much did each weight change, and in how many directions? Norms, ranks and spectra.

    norm = |dW|_F = sqrt(sum_i s_i^2)          relative_norm = |dW|_F / |W|_F
    stable_rank = |dW|_F^2 / s_1^2             (Rudelson and Vershynin 2007)
    effective_rank = exp(-sum_i p_i ln p_i),   p_i = s_i / sum_j s_j   (Roy and Vetterli 2007)

Both ranks are 1 for an update in one direction and r where r directions changed alike. Norms of
several weights together are the root of the sum of their squares. Biases, norms and embeddings
that an agent changed as well have a norm only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moralscope.mechanisms.weights.updates import AgentUpdates, Place, Update, wide
from moralscope.models.anatomy import dissect
from moralscope.models.families import FAMILIES
from moralscope.models.weights import base_weight, bias_of

Row = dict[str, object]

_linalg: Any = torch.linalg


def effective_rank(update: Update) -> float | None:
    """``exp`` of the entropy of the singular values' shares of their sum; None for no update."""
    if not update.rank:
        return None
    shares = update.values / update.values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def norm_row(updates: AgentUpdates, place: Place, update: Update) -> Row:
    """The row of ``update_norms`` of one linear layer."""
    base_norm = _norm(base_weight(updates.base[place]))
    largest = float(update.values[0]) if update.rank else 0.0
    return {
        "agent": updates.name,
        "layer": place[0],
        "module": place[1],
        "norm": update.norm,
        "base_norm": base_norm,
        "relative_norm": update.norm / base_norm if base_norm else None,
        "spectral_norm": largest,
        "effective_rank": effective_rank(update),
        "stable_rank": (update.norm / largest) ** 2 if update.rank else None,
        "rank": update.rank,
        "n_parameters": updates.trainable(place),
    }


def spectrum_rows(agent: str, place: Place, update: Update, most: int) -> Iterator[Row]:
    """The rows of ``update_spectra`` of one linear layer, the largest values first."""
    total = update.norm**2
    for index, value in enumerate(update.values[:most], start=1):
        yield {
            "agent": agent,
            "layer": place[0],
            "module": place[1],
            "index": index,
            "singular_value": float(value),
            "share": float(value**2 / total),
        }


@torch.no_grad()
def other_rows(updates: AgentUpdates) -> Iterator[Row]:
    """Rows of ``update_norms`` of what else changed: biases, and of checkpoints all parameters.

    What was left as it is has no row.
    """
    found = _parameters(updates) if updates.checkpoint else _biases(updates)
    for place, own, base in found:
        if torch.equal(own, base):
            continue
        change, before = _norm(wide(own) - wide(base)), _norm(base)
        yield {
            "agent": updates.name,
            "layer": place[0],
            "module": place[1],
            "norm": change,
            "base_norm": before,
            "relative_norm": change / before if before else None,
            "spectral_norm": None,
            "effective_rank": None,
            "stable_rank": None,
            "rank": None,
            "n_parameters": own.numel(),
        }


_Change = tuple[tuple[int | None, str], Tensor, Tensor]
"""Layer and name of a parameter, the agent's and the base's value."""


def _biases(updates: AgentUpdates) -> Iterator[_Change]:
    """What adapters add to biases."""
    with updates.roster.speaking(updates.name):
        own = {place: bias_of(linear) for place, linear in updates.places.items()}
    for (layer, name), bias in own.items():
        if bias is not None:
            adapted: Any = updates.places[layer, name]
            base = getattr(adapted, "base_layer", adapted).bias
            yield (layer, f"{name}.bias"), bias, torch.zeros_like(bias) if base is None else base


def _parameters(updates: AgentUpdates) -> Iterator[_Change]:
    """All parameters of a checkpoint but the weights of its linear layers, beside the base's."""
    with updates.roster.speaking(updates.name) as model:
        own = dict(model.named_parameters())
        family = FAMILIES[dissect(model).model_type]
    base = {
        name.replace(".base_layer.", "."): parameter
        for name, parameter in updates.roster.base.model.named_parameters()
        if ".lora_" not in name
    }
    inside = re.compile(rf"{re.escape(f'{family.core}.{family.layers}.')}(\d+)\.(.+)")
    for name, parameter in own.items():
        place = inside.fullmatch(name)
        layer, rest = (None, name) if place is None else (int(place[1]), place[2])
        linear = layer is not None and (layer, rest.removesuffix(".weight")) in updates.places
        if name in base and not (linear and rest.endswith(".weight")):
            yield (layer, rest), parameter.detach(), base[name].detach().to(parameter.device)


def _norm(weight: Tensor) -> float:
    return float(_linalg.vector_norm(weight, dtype=torch.float64))
