"""What else did a fine-tune change, and do sampled answers agree with the scored ones?

Side effects are changes from the base on text that has nothing to do with the games. Agreement is
the share of positive among legal sampled answers less the probability that was scored.
"""

from __future__ import annotations

import polars as pl

from moralscope.reports.agent_groups import agent_groups, intervals_told, over_seeds
from moralscope.reports.chosen import values
from moralscope.reports.dots import Measure, domain_of, interval_panels
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.run import Run

_WORDS = {
    "kl": "KL from the base",
    "perplexity": "perplexity of neutral text",
    "length": "length of free answers",
    "repetition": "repetition in free answers",
    "distinct": "different n-grams in free answers",
    "finished": "free answers that end",
    "unrelated_decisions": "decisions of unrelated content",
}


def side_effects(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Changes from the base with intervals over texts, a panel per measure."""
    name, title = "side_effects", "Side effects: what else the fine-tunes changed"
    if reason := run.lacks("side_effects"):
        return Absent(name, title, reason)
    table = run.tables["side_effects"]
    bases = [agent.name for agent in run.agents if agent.kind == "base"]
    # What compares two agents has no value of the base to be subtracted.
    rows = (
        table.filter(~pl.col("agent").is_in(bases))
        .with_columns(value=pl.coalesce("change", "value"))
        .with_columns(
            panel=pl.format("{} ({})", pl.col("measure").replace(_WORDS), "unit").str.strip_suffix(
                " (one)"
            ),
            row=pl.lit(""),
            n="n_units",
            unit=pl.lit("texts or prompts"),
        )
    )
    if rows.is_empty():
        return Absent(name, title, "The table side_effects has no agent beside the base.")
    groups = agent_groups(run, colours, values(rows, "agent"))
    dots = over_seeds(rows, groups, ["panel", "row"])
    divergence = pl.col("panel").str.starts_with(_WORDS["kl"])
    dots = dots.with_columns(
        low=pl.when(divergence).then(pl.col("low").clip(lower_bound=0.0)).otherwise("low")
    )
    return Figure(
        name=name,
        title=title,
        shows="Change from the base on neutral texts, on free answers to everyday questions and "
        "on decisions without moral content; what compares the two models, as the KL divergence "
        "does, is shown as it is. Each measure has a scale of its own; the dashed line is no "
        f"change. {intervals_told(dots)} {_clear(dots)}",
        does_not_show="Whether a change is harm: shorter answers may be better ones. The texts "
        "are few and plain; other abilities are not measured.",
        chart=interval_panels(
            dots,
            groups,
            values(dots, "panel"),
            Measure("Change from the base", domain=None, reference=0.0),
        ),
        tables=("side_effects",),
    )


def _clear(dots: pl.DataFrame) -> str:
    clear = dots.filter((pl.col("low") > 0) | (pl.col("high") < 0))
    if clear.is_empty():
        return "No interval excludes 0."
    told = [
        f"{agent} {rows.height}"
        for (agent,), rows in clear.group_by("agent", maintain_order=True)
    ]  # fmt: skip
    measures = dots.get_column("panel").n_unique()
    return f"Intervals that exclude 0, of {measures} measures: {listing(told)}."


def metric_agreement(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """Sampled share less scored probability by family and agent, a panel per parser."""
    name, title = "metric_agreement", "Do sampled answers agree with the scored probabilities?"
    if reason := run.lacks("metric_agreement"):
        return Absent(name, title, reason)
    table = run.tables["metric_agreement"]
    known = table.drop_nulls(["expected", "observed"])
    if known.is_empty():
        return Absent(name, title, "No sampled answer of the table metric_agreement was legal.")
    groups = agent_groups(run, colours, values(known, "agent"))
    rows = known.select(
        "agent",
        pl.format("{} parser", "parser").alias("panel"),
        pl.col("family").alias("row"),
        (pl.col("observed") - pl.col("expected")).alias("value"),
        "low",
        "high",
        pl.col("n_prompts").alias("n"),
        pl.lit("prompts").alias("unit"),
    )
    dots = over_seeds(rows, groups, ["panel", "row"], (-1.0, 1.0))
    return Figure(
        name=name,
        title=title,
        shows="Share of the positive option among legal sampled answers, less the probability "
        "that was scored, by prompt family, read strictly (exactly an option) and tolerantly (the "
        f"first option named). {intervals_told(dots)} {_tested(table)}",
        does_not_show="Answers that were not legal: shares are of those that were. Agreement in "
        "the mean need not be agreement on every prompt; the exact test in the table is.",
        chart=interval_panels(
            dots,
            groups,
            values(dots, "panel"),
            Measure("Sampled minus scored (share)", _around_zero(dots), reference=0.0),
            columns=2,
        ),
        tables=("metric_agreement",),
    )


def _around_zero(dots: pl.DataFrame) -> tuple[float, float]:
    low, high = domain_of(dots)
    return min(low, -0.02), max(high, 0.02)


def _tested(table: pl.DataFrame) -> str:
    """Legality both ways, and how often the exact test refutes agreement."""
    legal = " and ".join(
        f"{rows['legal_observed'].mean():.2f} ({parser})"
        for (parser,), rows in table.group_by("parser", maintain_order=True)
    )
    scored = table.get_column("legal_expected").mean()
    tested = table.drop_nulls("p")
    refuted = tested.filter(pl.col("p") < 0.05).height
    none = table.filter(pl.col("observed").is_null()).height
    without = f" In {none} of {table.height} rows no answer was legal." if none else ""
    return (
        f"Mean legal share: {legal} sampled, {scored:.2f} scored. The exact test refutes "
        f"agreement at 0.05 in {refuted} of {tested.height} rows.{without}"
    )
