"""What do the networks look like, as tables? Correlations, comparisons, and pathways to follow up.

``interactions`` are one agent's correlations; ``interaction_networks`` one row per pair of agents
and measure, ``interaction_changes`` one per pair of sites as well (``evidence.wired`` tells the
test). ``choose_pathways`` picks what is worth patching: pathways that survive, else those with the
largest differences, so that a null is looked at as well; and as many at random beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl

from moralscope.core.site import Site, parse_site
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.findings.inner import Inner, inner_agents, inner_values
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.correlations import correlation_matrix
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables
from moralscope.evidence.wired import MEASURES, Compared, by_layer, prompts_needed

SURVIVOR, LARGEST, RANDOM = "survivor", "largest", "random"
"""Why a pathway was chosen."""

_PATHWAY = ["comparison", "agent_a", "agent_b", "measure"]


def interactions_table(tables: Tables, *, heads: bool = False) -> pl.DataFrame:
    """The table ``interactions``: correlations of all pairs of sites over prompts, per agent.

    Args:
        tables: ``prompts``, and ``norms`` or ``projections``.
        heads: of heads and MLPs instead of sub-layers.
    """
    found: list[pl.DataFrame] = []
    for table, measure in MEASURES.items():
        if table not in tables:
            continue
        for agent in inner_agents(tables, table):
            every = by_layer(tables, table, ("L0.h0",) if heads else ())
            inner = inner_values(every, table, [agent])
            if inner is not None:
                found.append(_correlations(inner, agent, measure))
    return pl.concat(found) if found else from_rows("interactions", [])


def networks_table(setting: Setting, found: Sequence[Compared], difference: float) -> pl.DataFrame:
    """The table ``interaction_networks``.

    Args:
        setting: the level.
        found: what was compared.
        difference: of Fisher z, that the prompts should tell apart.
    """
    return from_rows(
        "interaction_networks",
        [row for each in found for row in _network_rows(setting, each, difference)],
    )


def changes_table(setting: Setting, found: Sequence[Compared]) -> pl.DataFrame:
    """The table ``interaction_changes``; sites of a pair in the order of depth."""
    parts = [
        _changes(setting, each).with_columns(
            comparison=pl.lit(pair.comparison), kind=pl.lit(pair.kind)
        )
        for each in found
        if each.network is not None
        for pair in each.pairs
    ]
    if not parts:
        return from_rows("interaction_changes", [])
    return conform("interaction_changes", pl.concat(parts))


def choose_pathways(
    changes: pl.DataFrame, rng: np.random.Generator, *, count: int, parallel: bool = False
) -> pl.DataFrame:
    """Which pathways to patch, of each comparison and measure.

    Args:
        changes: the table ``interaction_changes``, any part of it.
        rng: draws the random ones.
        count: how many of the chosen ones, and of random ones besides.
        parallel: whether attention and MLP of a layer read the same stream, so that neither
            hears the other.

    Returns:
        comparison, agent_a, agent_b, measure, sender, receiver, difference, survives, chosen_as.
    """
    kept = changes.filter(pl.col("difference").is_not_null())
    sites = [tuple(map(parse_site, pair)) for pair in kept.select("site_a", "site_b").iter_rows()]
    heard = [_hears(a, b, parallel=parallel) for a, b in sites]
    usable = kept.filter(pl.Series(heard, dtype=pl.Boolean)).rename(
        {"site_a": "sender", "site_b": "receiver"}
    )
    parts: list[pl.DataFrame] = []
    for _, rows in usable.group_by(_PATHWAY, maintain_order=True):
        ranked = rows.with_columns(pl.col("difference").abs().alias("size")).sort(
            "size", "sender", "receiver", descending=[True, False, False]
        )
        surviving = ranked.filter("survives")
        first = surviving if surviving.height else ranked
        chosen = first.head(count)
        others = ranked.join(chosen, on=["sender", "receiver"], how="anti", maintain_order="left")
        picks = rng.choice(others.height, min(count, others.height), replace=False)
        drawn = others[sorted(int(pick) for pick in picks)]
        name = SURVIVOR if surviving.height else LARGEST
        parts += [
            chosen.with_columns(chosen_as=pl.lit(name)),
            drawn.with_columns(chosen_as=pl.lit(RANDOM)),
        ]
    columns = [*_PATHWAY, "sender", "receiver", "difference", "survives", "chosen_as"]
    empty = usable.with_columns(chosen_as=pl.lit(RANDOM)).clear()
    return (pl.concat(parts) if parts else empty).select(columns)


def pathways_table(
    chosen: pl.DataFrame, edges: pl.DataFrame, prompts: pl.DataFrame
) -> pl.DataFrame:
    """The table ``pathways``: change of correlation beside the effect, both ways.

    Args:
        chosen: from ``choose_pathways``.
        edges: the table ``edges`` with these paths from each agent into the other.
        prompts: tells the scenario of each prompt.
    """
    key = ["source", "target", "sender", "receiver"]
    # Orders are kept: a mean over scenarios in another order differs in its last bit.
    placed = edges.join(prompts.select("prompt", "scenario"), on="prompt", maintain_order="left")
    of_scenarios = placed.group_by(*key, "scenario", maintain_order=True).agg(
        pl.col("effect").mean()
    )
    effects = of_scenarios.group_by(key, maintain_order=True).agg(pl.col("effect").mean())
    found = chosen
    for name, (source, target) in {
        "effect_a_to_b": ("agent_a", "agent_b"),
        "effect_b_to_a": ("agent_b", "agent_a"),
    }.items():
        found = found.join(
            effects.rename({"source": source, "target": target, "effect": name}),
            on=["agent_a", "agent_b", "sender", "receiver"],
            how="inner",
            maintain_order="left",
        )
    return conform("pathways", found)


def _hears(sender: Site, receiver: Site, *, parallel: bool) -> bool:
    """Whether the second component reads what the first has written to the stream."""
    if sender.layer is None or receiver.layer is None:
        return False
    if sender.layer != receiver.layer:
        return sender.layer < receiver.layer
    return sender.kind == "attn" and receiver.kind == "mlp" and not parallel


def _correlations(inner: Inner, agent: str, measure: str) -> pl.DataFrame:
    order = sorted(range(len(inner.sites)), key=lambda i: parse_site(inner.sites[i]))
    r = correlation_matrix(inner.values[agent][:, order])
    sites = [inner.sites[i] for i in order]
    rows, columns = np.triu_indices(len(sites), 1)
    return conform(
        "interactions",
        pl.DataFrame({
            "agent": [agent] * len(rows),
            "site_a": [sites[i] for i in rows],
            "site_b": [sites[i] for i in columns],
            "measure": [measure] * len(rows),
            "value": _or_null(r[rows, columns]),
            "n": [len(inner.prompts)] * len(rows),
        }),
    )  # fmt: skip


def _network_rows(setting: Setting, each: Compared, difference: float) -> list[dict[str, object]]:
    network = each.network
    swap = None if network is None else network.swap
    return [
        {
            "comparison": pair.comparison,
            "kind": pair.kind,
            "agent_a": pair.first,
            "agent_b": pair.second,
            "measure": each.measure,
            "sites": len(each.inner.sound(each.agents)),
            "pairs": 0 if swap is None else swap.pairs,
            "prompts": len(each.inner.prompts),
            "prompts_needed": prompts_needed(difference, setting.alpha),
            "scenarios": each.inner.scenarios,
            "changed": 0 if swap is None else swap.count,
            "distance": None if network is None else network.distance,
            "p": None if network is None else network.p,
            "p_adjusted": each.p_adjusted,
            "reliability": None if swap is None else swap.reliability,
            "surviving": int(each.surviving(setting.alpha).sum()) // 2,
        }
        for pair in each.pairs
    ]


def _changes(setting: Setting, each: Compared) -> pl.DataFrame:
    network = each.network
    if network is None:
        return pl.DataFrame()
    swap, sites = network.swap, [parse_site(site) for site in network.sites]
    order = sorted(range(len(sites)), key=lambda i: sites[i])
    pairs = list(combinations(order, 2))
    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    tested = network.tested[one, other]

    def of(values: Array) -> pl.Series:
        return _or_null(values[one, other])

    p = of(np.where(network.tested, swap.p_adjusted, np.nan))
    agents = network.agents
    return pl.DataFrame({
        "agent_a": [agents[0]] * len(pairs),
        "agent_b": [agents[1]] * len(pairs),
        "measure": [each.measure] * len(pairs),
        "site_a": [network.sites[i] for i in one],
        "site_b": [network.sites[i] for i in other],
        "correlation_a": of(network.first),
        "correlation_b": of(network.second),
        "difference": of(swap.difference),
        "p_adjusted": p,
        "stable": pl.Series(swap.stable[one, other] & tested),
        "survives": pl.Series(each.surviving(setting.alpha)[one, other]),
    })  # fmt: skip


def _or_null(values: Array) -> pl.Series:
    """Numbers with null where there is none."""
    return pl.Series(values, dtype=pl.Float64).fill_nan(None)
