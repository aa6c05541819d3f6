"""How were these numbers made? SQL over what agents computed inside, prompt by prompt.

Each query has the parts ``evidence_rows`` (with ``unit`` and ``value``) and ``unit_means`` and ends
in one row with the column ``estimate``, and runs as it stands in
``polars.SQLContext(tables).execute(query)``.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moralscope.evidence.findings.queries import text
from moralscope.evidence.statistics.correlations import MAX_CORRELATION


@dataclass(frozen=True, slots=True)
class InnerSource:
    """Where inner values stand.

    Attributes:
        table: ``norms`` or ``attribution``.
        value: the column of the number.
        family: the prompt family.
        token: of attribution, the answer token; None elsewhere.
    """

    table: str
    value: str
    family: str
    token: int | None

    @property
    def prompts(self) -> str:
        """The prompts of the family with their scenario, copies of a text once."""
        return (
            f"(SELECT scenario, MIN(prompt) AS prompt FROM prompts WHERE family = "
            f"{text(self.family)} AND prompt IN (SELECT prompt FROM {self.table}) "
            "GROUP BY scenario, sha256, positive, negative)"
        )

    def rows(self, agents: Sequence[str], sites: Sequence[str]) -> str:
        """``unit, agent, prompt, site, value``: one row per agent, prompt and site."""
        table = self.table
        token = (
            "" if self.token is None else f" AND {table}.part = 'whole' AND token = {self.token}"
        )
        return (
            f"SELECT prompts.scenario AS unit, {table}.agent, {table}.prompt, {table}.site, "
            f"{table}.{self.value} AS value FROM {table} "
            f"JOIN {self.prompts} AS prompts ON {table}.prompt = prompts.prompt "
            f"WHERE {table}.agent IN ({_listed(agents)}) AND "
            f"{table}.site IN ({_listed(sites)}){token}"
        )


def _listed(names: Sequence[str]) -> str:
    # A list must not be empty; no site and no agent has an empty name.
    return ", ".join(text(name) for name in names) or "''"


_UNIT_MEANS = "unit_means AS (SELECT unit, AVG(value) AS value FROM evidence_rows GROUP BY unit)"
_CORRELATIONS = (
    "correlations AS (SELECT x.agent, x.site AS site_a, y.site AS site_b, "
    "CORR(x.value, y.value) AS r FROM evidence_rows AS x JOIN evidence_rows AS y "
    "ON x.agent = y.agent AND x.prompt = y.prompt WHERE x.site < y.site "
    "GROUP BY x.agent, x.site, y.site)"
)
_CHANGE = "(LN((1 + a.r) / (1 - a.r)) - LN((1 + b.r) / (1 - b.r))) / 2"
_BOTH = (
    "FROM correlations AS a JOIN correlations AS b "
    "ON a.site_a = b.site_a AND a.site_b = b.site_b WHERE a.agent = {first} AND b.agent = {second} "
    "AND ABS(a.r) <= {most} AND ABS(b.r) <= {most}"
)


def correlation_difference(
    source: InnerSource, agents: tuple[str, str], sites: tuple[str, str]
) -> str:
    """Correlation of two sites over prompts in the first agent minus that in the second."""
    return (
        f"WITH evidence_rows AS ({source.rows(agents, sites)}), {_UNIT_MEANS}, {_CORRELATIONS} "
        f"SELECT a.r - b.r AS estimate {_both(agents)}"
    )


def printed_difference(agents: tuple[str, str], sites: tuple[str, str], measure: str) -> str:
    """Correlation of two sites in the first agent minus that in the second, as a table has them."""
    one, other = (text(site) for site in sites)
    return (
        "WITH evidence_rows AS (SELECT agent AS unit, site_a, site_b, n, value FROM interactions "
        f"WHERE measure = {text(measure)} AND agent IN ({_listed(agents)}) "
        f"AND ((site_a = {one} AND site_b = {other}) OR (site_a = {other} AND site_b = {one}))), "
        f"{_UNIT_MEANS} SELECT a.value - b.value AS estimate "
        "FROM unit_means AS a CROSS JOIN unit_means AS b "
        f"WHERE a.unit = {text(agents[0])} AND b.unit = {text(agents[1])}"
    )


def changed_pairs(
    source: InnerSource, agents: tuple[str, str], sites: Sequence[str], threshold: float
) -> str:
    """Pairs of sites whose Fisher z differs between two agents by more than a threshold."""
    return (
        f"WITH evidence_rows AS ({source.rows(agents, sites)}), {_UNIT_MEANS}, {_CORRELATIONS} "
        f"SELECT CAST(COALESCE(SUM(CASE WHEN ABS({_CHANGE}) > {threshold!r} THEN 1 ELSE 0 END), 0) "
        f"AS DOUBLE) AS estimate {_both(agents)}"
    )


def changed_at(
    source: InnerSource,
    agents: tuple[str, str],
    sites: Sequence[str],
    site: str,
    threshold: float,
) -> str:
    """How many changed pairs one site is part of."""
    here = f"(a.site_a = {text(site)} OR a.site_b = {text(site)})"
    return f"{changed_pairs(source, agents, sites, threshold)} AND {here}"


def _both(agents: tuple[str, str]) -> str:
    return _BOTH.format(first=text(agents[0]), second=text(agents[1]), most=MAX_CORRELATION)


def difference_rows(source: InnerSource, agents: tuple[str, str]) -> str:
    """``unit, prompt, site, value``: the first agent's value minus the second's."""
    table, value = source.table, source.value
    same = "x.prompt = y.prompt AND x.site = y.site"
    kept = "x.site <> 'bias'"
    if source.token is not None:
        same += " AND x.token = y.token AND x.part = y.part"
        kept += f" AND x.part = 'whole' AND x.token = {source.token}"
    return (
        f"SELECT prompts.scenario AS unit, x.prompt, x.site, x.{value} - y.{value} AS value "
        f"FROM {table} AS x JOIN {table} AS y ON {same} "
        f"JOIN {source.prompts} AS prompts ON x.prompt = prompts.prompt "
        f"WHERE {kept} AND x.agent = {text(agents[0])} AND y.agent = {text(agents[1])}"
    )


def effect_rows(sweep: tuple[str, str, str, str], family: str) -> str:
    """``unit, prompt, site, value``: effects of single sites; ``sweep`` as in ``queries``."""
    source, target, positions, write = (text(part) for part in sweep)
    prompts = InnerSource("patching", "effect", family, None).prompts
    return (
        "SELECT prompts.scenario AS unit, patching.prompt, patching.site, patching.effect AS value "
        f"FROM patching JOIN {prompts} AS prompts ON patching.prompt = prompts.prompt "
        f"WHERE patching.source = {source} AND patching.target = {target} "
        f"AND patching.positions = {positions} AND patching.write = {write} "
        "AND patching.source_prompt = patching.prompt AND patching.site <> 'all'"
    )


def standing_sites(evidence: str, sites: Sequence[str], critical: float, noise: float) -> str:
    """How many sites have a mean over units above the noise and a |t| above the critical one."""
    return (
        f"WITH evidence_rows AS ({evidence}), "
        "unit_means AS (SELECT unit, site, AVG(value) AS value "
        f"FROM evidence_rows WHERE site IN ({_listed(sites)}) GROUP BY unit, site), "
        "of_sites AS (SELECT site, AVG(value) AS mean, STDDEV(value) / SQRT(COUNT(value)) AS error "
        "FROM unit_means GROUP BY site) SELECT CAST(COALESCE(SUM(CASE WHEN "
        f"ABS(mean) > {critical!r} * error AND ABS(mean) > {noise!r} THEN 1 ELSE 0 END), 0) "
        "AS DOUBLE) AS estimate FROM of_sites"
    )


def profiles_correlation(first: str, second: str, sites: Sequence[str]) -> str:
    """Correlation over sites of the means over units of two analyses."""
    return (
        f"WITH evidence_rows AS (SELECT 'first' AS analysis, * FROM ({first}) AS a UNION ALL "
        f"SELECT 'second' AS analysis, * FROM ({second}) AS b), "
        "unit_means AS (SELECT analysis, unit, site, AVG(value) AS value FROM evidence_rows "
        f"WHERE site IN ({_listed(sites)}) GROUP BY analysis, unit, site), "
        "of_sites AS (SELECT analysis, site, AVG(value) AS mean FROM unit_means "
        "GROUP BY analysis, site) SELECT CORR(x.mean, y.mean) AS estimate FROM of_sites AS x "
        "JOIN of_sites AS y ON x.site = y.site "
        "WHERE x.analysis = 'first' AND y.analysis = 'second'"
    )


def opposite_share(first: str, second: str, sites: Sequence[str]) -> str:
    """Share of sites whose means over units have opposite signs in two directions."""
    both = profiles_correlation(first, second, sites)
    return both.replace(
        "SELECT CORR(x.mean, y.mean) AS estimate",
        "SELECT AVG(CASE WHEN x.mean * y.mean < 0 THEN 1.0 ELSE 0.0 END) AS estimate",
    )
