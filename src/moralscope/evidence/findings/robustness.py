"""Does it hold however the question is put? Labels, orders and kinds of text as tested claims.

Three families of claims, whose unit is the *text*: prompts of one text are variants of one
question.

``label:AGENT``     the word itself. Per text, the log-odds of defecting where defecting is called
                    by the second label minus those where it is called by the first, mean over
                    states and orders, each asked both ways. An agent to which a label is a mere
                    name has zero.
``order:AGENT``     the place itself. Per text, the log-odds of defecting where defecting is named
                    first among the options minus those where cooperating is, mean over states and
                    labels. An agent that does not care which option it reads first has zero.
``families:AGENT``  other kinds of text: prose, a story without points, the dilemma by name. Per
                    text, the change from base in log-odds of defecting, mean over its prompts.

All agents form one family, tested by sign-flips of texts with max-T; equivalence by two one-sided
tests against the margin of behaviour. A study makes these claims where it has texts enough for any
p below alpha. The change that is tied to labels is judged elsewhere (``behaviour_claims``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.designs import base_of, trained_agents, units_to_differ_from_zero
from moralscope.evidence.findings import queries
from moralscope.evidence.findings.decision_gates import decision_gates
from moralscope.evidence.ledger import (
    Finding,
    Setting,
    between,
    consult,
    noise_floor,
    probability,
    signed,
)
from moralscope.evidence.statistics.equivalence import corrected_tost, default_margin
from moralscope.evidence.statistics.intervals import (
    cluster_interval,
    smallest_detectable_effect,
    standard_error,
)
from moralscope.evidence.statistics.resampling import Array, max_t
from moralscope.evidence.units import Units, collapsed_prompts, matrix, paired

TEXTS = ("structured", "wordings")
"""Families whose texts tell the whole game, and so are asked under both label assignments."""

GAME = "IPD"
"""The game that all of them tell."""

OTHER_KINDS = ("unstructured", "poetic", "explicit")
"""Families that put the same choice into other kinds of text."""

_VARIED = {"label": "labels", "order": "option_order"}
_CELL = ("template", "own_previous", "opponent_previous", *_VARIED.values())
_FLIPS = "sign-flips of texts, max-T over {tests}; null: symmetric about zero"


@dataclass(frozen=True, slots=True)
class Said:
    """One claim before its test: who, what it says either way, and how to recompute it.

    Attributes:
        id, agents: of the claim; the first agent is its subject.
        found, observed: sentences with a field ``figures``.
        query: recomputes the estimate.
        margin: equivalence margin in nats.
    """

    id: str
    agents: tuple[str, ...]
    found: tuple[str, str]
    observed: str
    query: str
    margin: float


def robustness_findings(setting: Setting) -> Iterator[Finding]:
    """What labels and orders do to each agent, and what training did in other kinds of text."""
    if not setting.has("agents", "prompts", "decisions"):
        return
    yield from _lean_findings(setting)
    yield from _family_findings(setting)


def _lean_findings(setting: Setting) -> Iterator[Finding]:
    agents = setting.tables["agents"]
    models = agents.filter(pl.col("kind") != "policy").get_column("agent").to_list()
    rows = _scored(setting, models)
    plain = rows.filter(
        pl.col("family").is_in(TEXTS),
        pl.col("game") == GAME,
        pl.col("table_order").is_in(("original", "none")),
        pl.col("option_order") == pl.col("answer_order"),
        pl.col("system") == "",
        pl.col("chat_template"),
    )
    pair = _labels(plain)
    if pair is None:
        return
    asked = plain.filter(pl.col("labels").is_in(pair))
    cooperate, defect = pair[0].split("/")
    given = pl.col("labels") == pair[0]
    # Order 0 names the label first that is first by the alphabet.
    last = pl.col("option_order") == int(cooperate < defect)
    for family, more in (("label", given), ("order", given == last)):
        texts = _crossed(asked, _VARIED[family])
        if len(texts) < units_to_differ_from_zero(setting.alpha):
            continue
        signed_twice = pl.when(more).then(2.0).otherwise(-2.0) * pl.col("log_odds")
        values = asked.filter(pl.col("template").is_in(texts)).with_columns(value=signed_twice)
        said = [
            Said(
                f"{family}:{name}",
                (name,),
                *_lean(family, name, (cooperate, defect)),
                queries.lean(family, name, GAME, pair, texts),
                _margin(setting, values, name),
            )
            for name in asked.get_column("agent").unique(maintain_order=True).to_list()
        ]
        yield from _tested(setting, family, matrix(values, "template", "agent", "value"), said)


def _lean(family: str, name: str, words: tuple[str, str]) -> tuple[tuple[str, str], str]:
    """What a lean says where it is above zero and below, and the sentence that only reports."""
    compared = f"The log-odds of defecting of {name} were compared where defecting is"
    if family == "order":
        found = (
            f"{name} leans to the option that is named first, whatever it means",
            f"{name} leans to the option that is named last, whatever it means",
        )
        return found, f"{compared} named first and where cooperating is"
    found = (
        f"{name} leans to the word {words[1]}, whatever it means",
        f"{name} leans to the word {words[0]}, whatever it means",
    )
    return found, f"{compared} called {words[1]} and where it is called {words[0]}"


def _labels(rows: pl.DataFrame) -> tuple[str, str] | None:
    """The pair of assignments that most texts are asked under."""
    counts = rows.group_by("labels", maintain_order=True).agg(pl.col("template").n_unique())
    texts = dict(counts.iter_rows())
    for labels in sorted(texts, key=lambda name: -texts[name]):
        swapped = "/".join(reversed(labels.split("/")))
        if swapped in texts and swapped != labels:
            return labels, swapped
    return None


def _crossed(rows: pl.DataFrame, varied: str) -> list[str]:
    """Texts that every agent was asked at both levels of a column, cell by cell, in order."""
    cell = [column for column in _CELL if column != varied]
    cells = rows.group_by("agent", *cell, maintain_order=True).agg(pl.col(varied).n_unique())
    texts = cells.group_by("template", maintain_order=True).agg(
        pl.col(varied).min(), pl.col("agent").n_unique()
    )
    everyone = rows.n_unique("agent")
    kept = texts.filter(pl.col(varied) == 2, pl.col("agent") == everyone)
    return kept.get_column("template").to_list()


def _family_findings(setting: Setting) -> Iterator[Finding]:
    agents = setting.tables["agents"]
    of_base = {name: base_of(agents, name) for name in trained_agents(agents)}
    rows = _scored(setting, list(of_base) + [base for base in of_base.values() if base])
    rows = rows.filter(pl.col("family").is_in(OTHER_KINDS))
    scored = set(rows.get_column("agent").to_list())
    pairs = [(a, b) for a, b in of_base.items() if b is not None and {a, b} <= scored]
    if not pairs or rows.n_unique("template") < units_to_differ_from_zero(setting.alpha):
        return
    changes = pl.concat(
        paired(rows, a, b, "log_odds", ("template",)).with_columns(agent=pl.lit(a))
        for a, b in pairs
    )
    kinds = rows.get_column("family").unique(maintain_order=True).to_list()
    where = f"in other kinds of text ({', '.join(kinds)})"
    said = [
        Said(
            f"families:{a}",
            (a, b),
            (
                f"{a} is more inclined to defect than {b} {where}",
                f"{a} is less inclined to defect than {b} {where}",
            ),
            f"The log-odds of defecting of {a} were compared with those of {b} {where}",
            queries.change_over_texts(a, b, kinds),
            _margin(setting, rows, b),
        )
        for a, b in pairs
    ]
    yield from _tested(
        setting, "families", matrix(changes, "template", "agent", "difference"), said
    )


def _scored(setting: Setting, agents: Sequence[str]) -> pl.DataFrame:
    """Decisions of agents with log-odds everywhere, with the description of their prompts."""
    # A text under two names is one text.
    described = collapsed_prompts(setting.tables["prompts"])[0].drop("game", "scenario")
    rows = (
        setting.tables["decisions"]
        .filter(pl.col("agent").is_in(list(agents)))
        .join(described, on="prompt", how="inner", maintain_order="left")
        .filter(~pl.col("template").str.ends_with("-mirrored"))
    )
    undefined = rows.filter(pl.col("log_odds").is_null()).get_column("agent").unique()
    return rows.filter(~pl.col("agent").is_in(undefined.to_list()))


def _margin(setting: Setting, rows: pl.DataFrame, agent: str) -> float:
    if setting.margin is not None:
        return setting.margin
    base = base_of(setting.tables["agents"], agent) or agent
    answered = rows.filter(pl.col("agent") == base).get_column("log_odds").to_numpy()
    return default_margin(answered) if len(answered) else 0.0


def _tested(setting: Setting, family: str, units: Units, said: Sequence[Said]) -> Iterator[Finding]:
    """One finding per claim, all of a family tested together."""
    tests = len(said)
    result = max_t(units.values, setting.rng(family), setting.draws)
    for index, claim in enumerate(said):
        values: Array = units.values[:, index]
        n, mean = len(values), float(np.mean(values))
        interval = cluster_interval(values, setting.rng("interval", claim.id), draws=setting.draws)
        p_adjusted = float(result.p_adjusted[index])
        figures = (
            f"{signed(mean)} nats on average over {n} texts ({between(interval)}, adjusted "
            f"{probability(p_adjusted)})"
        )
        share = _share(setting, claim.agents[0], family) if family in _VARIED else ""
        yield Finding(
            id=claim.id,
            found=f"{claim.found[0 if mean > 0 else 1]}: {figures}.{share}",
            observed=f"{claim.observed}: {figures}.{share}",
            estimate=mean,
            interval=interval,
            unit="nats",
            n=n,
            replicate="texts",
            test=_FLIPS.format(tests=f"{tests} agent{'s' * (tests > 1)}"),
            query=claim.query,
            consulted=consult(setting, claim.agents, decision_gates(setting, claim.agents)),
            p=float(result.p[index]),
            p_adjusted=p_adjusted,
            p_floor=result.floor,
            level=setting.alpha,
            noise=noise_floor(setting, claim.agents),
            equivalence_p=corrected_tost(values, claim.margin, tests),
            margin=claim.margin if claim.margin > 0.0 else None,
            detectable=smallest_detectable_effect(
                standard_error(values), n - 1, setting.alpha / tests
            ),
            tests=tests,
            family=f"{tests} agent{'s' * (tests > 1)}",
        )


def _share(setting: Setting, agent: str, factor: str) -> str:
    """How much of the agent's variance a factor has part in, where that was split."""
    if not setting.has("variance"):
        return ""
    shares = (
        setting.tables["variance"]
        .filter(pl.col("agent") == agent, pl.col("factor") == factor)
        .get_column("total_share")
        .drop_nulls()
        .to_list()
    )
    if len(shares) != 1:
        return ""
    return (
        f" The {factor} and its interactions make up {100 * shares[0]:.0f}% of the variance of its "
        "decisions over wordings, orders, labels and states."
    )
