"""How far apart are agents in what fine-tuning did to their weights?

With dA and dB the effective updates of all linear layers, Frobenius norms and inner products
summed over them,

    d(A, B) = ||dA - dB||,   d(base, A) = ||dA||,

so that two updates as long as they are alike lie 0 apart, and unrelated ones sqrt(2) times as far
as fine-tuning moved each. A second measure takes length away: ``sqrt(2 - 2 cos(dA, dB))``, where
the base lies 1 from every agent. Weights are no sample of anything, so there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from moralscope.evidence.synthesis.distances import NONE, Apart, Distances
from moralscope.evidence.synthesis.profiles import Pairs
from moralscope.evidence.units import Tables

TABLE = "update_distances"


def weights(tables: Tables, pairs: Pairs) -> Iterator[Distances]:
    """Distances of whole updates, and of their directions."""
    if TABLE not in tables or tables[TABLE].is_empty():
        return
    sums = (
        tables[TABLE]
        .group_by("agent_a", "agent_b", maintain_order=True)
        .agg(
            pl.col("inner").sum(),
            (pl.col("norm_a") ** 2).sum().alias("a"),
            (pl.col("norm_b") ** 2).sum().alias("b"),
        )
    )
    matrices = tables[TABLE].select("layer", "module").unique().height
    wanted = {frozenset(pair) for pair in pairs}
    whole: dict[tuple[str, str], Apart] = {}
    turned: dict[tuple[str, str], Apart] = {}
    lengths: dict[str, Apart] = {}
    for row in sums.iter_rows(named=True):
        first, second = row["agent_a"], row["agent_b"]
        inner, a, b = row["inner"], row["a"], row["b"]
        for name, square in ((first, a), (second, b)):
            lengths[name] = Apart(math.sqrt(square), NONE)
        if frozenset((first, second)) not in wanted:
            continue
        whole[first, second] = Apart(math.sqrt(_rest(a + b, 2.0 * inner)), NONE)
        if a > 0.0 and b > 0.0:
            cosine = inner / math.sqrt(a * b)
            turned[first, second] = Apart(math.sqrt(_rest(2.0, 2.0 * cosine)), NONE)
    one = {name: Apart(1.0, NONE) for name, length in lengths.items() if length.whole > 0.0}
    how = ("weight matrices", matrices)
    yield Distances("weights", "update", "model units", *how, whole, lengths)
    if turned:
        yield Distances("weights", "update_direction", "ratio", *how, turned, one)


def _rest(total: float, shared: float) -> float:
    """``total - shared``, where equal numbers leave rounding behind exactly 0."""
    rest = total - shared
    return rest if rest > 1e-12 * total else 0.0
