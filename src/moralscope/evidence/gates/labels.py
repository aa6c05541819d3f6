"""Is each trained agent asked with the labels that it was trained with?

What an agent does with labels that it never met may be another thing than what it learned.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables


def judge_labels(tables: Tables) -> Iterator[Gate]:
    """One gate for each agent whose training is known."""
    if "trained_on" not in tables or "prompts" not in tables:
        return
    asked = set(tables["prompts"].get_column("labels").to_list())
    known = tables["trained_on"].filter(pl.col("known"))
    for agent, labels in known.select("agent", "labels").iter_rows():
        trained = str(labels).split(",")
        absent = [assignment for assignment in trained if assignment not in asked]
        advice = (
            f"It is asked with the labels that it was trained with ({', '.join(trained)})."
            if not absent
            else f"It was trained with {', '.join(absent)}, which no prompt here uses: what it "
            "does with other labels may be another thing than what it learned. Ask with its own "
            "labels too."
        )
        yield Gate("trained labels", agent, float(len(absent)), 0.0, not absent, advice)
