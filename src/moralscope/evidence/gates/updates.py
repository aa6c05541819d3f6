"""Did training change any weight at all? An update of zero is the base under another name.

    measured = sqrt(sum |dW|^2) / sqrt(sum |W|^2) over all weights of ``update_norms``, above 2^-24

2^-24 is the unit roundoff of float32: weights that moved by less are as far apart as two roundings
of the same numbers.

An adapter whose ``B`` is zero throughout, and a checkpoint that was saved before it was trained,
load without a word and decide exactly as the base does.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.channels import named
from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables

GATE = "update"

ROUNDOFF = 2.0**-24
"""Relative size of an update that is lost when it is added to float32 weights."""


def judge_updates(tables: Tables) -> Iterator[Gate]:
    """One gate per agent of ``update_norms``."""
    if "update_norms" not in tables:
        return
    for (agent,), rows in tables["update_norms"].group_by("agent", maintain_order=True):
        yield _judge(str(agent), rows)


def _judge(agent: str, rows: pl.DataFrame) -> Gate:
    change, base = (
        float((rows.get_column(name) ** 2).sum()) ** 0.5 for name in ("norm", "base_norm")
    )
    measured = change / base if base else change
    linear = rows.filter(pl.col("rank").is_not_null())
    still = linear.filter(pl.col("norm") == 0.0)
    names = [f"L{layer}.{module}" for layer, module in still.select("layer", "module").iter_rows()]
    if measured > ROUNDOFF:
        advice = f"The weights moved by {measured:.2g} of their norm."
        if names:
            advice += (
                f" {len(names)} of {linear.height} linear layers were left as they are "
                f"({named(names)})."
            )
    elif measured > 0.0:
        advice = (
            f"The weights moved by {measured:.2g} of their norm, which is rounding: {agent!r} is "
            "the base, saved or merged anew. Train it, or load the weights that were meant."
        )
    else:
        advice = (
            f"None of {rows.height} weights differs from the base, so {agent!r} is the base "
            "under another name (an adapter whose B is zero, or a checkpoint that was not "
            "trained). Train it, or load the weights that were meant."
        )
    return Gate(GATE, agent, measured, ROUNDOFF, measured > ROUNDOFF, advice)
