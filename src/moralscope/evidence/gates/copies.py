"""Is every observation one observation? Prompts, scenarios and rows that repeat each other.

*Prompts*: a text that stands under several names is one prompt; copies within a scenario count once
(``units.collapsed_prompts``). *Scenarios*: two of them that share a text, spaces and case apart,
are not separate units of replication, and neither are two whose prompts get the same log-odds from
every agent to the last digit: texts may be unknown, or differ where no model sees it. Of n prompts
with standard deviation S that were resolved to steps of s, ``n (n - 1) / 2 * s / (2 sqrt(pi) S)``
pairs agree by chance, and more than ten times as many must. *Seeds*: training runs of one reward
that decide alike to within the noise of a kernel are one run under several names. *Rows*: those
that repeat another in every column count once (``units.collapse_rows``); two different rows for the
same thing are an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.evidence.designs import reward_designs
from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.gates.replicas import MAX_KERNEL
from moralscope.evidence.gates.site_quality import MANTISSA_BITS, resolution
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, collapsed_prompts

GATE = "duplicates"

BEYOND_CHANCE = 10.0
"""How many times as many pairs of prompts must agree as would by chance."""


def judge_prompts(tables: Tables) -> Iterator[Gate]:
    """Copies among the prompts, and texts that scenarios share."""
    if "prompts" not in tables:
        return
    prompts = tables["prompts"]
    # The same text with other options is another decision.
    asked = prompts.select(
        "scenario",
        pl.concat_str(
            "sha256", pl.min_horizontal("positive", "negative"),
            pl.max_horizontal("positive", "negative"), separator="\0",
        ).alias("asked"),
    )  # fmt: skip
    clones = prompts.height - asked.get_column("asked").n_unique()
    collapsed = collapsed_prompts(prompts)[1]
    yield Gate(
        GATE, "prompts", float(clones), 0.0, clones == 0,
        f"All {prompts.height} prompts are different texts."
        if clones == 0
        else f"{clones} of {prompts.height} prompts repeat the text of another; they add rows and "
        f"no evidence. {collapsed} of them stand in the scenario of their original and count once "
        "with it. Word them differently or remove them.",
    )  # fmt: skip
    yield _judge_scenarios(tables)


def _judge_scenarios(tables: Tables) -> Gate:
    prompts = tables["prompts"]
    said = pl.col("text").str.replace_all(r"\s+", " ").str.strip_chars().str.to_lowercase()
    options = (pl.min_horizontal("positive", "negative"), pl.max_horizontal("positive", "negative"))
    asked = prompts.select("scenario", pl.concat_str(said, *options, separator="\0").alias("asked"))
    per_text = asked.group_by("asked").agg(pl.col("scenario").n_unique().alias("n"))
    shared = per_text.filter(pl.col("n") > 1).height
    if shared:
        return Gate(
            GATE, "scenarios", float(shared), 0.0, False,
            f"{shared} texts stand in more than one scenario, so the scenarios are not separate "
            "units of replication; give each its own texts.",
        )  # fmt: skip
    same = _same_answers(tables)
    if same.height:
        first = same.row(0, named=True)
        return Gate(
            GATE, "scenarios", float(same.height), 0.0, False,
            f"{same.height} pairs of prompts of different scenarios, such as {first['prompt']!r} "
            f"and {first['other']!r}, get the same log-odds from every agent to the last digit: "
            "one text under two names, so the scenarios are not separate units of replication. "
            "Compare what was sent to the model, and give each scenario its own texts.",
        )  # fmt: skip
    return Gate(GATE, "scenarios", 0.0, 0.0, True, "No two scenarios share a text.")


def _same_answers(tables: Tables) -> pl.DataFrame:
    """Pairs (prompt, other) of one family in two scenarios with equal log-odds in every agent.

    Empty where no more agree than may by chance.
    """
    none = pl.DataFrame(schema={"prompt": pl.String, "other": pl.String})
    wide = _log_odds(tables)
    agents = [name for name in wide.columns if name != "prompt"]
    if not agents or wide.height < 2:
        return none
    values = wide.select(agents).to_numpy()
    # Log-odds that were cut off at a limit are the same for another reason.
    inner = ((values > values.min(axis=0)) & (values < values.max(axis=0))).any(axis=1)
    places = tables["prompts"].select("prompt", "scenario", "family", "positive", "negative")
    placed = wide.filter(pl.Series(inner)).join(places, on="prompt")
    same = [*agents, "family", "positive", "negative"]
    pairs = (
        placed.join(placed.select(*same, other="prompt", its="scenario"), on=same)
        .filter((pl.col("prompt") < pl.col("other")) & (pl.col("scenario") != pl.col("its")))
        .select("prompt", "other")
        .sort("prompt", "other")
    )
    return pairs if pairs.height > BEYOND_CHANCE * _by_chance(values) else none


def _log_odds(tables: Tables) -> pl.DataFrame:
    """Prompts, and a column of log-odds for each agent that has them on every prompt asked.

    A column is called ``agent NAME``, as an agent may be called like a column of another table.
    """
    if "decisions" not in tables or "prompts" not in tables:
        return pl.DataFrame({"prompt": []}, schema={"prompt": pl.String})
    known = tables["decisions"].join(tables["prompts"].select("prompt"), on="prompt", how="semi")
    called = pl.concat_str(pl.lit("agent "), "agent").alias("agent")
    wide = known.select("prompt", called, "log_odds").pivot(
        on="agent", index="prompt", values="log_odds", maintain_order=True
    )
    whole = [name for name in wide.columns if not wide.get_column(name).null_count()]
    return wide.select(whole)


def _by_chance(values: Array) -> float:
    """Pairs of rows that agree in the best resolved column of (prompts, agents) by chance."""
    n = len(values)
    steps = resolution(values, values, MANTISSA_BITS["float64"]).steps
    finest = float(steps.max())
    return n * (n - 1) / 2.0 / (2.0 * math.sqrt(math.pi) * finest) if finest > 0.0 else math.inf


def judge_seeds(tables: Tables) -> Iterator[Gate]:
    """One gate for each reward with two training seeds or more: are they different runs?

    Runs that decide as their base does learned nothing, which *liveness* judges.
    """
    if "agents" not in tables:
        return
    found = _log_odds(tables).drop("prompt")
    known = {
        name.removeprefix("agent "): found.get_column(name).to_numpy() for name in found.columns
    }
    for design in reward_designs(tables["agents"]):
        names = [agent for seed in design.agents for agent in seed if agent in known]
        if design.seeds < 2 or len(names) < 2 or design.base not in known:
            continue
        base = known[design.base]
        kept: list[Array] = []
        copies: list[str] = []
        for name in names:
            own = known[name]
            if any(_alike(own, other) for other in kept) and not _alike(own, base):
                copies.append(name)
            kept.append(own)
        yield _of_seeds(design.reward, design.base, len(names), copies)


def seeds_subject(reward: str, base: str) -> str:
    """What the gate on the training runs of a reward is about."""
    return f"seeds {reward} of {base}"


def _alike(first: Array, second: Array) -> bool:
    return bool((np.abs(first - second) <= MAX_KERNEL * np.maximum(1.0, np.abs(second))).all())


def _of_seeds(reward: str, base: str, runs: int, copies: list[str]) -> Gate:
    return Gate(
        GATE, seeds_subject(reward, base), float(len(copies)), 0.0, not copies,
        f"All {runs} agents trained with the {reward} reward decide differently."
        if not copies
        else f"{len(copies)} of {runs} agents trained with the {reward} reward (such as "
        f"{copies[0]}) decide as another one does on every prompt, within the noise of a kernel: "
        "one training run under several names is one seed. Load each run's own adapter.",
    )  # fmt: skip


def judge_rows(given: Tables, known: Tables) -> Iterator[Gate]:
    """Tables that had rows repeated as they stand: as given, against as collapsed."""
    for name, frame in given.items():
        if frame.height > known[name].height:
            yield repeated_rows(name, frame.height, frame.height - known[name].height)


def repeated_rows(table: str, rows: int, repeated: int) -> Gate:
    """The gate on the rows of one table.

    Args:
        table: its name.
        rows: how many were given.
        repeated: how many of them repeat another in every column.
    """
    return Gate(
        GATE, f"rows {table}", float(repeated), 0.0, repeated == 0,
        f"No row of {table} repeats another."
        if repeated == 0
        else f"{repeated} of {rows} rows of {table} repeat another in every column; each counts "
        f"once, {rows - repeated} remain. Find out whether a file was joined to itself.",
    )  # fmt: skip
