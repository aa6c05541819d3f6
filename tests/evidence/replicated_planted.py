"""Training seeds of several rewards with known distances: decisions, contributions, norms."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import synthetic

from moralscope.core.tables import from_rows

SITES = ("L0.h0", "L0.h1", "L0.mlp")

Row = dict[str, object]


def study(
    seeds: dict[str, int],
    apart: float = 2.0,
    *,
    seed: int = 5,
    inner: tuple[str, ...] = (),
    scenarios: int = 10,
) -> synthetic.Tables:
    """Agents whose every number is their reward's mean, 0 or ``apart``, with noise of their own."""
    rng = np.random.default_rng(seed)
    asked = synthetic.prompts(scenarios, 1)
    names = asked.get_column("prompt").to_list()
    rows: list[Row] = [{"agent": "base", "kind": "base", "reward": None, "training_seed": None}]
    rows += [
        {"agent": f"{reward}-{k}", "kind": "adapter", "reward": reward, "training_seed": k}
        for reward, count in seeds.items()
        for k in range(count)
    ]
    who = from_rows("agents", [{**row, "base": "tiny", "dtype": "float64"} for row in rows])
    means = {None: 0.5} | {reward: apart * i for i, reward in enumerate(seeds)}
    frames: dict[str, list[pl.DataFrame]] = {"decisions": [], **{name: [] for name in inner}}
    for row in rows:
        agent, mean = pl.lit(row["agent"]), means[row["reward"]]
        own = mean + rng.normal(0.0, 0.4) + rng.normal(0.0, 0.5, len(names))
        frames["decisions"].append(
            asked.select("prompt", "game", "scenario").with_columns(
                agent=agent, log_odds=pl.Series(own), fingerprint_log_odds=pl.Series(own)
            )
        )
        for table, site in itertools.product(inner, SITES):
            y = pl.Series(3.0 + mean + rng.normal(0.0, 0.4) + rng.normal(0.0, 0.5, len(names)))
            values = asked.select("prompt").with_columns(agent=agent, site=pl.lit(site))
            frames[table].append(
                values.with_columns(norm=y)
                if table == "norms"
                else values.with_columns(
                    contribution=y, token=-1, kind=pl.lit("head"), part=pl.lit("whole")
                )
            )
    made = {name: pl.concat(parts) for name, parts in frames.items()}
    made["decisions"] = made["decisions"].with_columns(
        p_positive=0.5, p_negative=0.5, legal_mass=1.0, p_positive_given_legal=0.5
    )
    if "attribution" in made:
        none = pl.lit(None, pl.Int64)
        made["attribution"] = made["attribution"].with_columns(layer=none, head=none)
        agents = who.get_column("agent").to_list()
        made["completeness"] = synthetic.completeness(agents, asked, rng)
    return {"agents": who, "prompts": asked, **made}
