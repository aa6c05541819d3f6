"""Drawn tables of behaviour: seven agents, three of them one training from three seeds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import polars as pl
import synthetic_play
from synthetic_play import AGENTS, GAMES, LABELS, LEVEL, SEEDS, STRATEGIES, Row, interval

from moralscope.core.streams import stream
from moralscope.core.tables import from_rows

STATES = ("CC", "CD", "DC", "DD")
SHAPE = {
    "base": (0.1, 0.0, 0.0, -0.05),
    "utilitarian": (0.06, 0.0, 0.04, -0.1),
    "deontological": (0.25, -0.45, 0.25, -0.4),
    "policy:tit-for-tat": (0.5, -0.5, 0.5, -0.5),
}
COLOURS = {
    "base": "#6b7280",
    **dict(zip(SEEDS, ("#d55e00", "#0072b2", "#009e73"), strict=True)),
    "utilitarian": "#cc79a7",
    "deontological": "#56b4e9",
    "policy:tit-for-tat": "#7a5195",
}


def behaviour_tables() -> Mapping[str, pl.DataFrame]:
    """Every table of behaviour that a figure draws, and ``agents`` and ``policy``."""
    rng = stream(13, "behaviour tables")
    rows = {
        "agents": _agents(),
        "policy": _policy(rng),
        "generalisation": _generalisation(rng),
        "regret": _regret(rng),
        "action_shares": _shares(rng),
        "contrasts": _contrasts(rng),
        "nearest": _nearest(rng),
        "robustness": _robustness(rng),
        "variance": _variance(rng),
        "play": synthetic_play.play(rng),
        "exploitability": synthetic_play.exploitability(rng),
        "price_of_morality": synthetic_play.price(rng),
        "standings": synthetic_play.standings(rng),
        "dynamics": synthetic_play.dynamics(),
        "fixation": synthetic_play.fixation(rng),
        "metric_agreement": _agreement(rng),
        "similarity": _similarity(rng),
        "side_effects": _side_effects(rng),
        "plays": synthetic_play.plays(rng),
    }
    return {name: from_rows(name, table) for name, table in rows.items()}


def _agents() -> list[Row]:
    def row(name: str) -> Row:
        scripted, base = name.startswith("policy"), name == "base"
        trained = not scripted and not base
        return {
            "agent": name,
            "base": "none" if scripted else "smol",
            "kind": "policy" if scripted else "base" if base else "adapter",
            "reward": name.split("-", maxsplit=1)[0] if trained else None,
            "opponent": "tit-for-tat" if trained else None,
            "training_seed": (int(name[-1]) if name in SEEDS else 1) if trained else None,
            "adapter_sha256": None,
            "dtype": "float32",
        }

    return [row(name) for name in AGENTS]


def _p(rng: np.random.Generator, agent: str, state: str, spread: float = 0.04) -> float:
    shift = SHAPE.get(agent, (0.05, -0.03, 0.02, -0.05))[STATES.index(state)]
    noise = 0.0 if agent.startswith("policy") else float(rng.normal(0, spread))
    return float(np.clip(LEVEL[agent] + shift + noise, 0.0, 1.0))


def _policy(rng: np.random.Generator) -> list[Row]:
    cells = product(AGENTS, ("IPD", "ISH"), ("action1/action2", "action2/action1"),
                    ("original", "rows"), STATES)  # fmt: skip
    return [
        {
            "agent": agent,
            "game": game,
            "family": "structured",
            "template": "table",
            "labels": labels,
            "table_order": order,
            "own_previous": state[0],
            "opponent_previous": state[1],
            "p_cooperate": _p(rng, agent, state, 0.08),
            "legal_mass": 0.97,
            "log_odds": None if agent.startswith("policy") else 0.5,
            "n_prompts": 4,
        }
        for agent, game, labels, order, state in cells
    ]


def _generalisation(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, game in product(AGENTS, GAMES):
        for labels, orders in (
            ("action1/action2", ("original", "rows", "columns", "both")),
            ("action2/action1", ("original", "rows", "columns", "both")),
            ("action3/action4", ("original",)),
        ):
            for order in orders:
                p = _p(rng, agent, "CC", 0.1)
                rows.append(
                    {
                        "agent": agent,
                        "game": game,
                        "labels": labels,
                        "table_order": order,
                        "p_cooperate": p,
                        **interval(p, float(rng.uniform(0.02, 0.2))),
                        "change_log_odds": None,
                        "legal_mass": 0.96,
                        "n_states": 4,
                    }
                )
    return rows


def _regret(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    scale = {"deontological": (1.6, 3.0, 6.0), "utilitarian": (3.0, 5.0, 12.0)}
    for agent, protocol, game, kind, opponent in product(
        AGENTS, ("exact", "paper"), GAMES, scale, ("tit-for-tat", "random")
    ):
        if protocol == "paper" and (game == "IVD" or opponent != "random"):
            continue
        most, attainable, published = scale[kind]
        value = most * (1 - LEVEL[agent]) * float(rng.uniform(0.8, 1.2))
        rows.append(
            {
                "agent": agent,
                "opponent_name": opponent,
                "protocol": protocol,
                "game": game,
                "kind": kind,
                "labels": LABELS,
                "regret": value,
                **interval(value, 0.25 if protocol == "exact" else 0.5, 0.0, 6.0),
                "regret_normalised_attainable": value / attainable,
                "regret_normalised_published": value / published,
                "legal": 0.98,
                "n": 0 if protocol == "exact" else 50,
                "n_units": 8 if protocol == "exact" else 10,
            }
        )
    return rows


def _shares(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, protocol, game in product(AGENTS, ("exact", "paper"), GAMES):
        if protocol == "paper" and game == "IVD":
            continue
        p = LEVEL[agent] + float(rng.normal(0, 0.03))
        for own, previous in product(("C", "D", "illegal"), "CD"):
            share = {"C": p * 0.98, "D": (1 - p) * 0.98, "illegal": 0.02}[own] / 2
            rows.append(
                {
                    "agent": agent,
                    "opponent_name": "random",
                    "protocol": protocol,
                    "game": game,
                    "labels": LABELS,
                    "own": own,
                    "opponent_previous": previous,
                    "share": share,
                    **interval(share, 0.03),
                    "n": 0 if protocol == "exact" else 50,
                    "n_units": 8 if protocol == "exact" else 10,
                }
            )
    return rows


CONTRASTS = (
    "reciprocity", "own-move", "guilt-repair", "forgiveness", "temptation", "exploitation",
    "trapped",
)  # fmt: skip


def _contrasts(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, (contrast, family, game) in product(
        AGENTS,
        [(c, "wordings", "IPD") for c in CONTRASTS]
        + [(c, "scenarios", "IPD") for c in CONTRASTS[4:]]
        + [(c, "structured", g) for c in CONTRASTS[:4] for g in GAMES],
    ):
        estimate = float(np.clip(rng.normal(SHAPE.get(agent, (0,))[0], 0.08), -1, 1))
        rows.append(
            {
                "agent": agent,
                "contrast": contrast,
                "game": game,
                "family": family,
                "estimate": estimate,
                **interval(estimate, float(rng.uniform(0.05, 0.2)), -1.0, 1.0),
                "change": None,
                "change_low": None,
                "change_high": None,
                "change_log_odds": None,
                "unit": "wordings" if family == "wordings" else "texts",
                "n_units": 8 if family == "wordings" else 4,
                "sentence": f"{agent}: {contrast}.",
            }
        )
    return rows


def _nearest(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, game in product(AGENTS, ("IPD", "ISH")):
        distances = sorted(float(x) for x in rng.uniform(0.05, 0.8, 4))
        names = rng.permutation(STRATEGIES)[:4]
        rows += [
            {
                "agent": agent,
                "game": game,
                "labels": "action1/action2",
                "strategy": str(name),
                "distance": distance,
                **interval(distance, 0.05),
                "rank": rank,
                "n_units": 4,
            }
            for rank, (name, distance) in enumerate(zip(names, distances, strict=True), 1)
        ]
    return rows


FACTORS = {
    "family": ("structured", "unstructured", "poetic", "explicit", "unrelated"),
    "labels": ("action1/action2", "action3/action4", "A/B", "red/blue"),
    "assignment": ("as given", "exchanged"),
    "option_order": ("C first", "D first"),
    "table_order": ("original", "rows", "columns", "both"),
    "stem": ("none", "my-answer-is", "i-will-play"),
    "system": ("none", "helpful", "ethicist", "terse"),
    "chat_template": ("on", "off"),
    "value": ("none", "utilitarian", "deontological", "selfish"),
    "state": STATES,
}


def _robustness(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, (factor, levels) in product(AGENTS, FACTORS.items()):
        for level in levels:
            p = float(np.clip(LEVEL[agent] + rng.normal(0, 0.08), 0, 1))
            rows.append(
                {
                    "agent": agent,
                    "factor": factor,
                    "level": level,
                    "p_cooperate": p,
                    **interval(p, float(rng.uniform(0.02, 0.15))),
                    "log_odds": None,
                    "legal_mass": 0.2 if (agent, level) == ("base", "off") else 0.95,
                    "change": None if level == levels[0] else 0.01,
                    "change_low": None,
                    "change_high": None,
                    "unit": "texts" if factor == "family" else "states",
                    "n_units": 8 if factor == "family" else 4,
                    "n_prompts": 64,
                }
            )
    return rows


PARTS = (
    "wording", "order", "label", "state", "wording x order", "wording x label", "wording x state",
    "order x label", "order x state", "label x state", "rest", "total",
)  # fmt: skip


def _variance(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent in AGENTS:
        shares = rng.dirichlet(np.array([2, 0.5, 3 if agent == "base" else 1, 4] + [0.4] * 7))
        for factor, share in zip(PARTS, [*map(float, shares), 1.0], strict=True):
            main = factor in PARTS[:4]
            rows.append(
                {
                    "agent": agent,
                    "design": "wordings",
                    "factor": factor,
                    "variance": 2.0 * share,
                    "share": share,
                    "total_share": min(1.0, share * 1.2) if main else None,
                    **(interval(share, 0.06) if factor != "total" else {}),
                    "levels": 8 if factor == "wording" else 2,
                    "n_prompts": 128,
                }
            )
    return rows


def _agreement(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, family, parser in product(
        AGENTS[:-1], ("structured", "poetic", "unrelated"), ("strict", "tolerant")
    ):
        expected = 1 - LEVEL[agent]
        observed = float(np.clip(expected + rng.normal(0, 0.02), 0, 1))
        none = (agent, family, parser) == ("base", "unrelated", "strict")
        rows.append(
            {
                "agent": agent,
                "family": family,
                "parser": parser,
                "expected": expected,
                "observed": None if none else observed,
                "low": None if none else observed - expected - 0.05,
                "high": None if none else observed - expected + 0.05,
                "legal_expected": 0.95,
                "legal_observed": 0.0 if none else 0.9 if parser == "strict" else 0.97,
                "correlation": None if none else 0.9,
                "p": None if none else 0.4,
                "n_prompts": 32,
                "n_answers": 320,
            }
        )
    return rows


def _similarity(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for (i, first), (j, second), family in product(
        enumerate(AGENTS), enumerate(AGENTS), ("structured", "clusters")
    ):
        if i >= j:
            continue
        value = 0.3 * abs(LEVEL[first] - LEVEL[second]) * float(rng.uniform(0.7, 1.3))
        rows.append(
            {
                "first": first,
                "second": second,
                "family": family,
                "divergence": value,
                **interval(value, 0.03),
                "total_variation": min(1.0, 2 * value),
                "margin": 0.01,
                "p_equivalent": 0.001 if value < 0.02 else 0.8,
                "n_scenarios": 16,
            }
        )
    return rows


MEASURES = {
    "kl": ("nats a token", 0.05),
    "perplexity": ("ratio", 0.8),
    "length": ("tokens", 9.0),
    "repetition": ("share", 0.04),
    "finished": ("share", 0.05),
    "unrelated_decisions": ("nats", 0.3),
}


def _side_effects(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, (measure, (unit, size)) in product(AGENTS[:-1], MEASURES.items()):
        base = agent == "base"
        change = 0.0 if base else size * float(rng.normal(0.5, 0.5))
        change = abs(change) if measure == "kl" else change
        rows.append(
            {
                "agent": agent,
                "measure": measure,
                "unit": unit,
                "value": change if measure == "kl" else 10 * size + change,
                "base": None if base else 0.0 if measure == "kl" else 10 * size,
                "change": None if base else change,
                **({} if base else interval(change, 0.4 * size, -1e9, 1e9)),
                "n_units": 24,
            }
        )
    return rows
