"""What do all re-tests of published statements share? The tables they name, and their sentences.

A published statement is re-tested on the right unit, with what cannot carry it left out. Its answer
says in one plain sentence why it does or does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moralscope.core.errors import ConfigError, nearest
from moralscope.evidence.designs import base_of
from moralscope.evidence.hypotheses.grammar import Hypothesis, statement_of
from moralscope.evidence.hypotheses.stating import require_agents, untested
from moralscope.evidence.ledger import Consulted, Finding, Setting

WHERE_FROM = {
    "norms": "a table with agent, prompt, site and norm, measured in float32",
    "attribution": "the stages explain-AGENT, or a table with agent, prompt, site and contribution",
    "patching": "the stages patch-SOURCE>TARGET, or a table with source, target, prompt, site and "
    "effect",
    "interactions": "a table with agent, site_a, site_b, measure, value and n",
    "decisions": "the stages decide-AGENT, or a table with agent, prompt and log_odds",
    "lens": "the stages explain-AGENT (method lens)",
    "prompts": "the stage prompts, or a table with prompt and scenario",
    "agents": "the stage agents, or a table that names the agents and their base",
}
"""Where each table comes from that a published statement may rest on."""


def tables_named(hypothesis: Hypothesis, allowed: Sequence[str], count: int) -> tuple[str, ...]:
    """The tables that a statement rests on.

    Raises:
        ConfigError: it names another number of them, or one that this quantity is not read from.
    """
    named = hypothesis.tables or ()
    for name in named:
        if name not in allowed:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} rests on a table that {hypothesis.quantity} is not "
                "read from",
                seen=name,
                allowed=", ".join(allowed),
                remedy=nearest(name, allowed),
            )
    if len(set(named)) != count:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} names the wrong number of tables",
            seen=", ".join(named) or "none",
            allowed=f"{count} of {', '.join(allowed)}",
            remedy=f"write tables: [{', '.join(list(allowed)[:count])}]",
        )
    return named


def not_there(setting: Setting, hypothesis: Hypothesis, tables: Sequence[str]) -> Finding | None:
    """The answer where a table is missing; None where all are there."""
    require_agents(setting, hypothesis)
    for name in tables:
        if not setting.has(name):
            reason = f"the table {name} is not there; it comes from {WHERE_FROM[name]}."
            return untested(setting, hypothesis, reason)
    return None


def whole_number(hypothesis: Hypothesis) -> int:
    """The published figure as a count.

    Raises:
        ConfigError: it is not a whole number above zero.
    """
    figure = hypothesis.published
    if figure is None or figure < 1 or figure != int(figure):
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} has a published count that cannot be one",
            seen=figure,
            allowed="a whole number, 1 or more",
            remedy="write published: 12 for '12 components'",
        )
    return int(figure)


def share(hypothesis: Hypothesis) -> float:
    """The published figure as a share.

    Raises:
        ConfigError: it is not in (0, 1].
    """
    figure = hypothesis.published
    if figure is None or not 0.0 < figure <= 1.0:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} has a published share that cannot be one",
            seen=figure,
            allowed="above 0 and at most 1",
            remedy="write published: 0.78 for '78 %'",
        )
    return figure


def compared(setting: Setting, hypothesis: Hypothesis) -> tuple[str, str] | None:
    """The two agents of a statement; of one agent, itself and its base, None if that is unknown."""
    if len(hypothesis.agents) == 2:
        return hypothesis.agents[0], hypothesis.agents[1]
    agent = hypothesis.agents[0]
    base = base_of(setting.tables["agents"], agent) if setting.has("agents") else None
    return None if base is None or base == agent else (agent, base)


def said(hypothesis: Hypothesis, figures: str) -> tuple[str, str]:
    """The sentence that asserts the statement, and the one that only reports; ``figures`` ends."""
    words = statement_of(hypothesis)
    return (
        f"{words.rstrip('.')}, and it stands when it is tested anew: {figures}",
        f"Statement {hypothesis.id}: {words[:1].lower()}{words[1:]} Tested anew: {figures}",
    )


def blame(consulted: Consulted, *reasons: str) -> Consulted:
    """The gates, with further reasons for which a number is an artefact."""
    return replace(consulted, failed=(*consulted.failed, *(r for r in reasons if r)))


def plural(count: int, noun: str) -> str:
    """``1 site``, ``3 sites``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
