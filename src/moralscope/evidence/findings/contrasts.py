"""Does it forgive, reciprocate, resist temptation, act guilty? Contrasts as tested claims.

Sentences of this kind were made from the ranks of a few means. Here each is a claim with the text
as its unit. Where every text is asked in all four states, the contrast is taken within a text and
tested by sign-flips of texts, with max-T over all agents and contrasts. Where situations are told
by different texts nothing is paired: two situations are compared by exchanging texts between them,
with max-T over agents, each contrast a family of its own.

Three kinds: what an agent does (a level is tested against one half, a difference against zero),
how training changed it, and which agent does *most* of it. The last needs the first agent to lead
every other one, so its p is the largest of those comparisons (intersection-union), each corrected
for all pairs of agents, since the data chose the leader.

Families other than ``wordings`` and ``scenarios`` make claims only where they have texts enough
for any p below alpha; presentations are no texts, and make none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moralscope.evidence.contrasts import (
    Contrast,
    Design,
    Measured,
    designs,
    estimate,
    measure,
    scored_agents,
    used,
    weights_of,
)
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.findings.contrast_queries import contrast_value, undefined_contrast
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    between,
    consult,
    noise_floor,
    probability,
    signed,
    size,
)
from moralscope.evidence.pairs import tested_pairs
from moralscope.evidence.statistics.bounded import combined_interval
from moralscope.evidence.statistics.exchanging import exchange_max_t
from moralscope.evidence.statistics.intervals import smallest_detectable_effect, standard_error
from moralscope.evidence.statistics.resampling import Array, max_t, sign_flip_floor

ALWAYS = ("wordings", "scenarios")
"""Families whose claims are made even where the design is too small for them, and say so."""

OWN = (
    "cooperation",
    "forgiveness",
    "escape",
    "resistance",
    "response_to_other",
    "response_to_self",
    "guilt_effect",
    "betrayal_response",
    "repair_over_deadlock",
    "temptation",
    "temptation_effect",
)
"""Contrasts that are claimed of each agent, bases among them."""

MOST = ("cooperation", "loyalty", "forgiveness", "resistance")
"""Levels of which the claim asks who leads."""

CHANGED = (*MOST, "response_to_other", "guilt_effect")
"""Contrasts whose change from base is claimed."""

_STEEPEST = 0.25
"""A probability changes by at most a quarter of the change of its log-odds."""


@dataclass(frozen=True, eq=False)
class Case:
    """One column of a family of tests: whose contrast, and that of whom it is compared with."""

    contrast: Contrast
    agent: str
    other: str | None
    measured: Measured

    @property
    def against(self) -> float:
        """The value under the null."""
        return 0.5 if self.contrast.is_level and self.other is None else 0.0


@dataclass(frozen=True, slots=True)
class Tested:
    """What the test of a family says of one case."""

    test: str
    tests: int
    p: float
    p_adjusted: float
    floor: float


def contrast_claims(setting: Setting) -> Iterator[Finding]:
    """What agents do, what training changed, and who does most, in every family of texts."""
    if not setting.has("agents", "prompts", "decisions"):
        return
    agents, decisions = setting.tables["agents"], setting.tables["decisions"]
    scored = scored_agents(decisions)
    trained = [name for name in trained_agents(agents) if name in scored]
    named = {name: base_of(agents, name) for name in trained}
    of_base = {name: base for name, base in named.items() if base is not None and base in scored}
    bases = list(dict.fromkeys(of_base.values()))
    pairs = list(of_base.items())
    for design in designs(setting.tables["prompts"]):
        if not _worth(setting, design):
            continue
        alone = [(name, None, measure(design, decisions, [name])) for name in [*bases, *trained]]
        beside = [(*pair, measure(design, decisions, pair)) for pair in pairs]
        compared = tested_pairs(setting.tables, trained)
        every = [(*pair, measure(design, decisions, pair)) for pair in compared]
        own, changed = (_settled(setting, design, names) for names in (OWN, CHANGED))
        yield from _family(setting, design, "contrast", _cases(design, own, alone))
        yield from _family(setting, design, "contrast-change", _cases(design, changed, beside))
        for contrast in design.contrasts:
            if contrast.name in MOST:
                yield from _most(setting, design, _cases(design, [contrast.name], every))


def _worth(setting: Setting, design: Design) -> bool:
    if design.unit == "presentations":
        return False
    texts = design.prompts.get_column("unit").n_unique()
    return design.family in ALWAYS or sign_flip_floor(texts) < setting.alpha


def _settled(setting: Setting, design: Design, names: Sequence[str]) -> list[str]:
    """The named contrasts that the texts of a design can settle at all.

    A level in one situation rests on the texts of that situation alone, which are few.
    """
    if design.paired:
        return list(names)
    asked = design.prompts.unique(["cell", "unit"]).get_column("cell").to_list()
    texts = Counter[str](asked)
    return [
        contrast.name
        for contrast in design.contrasts
        if contrast.name in names
        and not (
            contrast.is_level
            and sign_flip_floor(
                sum(texts[c] for c, w in zip(contrast.cells, contrast.weights, strict=True) if w)
            )
            >= setting.alpha
        )
    ]


def _cases(
    design: Design,
    names: Sequence[str],
    measured: Iterable[tuple[str, str | None, Measured | None]],
) -> list[Case]:
    """The cases of the named contrasts, contrast by contrast."""
    listed = list(measured)
    return [
        Case(contrast, agent, other, found)
        for contrast in design.contrasts
        if contrast.name in names
        for agent, other, found in listed
        if found is not None
    ]


def _family(
    setting: Setting, design: Design, kind: str, cases: Sequence[Case]
) -> Iterator[Finding]:
    """Findings of all cases, each tested within its family."""
    families: dict[str, list[Case]] = {}
    for case in cases:
        name = "all" if design.paired else case.contrast.name
        families.setdefault(name, []).append(case)
    for name, members in families.items():
        whole = [case for case in members if case.measured.left_out == 0]
        tested = tested_cases(setting, design, (kind, name), whole)
        results = dict(zip(map(id, whole), tested, strict=True))
        for case in members:
            yield case_finding(setting, design, kind, case, results.get(id(case)))


def tested_cases(
    setting: Setting, design: Design, address: tuple[str, str], cases: Sequence[Case]
) -> list[Tested]:
    """One family: sign-flips of texts, or texts exchanged between situations."""
    if not cases:
        return []
    rng = setting.rng(design.family, design.game, *address)
    first = [split(case)[0] for case in cases]
    second = [split(case)[1] for case in cases]
    k = len(cases)
    if second[0] is None:
        values = np.stack([y - c.against for y, c in zip(first, cases, strict=True)], axis=1)
        flips = max_t(values, rng, setting.draws)
        words = f"sign-flips of texts, max-T over {k} {_noun(design, k)}; null: symmetric about "
        words += "the null value"
        results = zip(flips.p, flips.p_adjusted, strict=True)
        return [Tested(words, k, float(p), float(q), flips.floor) for p, q in results]
    held = [y for y in second if y is not None]
    found = exchange_max_t(np.stack(first, axis=1), np.stack(held, axis=1), rng, setting.draws)
    words = f"exchange of texts between situations, max-T over {k} {_noun(design, k)}; null: texts "
    words += "are exchangeable"
    results = zip(found.p, found.p_adjusted, strict=True)
    return [Tested(words, k, float(p), float(q), found.floor) for p, q in results]


def _noun(design: Design, count: int) -> str:
    noun = "agents and contrasts" if design.paired else "agents"
    return noun if count != 1 else "case"


def split(case: Case) -> tuple[Array, Array | None]:
    """Per unit the contrast; of unpaired differences the texts added and those subtracted."""
    signs = (1.0,) if case.other is None else (1.0, -1.0)
    k = len(case.contrast.cells)
    groups = case.measured.groups
    if len(groups) == 1:
        weights = np.concatenate([sign * np.array(case.contrast.weights) for sign in signs])
        return groups[0] @ weights, None
    values = [group @ np.array(signs) for group in groups]
    more = [values[i] for i in range(k) if case.contrast.weights[i] > 0.0]
    less = [values[i] for i in range(k) if case.contrast.weights[i] < 0.0]
    return np.concatenate(more), np.concatenate(less) if less else None


def case_finding(
    setting: Setting, design: Design, kind: str, case: Case, tested: Tested | None
) -> Finding:
    """The finding of one case; ``tested`` is None where some of its texts have no probability."""
    signs = (1.0,) if case.other is None else (1.0, -1.0)
    terms = used(case.measured.groups, weights_of(design, case.contrast, signs))
    agents = [case.agent] if case.other is None else [case.agent, case.other]
    units = sum(len(group) for group in terms[0])
    value = None if tested is None else estimate(*terms)
    interval = None if tested is None else combined_interval(*terms)
    p_adjusted = None if tested is None else tested.p_adjusted
    found, observed = _sentences(case, value or 0.0)
    figures = "" if value is None else (
        f": {_figure(case, value)} over {units} texts ({between(interval)}, adjusted "
        f"{probability(p_adjusted)})"
    )  # fmt: skip
    slope = _STEEPEST * sum(float(np.abs(w).sum()) for w in terms[1])
    return Finding(
        id=f"{kind}:{design.family}.{design.game}:{case.contrast.name}:{case.agent}",
        found=f"{found}{figures}.",
        observed=f"{observed}{figures}.",
        estimate=value,
        interval=interval,
        unit="probability",
        n=units,
        replicate="texts",
        test="none" if tested is None else tested.test,
        query=undefined_contrast(design, case.agent, case.other)
        if tested is None
        else contrast_value(design, case.contrast, case.agent, case.other),
        consulted=consult(setting, agents, decision_gates(setting, agents)),
        p=None if tested is None else tested.p,
        p_adjusted=p_adjusted,
        p_floor=None if tested is None else tested.floor,
        level=setting.alpha,
        noise=slope * noise_floor(setting, agents),
        detectable=None if tested is None else _detectable(case, setting.alpha / tested.tests),
        tests=None if tested is None else tested.tests,
        family="" if tested is None else f"{tested.tests} {_noun(design, tested.tests)}",
        missing=None
        if tested is not None
        else f"{case.measured.left_out} of its texts have no legal answer in some state or "
        "situation, and so no probability of cooperating; use prompts that it answers.",
    )


def _detectable(case: Case, alpha: float) -> float | None:
    first, second = split(case)
    if len(first) < 2 or (second is not None and len(second) < 2):
        return None
    if second is None:
        return smallest_detectable_effect(standard_error(first), len(first) - 1, alpha)
    error = math.hypot(standard_error(first), standard_error(second))
    return smallest_detectable_effect(error, len(first) + len(second) - 2, alpha)


def _figure(case: Case, value: float) -> str:
    """A probability as it is; a difference with its sign."""
    level = case.contrast.is_level and case.other is None
    return size(value) if level else signed(value)


def _sentences(case: Case, value: float) -> tuple[str, str]:
    """The sentence that asserts and the one that only reports, both without figures."""
    agent, other, words = case.agent, case.other, case.contrast.words
    more = "more" if value > case.against else "less"
    if case.contrast.is_level and other is None:
        return (
            f"{agent} cooperates {more} often than not {words[0]}",
            f"The probability with which {agent} cooperates {words[0]}, held against one half",
        )
    if case.contrast.is_level:
        return (
            f"{agent} cooperates {more} than {other} {words[0]}",
            f"Cooperation of {agent} minus that of {other} {words[0]}",
        )
    if other is None:
        return (
            f"{agent} cooperates {more} {words[0]} than {words[1]}",
            f"Cooperation of {agent} {words[0]} minus that {words[1]}",
        )
    higher = "higher" if value > 0.0 else "lower"
    compared = f"Cooperation {words[0]}, compared with that {words[1]},"
    return (
        f"{compared} is {higher} in {agent} than in {other}",
        f"Cooperation {words[0]} minus that {words[1]}, of {agent} minus the same of {other}",
    )


def _most(setting: Setting, design: Design, cases: Sequence[Case]) -> Iterator[Finding]:
    """Who does most of something that is a level, if anybody leads all others."""
    if not cases or any(case.measured.left_out for case in cases):
        return
    contrast = cases[0].contrast
    tested = tested_cases(setting, design, ("most", contrast.name), cases)
    both = [(case, result) for case, result in zip(cases, tested, strict=True)]
    agents = list(dict.fromkeys(name for c in cases for name in (c.agent, c.other or "")))
    leads = {
        name: [_lead(name, c) for c, _ in both if name in (c.agent, c.other)] for name in agents
    }
    leader = max(agents, key=lambda name: min(leads[name]))
    own = [(case, result) for case, result in both if leader in (case.agent, case.other)]
    closest, _ = min(own, key=lambda pair: _lead(leader, pair[0]))
    other = closest.other if closest.agent == leader else closest.agent
    turned = replace(closest, agent=leader, other=other, measured=_turned(closest, leader))
    worst = max((result for _, result in own), key=lambda result: result.p_adjusted)
    iut = replace(worst, test=f"intersection-union over the other agents: {worst.test}")
    made = case_finding(setting, design, "most", turned, iut)
    where = contrast.words[0]
    figures = made.found.partition(": ")[2]
    yield replace(
        made,
        id=f"most:{design.family}.{design.game}:{contrast.name}",
        found=f"Of {len(agents)} trained agents {leader} cooperates most {where}; its lead over "
        f"the next, {other}: {figures}",
        observed=f"{leader} has the highest mean cooperation of {len(agents)} trained agents "
        f"{where}, which need not be more than chance; its lead over the next, {other}: {figures}",
        consulted=consult(setting, agents, decision_gates(setting, agents)),
    )


def _lead(name: str, case: Case) -> float:
    """By how much an agent leads the other one of a pair."""
    value = float(np.mean(split(case)[0]))
    return value if case.agent == name else -value


def _turned(case: Case, leader: str) -> Measured:
    """The pair's measurements with the leader's columns first."""
    if case.agent == leader:
        return case.measured
    groups = tuple(
        np.hstack([g[:, g.shape[1] // 2 :], g[:, : g.shape[1] // 2]]) for g in case.measured.groups
    )
    return replace(case.measured, groups=groups)
