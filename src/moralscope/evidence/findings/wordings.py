"""Does a mean over wordings hide that they disagree? Signs within each wording, beside the mean.

A change from base is averaged over the few wordings of a scenario. An agent that goes by where a
text mentions a move changes one way in one wording and the other way in the next; its mean is off
zero all the same, and so are its means under either label assignment. For each wording w

    m_w = mean over scenarios of (mean over the prompts of w of the difference in log-odds)

with its t interval over scenarios. Wordings *disagree* where one interval lies above zero and
another below. It is told and not tested: a study has two wordings or three of a scenario, which is
no sample of wordings.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from moralscope.evidence.ledger import signed
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.evidence.units import paired

_LISTED = 4
"""More wordings than this are counted instead of named."""


def disagreement(
    rows: pl.DataFrame, first: str, second: str, labels: str | None = None
) -> str | None:
    """``+2.79 nats in table, -1.37 nats in prose``; None where wordings do not disagree.

    Args:
        rows: decisions with ``scenario``, ``labels`` and ``template``.
        first: the agent that is measured.
        second: the agent that is subtracted.
        labels: the label assignment to look at; all of them by default.

    Raises:
        TableError: the two agents were not measured on the same prompts.
    """
    asked = rows if labels is None else rows.filter(pl.col("labels") == labels)
    changes = paired(asked, first, second, "log_odds", ("template",))
    units = changes.group_by("template", "scenario", maintain_order=True).agg(
        pl.col("difference").mean()
    )
    clear: dict[str, float] = {}
    for (template,), found in units.group_by("template", maintain_order=True):
        values = found.get_column("difference").to_numpy().astype(np.float64)
        interval = cluster_t(values)
        if interval is not None and (interval[0] > 0.0 or interval[1] < 0.0):
            clear[str(template)] = float(values.mean())
    above = sum(mean > 0.0 for mean in clear.values())
    if above in (0, len(clear)):
        return None
    if len(clear) > _LISTED:
        return f"clearly above zero in {above} of them, below in {len(clear) - above}"
    return ", ".join(f"{signed(mean)} nats in {name}" for name, mean in clear.items())
