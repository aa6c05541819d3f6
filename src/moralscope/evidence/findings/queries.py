"""How was this number made? SQL that recomputes a claim's estimate from the tables.

The queries run as they stand in ``polars.SQLContext(tables).execute(query)`` and in any SQL engine
that reads the Parquet files under their table names. Each has two named parts and ends in one row
with the column ``estimate``:

    evidence_rows   unit, ..., value   the rows of the tables that the claim rests on
    unit_means      unit, ..., value   one number per unit of replication

so that a reader can walk from the estimate to its units and from there to the rows
(``evidence.explaining``). Of most claims the estimate is the mean of ``unit_means.value``. Copies
of a prompt (same scenario, text and options) count once, as they do in the test.
"""

# The queries are text for a reader to run on local files; every value goes through text().
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

MEANS = "SELECT unit, AVG(value) AS value FROM evidence_rows GROUP BY unit"
_ORDER = "COALESCE(' ' || table_order, '')"
ESTIMATE = "SELECT AVG(value) AS estimate FROM unit_means"
COUNTED_ONCE = (
    "prompts.prompt IN (SELECT MIN(prompt) FROM prompts "
    "GROUP BY scenario, family, sha256, positive, negative)"
)
"""Condition that leaves copies of a prompt out, as ``units.collapsed_prompts`` does."""


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("'", "''") + "'"


def listed(values: Sequence[str]) -> str:
    """String literals joined by commas."""
    return ", ".join(text(value) for value in values)


def layered(rows: str, means: str = MEANS, last: str = ESTIMATE) -> str:
    """A query with its two parts: rows of evidence, one value per unit, the estimate."""
    return f"WITH evidence_rows AS ({rows}), unit_means AS ({means}) {last}"


NOTHING = layered("SELECT 'nothing' AS unit, CAST(NULL AS DOUBLE) AS value")
"""What is recomputed where there is nothing to estimate: null."""


def asked(table: str, family: str) -> str:
    """The prompts of a family that a table has rows on, copies of a text once."""
    return (
        "(SELECT MIN(prompt) AS prompt, scenario, MIN(labels) AS labels FROM prompts "
        f"WHERE family = {text(family)} AND prompt IN (SELECT prompt FROM {table}) "
        "GROUP BY scenario, sha256, positive, negative)"
    )


def _decided(first: str, second: str, unit: str, extra: str = "") -> str:
    """Log-odds of two agents on the same prompts; a FROM clause and more must follow."""
    return (
        f"SELECT {unit} AS unit, {extra}x.prompt AS prompt, x.log_odds AS log_odds, "
        "y.log_odds AS subtracted, x.log_odds - y.log_odds AS value "
        f"FROM (SELECT prompt, log_odds FROM decisions WHERE agent = {text(first)}) AS x "
        f"JOIN (SELECT prompt, log_odds FROM decisions WHERE agent = {text(second)}) AS y "
        "ON x.prompt = y.prompt {joined}"
    )


def log_odds_difference(first: str, second: str, family: str, labels: str | None = None) -> str:
    """Log-odds of one agent minus another's, under one label assignment or all."""
    of = f"JOIN {asked('decisions', family)} AS asked ON x.prompt = asked.prompt"
    rows = _decided(first, second, "asked.scenario").format(joined=of)
    return layered(rows if labels is None else f"{rows} WHERE asked.labels = {text(labels)}")


def weakest_assignment(
    first: str, second: str, family: str, labels: Sequence[str], direction: int
) -> str:
    """The change under the label assignment where it is smallest, along ``direction`` (+1, -1)."""
    of = f"JOIN {asked('decisions', family)} AS asked ON x.prompt = asked.prompt"
    rows = _decided(first, second, "asked.scenario", "asked.labels AS labels, ").format(joined=of)
    return layered(
        f"{rows} WHERE asked.labels IN ({listed(labels)})",
        "SELECT unit, labels, AVG(value) AS value FROM evidence_rows GROUP BY unit, labels",
        f"SELECT MIN({direction} * change) AS estimate FROM "
        "(SELECT labels, AVG(value) AS change FROM unit_means GROUP BY labels)",
    )


