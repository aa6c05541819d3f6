"""How much of a change does an agent have that was trained in parts? Its slope on the whole change.

    kept = sum(p_i w_i) / sum(w_i^2)

with p the change from base of the agent that was trained in parts, w that of the whole training
with the same seed, in log-odds, over the prompts of the family that claims rest on: 1 where it
does what the whole training does, 0 where it does none of it. Intervals are cluster jackknife
(scenarios left out in turn) with t quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.statistics.intervals import t_quantile
from moralscope.evidence.units import inference_family, on_family

NIL = 1e-3
"""Root mean square change, in nats, of a whole training that changed nothing."""


@dataclass(frozen=True)
class Kept:
    """The share of a change that is kept.

    Attributes:
        share: None where there is no change to keep.
        low, high: 95% interval over scenarios; None below 3 scenarios.
        scenarios: units of replication.
    """

    share: float | None
    low: float | None
    high: float | None
    scenarios: int


def behaviour_kept(
    prompts: pl.DataFrame, decisions: pl.DataFrame, base: str, whole: str, part: str
) -> Kept:
    """How much of the whole training's change has the agent that was trained in parts?

    Args:
        prompts: the table.
        decisions: the table.
        base: the agent that changes are measured from.
        whole: the agent whose training was repeated.
        part: the agent that was trained in parts, on the same prompts.
    """
    used = decisions.filter(pl.col("agent").is_in([base, whole, part]))
    family = inference_family(prompts, used.get_column("prompt"))
    if family is None:
        return Kept(None, None, None, 0)
    rows = on_family(used, prompts, family)
    # By number: an agent may be called like a column.
    numbered = {name: str(at) for at, name in enumerate(dict.fromkeys((base, whole, part)))}
    called = pl.col("agent").replace_strict(numbered, return_dtype=pl.String)
    wide = rows.with_columns(called).pivot(
        on="agent", index=["prompt", "scenario"], values="log_odds"
    )
    wide = wide.drop_nulls()
    zero, all_of_it, some = (
        wide.get_column(numbered[name]).to_numpy() for name in (base, whole, part)
    )
    w, p = all_of_it - zero, some - zero
    groups = wide.get_column("scenario").to_numpy()
    names = np.unique(groups)
    if not len(names) or float(np.sqrt(np.mean(w**2))) < NIL:
        return Kept(None, None, None, len(names))
    share = _slope(p, w)
    if len(names) < 3:
        return Kept(share, None, None, len(names))
    without = np.array([_slope(p[groups != name], w[groups != name]) for name in names])
    error = float(np.sqrt((len(names) - 1) / len(names) * ((without - without.mean()) ** 2).sum()))
    half = t_quantile(0.975, len(names) - 1) * error
    return Kept(share, share - half, share + half, len(names))


def _slope(p: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    return float((p * w).sum() / (w * w).sum())
