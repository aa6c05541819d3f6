"""Are "selfish" components suppressed by moral fine-tuning? Claims for the first question.

With c the change of a site's contribution to the answer between an agent and its base, averaged
over the agents of a reward,

    D_g = mean of c over pushing sites - mean of c over matched sites      (``selected``)

in scenario g, looked at by sites that other scenarios chose. Suppression is D below zero: sites
that push the base towards the positive option (defecting) lose more than others of their kind and
size. Two tests must both reject, and p is the larger: signs of scenarios, because these are a
sample of situations; and signs of pairs of sites, because a few sites that changed much for other
reasons could make D alone. That they lose more than others is not enough either: if all
contributions shrink by one share, pushing sites lose and matched ones, which mostly pull the other
way, gain, each the more the larger it is. So pushing sites must lose more than the share that
matched ones lose (``selected.beyond_shrinking``), over scenarios and over pairs of sites.

``question:RQ1:REWARD`` compares with the base, ``question:RQ1:REWARD:game`` with agents that were
trained for their own payoff alone. Moral is every reward but ``game`` and ``spite``. Unit: the
scenario; the claims are about these agents. An audit of found tables, which compares nothing, makes
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.designs import RewardDesign, derived_agents, reward_designs
from moralscope.evidence.findings.attribution import completeness_error
from moralscope.evidence.findings.inner import Inner, inner_values
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.gates.sites import SITE_GATES
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    consult,
    probability,
    signed,
)
from moralscope.evidence.questions.queries import chosen_difference
from moralscope.evidence.questions.selected import (
    HALF,
    PAIRS,
    Changes,
    Chosen,
    changes,
    choose,
)
from moralscope.evidence.statistics.intervals import (
    Interval,
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, sign_flip
from moralscope.evidence.synthesis.distances import jackknife

STRATEGIC = "game"
"""The reward that is one's own payoff alone."""

NOT_MORAL = (STRATEGIC, "spite")
"""Rewards that ask for nothing moral; every other one does."""

PREFIX = "question:RQ1:"

_KINDS = ("head", "mlp", "attn")
_TEST = (
    "sign-flips of scenarios and of pairs of sites, the larger p, Holm over rewards; sites chosen "
    "on the other half of the scenarios; null: sites that push change as matched ones do"
)


@dataclass(frozen=True, eq=False)
class _Asked:
    """One question: these agents against those, at chosen sites."""

    name: str
    agents: tuple[str, ...]
    others: tuple[str, ...]
    words: tuple[str, str]
    seeds: tuple[tuple[str, ...], ...]


