"""Inner values with planted correlations: two trained agents and their base on twenty scenarios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import synthetic

SITES = ("L0.h0", "L0.h1", "L0.h2", "L0.mlp", "L1.h0", "L1.h1", "L1.h2", "L1.mlp")
AGENTS = ("base", "game", "utilitarian")
NAMED = ("named", "game", "utilitarian")


def tables(
    seed: int = 3,
    *,
    scenarios: int = 20,
    sites: Sequence[str] = SITES,
    agents: Sequence[str] = AGENTS,
    flipped: Sequence[str] = (),
    hub: bool = False,
    noise: float = 0.35,
) -> synthetic.Tables:
    """Behaviour of the sound study, and ``norms`` in which one factor is shared by the sites.

    Args:
        seed: of the noise.
        scenarios: how many.
        sites: the first two of them carry the factor, in every agent.
        agents: who is measured.
        flipped: agents in which the second site carries it with the opposite sign.
        hub: whether further sites carry it as well, so that a flipped second site changes its
            correlation with each of them.
        noise: standard deviation of what a site has of its own, the factor's being 1.
    """
    rng = np.random.default_rng(seed)
    asked = synthetic.prompts(scenarios, 1)
    who = synthetic.agents().filter(pl.col("agent").is_in(list(agents)))
    scenario = asked.get_column("scenario").to_list()
    order = {name: index for index, name in enumerate(dict.fromkeys(scenario))}
    cluster = np.array([order[name] for name in scenario])
    shared = rng.normal(0.0, 0.9, len(order))[cluster] + rng.normal(0.0, 0.4, len(scenario))
    rows: list[pl.DataFrame] = []
    for agent in agents:
        for index, site in enumerate(sites):
            sign = -1.0 if index == 1 and agent in flipped else 1.0
            carried = index < 2 or hub
            own = rng.normal(0.0, noise if carried else 1.0, len(scenario))
            norm = 10.0 + index + (sign * shared if carried else 0.0) + own
            rows.append(
                asked.select("prompt").with_columns(
                    agent=pl.lit(agent), site=pl.lit(site), norm=pl.Series(norm)
                )
            )
    effects = synthetic.EFFECTS
    return {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, effects),
        "norms": pl.concat(rows),
    }


def as_attribution(planted: synthetic.Tables) -> synthetic.Tables:
    """The same numbers as contributions to the answer."""
    rows = planted["norms"].with_columns(
        contribution=pl.col("norm") - 10.0,
        token=pl.lit(-1, pl.Int64),
        layer=pl.lit(None, pl.Int64),
        kind=pl.lit("head"),
        head=pl.lit(None, pl.Int64),
        part=pl.lit("whole"),
    )
    rest = {name: frame for name, frame in planted.items() if name != "norms"}
    return {**rest, "attribution": rows.drop("norm")}


def as_projections(planted: synthetic.Tables) -> pl.DataFrame:
    """The same numbers as pushes along the decision, positive and negative."""
    return planted["norms"].select(
        "agent", "prompt", "site", projection=(pl.col("norm") - 12.0) / 10.0
    )


def comparisons(
    *pairs: tuple[str, str, str], name: str = "asked", tested: bool = True
) -> pl.DataFrame:
    """The table ``comparisons`` of pairs (kind, first, second)."""
    return pl.DataFrame(
        [(name, *pair, tested) for pair in pairs],
        schema=["comparison", "kind", "agent_a", "agent_b", "tested"],
        orient="row",
    )
