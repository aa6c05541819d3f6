"""Do agents decide alike? Jensen-Shannon divergence between every two, and whether it is nothing.

The divergence is over positive, negative and neither, in nats from 0 (the same) to log 2 (nothing
in common), mean over scenarios. Two agents are called alike where the one-sided test against the
margin set beforehand refutes that the divergence reaches it.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.matrix import Scale, half_width, heat_panels
from moralscope.reports.run import Run

ALPHA = 0.05


def similarity_matrix(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Divergence of every two agents, a panel per prompt family."""
    del colours  # names stand at the sides; colours tell how much
    name, title = "similarity", "How alike agents decide"
    if reason := run.lacks("similarity"):
        return Absent(name, title, reason)
    table = run.tables["similarity"]
    agents = _agents(run, table)
    scenarios = table.get_column("n_scenarios").unique().sort().to_list()
    over = f"{scenarios[0]}" if len(scenarios) == 1 else f"{scenarios[0]} to {scenarios[-1]}"
    margin = table.get_column("margin").unique().sort().to_list()
    return Figure(
        name=name,
        title=title,
        shows="Jensen-Shannon divergence between the decisions of every two agents, mean over "
        f"{over} scenarios; small figures: half the 95% interval over scenarios. = marks pairs "
        f"alike: refuted at {ALPHA:g} that the divergence reaches "
        f"{' or '.join(f'{m:g}' for m in margin)} nats. {_told(table)}",
        does_not_show="In what agents differ: a divergence has no direction. A pair without = is "
        "not shown to differ. Tests are not corrected for the number of pairs; the claims are.",
        chart=heat_panels(
            _cells(table),
            Scale("Divergence (nats)", 0.0, max(float(str(table["divergence"].max())), 1e-3)),
            values(table, "family"),
            agents,
            agents,
        ),
        tables=("similarity",),
    )


def _agents(run: Run, table: pl.DataFrame) -> list[str]:
    found = dict.fromkeys([*values(table, "first"), *values(table, "second")])
    known = [agent.name for agent in run.agents if agent.name in found]
    return known + [name for name in found if name not in known]


def _cells(table: pl.DataFrame) -> pl.DataFrame:
    """Both halves of the matrix; the diagonal stays empty."""
    alike = pl.col("p_equivalent").fill_null(1.0) < ALPHA
    text = pl.col("divergence").map_elements(lambda d: f"{d:.3f}"[1:] if d < 1 else "1", pl.String)
    cells = table.select(
        pl.col("family").alias("panel"),
        pl.col("first").alias("y"),
        pl.col("second").alias("x"),
        pl.col("divergence").alias("value"),
        (text + pl.when(alike).then(pl.lit(" =")).otherwise(pl.lit(""))).alias("cell"),
        half_width(3).str.replace("0.", ".", literal=True).alias("note"),
    )
    mirrored = cells.with_columns(x=pl.col("y"), y=pl.col("x"))
    return pl.concat([cells, mirrored]).unique(["panel", "x", "y"], maintain_order=True)


def _told(table: pl.DataFrame) -> str:
    alike = table.filter(pl.col("p_equivalent").fill_null(1.0) < ALPHA).height
    row = table.sort("divergence", maintain_order=True).row(-1, named=True)
    return (
        f"Alike: {alike} of {table.height} pairs. Most unlike: {row['first']} and {row['second']}, "
        f"{row['divergence']:.3f} ({row['family']})."
    )
