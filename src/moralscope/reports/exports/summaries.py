"""What do people ask of the big tables first? Breakdowns, rankings and asymmetries as small tables.

Means and intervals are over scenarios (``scenario_means``) and describe one site each: they are not
corrected for having looked at all sites. Which sites stand out is a matter of the claims.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from moralscope.reports.figure_sites import contributions_of
from moralscope.reports.run import Run
from moralscope.reports.scenario_means import over_scenarios, with_scenario

TOP = 20
"""How many components a ranking names."""

SMALLEST_ASYMMETRY = 0.01
"""Nats beyond which two directions of a patch are counted as different, as published."""


@dataclass(frozen=True)
class Summary:
    """A small table made from big ones: the name of its file, what it holds, its rows."""

    name: str
    meaning: str
    frame: pl.DataFrame


def summaries_of(run: Run) -> tuple[Summary, ...]:
    """Every summary whose tables are in the run; patches are those within one prompt."""
    found: list[Summary] = []
    if run.lacks("attribution", "prompts") is None:
        rows = with_scenario(run, contributions_of(run, "whole")).rename({"contribution": "value"})
        found += _attribution(rows)
    if run.lacks("patching", "prompts") is None:
        rows = with_scenario(run, _within(run.tables["patching"])).rename({"effect": "value"})
        found += _patching(rows)
    if run.lacks("directions", "prompts") is None:
        found.append(_asymmetry(run))
    if run.lacks("claims") is None:
        found.append(_claims(run))
    return tuple(found)


def _within(patching: pl.DataFrame) -> pl.DataFrame:
    return patching.filter(
        (pl.col("prompt") == pl.col("source_prompt")) & (pl.col("site") != "all")
    )


def _attribution(rows: pl.DataFrame) -> list[Summary]:
    place = ("site", "layer", "kind", "head")
    each = over_scenarios(rows, ("agent", *place))
    ranked = (
        each.sort(pl.col("mean").abs(), descending=True, maintain_order=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("agent"))
        .filter(pl.col("rank") <= TOP)
        .sort("agent", "rank", maintain_order=True)
    )
    return [
        Summary(
            "attribution-by-agent",
            "per agent: mean contribution in nats, and how many contributions point each way",
            rows.group_by("agent", maintain_order=True).agg(**_shares()),
        ),
        Summary(
            "attribution-by-scenario",
            "per agent and scenario: the same",
            rows.group_by("agent", "scenario", maintain_order=True).agg(**_shares()),
        ),
        Summary(
            "attribution-by-component",
            "per agent and component: mean over scenarios in nats with its 95% interval",
            each,
        ),
        Summary(
            "attribution-top-components",
            f"the {TOP} components of each agent that contribute most, either way",
            ranked,
        ),
    ]


def _shares() -> dict[str, pl.Expr]:
    value = pl.col("value")
    return {
        "mean": value.mean(),
        "mean_absolute": value.abs().mean(),
        "largest_absolute": value.abs().max(),
        "n_towards_positive": (value > 0).sum().cast(pl.Int64),
        "n_towards_negative": (value < 0).sum().cast(pl.Int64),
        "share_towards_positive": (value > 0).mean(),
        "n": pl.len().cast(pl.Int64),
    }


def _patching(rows: pl.DataFrame) -> list[Summary]:
    pair = ("source", "target", "positions", "write")
    flips = {"n_flipped": pl.col("flipped").sum().cast(pl.Int64)}
    return [
        Summary(
            "patching-by-direction",
            "per direction between two agents: mean effect in nats, signs, flipped decisions",
            rows.group_by(*pair, maintain_order=True).agg(**_shares(), **flips),
        ),
        Summary(
            "patching-by-scenario",
            "per direction and scenario: the same",
            rows.group_by(*pair, "scenario", maintain_order=True).agg(**_shares(), **flips),
        ),
        Summary(
            "patching-by-component",
            "per direction and component: mean over scenarios in nats with its 95% interval",
            over_scenarios(rows, (*pair, "site", "layer", "kind", "head")),
        ),
    ]


def _asymmetry(run: Run) -> Summary:
    rows = run.tables["directions"].filter(pl.col("site") != "all").rename({"prompt_a": "prompt"})
    rows = with_scenario(run, rows)
    by = ("agent_a", "agent_b", "positions", "write", "site")
    parts = {
        name: over_scenarios(rows.rename({name: "value"}), by)
        for name in ("effect_a_to_b", "effect_b_to_a", "symmetric", "asymmetry")
    }
    frame = parts["asymmetry"].rename(
        {
            "mean": "asymmetry",
            "sd": "asymmetry_sd",
            "low": "asymmetry_low",
            "high": "asymmetry_high",
        }
    )
    for name in ("effect_a_to_b", "effect_b_to_a", "symmetric"):
        other = parts[name].select(*by, pl.col("mean").alias(name))
        frame = frame.join(other, on=list(by), maintain_order="left")
    alike = pl.col("effect_a_to_b") * pl.col("effect_b_to_a") > 0
    return Summary(
        "asymmetry-by-component",
        "per component of a pair patched both ways: both effects, their symmetric part and "
        "their asymmetry (nats); whether it exceeds .01 nats, the published mark, is a column",
        frame.with_columns(
            same_sign_both_ways=alike,
            beyond_published_mark=pl.col("asymmetry").abs() > SMALLEST_ASYMMETRY,
        ),
    )


def _claims(run: Run) -> Summary:
    columns = (
        "id", "verdict", "statement", "estimate", "low", "high", "unit", "n_units", "p_adjusted",
        "p_floor", "q", "registered",
    )  # fmt: skip
    return Summary(
        "claims-that-stand",
        "supported and equivalent claims, without their queries",
        run.tables["claims"]
        .filter(pl.col("verdict").is_in(("supported", "equivalent")))
        .select(columns),
    )
