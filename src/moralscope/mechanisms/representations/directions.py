"""Does a direction that tells two groups apart move the decision? Added, beside random directions.

    d = mean of the streams of one group - mean of those of the other      (after layer l)

is found on some of the scenarios and added, on the others, to an agent's stream where its options
part. That a probe reads something does not mean that the model uses it; a direction of the same
length drawn at random says how much any push of this size does. Directions go to
``directions.safetensors``, one tensor each under ``WHAT SUBJECT L{layer}``, in units of the stream,
so that ``intervening.steering`` can add them or take them away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.mechanisms.representations.exchanging import Speaking, continuation, places
from moralscope.mechanisms.representations.streams import Array
from moralscope.models.libraries import safetensors_torch

DIRECTIONS = "directions.safetensors"

RANDOM = 19
"""Random directions beside each direction."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A difference of means.

    Attributes:
        what: what it tells apart.
        subject: whose streams it was found in.
        layer: after which; -1 for the embedding.
        vector: ``(width,)``, in units of the stream.
    """

    what: str
    subject: str
    layer: int
    vector: Array

    @property
    def name(self) -> str:
        """Its name in ``directions.safetensors``."""
        return f"{self.what} {self.subject} L{self.layer}"


def mean_difference(values: Array, labels: NDArray[np.bool_]) -> Array:
    """Mean of the readings that are labelled minus mean of the others, ``(..., width)``.

    Args:
        values: ``(n, ..., width)``.
        labels: ``(n,)``, both classes present.
    """
    difference: Array = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
    return difference


def save_directions(directions: Sequence[Direction], folder: Path) -> Path:
    """Write ``folder/directions.safetensors``, float32."""
    path = folder / DIRECTIONS
    tensors = {d.name: torch.as_tensor(d.vector, dtype=torch.float32) for d in directions}
    safetensors_torch.save_file(tensors, str(path))
    return path


@torch.no_grad()
def direction_effects(
    agent: Speaking,
    direction: Direction,
    tested: Mapping[int, str],
    rng: np.random.Generator,
    *,
    random: int = RANDOM,
) -> list[dict[str, object]]:
    """Rows of ``direction_effects``: what adding a direction does, and random ones of its length.

    Args:
        agent: who is steered.
        direction: found on other scenarios; not of the embedding.
        tested: prompts that it is added on, by their index in the run, with their scenarios.
        rng: of the random directions.
        random: how many of them.
    """
    length = float(np.linalg.norm(direction.vector))
    drawn = rng.standard_normal((random, len(direction.vector)))
    drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
    pushes = np.vstack([np.zeros_like(direction.vector), direction.vector, drawn])
    effects: dict[int, Array] = {}
    for place in places(agent.run, list(tested)):
        own = place.clean(direction.layer)
        streams = own[None] + torch.as_tensor(pushes).to(own)[:, None]
        # The first copy is pushed nowhere, so both sides go through the same kernels.
        log_odds = continuation(agent, place, len(pushes)).log_odds(direction.layer, streams)
        change = (log_odds[1:] - log_odds[0]).double().cpu().numpy()
        effects |= dict(zip(place.members, change.T, strict=True))
    by_unit: dict[str, list[Array]] = {}
    for member, unit in tested.items():
        by_unit.setdefault(unit, []).append(effects[member])
    units = np.array([np.mean(values, axis=0) for values in by_unit.values()])
    common = {
        "what": direction.what,
        "subject": direction.subject,
        "agent": agent.run.agent,
        "layer": direction.layer,
        "norm": length,
        "n": len(units),
    }
    return [
        {**common, "draw": draw, "effect": float(column.mean()), **_interval(column)}
        for draw, column in enumerate(units.T, start=-1)
    ]


def _interval(values: Array) -> dict[str, float]:
    found = cluster_t(values)
    return {} if found is None else {"low": found[0], "high": found[1]}
