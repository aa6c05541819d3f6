"""Did behaviour change? Log-odds of trained agents against base and against each other.

Unit: the scenario. ``d_g`` is the mean over a scenario's prompts of the difference in log-odds;
all agents (or pairs) form one family, tested by sign-flips of scenarios with max-T. The change is
tested under each label assignment as well: an agent that learned a word instead of a move reverses
when the words are swapped. Keeping the sign under both assignments needs both tests to reject
(intersection-union), so its p is the larger of the two.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from moralscope.evidence.controls.gates import change_controls
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.findings import queries
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.findings.wordings import disagreement
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    between,
    consult,
    noise_floor,
    probability,
    signed,
)
from moralscope.evidence.pairs import tested_pairs
from moralscope.evidence.statistics.equivalence import corrected_tost, default_margin
from moralscope.evidence.statistics.intervals import (
    Interval,
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.resampling import Array, max_t
from moralscope.evidence.units import Units, inference_family, matrix, on_family, paired

_UNDER_LABELS = "agents under label assignments"
SIGN_FLIPS = "sign-flips of scenarios, max-T over {family}; null: symmetric about zero"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Log-odds on one prompt family, ready for comparison.

    Attributes:
        rows: decisions with ``scenario``, ``labels`` and ``template``.
        family: the prompt family.
        toward: what the positive option is, after "inclined".
        trained: trained agents with defined log-odds.
        bases: those of them that have a base agent with defined log-odds, to that base.
        undefined: trained agents to the number of their log-odds that are undefined, where some
            are and some are not.
        margins: base agent to the equivalence margin in nats; 0 where the base's log-odds are nil.
    """

    rows: pl.DataFrame
    family: str
    toward: str
    trained: tuple[str, ...]
    bases: dict[str, str]
    undefined: dict[str, int]
    margins: dict[str, float]


@dataclass(frozen=True, slots=True)
class Contrast:
    """One column of a family of contrasts: who is compared, and whose margin applies."""

    id: str
    first: str
    second: str
    base: str | None
    labels: str | None = None


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """What the test of a family says of one of its members."""

    family: str
    tests: int
    p: float
    p_adjusted: float
    floor: float


def behaviour(setting: Setting) -> Behaviour | None:
    """The decisions that claims are made from; None where tables or prompts are missing."""
    if not setting.has("agents", "prompts", "decisions"):
        return None
    agents, prompts = setting.tables["agents"], setting.tables["prompts"]
    decisions = setting.tables["decisions"]
    family = inference_family(prompts, decisions.get_column("prompt"))
    if family is None:
        return None
    named_texts = prompts.select("prompt", "template")
    rows = on_family(decisions, prompts, family).join(
        named_texts, on="prompt", how="left", maintain_order="left"
    )
    open_ones = Counter(rows.filter(pl.col("log_odds").is_null()).get_column("agent").to_list())
    asked = Counter(rows.get_column("agent").to_list())
    scored = set(asked) - set(open_ones)
    trained = tuple(name for name in trained_agents(agents) if name in scored)
    # Agents without any log-odds are scripted, whatever they are called.
    undefined = {
        name: open_ones[name]
        for name in trained_agents(agents)
        if 0 < open_ones[name] < asked[name]
    }
    named = {name: base_of(agents, name) for name in trained}
    bases = {name: base for name, base in named.items() if base is not None and base in scored}
    of_bases = {
        base: rows.filter(pl.col("agent") == base).get_column("log_odds").drop_nulls().to_numpy()
        for base in dict.fromkeys(bases.values())
    }
    margins = {
        base: default_margin(values) if setting.margin is None else setting.margin
        for base, values in of_bases.items()
    }
    games = set(rows.get_column("game").to_list())
    toward = "to choose the positive option" if "user" in games else "to defect"
    return Behaviour(rows, family, toward, trained, bases, undefined, margins)


def behaviour_findings(setting: Setting) -> Iterator[Finding]:
    """Changes from base, the same by label assignment, and differences between agents."""
    found = behaviour(setting)
    if found is None:
        return
    changes = [Contrast(f"change:{a}", a, b, b) for a, b in found.bases.items()]
    yield from contrast_findings(setting, found, changes, "agents")
    for agent, (who, count) in _unknown_changes(setting, found).items():
        yield _undefined(setting, agent, who, count)
    yield from _label_findings(setting, found)
    pairs = [
        Contrast(f"difference:{a}:{b}", a, b, found.bases.get(a))
        for a, b in tested_pairs(setting.tables, found.trained)
    ]
    yield from contrast_findings(setting, found, pairs, "pairs of agents")


