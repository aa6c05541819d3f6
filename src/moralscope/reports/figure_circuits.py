"""Does a circuit carry the difference, and is it all of it? Curves over its number of sites.

With the first k sites of a circuit, *faithfulness* is the share of the full swap's effect that they
reach when they alone are patched, and *completeness* the share that is left when everything but
them is. Random sets of the same size and kinds, and whole layers, are what a circuit has to beat.
"""

from __future__ import annotations

import altair as alt
import polars as pl

from moralscope.reports.arrange import grid
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.look import BASE_COLOUR, INK
from moralscope.reports.numbers import p_value, plain
from moralscope.reports.run import Run

Row = dict[str, object]

_KEY = ("source", "target", "positions", "write")
_SETS = {
    "circuit": ("circuit", "#d55e00"),
    "random": ("random sets (mean, range)", BASE_COLOUR),
    "layers": ("whole layers", "#0072b2"),
}
_CURVES = {"faithfulness": "the set alone is patched", "completeness": "all but the set is patched"}
_AT_MOST = 6
"""Pairs that a reader can still compare."""


def has_circuits(run: Run) -> bool:
    """Whether circuits were searched for."""
    return "circuits" in run.tables


def circuit_curves(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Faithfulness and completeness of each pair's first circuit, a row of panels per pair."""
    name, title = "circuits", "Circuits: how few components carry the difference"
    del colours  # colours tell sets apart; rows are named by their pair
    if reason := run.lacks("circuits", "circuit_curves"):
        return Absent(name, title, reason)
    curves = summarised_curves(run)
    pairs = curves.get_column("pair").unique(maintain_order=True).to_list()
    shown = pairs[:_AT_MOST]
    left_out = f" Of {len(pairs)} pairs the first {_AT_MOST} are drawn." * (len(pairs) > _AT_MOST)
    tables = ("circuits", "circuit_curves", "circuit_stability", "localisation")
    return Figure(
        name=name,
        title=title,
        shows="Share of the full swap's effect that is reached with the first sites of a circuit "
        "(left), and with all sites but these (right), against random sets of the same kinds and "
        f"whole layers; 1 is the full swap. {_sentences(run, shown)}{left_out}",
        does_not_show="Circuits were found on the prompts that they are drawn for, so that others "
        "may need more. Smaller ones may exist where not every smaller set was tried, and there "
        "may be more disjoint ones than were found.",
        chart=_chart(curves.filter(pl.col("pair").is_in(shown)), shown),
        tables=tuple(table for table in tables if table in run.tables),
    )


def summarised_curves(run: Run) -> pl.DataFrame:
    """Curves of the first circuit of each pair, random draws as their mean and range.

    Columns: pair, curve, sets, size, value, low, high (null but for random sets).
    """
    table = run.tables["circuit_curves"]
    first = table.group_by(_KEY, maintain_order=True).agg(pl.col("circuit").first())
    several = first.select("source", "target").is_duplicated().any()
    pair = pl.format("{} into {}", "source", "target")
    label = pl.format("{} ({}, {})", pair, "positions", "write") if several else pair
    random = pl.col("sets") == "random"
    ends = {"low": pl.col("share").min(), "high": pl.col("share").max()}
    return (
        table.join(first, on=[*_KEY, "circuit"], how="semi", maintain_order="left")
        .with_columns(pair=label)
        .group_by("pair", *_KEY, "curve", "sets", "size", maintain_order=True)
        .agg(value=pl.col("share").mean(), **ends)
        .with_columns(pl.when(random).then(end).alias(end) for end in ends)
    )


def _sentences(run: Run, shown: list[str]) -> str:
    keys = summarised_curves(run).select("pair", *_KEY).unique(maintain_order=True)
    return " ".join(
        _sentence(run, str(row["pair"]), {column: row[column] for column in _KEY})
        for row in keys.iter_rows(named=True)
        if row["pair"] in shown
    )


def _rows(run: Run, table: str, key: Row) -> list[Row]:
    """Rows of one pair and protocol, none where there is no such table."""
    if table not in run.tables:
        return []
    return run.tables[table].filter(**key).to_dicts()


def _sentence(run: Run, pair: str, key: Row) -> str:
    """How large the circuit is, how redundant, how localised, and how it stands other wordings."""
    circuits = _rows(run, "circuits", key)
    if not circuits:
        return f"{pair}: no circuit in the table circuits."
    parts = [_size(circuits[0])]
    suffice = sum(
        row["reached"] is True for row in circuits if _is_disjoint(str(row["circuit"]))
    )  # fmt: skip
    if suffice > 1:
        parts.append(f"{suffice} disjoint circuits reach that, each on its own")
    elif circuits[0]["reached"] and len(circuits) == 1:
        parts.append("no second circuit without its sites was found")
    parts += [_localised(row) for row in _rows(run, "localisation", key)]
    if wordings := _rows(run, "circuit_stability", key):
        parts.append(_overlap(wordings))
    return f"{pair}: {'; '.join(parts)}."


def _is_disjoint(circuit: str) -> bool:
    return circuit == "first" or circuit.startswith("disjoint")


def _size(row: Row) -> str:
    sites = str(row["sites"]).split("+") if row["sites"] else []
    word = "site" if len(sites) == 1 else "sites"
    reach = f"{len(sites)} {word} ({listing(sites, at_most=4)}) of {row['n_candidates']} reach"
    goal = "" if row["reached"] else ", less than was asked for"
    asked = f"goal {row['goal']} of {_number(row['threshold']):.2f}{goal}"
    return f"{reach} {_number(row['share']):.2f} of the full swap ({asked})"


def _localised(row: Row) -> str:
    if row["n_eff"] is None:
        return f"localisation: {row['word']}"
    return (
        f"localisation: {row['word']} (effects as of {plain(_number(row['n_eff']))} of "
        f"{row['n_sites']} sites, {plain(_maybe(row['null_median']))} by chance, "
        f"p {p_value(_maybe(row['p']))})"
    )


def _overlap(rows: list[Row]) -> str:
    """Means over ordered pairs of wordings."""
    wordings = {row["wording_a"] for row in rows}
    means = {
        column: sum(_number(row[column]) for row in rows) / len(rows)
        for column in ("overlap", "overlap_random", "overlap_p")
    }
    return (
        f"circuits of {len(wordings)} wordings share {means['overlap']:.2f} of their sites "
        f"({means['overlap_random']:.2f} by chance, p {p_value(means['overlap_p'])})"
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _maybe(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _chart(curves: pl.DataFrame, pairs: list[str]) -> alt.FacetChart:
    names = {sets: label for sets, (label, _) in _SETS.items()}
    headings = {curve: f"{curve.capitalize()}: {words}" for curve, words in _CURVES.items()}
    rows = curves.select(
        "pair", "size", "value", "low", "high",
        panel=pl.col("curve").replace(headings), sets=pl.col("sets").replace(names),
    )  # fmt: skip
    largest = int(rows.get_column("size").to_numpy().max())
    ticks = [size for size in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if size <= largest]
    colour = alt.Color(
        "sets:N",
        title=None,
        scale=alt.Scale(domain=list(names.values()), range=[c for _, c in _SETS.values()]),
    )
    base = alt.Chart().encode(
        x=alt.X(
            "size:Q",
            title="Sites in the set (logarithmic from 1)",
            scale=alt.Scale(type="symlog", constant=1, nice=False),
            axis=alt.Axis(values=ticks),
        ),
        color=colour,
    )
    layers = alt.layer(
        alt.Chart(pl.DataFrame({"whole": [0.0, 1.0]}))
        .mark_rule(color=INK, strokeDash=[4, 3], opacity=0.5)
        .encode(y="whole:Q"),
        base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(point=alt.OverlayMarkDef(size=18)).encode(
            y=alt.Y("value:Q", title="Share of full swap")
        ),
        data=rows,
    ).properties(width=340, height=150)
    return grid(
        layers,
        alt.Column("panel:N", title=None, sort=list(headings.values())),
        alt.Row("pair:N", title=None, sort=pairs, header=alt.Header(labelOrient="top")),
        spacing=22,
    )
