"""Did every channel ever fire? Attention categories and columns that are the same everywhere.

A category of attention that is exactly zero in every row is a span that was never found, not a head
that looks away. A component whose size is the same on every prompt, to the last bit, was not
measured prompt by prompt. Neither is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables

GATE = "dead channel"
NAMED = 4
"""Sites that are named in full; more are counted."""


def judge_channels(tables: Tables) -> Iterator[Gate]:
    """Categories without attention per agent, and components whose size never changes."""
    if "attention" in tables:
        peaks = (
            tables["attention"]
            .group_by("agent", "category", maintain_order=True)
            .agg(pl.col("mass").max())
        )
        for (agent,), found in peaks.group_by("agent", maintain_order=True):
            yield _attention(str(agent), found)
    if "norms" in tables:
        spread = (
            tables["norms"]
            .group_by("agent", "site", maintain_order=True)
            .agg(pl.col("norm").n_unique().alias("values"), pl.len().alias("rows"))
        )
        for (agent,), found in spread.group_by("agent", maintain_order=True):
            yield _norms(str(agent), found)


def _attention(agent: str, found: pl.DataFrame) -> Gate:
    silent: list[str] = found.filter(pl.col("mass") == 0.0).get_column("category").to_list()
    advice = (
        f"All {found.height} attention categories receive attention somewhere "
        f"({', '.join(found.get_column('category').to_list())})."
        if not silent
        else f"No head ever attends to {', '.join(silent)}: a span that was not found, not a "
        f"finding ({len(silent)} of {found.height} categories are exactly zero in every row, none "
        "may be). Check the spans of the prompts."
    )
    return Gate(GATE, agent, float(len(silent)), 0.0, not silent, advice)


def _norms(agent: str, found: pl.DataFrame) -> Gate:
    still = found.filter((pl.col("values") == 1) & (pl.col("rows") > 1))
    sites: list[str] = still.get_column("site").to_list()
    advice = (
        f"The sizes of all {found.height} components change between prompts."
        if not sites
        else f"{len(sites)} of {found.height} components have the very same size on every prompt "
        f"({named(sites)}): they were not measured prompt by prompt. Their correlations are "
        "undefined, not zero; check the hooks."
    )
    return Gate(GATE, f"norms {agent}", float(len(sites)), 0.0, not sites, advice)


def named(sites: Sequence[str]) -> str:
    """The first of them by name, in the alphabet's order."""
    listed = sorted(sites)
    return ", ".join(listed[:NAMED]) + (", ..." if len(listed) > NAMED else "")
