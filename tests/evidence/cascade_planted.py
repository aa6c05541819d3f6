"""Seeds of two rewards with a difference planted at chosen levels, and tables of every level.

At every level fine-tuning moves each agent from the base by the same shift, and each training seed
by a little of its own. Where it is planted, the two rewards move agents in opposite directions too.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
import synthetic

from moralscope.core.tables import from_rows

LEVELS = ("behaviour", "attribution", "attention", "wiring", "weights", "representations")
PRIMARY = {
    "behaviour": "log_odds", "attribution": "contribution", "attention": "attention_log_odds",
    "wiring": "norm_correlation", "weights": "update", "representations": "stream",
}  # fmt: skip
SITES = tuple(f"L{layer}.{kind}" for layer in range(3) for kind in ("attn", "mlp"))
MODULES = ("q_proj", "down_proj")
TRAINED, OWN, PLANTED = 2.0, 0.3, 1.0
"""Sizes of what training does, of what a seed adds, and of what is planted."""


def study(
    seeds: Mapping[str, int],
    planted: Collection[str] = (),
    *,
    seed: int = 3,
    scenarios: int = 8,
    levels: Collection[str] = LEVELS,
    name: str = "frameworks",
    comparisons: pl.DataFrame | None = None,
) -> synthetic.Tables:
    """Tables of a study of some rewards; ``comparisons`` names all pairs of the first two.

    Args:
        seeds: training seeds per reward.
        planted: levels at which the rewards differ.
        seed: of everything that is drawn.
        scenarios: how many, with four prompts each.
        levels: that were measured.
        name: of the comparison.
        comparisons: to take instead.
    """
    rng = np.random.default_rng(seed)
    asked = synthetic.prompts(scenarios)
    who = agents(seeds)
    sides = {reward: 1.0 - 2.0 * i for i, reward in enumerate(seeds)}
    rewards: dict[str, str | None] = dict(who.select("agent", "reward").iter_rows())

    def moved(level: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """What each agent adds to the base at a level."""
        common, apart = rng.normal(0, 1, shape), rng.normal(0, 1, shape)
        size = PLANTED * (level in planted)
        return {
            agent: 0.0 * common
            if reward is None
            else TRAINED * common + OWN * rng.normal(0, 1, shape) + size * sides[reward] * apart
            for agent, reward in rewards.items()
        }

    tables: synthetic.Tables = {"agents": who, "prompts": asked}
    tables["comparisons"] = pairs(who, name) if comparisons is None else comparisons
    cluster = np.repeat(np.arange(scenarios), asked.height // scenarios)
    if "behaviour" in levels:
        tables["decisions"] = _decisions(asked, moved("behaviour", (scenarios,)), cluster, rng)
    if "attribution" in levels:
        by_site = moved("attribution", (scenarios, len(SITES)))
        tables["attribution"] = _attribution(asked, by_site, cluster, rng)
        tables["completeness"] = synthetic.completeness(list(rewards), asked, rng)
    if "attention" in levels:
        tables["attention"] = _attention(asked, moved("attention", (scenarios, 2, 2)), cluster)
    if "wiring" in levels:
        tables["norms"] = _norms(asked, moved("wiring", (len(SITES),)), rng)
    if "weights" in levels:
        tables["update_distances"] = _weights(moved("weights", (len(MODULES), 60)))
    if "representations" in levels:
        streams = moved("representations", (scenarios, 2, 20))
        tables["representation_pairs"] = _streams(asked, streams, cluster)
    return tables


def agents(seeds: Mapping[str, int]) -> pl.DataFrame:
    """A base and the seeds of each reward."""
    rows: list[dict[str, object]] = [
        {"agent": "base", "kind": "base", "reward": None, "training_seed": None}
    ]
    rows += [
        {"agent": f"{reward}-{k}", "kind": "adapter", "reward": reward, "training_seed": k}
        for reward, count in seeds.items()
        for k in range(count)
    ]
    return from_rows("agents", [{**row, "base": "tiny", "dtype": "float64"} for row in rows])


def pairs(who: pl.DataFrame, name: str) -> pl.DataFrame:
    """All pairs of agents of different rewards under one name; bases and seeds besides."""
    trained = who.filter(pl.col("kind") != "base").select("agent", "reward").rows()
    rows = [("base", "base", "base", agent) for agent, _ in trained]
    rows += [
        ("seeds", "replicate", a, b) if r == q else (name, "named", a, b)
        for (a, r), (b, q) in itertools.combinations(trained, 2)
    ]
    return pl.DataFrame(
        rows, schema=["comparison", "kind", "agent_a", "agent_b"], orient="row"
    ).with_columns(tested=pl.lit(value=True))


def _decisions(
    asked: pl.DataFrame,
    moved: Mapping[str, np.ndarray],
    cluster: np.ndarray,
    rng: np.random.Generator,
) -> pl.DataFrame:
    base = rng.normal(0.5, 1.0, asked.height)
    return pl.concat([
        asked.select("prompt", "game", "scenario").with_columns(
            agent=pl.lit(agent), log_odds=pl.Series(base + own[cluster]),
            fingerprint_log_odds=pl.Series(base + own[cluster]),
            p_positive=0.5, p_negative=0.5, legal_mass=1.0, p_positive_given_legal=0.5,
        )
        for agent, own in moved.items()
    ])  # fmt: skip


def _attribution(
    asked: pl.DataFrame,
    moved: Mapping[str, np.ndarray],
    cluster: np.ndarray,
    rng: np.random.Generator,
) -> pl.DataFrame:
    base = rng.normal(0.0, 1.0, (asked.height, len(SITES)))
    none = pl.lit(None, pl.Int64)
    return pl.concat([
        asked.select("prompt").with_columns(
            agent=pl.lit(agent), site=pl.lit(site), token=pl.lit(-1, pl.Int64), layer=none,
            kind=pl.lit("mlp"), head=none, part=pl.lit("whole"),
            contribution=pl.Series(base[:, k] + own[cluster, k]),
        )
        for agent, own in moved.items() for k, site in enumerate(SITES)
    ])  # fmt: skip


def _attention(
    asked: pl.DataFrame, moved: Mapping[str, np.ndarray], cluster: np.ndarray
) -> pl.DataFrame:
    parts = []
    for agent, own in moved.items():
        for head, (k, category) in itertools.product((0, 1), enumerate(("payoffs", "goal"))):
            mass = 1.0 / (1.0 + np.exp(2.0 - 0.5 * own[cluster, head, k]))
            parts.append(asked.select("prompt").with_columns(
                agent=pl.lit(agent), layer=pl.lit(0, pl.Int64), head=pl.lit(head, pl.Int64),
                category=pl.lit(category), mass=pl.Series(mass), tokens=pl.lit(3, pl.Int64),
            ))  # fmt: skip
    return pl.concat(parts)


def _norms(
    asked: pl.DataFrame, moved: Mapping[str, np.ndarray], rng: np.random.Generator
) -> pl.DataFrame:
    """One factor in all sites, whose loadings training moves, and noise common to all agents."""
    factor = rng.normal(0.0, 1.0, asked.height)
    noise = rng.normal(0.0, 1.0, (asked.height, len(SITES)))
    return pl.concat([
        asked.select("prompt").with_columns(
            agent=pl.lit(agent), site=pl.lit(site),
            norm=pl.Series(20.0 + factor * (1.0 + 0.5 * own[k]) + noise[:, k]),
        )
        for agent, own in moved.items() for k, site in enumerate(SITES)
    ])  # fmt: skip


def _weights(moved: Mapping[str, np.ndarray]) -> pl.DataFrame:
    rows = []
    for a, b in itertools.combinations([agent for agent in moved if agent != "base"], 2):
        for k, module in enumerate(MODULES):
            x, y = moved[a][k], moved[b][k]
            inner, na, nb = float(x @ y), float(np.linalg.norm(x)), float(np.linalg.norm(y))
            rows.append({
                "agent_a": a, "agent_b": b, "layer": 0, "module": module, "inner": inner,
                "norm_a": na, "norm_b": nb, "cosine": inner / (na * nb),
                "distance": float(np.linalg.norm(x - y) / np.hypot(na, nb)), "reach": None,
            })  # fmt: skip
    return from_rows("update_distances", rows)


def _streams(
    asked: pl.DataFrame, moved: Mapping[str, np.ndarray], cluster: np.ndarray
) -> pl.DataFrame:
    names = asked.get_column("prompt").to_list()
    rows = []
    for a, b in itertools.combinations(moved, 2):
        for prompt, g in zip(names, cluster.tolist(), strict=True):
            for layer in (0, 1):
                x, y = moved[a][g, layer], moved[b][g, layer]
                lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
                rows.append({
                    "agent_a": a, "agent_b": b, "prompt": prompt, "layer": layer,
                    "change_cosine": float(x @ y) / lengths if lengths > 0 else None,
                    "raw_cosine": 0.999, "distance": float(np.linalg.norm(x - y)) / 50.0,
                })  # fmt: skip
    return from_rows("representation_pairs", rows)
