"""Drawn tables of play: encounters, exploiters, tournaments and populations."""

from __future__ import annotations

from itertools import product

import numpy as np

Row = dict[str, object]

SEEDS = ("game-seed1", "game-seed2", "game-seed3")
AGENTS: tuple[str, ...] = ("base", *SEEDS, "utilitarian", "deontological", "policy:tit-for-tat")
GAMES = ("IPD", "ISH", "ICN", "BOS", "ICD", "IVD")
STRATEGIES = (
    "always-cooperate", "always-defect", "tit-for-tat", "grim", "win-stay-lose-shift",
    "random", "generous-tit-for-tat", "zd-extort",
)  # fmt: skip
LABELS = "action3/action4"
LEVEL: dict[str, float] = dict(zip(AGENTS, (0.55, 0.12, 0.2, 0.16, 0.9, 0.7, 0.5), strict=True))


def interval(value: float, half: float, low: float = 0.0, high: float = 1.0) -> Row:
    return {"low": max(low, value - half), "high": min(high, value + half)}


def play(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    others = [(name, "strategy") for name in STRATEGIES] + [(name, "agent") for name in AGENTS]
    for agent, (other, kind), game, noise in product(AGENTS, others, GAMES, (0.0, 0.05)):
        mine = LEVEL[agent]
        theirs = LEVEL.get(other, 0.5)
        value = 1.0 + 2.0 * theirs + (1 - mine) + float(rng.normal(0, 0.05))
        rows.append(
            {
                "agent": agent,
                "other": other,
                "other_kind": kind,
                "game": game,
                "labels": "action1/action2",
                "noise": noise,
                "payoff": value,
                "payoff_other": 1.0 + 2.0 * mine + (1 - theirs),
                "cooperation": float(np.clip(mine + rng.normal(0, 0.05), 0, 1)),
                "cooperation_other": theirs,
                "legal": 0.97,
                **interval(value, 0.1, 0.0, 8.0),
                "n_units": 4,
            }
        )
    return rows


def exploitability(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, game in product(AGENTS, GAMES):
        value = 1.5 * LEVEL[agent] * float(rng.uniform(0.6, 1.2))
        rows.append(
            {
                "agent": agent,
                "game": game,
                "labels": "action1/action2",
                "best_response": "DDDD" if agent != "policy:tit-for-tat" else "CCCC",
                "exploiter_payoff": 2.0 + value,
                "agent_payoff": 0.5,
                "copy_payoff": 2.0,
                "exploitability": value,
                **interval(value, 0.15, 0.0, 5.0),
                "n_units": 4,
            }
        )
    return rows


def price(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    for agent, other, game in product(AGENTS, STRATEGIES, GAMES):
        given = 1.2 * LEVEL[agent] * float(rng.uniform(0.2, 1.2))
        gained = given * float(rng.uniform(-0.3, 2.0))
        rows.append(
            {
                "agent": agent,
                "other": other,
                "game": game,
                "labels": "action1/action2",
                "payoff": 2.0,
                "best_payoff": 2.0 + given,
                "given_up": given,
                "joint": 4.0 + gained,
                "joint_best": 4.0,
                "joint_gained": gained,
                "price": given / gained if gained > 0 else None,
            }
        )
    return rows


def standings(rng: np.random.Generator) -> list[Row]:
    rows: list[Row] = []
    players = [(name, "agent") for name in AGENTS]
    players += [(name, "native") for name in (*STRATEGIES, *(f"cycler-{i}" for i in range(18)))]
    for game in GAMES:
        scores = sorted((float(x) for x in rng.uniform(1.2, 3.2, len(players))), reverse=True)
        order = rng.permutation(len(players))
        for rank, (index, score) in enumerate(zip(order, scores, strict=True), 1):
            name, kind = players[int(index)]
            rows.append(
                {
                    "game": game,
                    "labels": LABELS,
                    "noise": 0.0,
                    "player": name,
                    "kind": kind,
                    "rank": rank,
                    "score": score,
                    **interval(score, 0.3, 0.0, 8.0),
                    "cooperation": 0.5,
                    "opponents": len(players) - 1,
                    "rounds": 200,
                    "repetitions": 10,
                }
            )
    return rows


def dynamics() -> list[Row]:
    players = (*AGENTS, *STRATEGIES)
    rows: list[Row] = []
    for g, game in enumerate(GAMES):
        fitness = np.array([np.sin(1.7 * i + g) for i in range(len(players))])
        for time in np.linspace(0.0, 40.0, 41):
            weights = np.exp(0.25 * fitness * time)
            for player, share in zip(players, weights / weights.sum(), strict=True):
                rows.append(
                    {
                        "game": game,
                        "labels": LABELS,
                        "noise": 0.0,
                        "process": "replicator",
                        "player": player,
                        "time": float(time),
                        "share": float(share),
                    }
                )
    return rows


def fixation(rng: np.random.Generator) -> list[Row]:
    return [
        {
            "game": game,
            "labels": LABELS,
            "noise": 0.0,
            "invader": invader,
            "resident": resident,
            "population": 50,
            "selection": 0.1,
            "fixation": float(rng.uniform(0.0, 0.08)),
            "neutral": 0.02,
        }
        for game, invader, resident in product(("IPD", "ISH"), AGENTS, STRATEGIES)
    ]


def plays(rng: np.random.Generator) -> list[Row]:
    """Sampled training of the three seeds: illegal answers at first, then defection."""
    rows: list[Row] = []
    for agent in (*SEEDS, "utilitarian"):
        goal = LEVEL[agent]
        for step, game_number in product(range(1, 121), range(1)):
            p = goal + (0.5 - goal) * float(np.exp(-step / 30))
            legal = 1 - 0.6 * float(np.exp(-step / 10))
            for turn in range(5):
                answer = rng.random() < legal
                own = ("C" if rng.random() < p else "D") if answer else "illegal"
                rows.append(
                    {
                        "agent": agent,
                        "training_seed": int(agent[-1]) if agent in SEEDS else 1,
                        "step": step,
                        "game_number": game_number,
                        "round": turn,
                        "prompt": "trained",
                        "own": own,
                        "others": "C" if rng.random() < 0.6 else "D",
                        "answer": "",
                        "points": 0.0,
                    }
                )
    return rows
