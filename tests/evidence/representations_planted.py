"""Streams of training seeds of two rewards, and searches for subspaces, with known truth."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import replicated_planted
import synthetic

from moralscope.core.tables import from_rows

LAYERS = (-1, 0, 1)

Row = dict[str, object]


def study(
    seeds: dict[str, int], *, apart: float, spread: float = 0.5, scenarios: int = 20, seed: int = 3
) -> synthetic.Tables:
    """Agents whose change from base is their reward's, plus their seed's, plus the prompt's.

    Args:
        seeds: of each reward.
        apart: length of the difference between two rewards.
        spread: of the seeds, and half of it of prompts.
        scenarios: units.
        seed: of all draws.
    """
    tables = replicated_planted.study(seeds, 1.0, scenarios=scenarios)
    rng = np.random.default_rng(seed)
    asked = tables["prompts"].get_column("prompt").to_list()
    names = [name for name in tables["agents"].get_column("agent").to_list() if name != "base"]
    common = rng.standard_normal(12)
    of_reward = {r: apart * np.eye(12)[i] / np.sqrt(2.0) for i, r in enumerate(seeds)}
    change = {
        name: common
        + of_reward[name.rpartition("-")[0]]
        + spread * rng.standard_normal(12) / np.sqrt(12.0)
        + 0.5 * spread * rng.standard_normal((len(asked), 12)) / np.sqrt(12.0)
        for name in names
    } | {"base": np.zeros((len(asked), 12))}
    rows: list[Row] = []
    for one, other in itertools.combinations(["base", *names], 2):
        x, y = change[one], change[other]
        for i, prompt in enumerate(asked):
            size = float(np.linalg.norm(x[i]) * np.linalg.norm(y[i]))
            cosine = float(x[i] @ y[i]) / size if size else None
            for layer in LAYERS:
                moved = float(np.linalg.norm(x[i] - y[i])) / 10.0 if layer >= 0 else 0.0
                rows.append({
                    "agent_a": one, "agent_b": other, "prompt": prompt, "layer": layer,
                    "change_cosine": cosine if layer >= 0 else None, "raw_cosine": 1.0,
                    "distance": moved,
                })  # fmt: skip
    return {**tables, "representation_pairs": from_rows("representation_pairs", rows)}


def judged(tables: synthetic.Tables, seeds: dict[str, int]) -> synthetic.Tables:
    """One named comparison of two rewards, of which only the first seeds are judged alone."""
    groups = {r: [f"{r}-{k}" for k in range(n)] for r, n in seeds.items()}
    one, other = groups
    rows = [
        {"comparison": "question", "kind": "named", "agent_a": a, "agent_b": b,
         "tested": (a, b) == (groups[one][0], groups[other][0])}
        for a in groups[one] for b in groups[other]
    ]  # fmt: skip
    rows += [
        {"comparison": "seeds", "kind": "replicate", "agent_a": a, "agent_b": b, "tested": True}
        for names in groups.values()
        for a, b in itertools.combinations(names, 2)
    ]
    rows += [
        {"comparison": "base", "kind": "base", "agent_a": "base", "agent_b": a, "tested": True}
        for names in groups.values()
        for a in names
    ]
    return {**tables, "comparisons": from_rows("comparisons", rows)}


def twins(tables: synthetic.Tables, first: str, second: str) -> synthetic.Tables:
    """Two agents made exactly equal."""
    pair = (pl.col("agent_a") == first) & (pl.col("agent_b") == second)
    table = tables["representation_pairs"].with_columns(
        distance=pl.when(pair).then(0.0).otherwise(pl.col("distance")),
        change_cosine=pl.when(pair & pl.col("change_cosine").is_not_null())
        .then(1.0)
        .otherwise(pl.col("change_cosine")),
    )
    return {**tables, "representation_pairs": table}


def searched(
    tables: synthetic.Tables,
    *,
    reached: float,
    seed: int = 9,
    full: float = 1.0,
    searches: int = 6,
    luck: float = 0.0,
) -> synthetic.Tables:
    """A search in one agent: after layer 1 two directions reach a share, elsewhere nothing does.

    Args:
        tables: with prompts.
        reached: share of the effect that is reached there.
        seed: of the noise.
        full: size of the whole exchange, in nats.
        searches: for arbitrary sides at that place; elsewhere one.
        luck: standard deviation of what each search reaches of what it is asked, by chance.
    """
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    asked = tables["prompts"].get_column("prompt").to_list()
    for layer, k, control in itertools.product((0, 1), (1, 2), ("none", "arbitrary", "random")):
        judged = (layer, k) == (1, 2)
        draws = {"none": 1, "arbitrary": searches if judged else 1, "random": 3}[control]
        for draw in range(draws):
            signs = rng.choice([-1.0, 1.0], size=len(asked))
            chance = 0.0 if control == "random" else luck * rng.standard_normal()
            share = chance + (reached if judged and control == "none" else 0.0)
            for i, prompt in enumerate(asked):
                whole = full * (1.0 + 0.3 * np.sin(i))
                wanted = whole * (signs[i] if control == "arbitrary" else 1.0)
                rows.append({
                    "what": "opponent_previous", "source": "game-0", "agent": "game-0",
                    "layer": layer, "dimension": k, "control": control, "draw": draw,
                    "prompt": prompt, "source_prompt": prompt,
                    "split": "test" if i % 2 else "train", "full_effect": whole, "wanted": wanted,
                    "effect": share * wanted + 0.1 * full * rng.standard_normal(),
                })  # fmt: skip
    return {**tables, "subspace_effects": from_rows("subspace_effects", rows)}
