"""Do two agents' updates share directions, more than random ones would?

Per comparison and side the overlap of leading subspaces (``update_overlap``). Each linear layer
lies above the upper end of its own null with probability .025 if its subspaces are random,
independently of the others, so

    p = P(Binomial(layers, .025) >= layers that do);

of several pairs of agents twice the mean of their p counts, which holds however they depend on each
other (Rueschendorf 1982). That training on the same prompts leaves something in common is to be
expected; whether rewards matter for it is asked in ``weights_rewards``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special

from moralscope.evidence.findings.weight_queries import beyond_random
from moralscope.evidence.gates.updates import GATE
from moralscope.evidence.ledger import Finding, Setting, consult, probability, size
from moralscope.evidence.pairs import Pair, compared
from moralscope.evidence.statistics.multiplicity import holm

TAIL = 0.025
"""Share of random draws beyond ``null_high``."""

_ROUNDING = 1e-9
"""An overlap must exceed its null by more: where a null has no spread, both are one number."""

SIDES = ("outputs", "inputs")

AgentPair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Overlap:
    """The overlap of one comparison on one side.

    Attributes:
        name, side, k: which comparison, outputs or inputs, and of how many leading directions.
        pairs: of agents.
        layers: linear layers that were compared.
        overlap, expected: means over layers and pairs.
        beyond: share of layers and pairs above the upper end of their null.
        p: that subspaces are random.
    """

    name: str
    side: str
    k: int
    pairs: tuple[AgentPair, ...]
    layers: int
    overlap: float
    expected: float
    beyond: float
    p: float

    @property
    def floor(self) -> float:
        """The smallest p: every layer of every pair above its null."""
        return min(1.0, (1.0 + (len(self.pairs) > 1)) * TAIL**self.layers)


def overlap_findings(setting: Setting) -> Iterator[Finding]:
    """Two findings per comparison, outputs and inputs; all of them are one family."""
    if not setting.has("update_overlap"):
        return
    table = setting.tables["update_overlap"]
    k = int(str(table.get_column("k").max()))
    present = set(table.filter(pl.col("k") == k).select("agent_a", "agent_b").unique().iter_rows())
    groups: dict[str, list[AgentPair]] = {}
    for pair in compared(setting.tables):
        stored = _stored(pair, present)
        if pair.tested and pair.kind != "base" and stored is not None:
            groups.setdefault(pair.comparison, []).append(stored)
    found = [
        _overlap(table, name, side, k, tuple(dict.fromkeys(pairs)))
        for name, pairs in groups.items()
        for side in SIDES
    ]
    if not found:
        return
    adjusted = holm(np.array([one.p for one in found]))
    for one, p_adjusted in zip(found, adjusted.tolist(), strict=True):
        yield _overlap_finding(setting, one, p_adjusted, len(found))


def _stored(pair: Pair, present: set[AgentPair]) -> AgentPair | None:
    """The pair in the order in which the table has it."""
    ways = (pair.agents, (pair.second, pair.first))
    return next((way for way in ways if way in present), None)


def _overlap(
    table: pl.DataFrame, name: str, side: str, k: int, pairs: tuple[AgentPair, ...]
) -> Overlap:
    rows = _of_pairs(table, pairs).filter((pl.col("side") == side) & (pl.col("k") == k))
    above = rows.with_columns(above=pl.col("overlap") > pl.col("null_high") + _ROUNDING)
    counts = above.group_by("agent_a", "agent_b", maintain_order=True).agg(
        pl.len(), pl.col("above").sum()
    )
    p = [
        float(special.bdtrc(hits - 1, layers, TAIL)) if hits else 1.0
        for layers, hits in counts.select("len", "above").iter_rows()
    ]
    several = 1.0 + (len(p) > 1)
    # Layers count alike, whichever pairs they were changed in; one order, one last bit of the mean.
    means = rows.group_by("layer", "module", maintain_order=True).agg(
        pl.col("overlap", "expected").mean()
    )
    return Overlap(
        name=name,
        side=side,
        k=k,
        pairs=pairs,
        layers=means.height,
        overlap=float(means.get_column("overlap").to_numpy().mean()),
        expected=float(means.get_column("expected").to_numpy().mean()),
        beyond=float(above.get_column("above").to_numpy().mean()),
        p=min(1.0, several * float(np.mean(p))),
    )


def _of_pairs(table: pl.DataFrame, pairs: Sequence[AgentPair]) -> pl.DataFrame:
    wanted = pl.DataFrame(list(pairs), schema=["agent_a", "agent_b"], orient="row")
    return table.join(wanted, on=["agent_a", "agent_b"], how="semi")


def _overlap_finding(setting: Setting, one: Overlap, adjusted: float, tests: int) -> Finding:
    agents = list(dict.fromkeys(name for pair in one.pairs for name in pair))
    does = {"outputs": "write", "inputs": "read"}[one.side]
    count = len(one.pairs)
    of = f"{count} pairs of agents" if count > 1 else " and ".join(one.pairs[0])
    which = f"the {one.k} leading directions" if one.k > 1 else "the leading direction"
    figures = (
        f"{which} that the updates of {of} {does} overlap by {size(one.overlap)} "
        f"(mean squared cosine over {one.layers} linear layers), where random ones would by "
        f"{size(one.expected)}; {one.beyond:.0%} of layers lie above 97.5% of random draws "
        f"(adjusted {probability(adjusted)})"
    )
    return Finding(
        id=f"overlap:{one.name}:{one.side}",
        found=f"In the comparison {one.name}, updates share what they {does}: {figures}.",
        observed=f"In the comparison {one.name}, {figures}.",
        estimate=one.overlap - one.expected,
        interval=None,
        unit="share",
        n=one.layers,
        replicate="linear layers",
        test="number of linear layers above 97.5% of random subspaces, binomial, one-sided; null: "
        "random directions in the spaces that the updates can reach",
        query=beyond_random(one.pairs, one.side, one.k),
        consulted=consult(setting, agents, [(GATE, agent) for agent in agents]),
        p=one.p,
        p_adjusted=adjusted,
        p_floor=one.floor,
        level=setting.alpha / tests,
        tests=tests,
        family=f"{tests} comparisons of subspaces",
    )