def selfish_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per moral reward against base, and one against agents of own payoff alone."""
    if not setting.has("comparisons", "agents", "prompts", "attribution"):
        return
    measured = set(setting.tables["attribution"].get_column("agent").to_list())
    measured -= derived_agents(setting.tables)
    designs = [_present(design, measured) for design in reward_designs(setting.tables["agents"])]
    designs = [design for design in designs if design.agents and design.base in measured]
    for base in dict.fromkeys(design.base for design in designs):
        own = [design for design in designs if design.base == base]
        several = len({design.base for design in designs}) > 1
        asked = list(_asked(own, suffix=f":{base}" if several else ""))
        if asked:
            yield from _on_base(setting, base, asked)


def _present(design: RewardDesign, measured: set[str]) -> RewardDesign:
    kept = (tuple(name for name in names if name in measured) for names in design.agents)
    return RewardDesign(design.reward, design.base, tuple(names for names in kept if names))


def _asked(designs: Sequence[RewardDesign], suffix: str) -> Iterator[_Asked]:
    games = [design for design in designs if design.reward == STRATEGIC]
    for design in designs:
        if design.reward in NOT_MORAL:
            continue
        agents = tuple(name for names in design.agents for name in names)
        who = f"{len(agents)} {design.reward} agent{'s' * (len(agents) > 1)}"
        # Ids are listed with spaces between them.
        name = f"{PREFIX}{''.join(design.reward.split())}"
        words = (who, design.base)
        yield _Asked(f"{name}{suffix}", agents, (design.base,), words, design.agents)
        for game in games:
            others = tuple(name for names in game.agents for name in names)
            words = (who, f"{len(others)} agent{'s' * (len(others) > 1)} trained for own payoff")
            yield _Asked(f"{name}:{STRATEGIC}{suffix}", agents, others, words, design.agents)


def _on_base(setting: Setting, base: str, asked: Sequence[_Asked]) -> Iterator[Finding]:
    named = dict.fromkeys([base, *(a for one in asked for a in (*one.agents, *one.others))])
    inner = inner_values(setting.tables, "attribution", list(named))
    if inner is None:
        return
    kinds = dict(setting.tables["attribution"].select("site", "kind").unique().iter_rows())
    sites = [site for site in inner.sound(list(named)) if kinds[site] in _KINDS]
    noise = completeness_error(setting, list(named))
    missing, halves = None, None
    if inner.scenarios < 2 * HALF:
        missing = (
            f"sites are chosen on half of the scenarios and looked at on the other, and "
            f"{inner.scenarios} cannot be halved; {2 * HALF} would do."
        )
    else:
        rng = setting.rng("RQ1", base)
        means = inner.means(base, sites)
        halves = choose(means, [kinds[site] for site in sites], noise, rng)
        count = len({site for half in halves for site in half.pushing})
        if count < PAIRS or any(not half.pushing for half in halves):
            missing = (
                f"{count} sites of {base} push towards {positive(setting)} beyond noise and have a "
                f"match, and {PAIRS} are needed; measure more scenarios, or heads as well as MLPs."
            )
    if missing is not None or halves is None:
        yield from (_nothing(setting, inner, one, missing or "") for one in asked)
        return
    yield from _tested(setting, inner, (sites, halves), asked, noise)


def _tested(
    setting: Setting,
    inner: Inner,
    chosen: tuple[list[str], tuple[Chosen, Chosen]],
    asked: Sequence[_Asked],
    noise: float,
) -> Iterator[Finding]:
    sites, halves = chosen
    toward = positive(setting)
    found = [changes(*_change(inner, one, sites), halves) for one in asked]
    tests: list[tuple[float, float]] = []
    for one, change in zip(asked, found, strict=True):
        both = [
            sign_flip(values, setting.rng("RQ1", one.name, what), setting.draws)
            for what, values in (("scenarios", change.difference), ("sites", change.pairs))
        ]
        tests.append((max(p for p, _ in both), max(floor for _, floor in both)))
    adjusted = holm(np.array([p for p, _ in tests]))
    for index, (one, change) in enumerate(zip(asked, found, strict=True)):
        interval = _interval(setting, one, change)
        p_adjusted = float(adjusted[index])
        figures = _figures(inner, one, change, interval, halves) + (
            f"adjusted {probability(p_adjusted)}"
        )
        mean = float(change.difference.mean())
        ours, theirs = one.words
        yield Finding(
            id=one.name,
            found=f"Sites that push {_base_of(setting, one)} towards {toward} "
            f"{'lose more' if mean < 0 else 'gain more'} in {ours} than matched sites do, compared "
            f"with {theirs}: {figures}.",
            observed=f"Sites that push {_base_of(setting, one)} towards {toward} are "
            f"compared with matched sites, {ours} against {theirs}: {figures}.",
            estimate=mean,
            interval=interval,
            unit="nats",
            n=len(change.difference),
            test=_TEST,
            query=chosen_difference(inner, sites, halves, (one.agents, one.others)),
            consulted=_consulted(setting, one),
            p=tests[index][0],
            p_adjusted=p_adjusted,
            p_floor=tests[index][1],
            level=setting.alpha / len(asked),
            noise=noise,
            detectable=smallest_detectable_effect(
                standard_error(change.difference),
                len(change.difference) - 1,
                setting.alpha / len(asked),
            ),
            tests=len(asked),
            family=f"{len(asked)} comparison{'s' * (len(asked) > 1)} of rewards",
            against=_shrinks(setting, one, change) if mean < 0 else "",
        )


def positive(setting: Setting) -> str:
    """What the positive option is: defecting in games, itself elsewhere."""
    games = set(setting.tables["prompts"].get_column("game").to_list())
    return "the positive option" if games <= {"user"} else "defecting"


def _change(inner: Inner, one: _Asked, sites: list[str]) -> tuple[Array, Array]:
    """(G, K) contributions minus those that they are compared with, and the latter."""
    ours, theirs = (
        np.mean([inner.means(agent, sites) for agent in agents], axis=0)
        for agents in (one.agents, one.others)
    )
    return ours - theirs, theirs


def _interval(setting: Setting, one: _Asked, change: Changes) -> Interval | None:
    rng = setting.rng("RQ1", one.name, "interval")
    return cluster_interval(change.difference, rng, draws=setting.draws)


def _shrinks(setting: Setting, one: _Asked, change: Changes) -> str:
    """Why losing more is no suppression: all contributions lose as large a share of themselves."""
    rng = setting.rng("RQ1", one.name, "beyond")
    over_scenarios = cluster_interval(change.beyond, rng, draws=setting.draws)
    over_pairs = jackknife(float(change.beyond.mean()), change.without)
    if all(found is not None and found[1] < 0.0 for found in (over_scenarios, over_pairs)):
        return ""
    expected = float((change.beyond - change.pushing).mean())
    return (
        f"Matched sites lose {change.shrunk:.0%} of what they contribute, from which alone pushing "
        f"ones would lose {signed(-expected)} of their {signed(float(change.pushing.mean()))} nats "
        f"({between(over_pairs)} over pairs of sites for the rest): contributions of either sign "
        "become smaller, so these sites are not singled out."
    )


def _figures(
    inner: Inner,
    one: _Asked,
    change: Changes,
    interval: Interval | None,
    halves: tuple[Chosen, Chosen],
) -> str:
    alike = ""
    if len(one.seeds) > 1:
        alike = f"{len(one.seeds)} training seeds, "
    left = sum(half.unmatched for half in halves)
    unmatched = f", {left} without a match left out" if left else ""
    return (
        f"{signed(float(change.pushing.mean()))} against {signed(float(change.matched.mean()))} "
        f"nats per site, a difference of {signed(float(change.difference.mean()))} "
        f"({between(interval)}; {len(change.pairs)} sites{unmatched}, {inner.scenarios} scenarios, "
        f"{alike}sites chosen on the other half of the scenarios), "
    )


def _base_of(setting: Setting, one: _Asked) -> str:
    agents = setting.tables["agents"]
    model = agents.filter(pl.col("agent") == one.agents[0]).get_column("base").to_list()
    bases = agents.filter((pl.col("kind") == "base") & pl.col("base").is_in(model))
    return str(bases.get_column("agent").to_list()[0])


def _consulted(setting: Setting, one: _Asked) -> Consulted:
    named = list(dict.fromkeys([*one.agents, *one.others, _base_of(setting, one)]))
    return consult(
        setting,
        named,
        gates=[*(("completeness", agent) for agent in named), ("duplicates", "scenarios")],
        shown=[(gate, f"attribution {agent}") for agent in named for gate in SITE_GATES],
    )


def _nothing(setting: Setting, inner: Inner, one: _Asked, missing: str) -> Finding:
    words = (
        f"Whether sites that push {_base_of(setting, one)} towards {positive(setting)} lose more "
        f"than others in {one.words[0]}, compared with {one.words[1]}, was not tested."
    )
    return Finding(
        id=one.name,
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="nats",
        n=inner.scenarios,
        test="none",
        query=NOTHING,
        consulted=_consulted(setting, one),
        missing=missing,
    )
