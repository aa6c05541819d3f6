"""How was a number about named sites made? SQL that recomputes it, in the form of ``findings``.

Each has the rows behind it, one mean per unit, and the mean of those:

    WITH evidence_rows AS (SELECT ... AS unit, ... AS value ...),
         unit_means AS (SELECT unit, AVG(value) AS value FROM evidence_rows GROUP BY unit)
    SELECT AVG(value) AS estimate FROM unit_means
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.queries import asked, layered, listed, text

SweepKey = tuple[str, str, str, str]
"""Source, target, positions, write."""


def sites_effect(sweep: SweepKey, sites: Sequence[str], family: str) -> str:
    """Mean over sites of the effects of patching each of them."""
    return layered(
        "SELECT asked.scenario AS unit, p.prompt AS prompt, p.site AS site, p.effect AS value "
        f"FROM patching AS p JOIN {asked('patching', family)} AS asked ON p.prompt = asked.prompt "
        f"WHERE {_sweep(sweep, 'p')} AND p.site IN ({listed(sites)})"
    )


def sites_both_ways(sweep: SweepKey, sites: Sequence[str], family: str, sign: str) -> str:
    """Mean over sites of (A - B)/2 for sign ``-``, (A + B)/2 for ``+``; B is the reverse sweep."""
    source, target, *how = sweep
    back: SweepKey = (target, source, how[0], how[1])
    return layered(
        "SELECT asked.scenario AS unit, a.prompt AS prompt, a.site AS site, "
        f"(a.effect {sign} b.effect) / 2 AS value FROM patching AS a "
        "JOIN patching AS b ON a.prompt = b.prompt AND a.site = b.site "
        f"JOIN {asked('patching', family)} AS asked ON a.prompt = asked.prompt "
        f"WHERE {_sweep(sweep, 'a')} AND {_sweep(back, 'b')} AND a.site IN ({listed(sites)})"
    )


def sites_contribution(
    agents: tuple[str, str], sites: Sequence[str], token: int, family: str
) -> str:
    """Mean over sites of the contribution in the first agent minus that in the second."""
    first, second = agents
    same = "x.prompt = y.prompt AND x.site = y.site AND x.token = y.token AND x.part = y.part"
    return layered(
        "SELECT asked.scenario AS unit, x.prompt AS prompt, x.site AS site, "
        f"x.contribution - y.contribution AS value FROM attribution AS x "
        f"JOIN attribution AS y ON {same} "
        f"JOIN {asked('attribution', family)} AS asked ON x.prompt = asked.prompt "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} "
        f"AND x.site IN ({listed(sites)}) AND x.token = {token} AND x.part = 'whole'"
    )


def _sweep(sweep: SweepKey, table: str) -> str:
    source, target, positions, write = sweep
    return (
        f"{table}.source = {text(source)} AND {table}.target = {text(target)} "
        f"AND {table}.positions = {text(positions)} AND {table}.write = {text(write)} "
        f"AND {table}.source_prompt = {table}.prompt"
    )
