"""Which pathways survive, what do they carry, and how far apart are networks at all?

Three figures: pathways that survive, drawn between components by depth (an empty diagram where none
does); changes of correlation against effects of the same paths when they are patched; and distances
between networks beside their noise floor (two seeds of one reward) and positive control (the base).
"""

from __future__ import annotations

import altair as alt
import numpy as np
import polars as pl

from moralscope.core.site import Site, parse_site
from moralscope.reports.arrange import grid, panels
from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_wiring import MEASURES
from moralscope.reports.look import BASE_COLOUR, FAINT, INK, signed_colour
from moralscope.reports.numbers import plain
from moralscope.reports.run import Run

Row = dict[str, object]

_AT_MOST = 6
_BEND = 13
"""Points of an arc."""

_ROWS = {"mlp": 1.0, "attn": 0.0}
_CHOSEN = {"survivor": "#d55e00", "largest": "#0072b2", "random": BASE_COLOUR}
_KINDS = {
    "named": "compared agents",
    "base": "base and agent (positive control)",
    "replicate": "seeds of one reward (noise floor)",
}


def has_pathways(run: Run) -> bool:
    """Whether pathways were patched."""
    return "pathways" in run.tables


def wiring_pathways(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Pathways that survive, as arcs between components by depth."""
    del colours
    name, title = "wiring_pathways", "Component interactions: the pathways that survive"
    if reason := run.lacks("interaction_changes"):
        return Absent(name, title, reason)
    table = run.tables["interaction_changes"].with_columns(
        panel=pl.format("{} minus {}", "agent_a", "agent_b")
    )
    named = table.filter(pl.col("kind") == "named")
    every = values(named if named.height else table, "panel")
    shown = every[:_AT_MOST]
    kept = table.filter(pl.col("panel").is_in(shown) & pl.col("survives")).unique(
        ["panel", "measure", "site_a", "site_b"], keep="first", maintain_order=True
    )
    counts = [f"{panel} {kept.filter(panel=panel).height}" for panel in shown]
    none = " No pathway survives, so nothing is drawn between them." * (kept.height == 0)
    more = f" Of {len(every)} comparisons the first {len(shown)} are drawn."
    return Figure(
        name=name,
        title=title,
        shows="Attention (below) and MLP (above) of each layer as dots, and an arc for each "
        "pathway whose change of correlation survives, orange where the first agent's is higher, "
        "purple where it is lower; dashed: pushes along the decision, solid: sizes of writes. "
        f"Pathways: {listing(counts)}.{none}{more * (len(every) > len(shown))}",
        does_not_show="An arc says that two components vary together differently, not that one "
        "acts on the other; the patched effects say that.",
        chart=_diagram(table, kept, shown),
        tables=("interaction_changes",),
    )


def wiring_effects(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Change of correlation against the effect of the same path when it is patched."""
    del colours
    name, title = (
        "wiring_effects",
        "Do changed pathways carry anything? Correlation against patching",
    )
    if reason := run.lacks("pathways"):
        return Absent(name, title, reason)
    table = run.tables["pathways"]
    effect = (pl.col("effect_a_to_b").abs() + pl.col("effect_b_to_a").abs()) / 2
    rows = (
        table.unique(["agent_a", "agent_b", "measure", "sender", "receiver"], maintain_order=True)
        .select(
            pl.format("{} and {}", "agent_a", "agent_b").alias("pair"),
            pl.col("measure").replace_strict(MEASURES, default=pl.col("measure")),
            pl.format("{} to {}", "sender", "receiver").alias("pathway"),
            pl.col("difference").abs().alias("change"),
            effect.alias("effect"),
            "chosen_as",
        )
        .sort("pair", "measure", maintain_order=True)
    )
    pairs = values(table.select(pl.format("{} and {}", "agent_a", "agent_b").alias("pair")), "pair")
    shown = pairs[:_AT_MOST]
    more = f" Of {len(pairs)} pairs the first {len(shown)} are drawn."
    return Figure(
        name=name,
        title=title,
        shows="Each dot is a pathway: across, how much its correlation differs between the two "
        "agents; up, what the sender's write does to the other agent's log-odds through this "
        "receiver alone, mean size over both directions. Chosen for a large change (orange: it "
        f"survives; blue: the largest of those that do not), or at random (grey). "
        f"{_relations(run, shown)}"
        f"{more * (len(pairs) > len(shown))}",
        does_not_show="A pathway without effect here may act through other receivers. Effects "
        "depend on depth, which the test of the relation takes into account and the eye does not.",
        chart=_scatter(rows.filter(pl.col("pair").is_in(shown)), shown),
        tables=("pathways", "claims") if "claims" in run.tables else ("pathways",),
    )


def wiring_distances(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Distances between networks: compared agents, seeds of one reward, base and agent."""
    del colours
    name, title = "wiring_distances", "How far apart are networks, and how far is nothing?"
    if reason := run.lacks("interaction_networks"):
        return Absent(name, title, reason)
    table = run.tables["interaction_networks"].drop_nulls("distance")
    if table.is_empty():
        return Absent(name, title, "No network of this run has a distance to another.")
    rows = table.select(
        pl.col("kind").replace_strict(_KINDS).alias("what"),
        pl.col("measure").replace_strict(MEASURES, default=pl.col("measure")),
        pl.format("{} and {}", "agent_a", "agent_b").alias("pair"),
        "distance",
        (pl.col("p_adjusted") < 0.05).fill_null(value=False).alias("differs"),
    ).unique(["what", "measure", "pair"], maintain_order=True)
    prompts, needed = table.get_column("prompts").max(), table.get_column("prompts_needed").max()
    return Figure(
        name=name,
        title=title,
        shows="Root mean square difference of Fisher z over all pairs of sub-layers, a dot per "
        "pair of agents; filled where the networks differ beyond swaps of the agents' labels, "
        f"corrected. {_medians(rows)} Correlations are over {prompts} prompts in "
        f"{table.get_column('scenarios').max()} scenarios; {needed} independent ones would tell "
        "the smallest difference that was asked for apart.",
        does_not_show="Sampling alone keeps two networks apart, so a distance means something "
        "beside the others only. Whether rewards matter is tested over training seeds.",
        chart=_strip(rows),
        tables=("interaction_networks",),
    )


def _diagram(table: pl.DataFrame, kept: pl.DataFrame, shown: list[str]) -> alt.FacetChart:
    sites = sorted({*values(table, "site_a"), *values(table, "site_b")}, key=parse_site)
    places = [(name, *_place(parse_site(name))) for name in sites]
    dots = pl.DataFrame(
        [(panel, *place) for panel in shown for place in places],
        schema=["panel", "site", "x", "y"],
        orient="row",
    )
    arcs = [row for number, edge in enumerate(kept.to_dicts()) for row in _arc(number, edge)]
    schema = {
        "panel": pl.String, "x": pl.Float64, "y": pl.Float64, "order": pl.Int64,
        "pathway": pl.String, "difference": pl.Float64, "what": pl.String,
    }  # fmt: skip
    frame = pl.concat(
        [dots.with_columns(pl.col("x", "y").cast(pl.Float64)), pl.DataFrame(arcs, schema=schema)],
        how="diagonal",
    )
    base = alt.Chart().encode(
        x=alt.X("x:Q", title="Layer", axis=alt.Axis(tickMinStep=1, grid=False)),
        y=alt.Y(
            "y:Q",
            title=None,
            scale=alt.Scale(domain=[-0.9, 1.9], nice=False),
            axis=alt.Axis(
                values=[0, 1],
                labelExpr="datum.value == 0 ? 'attention' : 'MLP'",
                grid=False,
                ticks=False,
                domain=False,
            ),
        ),
    )
    kinds = list(MEASURES.values())
    layers = alt.layer(
        base.transform_filter("isValid(datum.pathway)")
        .mark_line(strokeWidth=2)
        .encode(
            color=signed_colour("difference", 1.0, "Difference of correlation"),
            detail="pathway:N",
            order="order:Q",
            strokeDash=alt.StrokeDash(
                "what:N", scale=alt.Scale(domain=kinds, range=[[1, 0], [5, 3]]), title="Correlated"
            ),
        ),
        base.transform_filter("isValid(datum.site)").mark_point(
            filled=True, size=26, color=FAINT, opacity=1
        ),
        data=frame,
    ).properties(width=330, height=130)
    facet = alt.Facet("panel:N", sort=shown, title=None)
    return panels(layers, facet, columns=min(2, len(shown)), spacing=20)


def _place(site: Site) -> tuple[float, float]:
    """Attention of a layer half a layer before its MLP."""
    return (site.layer or 0) + 0.5 * (site.kind == "mlp"), _ROWS.get(site.kind, 0.0)


def _arc(number: int, edge: Row) -> list[Row]:
    """Points from sender to receiver, bent outwards so that arcs of one row can be told apart."""
    (x1, y1), (x2, y2) = (_place(parse_site(str(edge[end]))) for end in ("site_a", "site_b"))
    bend = 0.75 if y1 + y2 >= 1.0 else -0.75
    bend *= 1.0 if y1 == y2 else 0.35
    return [
        {
            "panel": edge["panel"],
            "x": x1 + (x2 - x1) * t,
            "y": y1 + (y2 - y1) * t + bend * 4.0 * t * (1.0 - t),
            "order": order,
            "pathway": f"{number}: {edge['site_a']} to {edge['site_b']}",
            "difference": edge["difference"],
            "what": MEASURES.get(str(edge["measure"]), str(edge["measure"])),
        }
        for order, t in enumerate(np.linspace(0.0, 1.0, _BEND).tolist())
    ]


def _scatter(rows: pl.DataFrame, shown: list[str]) -> alt.FacetChart:
    scale = alt.Scale(domain=list(_CHOSEN), range=list(_CHOSEN.values()))
    shapes = alt.Scale(domain=list(_CHOSEN))
    dots = (
        alt.Chart(rows)
        .mark_point(filled=True, size=46, opacity=0.85)
        .encode(
            x=alt.X("change:Q", title="Size of the change of correlation"),
            y=alt.Y("effect:Q", title="Size of the effect (nats)"),
            color=alt.Color("chosen_as:N", scale=scale, title="Chosen as"),
            shape=alt.Shape("chosen_as:N", scale=shapes, title="Chosen as"),
            tooltip=["pathway:N", "change:Q", "effect:Q", "chosen_as:N"],
        )
        .properties(width=290, height=160)
    )
    measures = [words for words in MEASURES.values() if words in set(rows["measure"].to_list())]
    return grid(
        dots,
        alt.Column("measure:N", sort=measures, title=None),
        alt.Row("pair:N", sort=shown, title=None),
        18,
    )


def _relations(run: Run, shown: list[str]) -> str:
    """What the claims say of each pair, where there are any."""
    if "claims" not in run.tables:
        return "The rank correlation is tested in the claims."
    parts: list[str] = []
    for row in run.tables["pathways"].select("agent_a", "agent_b").unique(
        maintain_order=True
    ).to_dicts():  # fmt: skip
        if f"{row['agent_a']} and {row['agent_b']}" not in shown:
            continue
        for suffix, words in (("", "sizes"), (":projection", "pushes")):
            own = run.tables["claims"].filter(
                id=f"pathways:{row['agent_a']}:{row['agent_b']}{suffix}"
            )
            for claim in own.to_dicts():
                rho = claim["estimate"]
                said = "no rank correlation" if rho is None else f"rank correlation {rho:+.2f}"
                parts.append(
                    f"{row['agent_a']} and {row['agent_b']} ({words}) {said}, {claim['verdict']}"
                )
    return f"{'; '.join(parts)}." if parts else "No claim is made of these pathways."


def _medians(rows: pl.DataFrame) -> str:
    parts: list[str] = []
    for words in MEASURES.values():
        own = rows.filter(measure=words)
        told = [
            f"{kind} {plain(float(np.median(distances.to_numpy())))}"
            for kind in _KINDS.values()
            if len(distances := own.filter(what=kind).get_column("distance").drop_nulls())
        ]
        if told:
            parts.append(f"Median of {words}: {', '.join(told)}.")
    return " ".join(parts)


def _strip(rows: pl.DataFrame) -> alt.FacetChart:
    kinds = [kind for kind in _KINDS.values() if kind in set(rows["what"].to_list())]
    base = alt.Chart(rows).encode(
        x=alt.X("distance:Q", title="Distance (Fisher z)", scale=alt.Scale(zero=True)),
        y=alt.Y("what:N", sort=kinds, title=None, axis=alt.Axis(labelLimit=260)),
        tooltip=["pair:N", "distance:Q"],
    )
    dots = base.mark_point(size=60, stroke=INK, strokeWidth=1.2).encode(
        fill=alt.Fill(
            "differs:N",
            scale=alt.Scale(domain=[True, False], range=["#0072b2", "white"]),
            legend=alt.Legend(
                title="Networks", labelExpr="datum.label == 'true' ? 'differ' : 'not told apart'"
            ),
        )
    )
    measures = [words for words in MEASURES.values() if words in set(rows["measure"].to_list())]
    return panels(
        dots.properties(width=430, height=34 * len(kinds)),
        alt.Facet("measure:N", sort=measures, title=None),
        columns=1,
        spacing=18,
    )
