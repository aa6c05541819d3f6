"""How far apart are agents in what they represent where a prompt's options part?

From residual streams h of two agents and their base on the same prompts, layer by layer,

    d = sqrt(mean over scenarios, prompts and layers of (||h_A - h_B|| / ||h_base||)^2),

in which the base takes part like any agent. A second measure takes the length of the changes away:
``sqrt(2 - 2 cos(h_A - h_base, h_B - h_base))``, where the base lies 1 from every agent. Cosines of
the streams themselves are not used: those of any two agents of one base are nearly 1.
The embedding, which is before anything was trained, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.synthesis.distances import (
    NONE,
    Apart,
    Distances,
    apart,
    placed_rows,
    refuse_other_places,
)
from moralscope.evidence.synthesis.profiles import Pairs
from moralscope.evidence.units import Tables

TABLE = "representation_pairs"


def representations(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances of residual streams, and of the directions of their changes from base."""
    placed = placed_rows(tables, TABLE)
    if placed is None:
        return
    rows = placed[0].filter(pl.col("layer") >= 0)
    turned = 2.0 - 2.0 * pl.col("change_cosine").clip(-1.0, 1.0)
    for measure, square in (("stream", pl.col("distance") ** 2), ("change_direction", turned)):
        found, n = _distances(rows.with_columns(square=square).drop_nulls("square"), pairs)
        if found:
            ended = {name for pair in found for name in pair} if measure != "stream" else set[str]()
            alone = {name: Apart(1.0, NONE) for name in ended}
            yield Distances("representations", measure, "ratio", "scenarios", n, found, alone)


def _distances(rows: pl.DataFrame, pairs: Pairs) -> tuple[dict[tuple[str, str], Apart], int]:
    """Distances of the wanted pairs, and how many scenarios there are."""
    wanted = {frozenset(pair) for pair in pairs}
    means = (
        rows.group_by("agent_a", "agent_b", "scenario")
        .agg(pl.col("square").mean())
        .sort("agent_a", "agent_b", "scenario")
    )
    found: dict[tuple[str, str], Apart] = {}
    scenarios: list[str] | None = None
    for (one, other), own in means.group_by("agent_a", "agent_b", maintain_order=True):
        first, second = str(one), str(other)
        if frozenset((first, second)) not in wanted:
            continue
        names = own.get_column("scenario").to_list()
        if scenarios is not None:
            refuse_other_places((first, second), "scenarios", sorted(set(scenarios) ^ set(names)))
        scenarios = names
        squares: Array = own.get_column("square").to_numpy()
        found[first, second] = apart(squares)
    return found, len(scenarios or ())
