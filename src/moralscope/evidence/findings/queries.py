"""How was this number made? SQL that recomputes a claim's estimate from the tables.

The queries run as they stand in ``polars.SQLContext(tables).execute(query)`` and in any SQL engine
that reads the Parquet files under their table names. Each returns one row with the column
``estimate``: the mean over scenarios of the mean over a scenario's prompts.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def _mean_over(unit: str, inner: str) -> str:
    return f"SELECT AVG(m) AS estimate FROM ({inner} GROUP BY {unit})"


def log_odds_difference(first: str, second: str, family: str, labels: str | None = None) -> str:
    """Log-odds of one agent minus another's, under one label assignment or all."""
    inner = (
        "SELECT prompts.scenario, AVG(x.log_odds - y.log_odds) AS m FROM decisions AS x "
        "JOIN decisions AS y ON x.prompt = y.prompt JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} "
        f"AND prompts.family = {text(family)}"
    )
    if labels is not None:
        inner += f" AND prompts.labels = {text(labels)}"
    return _mean_over("prompts.scenario", inner)


def weakest_assignment(
    first: str, second: str, family: str, labels: Sequence[str], direction: int
) -> str:
    """The change under the label assignment where it is smallest, along ``direction`` (+1, -1)."""
    chosen = ", ".join(text(name) for name in labels)
    return (
        f"SELECT MIN({direction} * change) AS estimate FROM (SELECT labels, AVG(m) AS change FROM ("
        "SELECT prompts.labels, prompts.scenario, AVG(x.log_odds - y.log_odds) AS m "
        "FROM decisions AS x JOIN decisions AS y ON x.prompt = y.prompt "
        "JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} "
        f"AND prompts.family = {text(family)} AND prompts.labels IN ({chosen}) "
        "GROUP BY prompts.labels, prompts.scenario) GROUP BY labels)"
    )


def reward_change(reward: str, base: str, agents: Sequence[str], family: str) -> str:
    """Change from base, averaged over scenarios, then over the training seeds of a reward."""
    return (
        f"SELECT AVG(s) AS estimate FROM ({_seed_means(reward, base, agents, family)})"
    )  # fmt: skip


def reward_difference(
    first: tuple[str, Sequence[str]], second: tuple[str, Sequence[str]], base: str, family: str
) -> str:
    """Mean over the seeds of one reward minus that of another; each is (reward, agents)."""
    one, two = (_seed_means(reward, base, agents, family) for reward, agents in (first, second))
    return (
        f"WITH one AS (SELECT AVG(s) AS v FROM ({one})), two AS (SELECT AVG(s) AS v FROM ({two})) "
        "SELECT one.v - two.v AS estimate FROM one CROSS JOIN two"
    )


def _seed_means(reward: str, base: str, agents: Sequence[str], family: str) -> str:
    named = ", ".join(text(name) for name in agents)
    return (
        "SELECT training_seed, AVG(m) AS s FROM ("
        "SELECT agents.training_seed, x.agent, prompts.scenario, AVG(x.log_odds - y.log_odds) AS m "
        "FROM decisions AS x JOIN decisions AS y ON x.prompt = y.prompt "
        "JOIN prompts ON x.prompt = prompts.prompt JOIN agents ON x.agent = agents.agent "
        f"WHERE agents.reward = {text(reward)} AND x.agent IN ({named}) "
        f"AND y.agent = {text(base)} AND prompts.family = {text(family)} "
        "GROUP BY agents.training_seed, x.agent, prompts.scenario) GROUP BY training_seed"
    )


def contribution_difference(first: str, second: str, site: str, token: int, family: str) -> str:
    """Contribution of a site in one agent minus that in another."""
    same = "x.prompt = y.prompt AND x.site = y.site AND x.token = y.token AND x.part = y.part"
    return _mean_over(
        "prompts.scenario",
        "SELECT prompts.scenario, AVG(x.contribution - y.contribution) AS m FROM attribution AS x "
        f"JOIN attribution AS y ON {same} JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} AND x.site = {text(site)} "
        f"AND x.token = {token} AND x.part = 'whole' AND prompts.family = {text(family)}",
    )


def _sweep(source: str, target: str, positions: str, write: str, table: str = "patching") -> str:
    return (
        f"{table}.source = {text(source)} AND {table}.target = {text(target)} "
        f"AND {table}.positions = {text(positions)} AND {table}.write = {text(write)} "
        f"AND {table}.source_prompt = {table}.prompt"
    )


