"""What do whole studies of known truth look like? Result tables, sound or with one fault planted.

Three agents on one model: the base and two that were trained. Each scenario has four prompts, which
share its effect. Where nothing is planted the trained agents differ from the base, scenario by
scenario, but not on average, and so do their sites: no claim about them is true. The faults are
those of which findings of this kind were made: an adapter that never landed, prompts that are one
text, sites that are one vector, values rounded until few are left.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.evidence.calibrating.generators import to_bfloat16, unit_means
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables

Index = NDArray[np.int64]

AGENTS = ("base", "first", "second")
SITES = ("L0.h0", "L0.h1", "L0.mlp", "L1.h0", "L1.h1", "L1.mlp")
PROMPTS = 4
"""Prompts of each scenario."""

PLANTS = ("dead", "cloned_prompts", "cloned_sites", "coarse", "unsummed")
"""Faults: an adapter that did not land, one text twice in each scenario, one vector for all sites,
sites of which rounding leaves few values, parts that were scaled one by one."""

RETAINED = 0.005
"""Share of its change that a dead adapter retains."""

_SCENARIO, _PROMPT = 0.5, 0.2
_LABELS = "action1/action2"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulated study is to be.

    Attributes:
        condition: one of ``CONDITIONS``: the law of the scenarios' effects.
        clusters: scenarios.
        effect: change of both agents from base, in standard deviations between scenarios.
        plant: one of ``PLANTS``, or nothing.
    """

    condition: str
    clusters: int
    effect: float = 0.0
    plant: str = ""


def simulate_study(plan: Plan, rng: np.random.Generator) -> Tables:
    """Agents, prompts, decisions and attributions of one study."""
    scenario = np.repeat(np.arange(plan.clusters), PROMPTS)
    names = [f"s{s}p{i % PROMPTS}" for i, s in enumerate(scenario.tolist())]
    base = rng.normal(0.5, 1.0, plan.clusters)[scenario] + rng.normal(0.0, 0.3, len(names))
    changes = [np.zeros(len(names)), *(_change(plan, scenario, rng) for _ in AGENTS[1:])]
    place = pl.DataFrame({"prompt": names, "scenario": [f"s{s}" for s in scenario.tolist()]})
    decisions = [
        _decisions(plan, agent, place, base, change)
        for agent, change in zip(AGENTS, changes, strict=True)
    ]
    coarse = plan.condition == "rounded" or plan.plant == "coarse"
    return {
        "agents": _agents("bfloat16" if coarse else "float32"),
        "prompts": _prompts(names, scenario, cloned=plan.plant == "cloned_prompts"),
        "decisions": pl.concat(decisions),
        "attribution": _attribution(plan, decisions, scenario, rng),
    }


def _change(plan: Plan, scenario: Index, rng: np.random.Generator) -> Array:
    """Change from base in log-odds, prompt by prompt, about the planted effect."""
    law = "independent" if plan.condition == "rounded" else plan.condition
    of_scenario = unit_means(law, (plan.clusters, 1), rng)[:, 0] + plan.effect
    return _SCENARIO * of_scenario[scenario] + rng.normal(0.0, _PROMPT, len(scenario))


def _agents(dtype: str) -> pl.DataFrame:
    trained = len(AGENTS) - 1
    return pl.DataFrame(
        {
            "agent": AGENTS,
            "base": ["simulated"] * len(AGENTS),
            "kind": ["base", *["adapter"] * trained],
            "reward": [None, *AGENTS[1:]],
            "training_seed": [None, *[0] * trained],
            "dtype": [dtype] * len(AGENTS),
        }
    )


def _prompts(names: list[str], scenario: Index, *, cloned: bool) -> pl.DataFrame:
    """Texts of their own; cloned, the last two of each scenario are one text."""
    texts = list(names)
    if cloned:
        texts[PROMPTS - 1 :: PROMPTS] = texts[PROMPTS - 2 :: PROMPTS]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    cooperate, defect = _LABELS.split("/")
    return pl.DataFrame(
        {
            "prompt": names,
            "scenario": [f"s{s}" for s in scenario.tolist()],
            "template": [f"w{i % PROMPTS}" for i in range(len(names))],
            "text": texts,
            "sha256": digests,
        }
    ).with_columns(
        game=pl.lit("IPD"),
        family=pl.lit("clusters"),
        labels=pl.lit(_LABELS),
        option_order=0,
        answer_order=0,
        table_order=pl.lit("none"),
        stem=pl.lit("I choose"),
        system=pl.lit(""),
        chat_template=pl.lit(value=True),
        positive=pl.lit(defect),
        negative=pl.lit(cooperate),
    )


def _decisions(
    plan: Plan, agent: str, place: pl.DataFrame, base: Array, change: Array
) -> pl.DataFrame:
    """Log-odds and probabilities of one agent; a dead one keeps next to nothing of its change."""
    kept = RETAINED if plan.plant == "dead" and agent == AGENTS[1] else 1.0
    x, stored = base + kept * change, base + change
    if plan.condition == "rounded":
        x, stored = to_bfloat16(x), to_bfloat16(stored)
    p = 1.0 / (1.0 + np.exp(-x))
    return place.with_columns(
        agent=pl.lit(agent),
        game=pl.lit("IPD"),
        log_odds=pl.Series(x),
        p_positive=pl.Series(p),
        p_negative=pl.Series(1.0 - p),
        legal_mass=1.0,
        p_positive_given_legal=pl.Series(p),
        fingerprint_log_odds=pl.lit(None, pl.Float64) if agent == AGENTS[0] else pl.Series(stored),
    )


def _attribution(
    plan: Plan, decisions: list[pl.DataFrame], scenario: Index, rng: np.random.Generator
) -> pl.DataFrame:
    """Contributions to the log-odds of base and first agent; what sites leave over is the bias."""
    shape = (len(scenario), len(SITES))
    base = rng.normal(size=(plan.clusters, len(SITES)))[scenario] + rng.normal(0.0, 0.5, shape)
    law = "independent" if plan.condition == "rounded" else plan.condition
    of_scenario = unit_means(law, (plan.clusters, len(SITES)), rng) + plan.effect
    trained = base + _SCENARIO * of_scenario[scenario] + rng.normal(0.0, _PROMPT, shape)
    frames: list[pl.DataFrame] = []
    for rows, found in zip(decisions, (base, trained), strict=False):
        sites = _faulty(plan, found)
        rest = rows.get_column("log_odds").to_numpy() - sites.sum(axis=1)
        if plan.plant == "unsummed":
            sites = sites / np.abs(sites).max(axis=0)
        for site, values in zip((*SITES, "bias"), (*sites.T, rest), strict=True):
            kind = "head" if ".h" in site else site.rpartition(".")[2]
            frames.append(
                rows.select(
                    "agent",
                    "prompt",
                    pl.Series("contribution", values),
                    site=pl.lit(site),
                    kind=pl.lit(kind),
                    token=pl.lit(-1, pl.Int64),
                    part=pl.lit("whole"),
                )
            )
    return pl.concat(frames)


def _faulty(plan: Plan, values: Array) -> Array:
    """The sites as they are stored: clones of one another, coarse, or sound."""
    if plan.plant == "cloned_sites":
        return np.repeat(values[:, :1], len(SITES), axis=1)
    if plan.plant == "coarse":
        return to_bfloat16(10.0 + 0.05 * values)
    return to_bfloat16(values) if plan.condition == "rounded" else values
