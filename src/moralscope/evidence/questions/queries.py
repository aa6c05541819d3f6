"""How was that number made? SQL over contributions at sites that other scenarios chose."""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from moralscope.evidence.findings.inner import Inner
from moralscope.evidence.findings.queries import layered, listed
from moralscope.evidence.questions.selected import Chosen


def chosen_difference(
    inner: Inner,
    sites: Sequence[str],
    halves: Sequence[Chosen],
    agents: tuple[Sequence[str], Sequence[str]],
) -> str:
    """Change of pushing sites minus that of matched ones, first agents against the second.

    Each scenario has as many pushing as matched sites, so their difference of means is the mean
    over both of twice the contribution, counted negative at matched sites.
    """
    ours, theirs = agents
    names = list(dict.fromkeys(inner.clusters))
    pushing, matched = (
        " OR ".join(
            f"(own.unit IN ({listed([names[g] for g in half.looked])}) AND own.site IN "
            f"({listed([sites[k] for k in (half.pushing if which else half.matched)])}))"
            for half in halves
        )
        for which in (True, False)
    )
    rows = (
        "SELECT own.unit AS unit, own.agent AS agent, own.prompt AS prompt, own.site AS site, "
        f"own.value AS contribution, CASE WHEN {pushing} THEN 2.0 * own.value "
        "ELSE -2.0 * own.value END AS value "
        f"FROM ({inner.source.rows([*ours, *theirs], sites)}) AS own "
        f"WHERE {pushing} OR {matched}"
    )
    means = (
        f"SELECT unit, AVG(CASE WHEN agent IN ({listed(ours)}) THEN value END) - "
        f"AVG(CASE WHEN agent IN ({listed(theirs)}) THEN value END) AS value "
        "FROM evidence_rows GROUP BY unit"
    )
    return layered(rows, means)
