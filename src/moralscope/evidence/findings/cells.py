"""What did agents give at the same places? Vectors of results, place by place, with their scenario.

A place is a prompt (``decisions``), a prompt and a site (``norms``, ``attribution``) or a prompt
and a depth (``lens``). Agents are compared place by place, so all must have the same places.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.findings.inner_queries import InnerSource
from moralscope.evidence.findings.queries import text
from moralscope.evidence.gates.sites import answer_rows
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, inference_family, on_family

CELLS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "decisions": ("log_odds", ("prompt",)),
    "attribution": ("contribution", ("prompt", "site", "token", "part")),
    "lens": ("logit_diff", ("prompt", "token", "layer", "sublayer")),
    "norms": ("norm", ("prompt", "site")),
}
"""Tables whose results can be compared: the value, and what makes a place."""


UNITS = {"decisions": "nats", "attribution": "nats", "lens": "nats", "norms": "model units"}
"""The unit of each table's results."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Results of several agents at the same places.

    Attributes:
        table: where they stand.
        family: the prompt family.
        token: of attribution, the answer token; None elsewhere.
        units: (n,) the scenario of each place.
        values: per agent (n,).
    """

    table: str
    family: str
    token: int | None
    units: tuple[str, ...]
    values: Mapping[str, Array]

    def means(self, values: Array) -> Array:
        """(G,) means over the places of each scenario, in order of appearance."""
        order = {name: index for index, name in enumerate(dict.fromkeys(self.units))}
        index = np.array([order[name] for name in self.units])
        sums = np.bincount(index, weights=values, minlength=len(order))
        return sums / np.bincount(index, minlength=len(order))


def cells(tables: Tables, table: str, agents: Sequence[str]) -> Cells | str:
    """Results of some agents at the same places; or a sentence: why there are none.

    Raises:
        TableError: two agents were measured at different places.
    """
    value, key = CELLS[table]
    rows, token = answer_rows(tables[table]) if table == "attribution" else (tables[table], None)
    own = rows.filter(pl.col("agent").is_in(list(agents)))
    for agent in agents:
        of_agent = own.filter(pl.col("agent") == agent)
        if of_agent.is_empty():
            return f"the table {table} has no rows of {agent}."
        if nulls := of_agent.get_column(value).null_count():
            return f"{nulls} of {of_agent.height} results of {agent} are undefined."
    family = inference_family(tables["prompts"], own.get_column("prompt"))
    if family is None:
        return f"none of the {table} is on a prompt of the table of prompts."
    placed = on_family(own, tables["prompts"], family)
    # By number: an agent may be called like a column.
    numbered = {agent: str(at) for at, agent in enumerate(agents)}
    called = pl.col("agent").replace_strict(numbered, return_dtype=pl.String)
    wide = placed.select(called, "scenario", *key, value).pivot(
        on="agent", index=["scenario", *key], values=value, maintain_order=True
    )
    holes = wide.filter(pl.any_horizontal(pl.col(*numbered.values()).is_null()))
    if holes.height:
        place = holes.row(0, named=True)
        raise TableError(
            f"Agents {', '.join(repr(a) for a in agents)} were not measured at the same places",
            seen=f"{holes.height} places of some alone, such as prompt {place['prompt']!r}",
            allowed="the same prompts (and sites, or depths) for all that are compared",
            remedy="measure all alike; what is compared place by place needs every one of them",
        )
    return Cells(
        table=table,
        family=family,
        token=token,
        units=tuple(wide.get_column("scenario").to_list()),
        values={
            agent: np.asarray(wide.get_column(numbered[agent]).to_numpy(), dtype=np.float64)
            for agent in agents
        },
    )


def mean_difference(found: Cells, agents: tuple[str, str]) -> str:
    """Mean absolute difference of two agents' results, over the places of a scenario, then all."""
    value, key = CELLS[found.table]
    source = InnerSource(found.table, value, found.family, found.token)
    token = "" if found.token is None else f" AND x.part = 'whole' AND x.token = {found.token}"
    same = " AND ".join(f"x.{name} = y.{name}" for name in key)
    return (
        f"WITH evidence_rows AS (SELECT prompts.scenario AS unit, x.prompt, x.{value} AS first, "
        f"y.{value} AS second, ABS(x.{value} - y.{value}) AS value FROM {found.table} AS x "
        f"JOIN {found.table} AS y ON {same} "
        f"JOIN {source.prompts} AS prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(agents[0])} AND y.agent = {text(agents[1])}{token}), "
        "unit_means AS (SELECT unit, AVG(value) AS value FROM evidence_rows GROUP BY unit) "
        "SELECT AVG(value) AS estimate FROM unit_means"
    )
