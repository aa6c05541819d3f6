"""Did every channel ever fire? Attention categories and columns that are the same everywhere.

A category of attention that is exactly zero in every row is a span that was never found, not a head
that looks away. So is one that a prompt names and of which no token was found there, or to which no
head gives anything on that prompt: a category has to fire on every prompt that has it. A component
whose size is the same on every prompt, to the last bit, was not measured prompt by prompt. None of
these is a finding.
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
            .group_by("agent", "prompt", "category", maintain_order=True)
            .agg(pl.col("mass").max(), pl.col("tokens").min())
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
    """``found``: the largest mass and the number of tokens, by prompt and category."""
    whole = found.group_by("category", maintain_order=True).agg(pl.col("mass").max())
    silent: list[str] = whole.filter(pl.col("mass") == 0.0).get_column("category").to_list()
    missed = _missed(found.filter(~pl.col("category").is_in(silent)))
    advice = (
        f"All {whole.height} attention categories receive attention somewhere "
        f"({', '.join(whole.get_column('category').to_list())})."
    )
    if silent:
        advice = (
            f"No head ever attends to {', '.join(silent)}: a span that was not found, not a "
            f"finding ({len(silent)} of {whole.height} categories are exactly zero in every row, "
            "none may be). Check the spans of the prompts."
        )
    elif missed:
        advice = (
            f"{'; '.join(words for _, words in missed)}: a span that was not found there, not a "
            "finding. Check the spans of these prompts."
        )
    failing = [*silent, *(category for category, _ in missed)]
    return Gate(GATE, agent, float(len(failing)), 0.0, not failing, advice)


def _missed(found: pl.DataFrame) -> list[tuple[str, str]]:
    """Categories that do not fire on a prompt that has them, each with what is wrong in words.

    Only where the number of their tokens is recorded: without it a zero may mean that the prompt
    does not have the category.
    """
    told = found.filter(pl.col("tokens").is_not_null() & (pl.col("category") != "rest"))
    missed: list[tuple[str, str]] = []
    for (category,), part in told.group_by("category", maintain_order=True):
        absent = part.filter(pl.col("tokens") == 0)
        unseen = part.filter((pl.col("tokens") > 0) & (pl.col("mass") == 0.0))
        for rows, words in ((absent, "has no token on"), (unseen, "gets no attention on")):
            if rows.height:
                prompts = named(rows.get_column("prompt").to_list())
                where = f"{rows.height} of {part.height} prompts that name it ({prompts})"
                missed.append((str(category), f"{category} {words} {where}"))
    return missed


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