def contrast_findings(
    setting: Setting, found: Behaviour, contrasts: list[Contrast], family: str
) -> Iterator[Finding]:
    """One finding per contrast, all tested as one family."""
    if not contrasts:
        return
    units = contrast_units(found, contrasts)
    tested = max_t(units.values, setting.rng(family), setting.draws)
    for index, contrast in enumerate(contrasts):
        result = FamilyResult(
            family=family,
            tests=len(contrasts),
            p=float(tested.p[index]),
            p_adjusted=float(tested.p_adjusted[index]),
            floor=tested.floor,
        )
        yield _finding(setting, found, contrast, units.values[:, index], result)


def contrast_units(found: Behaviour, contrasts: list[Contrast]) -> Units:
    """Scenario means of the differences, one column per contrast."""
    frames: list[pl.DataFrame] = []
    for contrast in contrasts:
        rows = found.rows
        if contrast.labels is not None:
            rows = rows.filter(pl.col("labels") == contrast.labels)
        differences = paired(rows, contrast.first, contrast.second, "log_odds")
        frames.append(differences.with_columns(pl.lit(contrast.id).alias("contrast")))
    return matrix(pl.concat(frames), "scenario", "contrast", "difference")


def _finding(
    setting: Setting,
    found: Behaviour,
    contrast: Contrast,
    values: Array,
    result: FamilyResult,
) -> Finding:
    """The finding of one contrast; ``values`` are its (G,) scenario means."""
    n = len(values)
    agents = (contrast.first, contrast.second)
    interval = cluster_interval(values, setting.rng("interval", contrast.id), draws=setting.draws)
    margin = found.margins.get(contrast.base or "", 0.0)
    tests = result.tests
    asserted, observed = _sentences(found, contrast, values, interval, result.p_adjusted)
    return Finding(
        id=contrast.id,
        found=asserted,
        observed=observed,
        estimate=float(values.mean()),
        interval=interval,
        unit="nats",
        n=n,
        test=SIGN_FLIPS.format(family=_counted(tests, result.family)),
        query=queries.log_odds_difference(*agents, found.family, contrast.labels),
        consulted=consult(setting, agents, behaviour_gates(setting, contrast)),
        p=result.p,
        p_adjusted=result.p_adjusted,
        p_floor=result.floor,
        level=setting.alpha,
        noise=noise_floor(setting, agents),
        equivalence_p=corrected_tost(values, margin, tests),
        margin=margin if margin > 0.0 else None,
        detectable=None
        if n < 2
        else smallest_detectable_effect(standard_error(values), n - 1, setting.alpha / tests),
        tests=tests,
        family=_counted(tests, result.family),
    )


def _counted(tests: int, family: str) -> str:
    """``1 agent``, ``3 pairs of agents``, ``2 changes under label assignments``."""
    if family == _UNDER_LABELS:
        return f"{tests} changes under label assignments"
    return f"{tests} {family if tests != 1 else family.replace('s', '', 1)}"


def behaviour_gates(setting: Setting, contrast: Contrast) -> list[tuple[str, str]]:
    """The gates that could explain a difference in log-odds, liveness apart.

    Whether sampled answers agree with the log-odds, and whether the test finds something where
    nothing is, counts where it was judged.
    """
    return [
        *decision_gates(setting, (contrast.first, contrast.second)),
        *(key for key in change_controls() if key in setting.gates),
    ]


def _sentences(
    found: Behaviour, contrast: Contrast, values: Array, interval: Interval | None, p: float
) -> tuple[str, str]:
    """The sentence that asserts, and the one that only reports."""
    under = "" if contrast.labels is None else f" under the labels {contrast.labels}"
    mean = float(values.mean())
    figures = (
        f"{signed(mean)} nats on average over {len(values)} scenarios{under} "
        f"({between(interval)}, adjusted {probability(p)})"
    )
    more = "more" if mean > 0 else "less"
    first, second = contrast.first, contrast.second
    asserted = f"{first} is {more} inclined {found.toward} than {second}: its log-odds differ by"
    observed = f"The log-odds of {first} differ from those of {second} by"
    apart = disagreement(found.rows, first, second, contrast.labels)
    note = "" if apart is None else f" The wordings disagree: {apart}."
    return f"{asserted} {figures}.{note}", f"{observed} {figures}.{note}"


