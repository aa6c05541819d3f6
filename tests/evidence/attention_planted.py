"""Attention and its edits with planted truth: three agents on twenty scenarios of four prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import synthetic

CATEGORIES = ("first", "payoffs", "labels", "goal", "rest")
TOKENS = (1, 12, 9, 14, 90)
AGENTS = ("base", "game", "utilitarian")
LAYERS, HEADS = 2, 3

Plant = Mapping[tuple[str, int, int, str], float]
"""(agent, layer, head, category) to what is added to the logit of its mass."""


def attention(
    asked: pl.DataFrame,
    plant: Plant,
    *,
    seed: int = 1,
    agents: Sequence[str] = AGENTS,
    noise: float = 0.1,
) -> pl.DataFrame:
    """Masses from logits that all agents share, with noise of their own and what is planted."""
    rng = np.random.default_rng(seed)
    names = asked.get_column("prompt").to_list()
    shape = (len(names), LAYERS, HEADS, len(CATEGORIES))
    shared = rng.normal(0.0, 1.0, shape)
    shared[..., 0] += 2.0
    frames: list[pl.DataFrame] = []
    for agent in agents:
        logits = shared + (rng.normal(0.0, noise, shape) if agent != "base" else 0.0)
        for (who, layer, head, category), size in plant.items():
            if who == agent:
                logits[:, layer, head, CATEGORIES.index(category)] += size
        mass = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        prompt, layer, head, category = (index.ravel() for index in np.indices(shape))
        frames.append(
            pl.DataFrame(
                {
                    "agent": [agent] * mass.size,
                    "prompt": np.array(names)[prompt],
                    "layer": layer,
                    "head": head,
                    "category": np.array(CATEGORIES)[category],
                    "mass": mass.ravel(),
                    "tokens": np.array(TOKENS)[category],
                }
            )
        )
    return pl.concat(frames)


def edits(
    asked: pl.DataFrame,
    uses: Mapping[tuple[str, str], float],
    *,
    seed: int = 2,
    agents: Sequence[str] = AGENTS,
    draws: int = 4,
) -> pl.DataFrame:
    """Masks with effects of either sign, as large as those of random tokens and what is planted."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for agent in agents:
        for prompt in asked.get_column("prompt"):
            for category in ("payoffs", "labels", "goal"):
                size = uses.get((agent, category), 0.0)
                sign = 1.0 if rng.random() < 0.5 else -1.0
                for draw in range(-1, draws):
                    effect = float(rng.normal(0.0, 0.2)) + (sign * size if draw < 0 else 0.0)
                    rows.append(edit(agent, prompt, category, draw, effect))
                rows.append(edit(agent, prompt, category, -1, -sign * size) | AMPLIFIED)
    return pl.DataFrame(rows)


AMPLIFIED: dict[str, object] = {"how": "amplify", "factor": 4.0}


def edit(agent: str, prompt: str, category: str, draw: int, effect: float) -> dict[str, object]:
    return {
        "agent": agent, "prompt": prompt, "category": category, "how": "mask", "factor": 0.0,
        "layers": "all", "draw": draw, "tokens": 9, "baseline_log_odds": 1.0,
        "edited_log_odds": 1.0 + effect, "effect": effect,
    }  # fmt: skip


def tables(
    plant: Plant | None = None,
    uses: Mapping[tuple[str, str], float] | None = None,
    *,
    scenarios: int = 20,
    agents: Sequence[str] = AGENTS,
    seed: int = 1,
) -> synthetic.Tables:
    asked = synthetic.prompts(scenarios)
    who = synthetic.agents().filter(pl.col("agent").is_in(list(agents)))
    rng = np.random.default_rng(seed)
    return {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, synthetic.EFFECTS),
        "attention": attention(asked, plant or {}, seed=seed, agents=agents),
        "attention_edits": edits(asked, uses or {}, seed=seed + 1, agents=agents),
    }
