"""Did behaviour change as it was said to? Named hypotheses about decisions, rewards, learning.

Each reuses the exploratory test of the same number: same prompts, same units, same gates, one
column. What the tables cannot carry is *not identified*, with the stage that would provide it;
what they do not know at all is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.evidence.contrasts import (
    OF_SITUATIONS,
    OF_STATES,
    Design,
    designs,
    measure,
    scored_agents,
)
from moralscope.evidence.designs import MIN_SEEDS, RewardDesign, base_of, reward_designs
from moralscope.evidence.findings.behaviour import (
    Behaviour,
    Contrast,
    behaviour,
    contrast_findings,
    contrast_units,
)
from moralscope.evidence.findings.contrasts import Case, case_finding, split, tested_cases
from moralscope.evidence.findings.learned import LEARNED, learned_findings
from moralscope.evidence.findings.rewards import rewards_alone, rewards_compared, seed_means
from moralscope.evidence.findings.wordings import disagreement
from moralscope.evidence.hypotheses.grammar import Hypothesis, statement_of
from moralscope.evidence.hypotheses.stating import (
    Basis,
    Spread,
    as_stated,
    claim_of,
    lacking,
    require_agents,
    require_known,
    spread_between,
    spread_of,
    untested,
)
from moralscope.evidence.ledger import CONFIRMED, CONTRADICTED, OPEN, Finding, Setting, Stated

_FAMILIES = ("wordings", "scenarios")
"""Where contrasts are taken unless a hypothesis says otherwise, first choice first."""


def change(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """An agent's log-odds minus its base's."""
    require_agents(setting, hypothesis)
    agent = hypothesis.agents[0]
    found = behaviour(setting)
    if found is None:
        return untested(setting, hypothesis, _no_decisions(setting, hypothesis))
    base = trained_base(setting, hypothesis, agent)
    if base is None:
        return untested(setting, hypothesis, f"no base of {agent} is in the table of agents.")
    return _compared(setting, hypothesis, found, (agent, base), base)


def difference(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """One agent's log-odds minus another's."""
    require_agents(setting, hypothesis)
    found = behaviour(setting)
    if found is None:
        return untested(setting, hypothesis, _no_decisions(setting, hypothesis))
    first, second = hypothesis.agents
    base = found.bases.get(first) or found.bases.get(second)
    return _compared(setting, hypothesis, found, (first, second), base)


def trained_base(setting: Setting, hypothesis: Hypothesis, agent: str) -> str | None:
    """The base of a trained agent.

    Raises:
        ConfigError: the agent is a base itself.
    """
    agents = setting.tables["agents"]
    kinds = agents.filter(pl.col("agent") == agent).get_column("kind").to_list()
    if "base" in kinds:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} asks how a base changed",
            seen=agent,
            allowed="a trained agent: the base is what changes are measured from",
            remedy="name another agent, or the quantity 'contrast' for what the base does",
        )
    return base_of(agents, agent)


def _no_decisions(setting: Setting, hypothesis: Hypothesis) -> str:
    return lacking(setting, hypothesis) or "none of the decisions is on a prompt of the table."


def _compared(
    setting: Setting,
    hypothesis: Hypothesis,
    found: Behaviour,
    agents: tuple[str, str],
    base: str | None,
) -> Finding:
    asked = found.rows
    labels: list[str] = setting.tables["prompts"].get_column("labels").unique().sort().to_list()
    if hypothesis.labels is not None:
        require_known(hypothesis, "label assignment", [hypothesis.labels], labels)
        asked = asked.filter(pl.col("labels") == hypothesis.labels)
    for agent in agents:
        own = asked.filter(pl.col("agent") == agent).get_column("log_odds")
        if not len(own):
            under = f" under the labels {hypothesis.labels}" if hypothesis.labels else ""
            reason = f"{agent} was not asked the prompts that claims rest on{under}."
            return untested(setting, hypothesis, reason)
        if own.null_count():
            reason = (
                f"{own.null_count()} of {len(own)} log-odds of {agent} are undefined, and a mean "
                "of the others would be another quantity."
            )
            return untested(setting, hypothesis, reason)
    contrast = Contrast(f"hypothesis:{hypothesis.id}", *agents, base, hypothesis.labels)
    made = next(iter(contrast_findings(setting, found, [contrast], "agents")))
    values = contrast_units(found, [contrast]).values[:, 0]
    apart = disagreement(found.rows, *agents, hypothesis.labels)
    basis = Basis(
        made,
        spread_of(values),
        default_margin=found.margins.get(base or ""),
        note="" if apart is None else f"The wordings disagree: {apart}.",
    )
    return as_stated(setting, hypothesis, basis)


def reward_change(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """What training with a reward does, over its training seeds."""
    ready = _designs(setting, hypothesis)
    if isinstance(ready, str):
        return untested(setting, hypothesis, ready)
    found, (design, *_) = ready
    means = {design: seed_means(found, design)}
    made = next(iter(rewards_alone(setting, found, [design], means)))
    enough = design.seeds >= MIN_SEEDS
    if hypothesis.claims_absence:
        # Two one-sided tests have no floor, so that five seeds may do where sign-flips need six.
        made = replace(made, missing=None if enough else made.missing)
    basis = Basis(made, spread_of(means[design]), default_margin=found.margins.get(design.base))
    return as_stated(setting, hypothesis, basis)


def reward_difference(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """What one reward does more than another, over training seeds."""
    ready = _designs(setting, hypothesis)
    if isinstance(ready, str):
        return untested(setting, hypothesis, ready)
    found, (first, second, *_) = ready
    if first.base != second.base:
        reason = f"the rewards were trained from two bases, {first.base} and {second.base}."
        return untested(setting, hypothesis, reason)
    means = {design: seed_means(found, design) for design in (first, second)}
    made = next(iter(rewards_compared(setting, found, [(first, second)], means)))
    spread = spread_between(means[first], means[second])
    basis = Basis(made, spread, default_margin=found.margins.get(first.base))
    return as_stated(setting, hypothesis, basis)


def _designs(
    setting: Setting, hypothesis: Hypothesis
) -> tuple[Behaviour, list[RewardDesign]] | str:
    """The replication of the rewards named; or why they cannot be tested."""
    if setting.has("agents"):
        trained = setting.tables["agents"].get_column("reward").drop_nulls().unique().sort()
        require_known(hypothesis, "reward", hypothesis.rewards, trained.to_list())
    found = behaviour(setting)
    if found is None:
        return _no_decisions(setting, hypothesis)
    named: list[RewardDesign] = []
    for reward in hypothesis.rewards:
        of_it = [d for d in reward_designs(setting.tables["agents"]) if d.reward == reward]
        if len(of_it) != 1:
            return f"{len(of_it)} bases were trained with the reward {reward}; one is needed."
        unmeasured = [a for names in of_it[0].agents for a in names if a not in found.bases]
        unmeasured += [a for names in of_it[0].agents for a in names if a in found.undefined]
        if unmeasured:
            return f"{unmeasured[0]}, trained with {reward}, has no log-odds on every prompt."
        named.append(of_it[0])
    return found, named


def contrast(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """A contrast of cooperation, of one agent or of one minus another."""
    require_agents(setting, hypothesis)
    absent = lacking(setting, hypothesis)
    if absent is not None:
        return untested(setting, hypothesis, absent)
    decisions = setting.tables["decisions"]
    scored = scored_agents(decisions)
    mute = [agent for agent in hypothesis.agents if agent not in scored]
    if mute:
        return untested(setting, hypothesis, f"{mute[0]} has no log-odds.")
    design = _design_of(setting, hypothesis)
    if isinstance(design, str):
        return untested(setting, hypothesis, design)
    kind = next(c for c in design.contrasts if c.name == hypothesis.contrast)
    measured = measure(design, decisions, hypothesis.agents)
    if measured is None:
        reason = f"not every agent was asked the family {design.family} in {design.game}."
        return untested(setting, hypothesis, reason)
    agent, *others = hypothesis.agents
    other = others[0] if others else None
    case = Case(kind, agent, other, measured)
    whole = measured.left_out == 0
    # The stream of the exploratory family, so that the raw p is the same.
    asked = "contrast" if other is None else "contrast-change"
    address = (asked, "all" if design.paired else kind.name)
    tested = tested_cases(setting, design, address, [case])[0] if whole else None
    made = case_finding(setting, design, "contrast", case, tested)
    level = kind.is_level and other is None
    return as_stated(
        setting,
        hypothesis,
        Basis(made, _spread(case, made.estimate), case.against, level=level),
    )


def _spread(case: Case, value: float | None) -> Spread | None:
    """Of a contrast about its null value; None where its units do not make one plain mean."""
    first, second = split(case)
    spread = spread_of(first, case.against) if second is None else spread_between(first, second)
    if spread is None or value is None:
        return None
    # Situations told by unequal numbers of texts weigh each text differently.
    same = abs(spread.deviation - (value - case.against)) < 1e-9
    return spread if same else None


def _design_of(setting: Setting, hypothesis: Hypothesis) -> Design | str:
    """The family and game in which a contrast is taken; or why there is none.

    Raises:
        ConfigError: there is no such contrast, family or game.
    """
    prompts = setting.tables["prompts"]
    every = [d for d in designs(prompts) if d.unit != "presentations"]
    for key in ("family", "game"):
        wanted: str | None = getattr(hypothesis, key)
        if wanted is not None:
            require_known(
                hypothesis, key, [wanted], prompts.get_column(key).unique().sort().to_list()
            )
    names = sorted({c.name for c in (*OF_STATES, *OF_SITUATIONS)})
    require_known(hypothesis, "contrast", [str(hypothesis.contrast)], names)
    fitting = [
        d
        for d in every
        if hypothesis.contrast in {c.name for c in d.contrasts}
        and hypothesis.family in (None, d.family)
        and hypothesis.game in (None, d.game)
    ]
    if not fitting:
        return (
            f"no family of the prompts has the contrast {hypothesis.contrast}; it needs texts that "
            "are asked in the four memory-one states, or the family scenarios."
        )
    return min(fitting, key=lambda d: _rank(d.family, _FAMILIES))


def _rank(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def learned(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """What an agent was shown to have learned, against what was said."""
    require_agents(setting, hypothesis)
    agent, said = hypothesis.agents[0], hypothesis.learned
    made = {f.id: f for f in learned_findings(setting)}.get(f"learned:{agent}")
    if made is None:
        reason = lacking(setting, hypothesis) or f"the control was not made for {agent}."
        return untested(setting, hypothesis, reason)
    of_agent = setting.tables["learned"].filter(pl.col("agent") == agent)
    outcome = str(of_agent.get_column("learned")[0])
    words = statement_of(hypothesis)
    stated = Stated(CONFIRMED)
    if outcome != said:
        against = f"the control says {outcome}, not {said}."
        stated = Stated(CONTRADICTED if outcome in LEARNED else OPEN, against)
    return replace(
        made,
        id=claim_of(hypothesis),
        found=f"{words.rstrip('.')}, as hypothesis {hypothesis.id} says. {made.found}",
        observed=f"Hypothesis {hypothesis.id}: {words[:1].lower()}{words[1:]} {made.observed}",
        hypothesis=stated,
    )