def _label_findings(setting: Setting, found: Behaviour) -> Iterator[Finding]:
    """Changes under each label assignment, and whether they keep their sign."""
    if not found.bases:
        return
    per_scenario = found.rows.group_by("scenario").agg(pl.col("labels").n_unique().alias("n"))
    assignments: list[str] = found.rows.get_column("labels").unique(maintain_order=True).to_list()
    pairs = [(a, b) for a, b in itertools.combinations(assignments, 2) if _swapped(a, b)]
    balanced = per_scenario.filter(pl.col("n") < len(assignments)).height == 0
    if not pairs or not balanced:
        reason = (
            "the prompts carry one assignment of labels only; ask the same with the labels swapped."
            if not pairs
            else "some scenarios were asked under one label assignment only; ask all under both."
        )
        for agent, base in found.bases.items():
            yield _untested(setting, found, agent, base, reason)
        return
    contrasts = [
        Contrast(f"change:{agent}:{labels}", agent, base, base, labels)
        for agent, base in found.bases.items()
        for labels in assignments
    ]
    family = _UNDER_LABELS
    singles = {f.id: f for f in contrast_findings(setting, found, contrasts, family)}
    yield from singles.values()
    for (agent, base), pair in itertools.product(found.bases.items(), pairs):
        suffix = "" if len(pairs) == 1 else f":{pair[0]}"
        both = (singles[f"change:{agent}:{pair[0]}"], singles[f"change:{agent}:{pair[1]}"])
        yield _keeps_sign(found, f"labels:{agent}{suffix}", (agent, base), pair, both)


def _swapped(a: str, b: str) -> bool:
    return a.split("/") == b.split("/")[::-1]


def _keeps_sign(
    found: Behaviour,
    name: str,
    agents: tuple[str, str],
    labels: tuple[str, str],
    both: tuple[Finding, Finding],
) -> Finding:
    """Intersection-union of two tests: same sign under both assignments, or reversed."""
    estimates = [f.estimate or 0.0 for f in both]
    direction = 1 if sum(estimates) >= 0 else -1
    weakest = int(np.argmin([direction * e for e in estimates]))
    interval = both[weakest].interval
    if interval is not None and direction < 0:
        interval = (-interval[1], -interval[0])
    p = max(f.p or 0.0 for f in both)
    p_adjusted = max(f.p_adjusted or 0.0 for f in both)
    figures = " and ".join(
        f"{signed(e)} nats under {name}" for e, name in zip(estimates, labels, strict=True)
    )
    agent, base = agents
    change = f"The change of {agent} from {base}"
    apart = disagreement(found.rows, agent, base)
    if estimates[0] * estimates[1] > 0.0:
        note = "" if apart is None else f" The wordings disagree: {apart}."
        judged = f"{change} keeps its sign when the labels are swapped: {figures}.{note}"
    else:
        meaning = (
            ": on these prompts it follows the label more than the option."
            if apart is None
            else f", but the wordings disagree by themselves ({apart}), so that neither the label "
            "nor the option explains it alone."
        )
        judged = f"{change} reverses when the labels are swapped ({figures}){meaning}"
    return replace(
        both[weakest],
        id=name,
        found=judged,
        observed=f"The change of {agent} from {base} is {figures}; its sign under both label "
        f"assignments is not settled (adjusted {probability(p_adjusted)}).",
        estimate=direction * estimates[weakest],
        interval=interval,
        test=f"intersection-union of two tests: {both[0].test}",
        query=queries.weakest_assignment(agent, base, found.family, labels, direction),
        p=p,
        p_adjusted=p_adjusted,
        equivalence_p=None,
        margin=None,
    )


def _untested(setting: Setting, found: Behaviour, agent: str, base: str, reason: str) -> Finding:
    contrast = Contrast(f"labels:{agent}", agent, base, base)
    values = contrast_units(found, [contrast]).values[:, 0]
    words = f"Whether the change of {agent} from {base} survives swapped labels is not known."
    return Finding(
        id=contrast.id,
        found=words,
        observed=words,
        estimate=float(values.mean()),
        interval=None,
        unit="nats",
        n=len(values),
        test="none",
        query=queries.log_odds_difference(agent, base, found.family),
        consulted=consult(setting, (agent, base), behaviour_gates(setting, contrast)),
        missing=reason,
    )


def _unknown_changes(setting: Setting, found: Behaviour) -> dict[str, tuple[str, int]]:
    """Trained agents whose change is not known, to whose log-odds are undefined and how many."""
    unknown = {agent: (agent, count) for agent, count in found.undefined.items()}
    for agent in found.trained:
        base = base_of(setting.tables["agents"], agent)
        if base is None:
            continue
        log_odds = found.rows.filter(pl.col("agent") == base).get_column("log_odds")
        if 0 < log_odds.null_count() < len(log_odds):
            unknown[agent] = (base, log_odds.null_count())
    return unknown


def _undefined(setting: Setting, agent: str, who: str, count: int) -> Finding:
    words = f"Whether {agent} behaves otherwise than its base is not known."
    whose = "its log-odds" if who == agent else f"the log-odds of {who}, its base,"
    return Finding(
        id=f"change:{agent}",
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="nats",
        n=0,
        test="none",
        query=queries.undefined_log_odds(who),
        consulted=consult(setting, (agent,), [("undefined values", who)]),
        missing=f"{count} of {whose} are undefined, and a mean of the others would be another "
        "quantity; find out why the scorer gave none.",
    )
