"""May sites be ranked by an approximation? Its correlations with exact patches, and the gate.

Each estimate of a patch is compared with the patch itself, over sites and prompts of one kind of
site: Pearson's correlation of the two and Spearman's of their ranks. The gate asks for the smaller
of the two to be at least ``MIN_CORRELATION`` in every kind that would be ranked, and in all of
them together (``evidence.approximation_gates``).
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.evidence.gates.approximation import MIN_CORRELATION, judge_approximations
from moralscope.reports.arrange import panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import BASE_COLOUR, INK
from moralscope.reports.numbers import MINUS
from moralscope.reports.run import Run

_METHODS = {
    "attribution_patching": "Attribution patching",
    "integrated_gradients": "Integrated gradients",
    "relp": "RelP",
}
_MEASURES = {"pearson": "of values (Pearson)", "spearman": "of ranks (Spearman)"}


def has_approximations(run: Run) -> bool:
    """Whether patches were estimated."""
    return "agreement" in run.tables


def approximations(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Correlation of estimated and exact effects per method and kind, a panel per pair."""
    name, title = "approximations", "Approximations: do estimated patches agree with exact ones?"
    del colours  # a correlation belongs to a method, not to an agent
    if reason := run.lacks("agreement"):
        return Absent(name, title, reason)
    rows = correlations(run)
    if rows.is_empty():
        return Absent(name, title, "No approximation was compared with enough exact patches.")
    table = run.tables["agreement"]
    return Figure(
        name=name,
        title=title,
        shows="Correlation of estimated with exact effects, over sites and prompts of one kind; "
        f"the dashed line is the gate at {MIN_CORRELATION:.2f}. {_verdicts(run)} Exact patches "
        f"compared: {_counts(table)}.",
        does_not_show="A high correlation is not agreement in size, and says nothing about sites "
        "that were not patched exactly. A method that fails here may pass between agents that "
        "differ less.",
        chart=_chart(rows),
        tables=("agreement", "approximations")
        if "approximations" in run.tables
        else ("agreement",),
    )


def correlations(run: Run) -> pl.DataFrame:
    """Columns pair, row (method and kind), measure, value, n; undefined correlations left out."""
    return (
        run.tables["agreement"]
        .with_columns(
            pair=pl.format("{} into {}", "source", "target"),
            row=pl.format(
                "{} · {}",
                pl.col("method").replace(_METHODS),
                pl.col("kind").replace("all", "all kinds"),
            ),
        )
        .unpivot(
            on=list(_MEASURES),
            index=["pair", "row", "n"],
            variable_name="measure",
            value_name="value",
        )
        .drop_nulls("value")
        .with_columns(pl.col("measure").replace(_MEASURES))
    )


def _verdicts(run: Run) -> str:
    """What each method reaches and what the gate says of it, over pairs, in words."""
    table = run.tables["agreement"].with_columns(least=pl.min_horizontal(*_MEASURES))
    verdicts: dict[str, list[object]] = {}
    for row in judge_approximations(run.tables):
        verdicts.setdefault(str(row["subject"]).split(" ")[0], []).append(row["passed"])
    sentences: list[str] = []
    for method, passed in verdicts.items():
        rows = table.filter(pl.col("method") == method).drop_nulls("least").sort("least")
        words = _METHODS.get(method, method)
        if rows.height:
            worst = rows.row(0, named=True)
            kind = "all kinds" if worst["kind"] == "all" else worst["kind"]
            least = f"{worst['least']:.2f}".replace("-", MINUS)
            words += f" reaches {least} where it is worst ({kind}) and"
        sentences.append(f"{words} {_gate(passed)}.")
    return " ".join(sentences)


def _gate(passed: list[object]) -> str:
    """What the gate says of one method over its pairs, in words."""
    counts = {
        "passes the gate for": sum(p is True for p in passed),
        "fails it for": sum(p is False for p in passed),
        "cannot be judged for": sum(p is None for p in passed),
    }
    said = listing([f"{words} {n}" for words, n in counts.items() if n])
    why = ", for want of enough exact patches that vary" if None in passed else ""
    return f"{said} of {len(passed)} {'pair' if len(passed) == 1 else 'pairs'}{why}"


def _counts(table: pl.DataFrame) -> str:
    """How many exact patches the correlations rest on."""
    counts = table.filter(pl.col("n") > 0).get_column("n")
    low, high = counts.min(), counts.max()
    return f"{low}" if low == high else f"{low} to {high} each"


def _chart(rows: pl.DataFrame) -> alt.FacetChart:
    order = rows.get_column("row").unique(maintain_order=True).to_list()
    pairs = rows.get_column("pair").unique(maintain_order=True).to_list()
    low = min(0.0, *rows.get_column("value").to_list())
    scale = alt.Scale(domain=[low, 1.0], nice=False)
    shapes = alt.Scale(domain=list(_MEASURES.values()), range=["circle", "diamond"])
    fills = alt.Scale(domain=list(_MEASURES.values()), range=[INK, "#ffffff"])
    points = (
        alt.Chart()
        .mark_point(size=60, opacity=1, stroke=INK, strokeWidth=1.3)
        .encode(
            x=alt.X("value:Q", title="Correlation", scale=scale, axis=alt.Axis(tickCount=5)),
            y=alt.Y("row:N", title=None, sort=order),
            shape=alt.Shape("measure:N", title="Correlation", scale=shapes),
            fill=alt.Fill("measure:N", title="Correlation", scale=fills),
        )
    )
    gate = (
        alt.Chart(pl.DataFrame({"gate": [MIN_CORRELATION]}))
        .mark_rule(color=BASE_COLOUR, strokeDash=[4, 3])
        .encode(x=alt.X("gate:Q", scale=scale))
    )
    layers = alt.layer(gate, points, data=rows).properties(width=300, height=alt.Step(20))
    facet = alt.Facet("pair:N", sort=pairs, title=None)
    return panels(layers, facet, columns=min(2, len(pairs)), spacing=22)
