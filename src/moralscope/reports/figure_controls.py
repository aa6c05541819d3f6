"""Label, layout, order or move? The change from base under each control, with its interval."""

from __future__ import annotations

import polars as pl

from moralscope.reports.figure import Absent, Figure, Rows, interval_rows
from moralscope.reports.look import agent_colour
from moralscope.reports.run import Run

_HEADINGS = {
    "trained": "As trained",
    "swapped_labels": "Labels swapped",
    "exchanged_rows": "Payoff rows exchanged",
    "new_wording": "Wordings never trained on",
    "mirrored_wording": "Mirrored wordings: the moves mentioned the other way round",
}


def label_control(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Change from base in log-odds per control, wording and label assignment."""
    name, title = (
        "label_control",
        "Label, layout, order or move: does the change survive the controls?",
    )
    if reason := run.lacks("transfer"):
        return Absent(name, title, reason)
    table = run.tables["transfer"]
    agents = [a for a in colours if a in set(table.get_column("agent").to_list())]
    found = table.get_column("control").unique(maintain_order=True).to_list()
    controls = [c for c in _HEADINGS if c in found] + [c for c in found if c not in _HEADINGS]
    blocks = [
        Rows(
            _HEADINGS.get(control, control),
            table.filter(pl.col("control") == control).select(
                pl.concat_str("template", "labels", separator=" · ").alias("row"),
                "agent",
                pl.col("change_log_odds").alias("value"),
                "low",
                "high",
            ),
        )
        for control in controls
    ]
    positive, negative = run.option_words
    kept = table.filter(pl.col("control") != "trained").get_column("keeps_sign")
    counts = (kept.eq(True).sum(), kept.eq(False).sum(), kept.null_count())
    return Figure(
        name=name,
        title=title,
        shows=f"Change from base in the log-odds of the option {positive}, mean over states with "
        f"95% interval over states; right of the dashed line is towards {positive}, left towards "
        f"{negative}. Of {kept.len()} control rows, {counts[0]} keep the sign of training, "
        f"{counts[1]} reverse it and {counts[2]} have an interval that covers zero.",
        does_not_show="An interval over four states says how even the change is across states, "
        "not how it would vary between training seeds. A change that reverses when labels are "
        "swapped was never about the move.",
        chart=interval_rows(
            blocks,
            agents=agents,
            colour=agent_colour(colours, agents),
            x_title=f"Change from base in log-odds of {positive} (nats)",
            domain=_domain(table),
            reference=0.0,
            width=560,
        ),
        tables=("transfer",),
    )


def _domain(table: pl.DataFrame) -> tuple[float, float]:
    """A range that holds every interval and zero, with a margin of 4%."""
    ends = [
        value
        for column in ("change_log_odds", "low", "high")
        for value in table.get_column(column).drop_nulls().to_list()
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin
