"""Do two agents decide alike, do they decide differently, or is neither shown?

Unit: the scenario. *Supported* says that their answers diverge by more than the margin,
*equivalent* that they diverge by less, each by a one-sided test corrected for all pairs
(Bonferroni); with neither, nothing is known. A claim on all agents together says that every pair is
alike: it needs every test to reject, so its p is the largest, uncorrected (intersection-union).
The margin is that of the table ``similarity`` where it is there.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.contrasts import scored_agents
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.divergences import (
    MARGIN,
    TOP,
    Divergences,
    alike,
    apart,
    divergence_interval,
    divergences,
)
from moralscope.evidence.findings.contrast_queries import divergence, largest_divergence
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.findings.queries import undefined_log_odds
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    between,
    consult,
    probability,
    size,
)
from moralscope.evidence.statistics.equivalence import MIN_UNITS
from moralscope.evidence.statistics.intervals import smallest_detectable_effect, standard_error
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import inference_family, on_family

_TEST = (
    "one-sided tests of the mean divergence against the margin, over scenarios{corrected}; null: "
    "it is the margin"
)


def similarity_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per pair of models, bases among them, and one on all of them together."""
    if not setting.has("agents", "prompts", "decisions"):
        return
    agents, prompts = setting.tables["agents"], setting.tables["prompts"]
    decisions = setting.tables["decisions"]
    family = inference_family(prompts, decisions.get_column("prompt"))
    if family is None:
        return
    trained = trained_agents(agents)
    bases = [base for name in trained if (base := base_of(agents, name)) is not None]
    asked = prompts.filter(pl.col("family") == family).get_column("prompt").to_list()
    scored = scored_agents(decisions.filter(pl.col("prompt").is_in(asked)))
    models = [name for name in dict.fromkeys([*bases, *trained]) if name in scored]
    unknown = _unknown_answers(on_family(decisions, prompts, family), models)
    for pair in itertools.combinations(models, 2):
        if any(name in unknown for name in pair):
            yield _not_known(setting, pair, unknown)
    names = [name for name in models if name not in unknown]
    if len(names) < 2:
        return
    asked_of = _Asked(family, _margin(setting), divergences(prompts, decisions, family, names))
    for index in range(len(asked_of.found.pairs)):
        yield _pair(setting, asked_of, index)
    if len(names) > 2:
        yield _all(setting, asked_of, names)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What all claims share: the prompt family, the margin in nats, and the divergences."""

    family: str
    margin: float
    found: Divergences


def _unknown_answers(rows: pl.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Agents to the number of their answers of which neither log-odds nor a share is known.

    No probability at all on either option is what other tools leave where they measured nothing.
    """
    unknown = rows.filter(
        pl.col("agent").is_in(list(names))
        & pl.col("log_odds").is_null()
        & pl.col("p_positive_given_legal").is_null()
    )
    return dict(Counter(unknown.get_column("agent").to_list()))


def _not_known(setting: Setting, pair: tuple[str, str], unknown: Mapping[str, int]) -> Finding:
    who = next(name for name in pair if name in unknown)
    words = f"Whether {pair[0]} and {pair[1]} decide alike is not known."
    return Finding(
        id=f"alike:{pair[0]}:{pair[1]}",
        found=words,
        observed=words,
        estimate=None,
        interval=None,
        unit="nats",
        n=0,
        test="none",
        query=undefined_log_odds(who),
        consulted=_consult(setting, pair),
        missing=f"{unknown[who]} answers of {who} have no probability on either option, and what "
        "was not measured is no answer; find out why the scorer gave none.",
    )


def _margin(setting: Setting) -> float:
    """The margin that the table ``similarity`` was made with, where it is there."""
    if not setting.has("similarity"):
        return MARGIN
    return float(setting.tables["similarity"].get_column("margin")[0])


def _pair(setting: Setting, asked: _Asked, index: int) -> Finding:
    found, family, margin = asked.found, asked.family, asked.margin
    first, second = found.pairs[index]
    values, m = found.js[:, index], len(found.pairs)
    n = len(values)
    like, unlike = (
        None if p is None else min(1.0, p * m)
        for p in (alike(values, margin), apart(values, margin))
    )
    interval = divergence_interval(values)
    figures = (
        f"a Jensen-Shannon divergence of {size(float(values.mean()))} nats over {n} scenarios "
        f"({between(interval)}, margin {size(margin)}; alike: {probability(like)}, differently: "
        f"{probability(unlike)}, adjusted)"
    )
    return Finding(
        id=f"alike:{first}:{second}",
        found=f"{first} and {second} decide differently, by more than the margin: {figures}.",
        observed=f"The decisions of {first} and {second} lie {figures} apart.",
        estimate=float(values.mean()),
        interval=interval,
        unit="nats",
        n=n,
        test=_TEST.format(corrected=f", Bonferroni over {m} pair{'s' * (m > 1)}"),
        query=divergence(first, second, family),
        consulted=_consult(setting, (first, second)),
        p=apart(values, margin),
        p_adjusted=unlike,
        level=setting.alpha,
        equivalence_p=like,
        margin=margin,
        detectable=_detectable(values, margin, setting.alpha / m),
        missing=_too_few(n),
        tests=m,
        family=f"{m} pair{'s' * (m > 1)} of agents",
    )


def _too_few(scenarios: int) -> str | None:
    if scenarios >= MIN_UNITS:
        return None
    return (
        f"{scenarios} {'scenario shows' if scenarios == 1 else 'scenarios show'} too little of how "
        f"divergences vary; ask in {MIN_UNITS} scenarios at least."
    )


def _detectable(values: Array, margin: float, alpha: float) -> float | None:
    """The smallest divergence that would be found above the margin; None if there is none."""
    if len(values) < 2:
        return None
    above = smallest_detectable_effect(standard_error(values), len(values) - 1, alpha)
    return None if above is None or margin + above > TOP else margin + above


def _all(setting: Setting, asked: _Asked, names: Sequence[str]) -> Finding:
    found, family, margin = asked.found, asked.family, asked.margin
    m = len(found.pairs)
    means = found.js.mean(axis=0)
    widest = int(np.argmax(means))
    values = found.js[:, widest]
    n = len(values)
    like = [alike(found.js[:, k], margin) for k in range(m)]
    unlike = [apart(found.js[:, k], margin) for k in range(m)]
    whole = None if None in like else max(p for p in like if p is not None)
    some = None if None in unlike else min(1.0, m * min(p for p in unlike if p is not None))
    interval = divergence_interval(values)
    first, second = found.pairs[widest]
    figures = (
        f"the largest divergence, of {first} and {second}, is {size(float(means[widest]))} nats "
        f"over {n} scenarios ({between(interval)}, margin {size(margin)}; all alike: "
        f"{probability(whole)}, some differently: {probability(some)})"
    )
    return Finding(
        id="alike:all",
        found=f"The {len(names)} agents do not all decide alike: {figures}.",
        observed=f"Of the {m} pairs of {len(names)} agents {figures}.",
        estimate=float(means[widest]),
        interval=interval,
        unit="nats",
        n=n,
        test=_TEST.format(
            corrected="; alike: intersection-union over pairs, differently: Bonferroni"
        ),
        query=largest_divergence(names, family),
        consulted=_consult(setting, names),
        p=None if some is None else min(p for p in unlike if p is not None),
        p_adjusted=some,
        level=setting.alpha,
        equivalence_p=whole,
        margin=margin,
        missing=_too_few(n),
        tests=m,
        family=f"{m} pair{'s' * (m > 1)} of agents",
    )


def _consult(setting: Setting, agents: Sequence[str]) -> Consulted:
    return consult(setting, agents, decision_gates(setting, agents))
