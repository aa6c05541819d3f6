"""Do two agents look at different things? Attention by category and head, compared pair by pair.

``y[scenario, head, category] = mean over its prompts of logit(mass)``, with masses below one part
in ten thousand counted as that (``statistics.shares``): a scale on which a head that goes from .01
to .02 of its attention has changed as much as one that goes from .1 to .18. Unit: the scenario. Per
pair of ``evidence.pairs``:

*attention:A:B:CATEGORY*: does A look more or less at it than B, in the mean over all heads?
Sign-flips with max-T over all categories of all pairs of that kind; equivalent if the odds differ
by less than a tenth.

*attention:A:B*: which heads look elsewhere? Max-T over all heads and categories of the pair. A head
is named only if the differences would come out alike on other scenarios.

``rest`` is what the others leave and is not tested. A category that some prompts do not name cannot
be compared over all of them, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.findings.attention_queries import looking_difference
from moralscope.evidence.findings.columns import Column, column_findings, untold
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.sites import (
    blame_clones,
    nothing_resolved,
    run_site_test,
    site_finding,
)
from moralscope.evidence.gates.sites import SiteFaults, attention_results, faults
from moralscope.evidence.ledger import Consulted, Finding, Setting, consult, noise_floor
from moralscope.evidence.pairs import Kind, Pair, compared
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.statistics.shares import MARGIN, share_log_odds
from moralscope.evidence.units import Tables, Units, inference_family, on_family

REST = "rest"
"""The category of everything that no other names."""

KINDS: tuple[Kind, ...] = ("named", "base", "replicate")
"""Kinds of pairs; each kind is a family of its own."""

RESOLVED = 1e-5
"""Nats; in single precision a smaller difference is rounding, whichever way it leans."""


@dataclass(frozen=True, eq=False)
class Looking:
    """Where agents look, on the same prompts.

    Attributes:
        family: of the prompts.
        scenarios: the G units.
        heads: the H heads, ``L8.h3``.
        categories: the C categories that every prompt has, ``rest`` left out.
        partial: the others, with how many prompts have them.
        prompts: how many prompts there are.
        values: per agent (G, H, C) log-odds of masses, means over the prompts of a scenario.
        masses: per agent (G, C) masses, means over prompts and heads.
    """

    family: str
    scenarios: tuple[str, ...]
    heads: tuple[str, ...]
    categories: tuple[str, ...]
    partial: Mapping[str, int]
    prompts: int
    values: Mapping[str, Array]
    masses: Mapping[str, Array]


def pairs_with_base_last(setting: Setting, agents: Sequence[str]) -> tuple[Pair, ...]:
    """The pairs that claims are made about, of these agents, each once; a base is subtracted."""
    found: dict[tuple[str, str], Pair] = {}
    for pair in compared(setting.tables):
        if not pair.tested:
            continue
        first, second = pair.agents if pair.kind != "base" else (pair.second, pair.first)
        if {first, second} <= set(agents):
            turned = Pair(pair.comparison, pair.kind, first, second)
            found.setdefault((first, second), turned)
    return tuple(found.values())


def attention_findings(setting: Setting) -> Iterator[Finding]:
    """Per pair its categories, then its heads; nothing without ``attention`` of two agents.

    Raises:
        TableError: agents that are compared were measured on different prompts or heads.
    """
    if not setting.has("prompts", "attention"):
        return
    present: list[str] = setting.tables["attention"].get_column("agent").unique().sort().to_list()
    pairs = pairs_with_base_last(setting, present)
    agents = tuple(dict.fromkeys(agent for pair in pairs for agent in pair.agents))
    looking = look(setting.tables, agents)
    if looking is None:
        return
    for kind in KINDS:
        alike = [pair for pair in pairs if pair.kind == kind]
        columns = [
            _column(setting, looking, pair.agents, category)
            for pair in alike
            for category in looking.categories
        ]
        family = f"{len(columns)} categories of {len(alike)} {kind} pairs of agents"
        yield from column_findings(setting, f"attention {kind}", columns, family)
        for pair in alike:
            yield from _partial(setting, looking, pair.agents)
    table = setting.tables["attention"]
    blamed = {agent: faults(attention_results(table, agent)) for agent in agents}
    for pair in pairs:
        yield _heads(setting, looking, pair.agents, [blamed[agent] for agent in pair.agents])


def look(tables: Tables, agents: Sequence[str]) -> Looking | None:
    """Where some agents look; None where there are none, or none of the prompts is known.

    Args:
        tables: with ``prompts`` and ``attention``.
        agents: that the table has rows of.

    Raises:
        TableError: two of them were measured on different prompts, heads or categories.
    """
    own = tables["attention"].filter(pl.col("agent").is_in(list(agents)))
    family = inference_family(tables["prompts"], own.get_column("prompt"))
    if not agents or family is None:
        return None
    placed = on_family(own, tables["prompts"], family)
    by_agent = {agent: placed.filter(pl.col("agent") == agent) for agent in agents}
    first = by_agent[agents[0]]
    for agent in agents[1:]:
        _same_places(first, by_agent[agent], (agents[0], agent))
    counts = dict(
        first.group_by("category", maintain_order=True)
        .agg(pl.col("prompt").n_unique())
        .filter(pl.col("category") != REST)
        .iter_rows()
    )
    prompts = first.get_column("prompt").n_unique()
    kept = tuple(category for category, n in counts.items() if n == prompts)
    if not kept:
        return None
    heads = first.select("layer", "head").unique().sort("layer", "head")
    means = {agent: _means(rows, kept, agent) for agent, rows in by_agent.items()}
    return Looking(
        family=family,
        scenarios=tuple(first.get_column("scenario").unique().sort().to_list()),
        heads=tuple(f"L{layer}.h{head}" for layer, head in heads.iter_rows()),
        categories=kept,
        partial={category: n for category, n in counts.items() if n < prompts},
        prompts=prompts,
        values={agent: values for agent, (values, _) in means.items()},
        masses={agent: masses for agent, (_, masses) in means.items()},
    )


def _same_places(first: pl.DataFrame, other: pl.DataFrame, agents: tuple[str, str]) -> None:
    key = ["prompt", "layer", "head", "category"]
    mine, theirs = first.select(key), other.select(key)
    alone = pl.concat(
        [mine.join(theirs, on=key, how="anti"), theirs.join(mine, on=key, how="anti")]
    )
    if alone.height:
        raise TableError(
            f"The attention of agents {agents[0]!r} and {agents[1]!r} was not measured alike",
            seen=f"{alone.height} rows of one alone, such as {alone.row(0, named=True)}",
            allowed="the same prompts, heads and categories for both",
            remedy="measure both on the same prompts; what is compared pair by pair needs all of "
            "them",
        )


def _means(rows: pl.DataFrame, categories: Sequence[str], agent: str) -> tuple[Array, Array]:
    """Log-odds by scenario, head and category, and masses by scenario and category.

    Summed in one order whoever it is, so that equal agents have equal means to the last digit.
    """
    rank = {category: at for at, category in enumerate(categories)}
    placed = (
        rows.filter(pl.col("category").is_in(list(categories)))
        .with_columns(rank=pl.col("category").replace_strict(rank, return_dtype=pl.Int64))
        .sort("scenario", "prompt", "layer", "head", "rank")
    )
    heads = placed.select("layer", "head").n_unique()
    prompts = placed.select("scenario", "prompt").unique(maintain_order=True)
    if placed.height != prompts.height * heads * len(categories):
        raise TableError(
            f"The attention of agent {agent!r} has gaps",
            seen=f"{placed.height} masses of {prompts.height} prompts, {heads} heads and "
            f"{len(categories)} categories",
            allowed="a mass of every head on every category of each prompt",
            remedy="measure the missing heads, or leave out the prompts that lack them",
        )
    masses = placed.get_column("mass").to_numpy().astype(np.float64)
    masses = masses.reshape(prompts.height, heads, len(categories))
    scenario = prompts.get_column("scenario").to_list()
    index = np.unique(np.array(scenario), return_inverse=True)[1]
    counts = np.bincount(index)[:, None, None]
    sums = np.zeros((2, len(counts), heads, len(categories)))
    np.add.at(sums[0], index, share_log_odds(masses))
    np.add.at(sums[1], index, masses)
    return sums[0] / counts, (sums[1] / counts).mean(axis=1)


def _consult(setting: Setting, agents: Sequence[str], *, by_head: bool) -> Consulted:
    sites = [(gate, f"attention {a}") for a in agents for gate in ("duplicates", "dead sites")]
    return consult(
        setting,
        agents,
        gates=[
            *(("dead channel", agent) for agent in agents),
            ("duplicates", "scenarios"),
            # A mean over heads counts every copy of a head; a single head is judged by itself.
            *(() if by_head else sites),
        ],
        shown=sites if by_head else (),
    )


def _noise(setting: Setting, agents: Sequence[str]) -> float:
    """What rounding does to log-odds, of attention as of answers, nats.

    Two agents that differ by rounding alone lean one way on every prompt, so no test stops them.
    """
    return max(RESOLVED, noise_floor(setting, agents))


def _column(setting: Setting, looking: Looking, agents: tuple[str, str], category: str) -> Column:
    at = looking.categories.index(category)
    first, second = (looking.values[agent][:, :, at].mean(axis=1) for agent in agents)
    values = first - second
    more = "more" if values.mean() > 0.0 else "less"
    heads = len(looking.heads)
    one, other = (float(looking.masses[agent][:, at].mean()) for agent in agents)
    return Column(
        id=f"attention:{agents[0]}:{agents[1]}:{category}",
        found=f"{agents[0]} looks {more} at {category} than {agents[1]}: the log-odds of its "
        f"attention differ, in the mean over {heads} heads, by",
        observed=f"The log-odds of the attention of {agents[0]} to {category} differ from those of "
        f"{agents[1]}, in the mean over {heads} heads, by",
        more=f"; mean mass {one:.3g} against {other:.3g}",
        values=values,
        query=looking_difference(agents, category, looking.family),
        consulted=_consult(setting, agents, by_head=False),
        margin=MARGIN,
        noise=_noise(setting, agents),
    )


def _partial(setting: Setting, looking: Looking, agents: tuple[str, str]) -> Iterator[Finding]:
    for category, count in looking.partial.items():
        yield untold(
            f"attention:{agents[0]}:{agents[1]}:{category}",
            f"Whether {agents[0]} and {agents[1]} look alike at {category} is not known.",
            f"only {count} of {looking.prompts} prompts name it; compare on prompts that all do.",
            _consult(setting, agents, by_head=False),
            NOTHING,
        )


def _heads(
    setting: Setting, looking: Looking, agents: tuple[str, str], blamed: Sequence[SiteFaults]
) -> Finding:
    name = f"attention:{agents[0]}:{agents[1]}"
    sound = [
        index
        for index, head in enumerate(looking.heads)
        if all(head in fault.distinct for fault in blamed)
    ]
    difference = looking.values[agents[0]] - looking.values[agents[1]]
    chosen = difference[:, sound].reshape(len(looking.scenarios), -1)
    columns = tuple(
        f"{looking.heads[index]} on {category}"
        for index in sound
        for category in looking.categories
    )
    units = Units(looking.scenarios, columns, np.ascontiguousarray(chosen))
    consulted = _consult(setting, agents, by_head=True)
    if not sound:
        return nothing_resolved(name, f"the attention of {agents[0]}", units, blamed, consulted)
    noise = _noise(setting, agents)
    outcome = run_site_test(setting, name, units, noise)
    head, category = outcome.site.split(" on ", 1)
    layer, index = (int(part) for part in head.removeprefix("L").split(".h"))
    return site_finding(
        outcome,
        name=name,
        found=f"In {outcome.standing} of {outcome.sites} heads and categories {agents[0]} looks "
        f"elsewhere than {agents[1]}; the largest of these differences is at {outcome.figures}.",
        observed=f"Of {outcome.sites} heads and categories, {agents[0]} and {agents[1]} look "
        f"apart most clearly at {outcome.figures}.",
        query=looking_difference(agents, category, looking.family, (layer, index)),
        consulted=blame_clones(consulted, head, blamed),
        alpha=setting.alpha,
        noise=noise,
    )
