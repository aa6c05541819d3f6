"""How deep inside a model do effects lie? The table ``depths``, comparable between models.

In scenario g the share of layer l is

    s_gl = sum over the layer's sites of |mean over prompts of the effect| / the same of all layers

at the relative depth (l + 1/2) / L, which is between 0 and 1 in a model of any number of layers L.
Effects are changes of contribution by the layer's own weights (attribution) and patches from the
base into the agent or from the agent into the base (patching).
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.synthesis.distances import placed_rows
from moralscope.evidence.units import Tables

_KEY = ["member", "level", "agent", "scenario", "layer"]


def depth_table(member: str, tables: Tables) -> pl.DataFrame:
    """The shares of every layer, agent and scenario of one model's study.

    Args:
        member: the model's name in the series.
        tables: of its study.
    """
    if "agents" not in tables:
        return from_rows("depths", [])
    parts = [*_attributed(tables), *_patched(tables)]
    if not parts:
        return from_rows("depths", [])
    effects = pl.concat(parts).with_columns(member=pl.lit(member))
    layers = pl.col("layer").max().over("member") + 1
    by_layer = (
        effects.with_columns(relative_depth=(pl.col("layer") + 0.5) / layers)
        .group_by(*_KEY, "relative_depth", maintain_order=True)
        .agg(pl.col("effect").abs().sum().alias("size"))
    )
    whole = pl.col("size").sum().over("member", "level", "agent", "scenario")
    shares = by_layer.filter(whole > 0.0).with_columns(share=pl.col("size") / whole)
    return from_rows("depths", shares.drop("size").sort(_KEY).to_dicts())


def _attributed(tables: Tables) -> Iterator[pl.DataFrame]:
    placed = placed_rows(tables, "attribution")
    if placed is None:
        return
    own = pl.col("part").eq("weights") & pl.col("token").eq(-1) & pl.col("layer").is_not_null()
    rows = placed[0].filter(own)
    if rows.height:
        yield _means(rows, "attribution", "contribution")


def _patched(tables: Tables) -> Iterator[pl.DataFrame]:
    placed = placed_rows(tables, "patching")
    if placed is None:
        return
    for agent in trained_agents(tables["agents"]):
        base = base_of(tables["agents"], agent)
        pairs = [(base, agent), (agent, base)]
        for source, target in pairs:
            rows = placed[0].filter(
                (pl.col("source") == source)
                & (pl.col("target") == target)
                & (pl.col("positions") == "answer_span")
                & (pl.col("source_prompt") == pl.col("prompt"))
                & pl.col("layer").is_not_null()
            )
            if rows.height:
                yield _means(rows.with_columns(agent=pl.lit(agent)), "patching", "effect")
                break  # one direction: into the agent where there are both


def _means(rows: pl.DataFrame, level: str, value: str) -> pl.DataFrame:
    """Mean effect of every site in every scenario."""
    means = rows.group_by("agent", "scenario", "layer", "site", maintain_order=True).agg(
        pl.col(value).mean().alias("effect")
    )
    return means.select(
        pl.lit(level).alias("level"), "agent", "scenario", pl.col("layer").cast(pl.Int64), "effect"
    )
