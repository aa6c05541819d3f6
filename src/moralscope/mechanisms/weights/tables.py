"""What did fine-tuning change in the weights? The tables of one agent, and of pairs of agents.

Linear layers are taken one after another: of each its update is decomposed, read, and forgotten, so
that no more than one layer's updates are in memory. Nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl
from torch import nn

from moralscope.core.errors import AgentError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.tables import from_rows
from moralscope.mechanisms.weights.directions import (
    READS,
    WRITES,
    answer_axes,
    compass,
    control_pairs,
    control_rows,
    direction_rows,
)
from moralscope.mechanisms.weights.norms import norm_row, other_rows, spectrum_rows
from moralscope.mechanisms.weights.nulls import Array
from moralscope.mechanisms.weights.overlaps import TOPS, distance_row, overlap_rows
from moralscope.mechanisms.weights.updates import (
    AgentUpdates,
    Place,
    Update,
    linear_places,
    updates_of,
)
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

SPECTRUM = 64
"""Singular values of each linear layer that are kept, unless told otherwise."""

Row = dict[str, object]


def update_tables(
    roster: Roster,
    name: str,
    prompts: Sequence[EncodedPrompt],
    *,
    spectrum: int = SPECTRUM,
    progress: Progress = silent,
) -> dict[str, pl.DataFrame]:
    """What one agent's training changed.

    Args:
        roster: holds the agent.
        name: an adapter or a full checkpoint.
        prompts: their options give the axis of the decision.
        spectrum: singular values kept of each linear layer, the largest.
        progress: where to report.

    Returns:
        ``update_norms``, ``update_spectra``, ``update_directions`` and ``update_controls``.

    Raises:
        AgentError: there is no such agent, or it is the base.
        ModelError: a layer is not linear in a way that is known.
    """
    updates = _trained(roster, name)
    axes = answer_axes(roster.tokenizer, prompts)
    with roster.speaking(name):
        anatomy = roster.anatomy(name)
        pairs = control_pairs(prompts, roster.tokenizer, anatomy)
        own = np.array(list(axes.values()), dtype=np.int64).reshape(-1, 2)
        directions = compass(anatomy, updates.places, np.concatenate([own, pairs]))
    rows: dict[str, list[Row]] = {"update_norms": [], "update_spectra": [], "update_directions": []}
    sums: dict[str, list[tuple[float, Array]]] = {WRITES: [], READS: []}
    for index, place in enumerate(updates.places):
        progress(ProgressEvent(f"weights {name}", index, len(updates.places)))
        update = updates[place]
        rows["update_norms"].append(norm_row(updates, place, update))
        rows["update_spectra"] += spectrum_rows(name, place, update, spectrum)
        side = directions.side(place)
        if side is None:
            continue
        shares = directions.along(place, update) if update.rank else None
        rows["update_directions"] += direction_rows(name, list(axes), place, (side, update), shares)
        if shares is not None:
            sums[side].append((update.norm**2, shares[len(axes) :]))
    rows["update_norms"] += other_rows(updates)
    rows["update_controls"] = [
        row
        for side, parts in sums.items()
        for row in control_rows(name, list(axes), side, _together(parts))
    ]
    return {table: from_rows(table, found) for table, found in rows.items()}


def _together(parts: Sequence[tuple[float, Array]]) -> Array | None:
    """Shares of the summed squared norm, from (squared norm, shares) of its parts."""
    if not parts:
        return None
    weights = np.array([weight for weight, _ in parts])
    return weights @ np.stack([shares for _, shares in parts]) / weights.sum()


def comparison_tables(
    roster: Roster,
    pairs: Iterable[tuple[str, str]],
    *,
    tops: Sequence[int] = TOPS,
    progress: Progress = silent,
) -> dict[str, pl.DataFrame]:
    """How the updates of pairs of agents lie to each other.

    Args:
        roster: holds the agents.
        pairs: adapters or full checkpoints, two different ones each.
        tops: leading directions of which subspaces are compared, each 1 or more.
        progress: where to report.

    Returns:
        ``update_overlap`` and ``update_distances``.

    Raises:
        AgentError: there is no such agent, it is the base, or an agent is paired with itself.
        ModelError: a layer is not linear in a way that is known.
    """
    wanted = list(dict.fromkeys(pairs))
    _refuse_itself(wanted)
    places = linear_places(roster.base.model)
    names = dict.fromkeys(name for pair in wanted for name in pair)
    updates = {name: _trained(roster, name, places) for name in names}
    overlaps: list[Row] = []
    distances: list[Row] = []
    for index, place in enumerate(places if wanted else ()):
        progress(ProgressEvent("weights compared", index, len(places)))
        found: dict[str, Update] = {name: own[place] for name, own in updates.items()}
        for a, b in wanted:
            distances.append(distance_row((a, b), place, found[a], found[b]))
            overlaps += overlap_rows((a, b), place, found[a], found[b], tops)
    return {
        "update_overlap": from_rows("update_overlap", overlaps),
        "update_distances": from_rows("update_distances", distances),
    }


def _refuse_itself(pairs: Sequence[tuple[str, str]]) -> None:
    alone = next((a for a, b in pairs if a == b), None)
    if alone is not None:
        raise AgentError(
            "An agent's update cannot be compared with itself",
            seen=f"{alone} and {alone}",
            allowed="two different agents",
            remedy="name another agent",
        )


def _trained(
    roster: Roster, name: str, base: Mapping[Place, nn.Module] | None = None
) -> AgentUpdates:
    """The updates of an agent that has some.

    Raises:
        AgentError: it is the base, or there is no such agent.
    """
    updates = updates_of(roster, name, base)
    if roster.specs[name].kind == "base":
        raise AgentError(
            "The base has no update: updates are taken from it",
            seen=name,
            allowed=", ".join(n for n, spec in roster.specs.items() if spec.kind != "base")
            or "an adapter or a full checkpoint",
            remedy="name a trained agent",
        )
    return updates