_SEED_MEANS = (
    "SELECT unit, reward, AVG(value) AS value FROM (SELECT unit, reward, agent, scenario, "
    "AVG(value) AS value FROM evidence_rows GROUP BY unit, reward, agent, scenario) "
    "GROUP BY unit, reward"
)


def reward_change(reward: str, base: str, agents: Sequence[str], family: str) -> str:
    """Change from base, averaged over scenarios, then over the training seeds of a reward."""
    return layered(_of_seeds(base, agents, family, (reward,)), _SEED_MEANS)


def reward_difference(
    first: tuple[str, Sequence[str]], second: tuple[str, Sequence[str]], base: str, family: str
) -> str:
    """Mean over the seeds of one reward minus that of another; each is (reward, agents)."""
    agents = [*first[1], *second[1]]
    one, two = (f"AVG(CASE WHEN reward = {text(r)} THEN value END)" for r, _ in (first, second))
    return layered(
        _of_seeds(base, agents, family, (first[0], second[0])),
        _SEED_MEANS,
        f"SELECT {one} - {two} AS estimate FROM unit_means",
    )


def _of_seeds(base: str, agents: Sequence[str], family: str, rewards: Sequence[str]) -> str:
    """Changes of agents from base; agents whose seed is unknown are one seed together."""
    seed = "agents.reward || ' ' || COALESCE(CAST(agents.training_seed AS VARCHAR), 'unknown')"
    return (
        f"SELECT {seed} AS unit, agents.reward AS reward, x.agent AS agent, "
        "asked.scenario AS scenario, x.prompt AS prompt, x.log_odds AS log_odds, "
        "y.log_odds AS subtracted, x.log_odds - y.log_odds AS value "
        "FROM (SELECT agent, prompt, log_odds FROM decisions "
        f"WHERE agent IN ({listed(agents)})) AS x "
        f"JOIN (SELECT prompt, log_odds FROM decisions WHERE agent = {text(base)}) AS y "
        "ON x.prompt = y.prompt "
        f"JOIN {asked('decisions', family)} AS asked ON x.prompt = asked.prompt "
        f"JOIN agents ON x.agent = agents.agent WHERE agents.reward IN ({listed(rewards)})"
    )


def contribution_difference(first: str, second: str, site: str, token: int, family: str) -> str:
    """Contribution of a site in one agent minus that in another."""
    one, two = (
        f"(SELECT prompt, site, contribution FROM attribution WHERE agent = {text(agent)} "
        f"AND site = {text(site)} AND token = {token} AND part = 'whole')"
        for agent in (first, second)
    )
    return layered(
        "SELECT asked.scenario AS unit, x.prompt AS prompt, x.site AS site, "
        "x.contribution AS contribution, y.contribution AS subtracted, "
        f"x.contribution - y.contribution AS value FROM {one} AS x "
        f"JOIN {two} AS y ON x.prompt = y.prompt "
        f"JOIN {asked('attribution', family)} AS asked ON x.prompt = asked.prompt"
    )


def sweep_of(
    source: str, target: str, positions: str, write: str, table: str = "patching"
) -> str:  # fmt: skip
    """The condition that picks a sweep from the table ``patching``, or from an alias of it."""
    return (
        f"{table}.source = {text(source)} AND {table}.target = {text(target)} "
        f"AND {table}.positions = {text(positions)} AND {table}.write = {text(write)} "
        f"AND {table}.source_prompt = {table}.prompt"
    )


def patch_effect(sweep: tuple[str, str, str, str], site: str, family: str) -> str:
    """Effect of patching one site; ``sweep`` is (source, target, positions, write)."""
    return layered(
        "SELECT asked.scenario AS unit, patching.prompt AS prompt, patching.site AS site, "
        "patching.baseline_log_odds AS baseline_log_odds, "
        "patching.patched_log_odds AS patched_log_odds, patching.effect AS value FROM patching "
        f"JOIN {asked('patching', family)} AS asked ON patching.prompt = asked.prompt "
        f"WHERE {sweep_of(*sweep)} AND patching.site = {text(site)}"
    )


