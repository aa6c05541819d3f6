"""How far has a training come after a step, at every level? The table ``course``.

    moved     = d(base, state) / d(base, end)
    remaining = d(state, end) / d(base, end)

with the distances of ``synthesis.levels``. Both are on the scale of the training's own change, so
that behaviour in nats and attention in log-odds can be laid beside each other. A straight way at
an even pace gives moved + remaining = 1; a detour gives more. Intervals of ``remaining`` are
jackknife over scenarios.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.designs import base_of
from moralscope.evidence.synthesis.distances import Apart, Distances, jackknife
from moralscope.evidence.synthesis.levels import all_distances
from moralscope.evidence.units import Tables

NIL = 1e-9
"""Distance between base and end, as a share of the largest, that is no change at all."""


def course_table(tables: Tables) -> pl.DataFrame:
    """One row per state, level and measure; none without ``checkpoints``.

    Args:
        tables: checked result tables.

    Raises:
        TableError: a state was measured on other prompts or sites than the end of its training.
    """
    if "checkpoints" not in tables or "agents" not in tables:
        return from_rows("course", [])
    states = tables["checkpoints"].to_dicts()
    bases = {row["of"]: base_of(tables["agents"], row["of"]) for row in states}
    pairs = dict.fromkeys(
        pair
        for row in states
        if (base := bases[row["of"]]) is not None
        for pair in ((base, row["of"]), (base, row["agent"]), (row["agent"], row["of"]))
    )
    measured = all_distances(tables, list(pairs))
    rows = [
        row
        for found in measured
        for state in states
        if (base := bases[state["of"]]) is not None
        for row in _row(found, state, base)
    ]
    return from_rows("course", rows)


def _row(found: Distances, state: dict[str, object], base: str) -> Iterator[dict[str, object]]:
    agent, end = str(state["agent"]), str(state["of"])
    whole = found.from_base(base, end)
    moved, left = found.from_base(base, agent), found.between(agent, end)
    if whole is None or moved is None or left is None or whole.whole <= NIL:
        return
    interval = _share_interval(left, whole)
    yield {
        "of": end,
        "agent": agent,
        "step": state["step"],
        "level": found.level,
        "measure": found.measure,
        "moved": moved.whole / whole.whole,
        "remaining": left.whole / whole.whole,
        "low": None if interval is None else max(0.0, interval[0]),
        "high": None if interval is None else interval[1],
        "n_units": found.n,
    }


def _share_interval(left: Apart, whole: Apart) -> tuple[float, float] | None:
    if len(left.without) < 2 or len(left.without) != len(whole.without):
        return None
    if not (whole.without > NIL).all():
        return None
    return jackknife(left.whole / whole.whole, left.without / whole.without)
