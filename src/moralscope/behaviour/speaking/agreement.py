"""Does the agent do what its log-odds say? Sampled answers against the probabilities scored.

For prompt i with ``n_i`` legal answers, ``k_i`` of them positive, and
``p_i = P(positive | legal)`` by the scorer,

    difference = mean over prompts of (k_i / n_i - p_i)

with its 95% t interval over prompts, the correlation of ``k_i / n_i`` with ``p_i``, and the exact
probability of such counts if the answers are drawn as scored (``evidence.counts``). Legality is
compared as well: the legal mass with the share of answers that were legal, under both readings.

What it does not do: a prompt without a legal answer, or without log-odds because its legal mass is
zero, has no share; it counts for legality alone. Read tolerantly, answers that begin with other
words count too, which the scorer never saw, so there a disagreement is a finding about the agent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.behaviour.joining import join_prompts
from moralscope.core.errors import TableError
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.statistics.counts import counts_p
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.evidence.statistics.resampling import Array

PARSERS = ("strict", "tolerant")

_KEY = ("agent", "prompt")


def agreement_table(
    prompts: pl.DataFrame, decisions: pl.DataFrame, answers: pl.DataFrame
) -> pl.DataFrame:
    """Sampled answers of every agent against its log-odds, by family and parser.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table on the prompts that were answered.
        answers: an ``answers`` table, any number of samples for each prompt.

    Returns:
        The table ``metric_agreement``: agents and families in the order of ``answers``; empty
        where nothing was sampled.

    Raises:
        TableError: the tables break their schemas, do not belong together, or an answer is to a
            prompt on which its agent was not scored.
    """
    scored = join_prompts(prompts, decisions).select(
        *_KEY, "family", "legal_mass", "p_positive_given_legal"
    )
    sampled = conform("answers", answers)
    alone = sampled.join(scored, on=_KEY, how="anti")
    if alone.height:
        agent, prompt = alone.select(_KEY).row(0)
        raise TableError(
            "An answer was sampled where nothing was scored",
            seen=f"{agent} on {prompt}",
            allowed="answers to prompts on which the table 'decisions' has the same agent",
            remedy="score the agent on every prompt that it is sampled on",
        )
    return from_rows("metric_agreement", _rows(sampled.join(scored, on=_KEY, how="left")))


def _rows(joined: pl.DataFrame) -> Iterator[dict[str, object]]:
    for (agent, family), rows in joined.group_by("agent", "family", maintain_order=True):
        for parser in PARSERS:
            yield {
                "agent": agent,
                "family": family,
                "parser": parser,
                "n_answers": rows.height,
                **_compared(_by_prompt(rows, parser)),
            }


def _by_prompt(rows: pl.DataFrame, parser: str) -> pl.DataFrame:
    """For each prompt: answers, legal and positive ones, and what was scored."""
    return rows.group_by("prompt", maintain_order=True).agg(
        n=pl.len(),
        legal=(pl.col(parser) != "illegal").sum(),
        positive=(pl.col(parser) == "positive").sum(),
        mass=pl.col("legal_mass").first(),
        p=pl.col("p_positive_given_legal").first(),
    )


def _compared(found: pl.DataFrame) -> dict[str, object]:
    answers, legal = int(found.get_column("n").sum()), int(found.get_column("legal").sum())
    row: dict[str, object] = {
        # The scorer's own rounding can carry a mass beyond 1 by some 1e-7.
        "legal_expected": min(1.0, float(found.select(pl.col("mass").mean()).item())),
        "legal_observed": legal / answers,
    }
    shared = found.filter(pl.col("legal") > 0, pl.col("mass") > 0, pl.col("p").is_not_null())
    if shared.is_empty():
        return {**row, "n_prompts": 0}
    stated = shared.get_column("p").to_numpy().astype(np.float64)
    counts = shared.get_column("legal").to_list()
    positive = shared.get_column("positive").to_list()
    share = np.array(positive, dtype=np.float64) / np.array(counts, dtype=np.float64)
    low, high = cluster_t(share - stated) or (None, None)
    return {
        **row,
        "expected": float(stated.mean()),
        "observed": float(share.mean()),
        "low": low,
        "high": high,
        "correlation": _correlation(share, stated),
        "p": counts_p(positive, counts, stated.tolist()),
        "n_prompts": shared.height,
    }


def _correlation(first: Array, second: Array) -> float | None:
    """Pearson's, or None for fewer than three prompts or where one of the two does not vary."""
    if len(first) < 3 or min(np.ptp(first), np.ptp(second)) < 1e-12:
        return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))
