"""Agents whose sub-layers share planted factors: networks and rewards with known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import inner_planted
import numpy as np
import polars as pl
import synthetic

from moralscope.core.tables import from_rows

LAYERS = 4
SITES = tuple(f"L{layer}.{kind}" for layer in range(LAYERS) for kind in ("attn", "mlp"))


def writes(
    carried: Mapping[str, Mapping[str, float]],
    *,
    seed: int = 0,
    scenarios: int = 40,
    sites: Sequence[str] = SITES,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Prompts, and norms in which one factor is carried by some sites.

    Args:
        carried: per agent, how much of the factor each of some sites carries.
        seed: of the noise, of standard deviation .4 at every site beside a part of its own.
        scenarios: how many, of three wordings.
        sites: all of them.
    """
    rng = np.random.default_rng(seed)
    asked = synthetic.prompts(scenarios, 1)
    n = asked.height
    factor, own = rng.normal(size=n), rng.normal(size=(n, len(sites)))
    parts: list[pl.DataFrame] = []
    for agent, weights in carried.items():
        noise = rng.normal(0.0, 0.4, (n, len(sites)))
        for k, site in enumerate(sites):
            share = weights.get(site, 0.0)
            norm = 10.0 + share * factor + (1.0 - abs(share)) * own[:, k] + noise[:, k]
            parts.append(
                asked.select("prompt").with_columns(
                    agent=pl.lit(agent), site=pl.lit(site), norm=pl.Series(norm)
                )
            )
    return asked, pl.concat(parts) if parts else pl.DataFrame()


def pair(
    planted: Mapping[str, float], other: Mapping[str, float] | None = None, seed: int = 0
) -> dict[str, pl.DataFrame]:
    """Two agents of different rewards, the first of which carries the factor where planted."""
    carried = {"game": planted, "utilitarian": other or {}}
    asked, norms = writes(carried, seed=seed)
    who = synthetic.agents().filter(pl.col("agent").is_in(["base", *carried]))
    rng = np.random.default_rng(seed)
    return {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, synthetic.EFFECTS),
        "norms": norms,
        "comparisons": inner_planted.comparisons(inner_planted.NAMED),
    }


def of_rewards(
    planted: Mapping[str, Mapping[str, float]], seeds: int, seed: int = 0
) -> dict[str, pl.DataFrame]:
    """Agents of some rewards and seeds; those of a reward carry the factor at the same sites."""
    names = [(reward, k) for reward in planted for k in range(seeds)]
    carried = {f"{reward}-{k}": planted[reward] for reward, k in names}
    asked, norms = writes(carried, seed=seed, sites=SITES[:6])
    rows = [{"agent": "base", "kind": "base", "reward": None, "training_seed": None}] + [
        {"agent": f"{reward}-{k}", "kind": "adapter", "reward": reward, "training_seed": k}
        for reward, k in names
    ]
    who = from_rows("agents", [{**row, "base": "tiny", "dtype": "float64"} for row in rows])
    return {"agents": who, "prompts": asked, "norms": norms}