def patch_effect(sweep: tuple[str, str, str, str], site: str, family: str) -> str:
    """Effect of patching one site; ``sweep`` is (source, target, positions, write)."""
    return _mean_over(
        "prompts.scenario",
        "SELECT prompts.scenario, AVG(patching.effect) AS m FROM patching "
        f"JOIN prompts ON patching.prompt = prompts.prompt WHERE {_sweep(*sweep)} "
        f"AND patching.site = {text(site)} AND prompts.family = {text(family)}",
    )


def both_ways(sweep: tuple[str, str, str, str], site: str, family: str, sign: str) -> str:
    """(A - B)/2 for sign ``-``, (A + B)/2 for ``+``; A is the sweep, B the reverse one."""
    source, target, positions, write = sweep
    return _mean_over(
        "prompts.scenario",
        f"SELECT prompts.scenario, AVG((a.effect {sign} b.effect) / 2) AS m FROM patching AS a "
        "JOIN patching AS b ON a.prompt = b.prompt AND a.site = b.site "
        "JOIN prompts ON a.prompt = prompts.prompt "
        f"WHERE {_sweep(source, target, positions, write, 'a')} "
        f"AND {_sweep(target, source, positions, write, 'b')} "
        f"AND a.site = {text(site)} AND prompts.family = {text(family)}",
    )


def flipped_share(sweep: tuple[str, str, str, str], family: str, floor: float) -> str:
    """Share of scenarios in which some single site flips some prompt, beyond the noise floor."""
    return _mean_over(
        "prompts.scenario",
        "SELECT prompts.scenario, MAX(CASE WHEN patching.flipped AND ABS(patching.effect) > "
        f"{floor!r} THEN 1.0 ELSE 0.0 END) AS m FROM patching "
        f"JOIN prompts ON patching.prompt = prompts.prompt WHERE {_sweep(*sweep)} "
        f"AND patching.site <> 'all' AND prompts.family = {text(family)}",
    )


def trained_change(agent: str) -> str:
    """Change from base in the conditions that an agent was trained in."""
    return (
        "SELECT AVG(change_log_odds) AS estimate FROM transfer "
        f"WHERE agent = {text(agent)} AND control = 'trained'"
    )


def trained_sizes(agent: str) -> str:
    """Size of the change from base in the states that are clear in an agent's reference."""
    return (
        "SELECT AVG(ABS(change_log_odds)) AS estimate FROM transfer_states "
        f"WHERE agent = {text(agent)} AND reference AND keeps_sign"
    )


def lean(family: str, agent: str, game: str, labels: tuple[str, str], texts: Sequence[str]) -> str:
    """Log-odds of defecting, over crossed texts: a difference within each text.

    ``label``: under the first assignment minus the second; ``order``: with the label of defecting
    named first minus named last.
    """
    first, second = (text(name) for name in labels)
    cooperate, defect = labels[0].split("/")
    # Order 0 names the label first that is first by the alphabet.
    last = int(cooperate < defect)
    more = f"prompts.labels = {first}"
    if family == "order":
        more = (
            f"(prompts.labels = {first} AND prompts.option_order = {last}) OR "
            f"(prompts.labels = {second} AND prompts.option_order = {1 - last})"
        )
    return _mean_over(
        "prompts.template",
        f"SELECT prompts.template, AVG(CASE WHEN {more} THEN "
        "2.0 * decisions.log_odds ELSE -2.0 * decisions.log_odds END) AS m FROM decisions "
        f"JOIN prompts ON decisions.prompt = prompts.prompt WHERE decisions.agent = {text(agent)} "
        f"AND prompts.labels IN ({first}, {second}) "
        f"AND prompts.template IN ({', '.join(text(name) for name in texts)}) "
        f"AND prompts.game = {text(game)} AND prompts.family IN ('structured', 'wordings') "
        "AND prompts.table_order IN ('original', 'none') "
        "AND prompts.option_order = prompts.answer_order",
    )


def change_over_texts(first: str, second: str, families: Sequence[str]) -> str:
    """Log-odds of one agent minus another's, mean over the texts of some families."""
    return _mean_over(
        "prompts.template",
        "SELECT prompts.template, AVG(x.log_odds - y.log_odds) AS m FROM decisions AS x "
        "JOIN decisions AS y ON x.prompt = y.prompt JOIN prompts ON x.prompt = prompts.prompt "
        f"WHERE x.agent = {text(first)} AND y.agent = {text(second)} "
        f"AND prompts.family IN ({', '.join(text(name) for name in families)})",
    )


def undefined_log_odds(agent: str) -> str:
    """Log-odds of an agent that are undefined, which leave nothing to estimate."""
    return (
        "SELECT CAST(NULL AS DOUBLE) AS estimate, COUNT(*) AS undefined FROM decisions "
        f"WHERE agent = {text(agent)} AND log_odds IS NULL"
    )
