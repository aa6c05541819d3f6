"""How alike are agents inside, between another seed and fine-tuning itself? Depth by depth.

Per measure and depth: each named comparison as a line, pairs of seeds of one reward as a grey band
(the noise floor), and the base with its agents as a dotted line (the positive control, which has a
distance and no change). Depth is relative, the share of layers passed, so that models of different
depth can be laid side by side.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.evidence.pairs import compared
from moralscope.reports.arrange import below
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

MEASURES = {
    "distance": "Distance over the base's length",
    "change_cosine": "Cosine of changes from base",
    "change_cka": "CKA of changes from base (debiased)",
}
_SEEDS, _BASE = "seeds of one reward", "base and its fine-tunes"
_MOST = len(AGENT_COLOURS)


def has_representations(run: Run) -> bool:
    """Whether representations were compared."""
    return "representation_similarity" in run.tables


def representation_similarity(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Distance and likeness of changes by relative depth, beside seeds and the base."""
    name, title = "representations", "Representations: how alike the changes from base are"
    del colours  # a line belongs to a comparison, not to an agent
    if reason := run.lacks("representation_similarity"):
        return Absent(name, title, reason)
    curves = similarity_curves(run)
    if curves.is_empty():
        return Absent(name, title, "No two agents of this run are compared.")
    names = [n for n in curves.get_column("comparison").unique(maintain_order=True) if n]
    shown = [n for n in names if n not in (_SEEDS, _BASE)]
    left = f" Not drawn: {len(shown) - _MOST} further comparisons." if len(shown) > _MOST else ""
    drawn = curves.filter(~pl.col("comparison").is_in(shown[_MOST:]))
    charts = [
        _panel(drawn.filter(measure=measure), words, shown[:_MOST])
        for measure, words in MEASURES.items()
        if not drawn.filter(measure=measure).is_empty()
    ]
    return Figure(
        name=name,
        title=title,
        shows="Residual streams where the options part, by the share of layers passed: mean of "
        f"each comparison, {_beside(curves)}. {_raw(run)}{left}",
        does_not_show="That two agents change alike does not say that they decide alike, nor that "
        "the decision uses what they share. Any two agents differ somewhere: what counts is "
        "whether a line leaves the band of the seeds.",
        chart=below(charts, spacing=14),
        tables=("representation_similarity",),
        topic="representations",
    )


def similarity_curves(run: Run) -> pl.DataFrame:
    """Columns comparison, measure, depth (share of layers), value, low, high.

    The interval spans the pairs of a comparison; where there is one pair it is its own interval.
    """
    table = run.tables["representation_similarity"]
    names = {"replicate": _SEEDS, "base": _BASE}
    of = {p.agents: names.get(p.kind, p.comparison) for p in compared(run.tables)}
    of |= {(b, a): name for (a, b), name in of.items() if (b, a) not in of}
    rows = pl.DataFrame(
        [(a, b, name) for (a, b), name in of.items()],
        schema={"agent_a": pl.String, "agent_b": pl.String, "comparison": pl.String},
        orient="row",
    )
    layers = int(str(table.get_column("layer").max())) + 1
    many = pl.len() > 1
    return (
        table.drop_nulls("value")
        .join(rows, on=["agent_a", "agent_b"], how="inner", maintain_order="left")
        .with_columns(depth=(pl.col("layer") + 1) / layers)
        .group_by("comparison", "measure", "depth", maintain_order=True)
        .agg(
            value=pl.col("value").mean(),
            low=pl.when(many).then(pl.col("value").min()).otherwise(pl.col("low").first()).first(),
            high=pl.when(many)
            .then(pl.col("value").max())
            .otherwise(pl.col("high").first())
            .first(),
        )
        .sort("comparison", "measure", "depth")
    )


def _beside(curves: pl.DataFrame) -> str:
    present = set(curves.get_column("comparison"))
    words: list[str] = []
    if _SEEDS in present:
        words.append("pairs of seeds of one reward as a grey band (the noise floor)")
    if _BASE in present:
        words.append("the base with its agents dotted (how far fine-tuning moves one)")
    return listing(words) or "with neither seeds nor base beside it"


def _raw(run: Run) -> str:
    """The caution: what raw vectors say of the same agents."""
    raw = run.tables["representation_similarity"].filter(measure="raw_cosine").drop_nulls("value")
    if raw.is_empty():
        return ""
    least = float(raw.get_column("value").to_numpy().min())
    return (
        f"Raw streams would say nothing: their cosine is {plain(least)} at least for every pair "
        "here, because the base is most of both."
    )


def _panel(part: pl.DataFrame, words: str, names: list[str]) -> alt.LayerChart | alt.FacetChart:
    domain = [*names, _SEEDS, _BASE]
    colour = alt.Color(
        "comparison:N",
        title=None,
        scale=alt.Scale(
            domain=domain, range=[*AGENT_COLOURS[: len(names)], "#9aa5b1", BASE_COLOUR]
        ),
    )
    dash = alt.StrokeDash(
        "comparison:N",
        title=None,
        scale=alt.Scale(domain=domain, range=[[1, 0]] * (len(names) + 1) + [[2, 3]]),
    )
    x = alt.X(
        "depth:Q",
        title="Share of layers passed",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", tickCount=6),
    )
    base = alt.Chart().encode(x=x, color=colour)
    band = base.transform_filter(f"datum.comparison == '{_SEEDS}'").mark_area(opacity=0.35)
    return alt.layer(
        band.encode(y=alt.Y("low:Q", title=words), y2="high:Q"),
        base.mark_line(point=alt.OverlayMarkDef(size=14)).encode(
            y=alt.Y("value:Q", title=words), strokeDash=dash
        ),
        data=part,
    ).properties(width=560, height=170)