def both_ways(sweep: tuple[str, str, str, str], site: str, family: str, sign: str) -> str:
    """(A - B)/2 for sign ``-``, (A + B)/2 for ``+``; A is the sweep, B the reverse one."""
    source, target, positions, write = sweep
    one, two = (
        f"(SELECT prompt, site, effect FROM patching WHERE {sweep_of(*pair, positions, write)} "
        f"AND site = {text(site)})"
        for pair in ((source, target), (target, source))
    )
    return layered(
        "SELECT asked.scenario AS unit, a.prompt AS prompt, a.site AS site, a.effect AS effect, "
        f"b.effect AS reverse_effect, (a.effect {sign} b.effect) / 2 AS value FROM {one} AS a "
        f"JOIN {two} AS b ON a.prompt = b.prompt "
        f"JOIN {asked('patching', family)} AS asked ON a.prompt = asked.prompt"
    )


def flipped_share(sweep: tuple[str, str, str, str], family: str, floor: float) -> str:
    """Share of scenarios in which some single site flips some prompt, beyond the noise floor."""
    return layered(
        "SELECT asked.scenario AS unit, patching.prompt AS prompt, patching.site AS site, "
        "patching.effect AS effect, CASE WHEN patching.flipped AND ABS(patching.effect) > "
        f"{floor!r} THEN 1.0 ELSE 0.0 END AS value FROM patching "
        f"JOIN {asked('patching', family)} AS asked ON patching.prompt = asked.prompt "
        f"WHERE {sweep_of(*sweep)} AND patching.site <> 'all'",
        "SELECT unit, MAX(value) AS value FROM evidence_rows GROUP BY unit",
    )


def trained_change(agent: str) -> str:
    """Change from base in the conditions that an agent was trained in, which are the units here."""
    return layered(
        f"SELECT template || ' ' || labels || {_ORDER} AS unit, low, high, "
        "change_log_odds AS value FROM transfer "
        f"WHERE agent = {text(agent)} AND control = 'trained'"
    )


def trained_sizes(agent: str) -> str:
    """Size of the change from base in the states that are clear in an agent's reference."""
    return layered(
        f"SELECT scenario || ' ' || template || ' ' || labels || {_ORDER} AS unit, "
        "change_log_odds, ABS(change_log_odds) AS value FROM transfer_states "
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
    return layered(
        "SELECT prompts.template AS unit, decisions.prompt AS prompt, prompts.labels AS labels, "
        f"decisions.log_odds AS log_odds, CASE WHEN {more} THEN "
        "2.0 * decisions.log_odds ELSE -2.0 * decisions.log_odds END AS value FROM decisions "
        f"JOIN prompts ON decisions.prompt = prompts.prompt WHERE decisions.agent = {text(agent)} "
        f"AND prompts.labels IN ({first}, {second}) AND prompts.template IN ({listed(texts)}) "
        f"AND prompts.game = {text(game)} AND prompts.family IN ('structured', 'wordings') "
        "AND prompts.table_order IN ('original', 'none') "
        "AND prompts.option_order = prompts.answer_order"
    )


def change_over_texts(first: str, second: str, families: Sequence[str]) -> str:
    """Log-odds of one agent minus another's, mean over the texts of some families."""
    of = "JOIN prompts ON x.prompt = prompts.prompt"
    rows = _decided(first, second, "prompts.template").format(joined=of)
    return layered(f"{rows} WHERE prompts.family IN ({listed(families)}) AND {COUNTED_ONCE}")


def undefined_log_odds(agent: str) -> str:
    """Log-odds of an agent that are undefined, which leave nothing to estimate."""
    return layered(
        "SELECT scenario AS unit, prompt, log_odds AS value FROM decisions "
        f"WHERE agent = {text(agent)} AND log_odds IS NULL"
    )


def failed_gates(subjects: Sequence[str]) -> str:
    """What gates measured that left nothing to estimate; the estimate is null."""
    return layered(
        "SELECT subject AS unit, gate, threshold, measured AS value FROM gates "
        f"WHERE subject IN ({listed(subjects)}) AND passed = FALSE",
        last="SELECT AVG(NULLIF(value, value)) AS estimate FROM unit_means",
    )
