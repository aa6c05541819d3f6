"""A small study in which nothing is the matter and nothing is to be found, with every table.

Three agents on ten scenarios of two prompts. The trained agents are alive and move in every
scenario, with mean zero; sites have effects, contributions and norms of mean zero about what all
share. Only the full swap does something, so that flips have a ceiling.
"""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import polars as pl
import synthetic

SCENARIOS, WORDINGS = 10, 2
AGENTS = ("base", "game", "utilitarian")
SITES = ("L0.h0", "L0.h1", "L0.mlp", "L1.h0", "L1.h1", "L1.mlp")
CATEGORIES = ("payoffs", "labels")

_NAMES = [f"s{s}w{w}" for s in range(SCENARIOS) for w in range(WORDINGS)]
_CLUSTER = np.repeat(np.arange(SCENARIOS), WORDINGS)
_NULL = {"layer": pl.lit(None, pl.Int64), "head": pl.lit(None, pl.Int64)}


def prompts() -> pl.DataFrame:
    texts = [f"text {name}" for name in _NAMES]
    return pl.DataFrame(
        {
            "prompt": _NAMES,
            "scenario": [f"s{cluster}" for cluster in _CLUSTER],
            "template": [f"w{name[-1]}" for name in _NAMES],
            "text": texts,
            "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
        }
    ).with_columns(
        game=pl.lit("IPD"),
        family=pl.lit("clusters"),
        labels=pl.lit("1/2"),
        option_order=pl.lit(0, pl.Int64),
        answer_order=pl.lit(0, pl.Int64),
        table_order=pl.lit("none"),
        stem=pl.lit(""),
        system=pl.lit(""),
        chat_template=pl.lit(value=True),
        own_previous=pl.lit(None, pl.String),
        opponent_previous=pl.lit(None, pl.String),
        positive=pl.lit("2"),
        negative=pl.lit("1"),
    )


PROMPTS = prompts()


def noise(rng: np.random.Generator, columns: int, of_scenario: float, own: float) -> np.ndarray:
    """(prompts, columns) with a part that the prompts of a scenario share."""
    shared = rng.normal(0.0, of_scenario, (SCENARIOS, columns))[_CLUSTER]
    return shared + rng.normal(0.0, own, (len(_NAMES), columns))


def by_site(values: np.ndarray, column: str, sites: tuple[str, ...] = SITES) -> pl.DataFrame:
    """Long rows (prompt, site, value) of a matrix of prompts by sites."""
    return pl.DataFrame(
        {
            "prompt": np.repeat(np.array(_NAMES), len(sites)),
            "site": np.tile(np.array(sites), len(_NAMES)),
            column: values.ravel(),
        }
    )


def study(seed: int) -> synthetic.Tables:
    """A sound study without any effect."""
    rng = np.random.default_rng(seed)
    agents = synthetic.agents().filter(pl.col("agent").is_in(AGENTS))
    norms = pl.concat(
        by_site(noise(rng, len(SITES), 0.6, 0.8) + 10.0, "norm").with_columns(agent=pl.lit(agent))
        for agent in AGENTS[1:]
    )
    return {
        "agents": agents,
        "prompts": PROMPTS,
        "decisions": _decisions(rng),
        "attribution": _attribution(rng),
        "completeness": _completeness(rng),
        "patching": pl.concat(
            [_sweep(rng, "game", "utilitarian"), _sweep(rng, "utilitarian", "game")]
        ),
        "controls": synthetic.controls(
            list(AGENTS), ["game>utilitarian", "utilitarian>game"], PROMPTS
        ),
        "norms": norms,
        "interactions": interactions(norms),
        "attention": _attention(rng),
        "metric_agreement": _agreement(),
    }


def _decisions(rng: np.random.Generator) -> pl.DataFrame:
    base = noise(rng, 1, 1.0, 0.3)[:, 0] + 0.5
    frames = []
    for agent in AGENTS:
        change = 0.0 if agent == "base" else noise(rng, 1, 0.8, 0.2)[:, 0]
        x = base + change
        p = 1.0 / (1.0 + np.exp(-x))
        kept = [None] * len(x) if agent == "base" else (x + 1e-6).tolist()
        frames.append(
            PROMPTS.select("prompt", "game", "scenario").with_columns(
                agent=pl.lit(agent),
                log_odds=pl.Series(x),
                p_positive=pl.Series(0.95 * p),
                p_negative=pl.Series(0.95 * (1.0 - p)),
                legal_mass=pl.lit(0.95),
                p_positive_given_legal=pl.Series(p),
                fingerprint_log_odds=pl.Series(kept, dtype=pl.Float64),
            )
        )
    return pl.concat(frames)


def _attribution(rng: np.random.Generator) -> pl.DataFrame:
    shared = noise(rng, len(SITES), 0.5, 0.2)
    return pl.concat(
        by_site(shared + noise(rng, len(SITES), 0.3, 0.1), "contribution").with_columns(
            agent=pl.lit(agent), token=pl.lit(-1, pl.Int64), kind=pl.lit("head"),
            part=pl.lit("whole"), **_NULL,
        )
        for agent in AGENTS
    )  # fmt: skip


def _completeness(rng: np.random.Generator) -> pl.DataFrame:
    return pl.concat(
        pl.DataFrame({"prompt": _NAMES, "error": rng.normal(0.0, 1e-6, len(_NAMES))}).with_columns(
            agent=pl.lit(agent), logit_diff=pl.lit(1.5), remainder=pl.lit(0.0)
        )
        for agent in AGENTS
    )


def _sweep(rng: np.random.Generator, source: str, target: str) -> pl.DataFrame:
    sites = (*SITES, "all")
    effects = noise(rng, len(sites), 0.1, 0.05)
    effects[:, -1] -= 2.0
    return patched(by_site(effects, "effect", sites)).with_columns(
        source=pl.lit(source), target=pl.lit(target)
    )


def patched(effects: pl.DataFrame) -> pl.DataFrame:
    """Rows of a sweep from its effects on a baseline of one nat."""
    after = pl.col("baseline_log_odds") + pl.col("effect")
    return effects.with_columns(
        source_prompt=pl.col("prompt"), kind=pl.lit("head"), positions=pl.lit("answer_span"),
        write=pl.lit("write"), baseline_log_odds=pl.lit(1.0), **_NULL,
        first_patched=pl.lit(40, pl.Int64), first_scored=pl.lit(41, pl.Int64),
    ).with_columns(patched_log_odds=after, margin=after, flipped=after < 0.0)  # fmt: skip


def interactions(norms: pl.DataFrame) -> pl.DataFrame:
    """Correlations of every pair of sites as they would be printed; of constants null."""
    rows: list[dict[str, object]] = []
    for agent in norms["agent"].unique(maintain_order=True):
        wide = norms.filter(pl.col("agent") == agent).pivot("site", index="prompt", values="norm")
        for a, b in combinations(SITES, 2):
            x, y = wide[a].to_numpy(), wide[b].to_numpy()
            flat = np.ptp(x) == 0.0 or np.ptp(y) == 0.0
            rows.append(
                {"agent": agent, "site_a": a, "site_b": b, "measure": "pearson",
                 "value": None if flat else float(np.corrcoef(x, y)[0, 1]), "n": len(x)}
            )  # fmt: skip
    return pl.DataFrame(rows, infer_schema_length=None)


def _attention(rng: np.random.Generator) -> pl.DataFrame:
    places = [(a, h, c) for a in AGENTS[1:] for h in range(2) for c in CATEGORIES]
    return pl.concat(
        pl.DataFrame({"prompt": _NAMES, "mass": rng.uniform(0.1, 0.4, len(_NAMES))}).with_columns(
            agent=pl.lit(agent),
            layer=pl.lit(0, pl.Int64),
            head=pl.lit(head, pl.Int64),
            category=pl.lit(category),
        )
        for agent, head, category in places
    )


def _agreement() -> pl.DataFrame:
    rows = [
        {"agent": agent, "family": "structured", "parser": "strict", "expected": 0.6,
         "observed": 0.62, "low": -0.03, "high": 0.07, "legal_expected": 0.9,
         "legal_observed": 0.88, "correlation": 0.9, "p": 0.4, "n_prompts": 16, "n_answers": 320}
        for agent in AGENTS
    ]  # fmt: skip
    return pl.DataFrame(rows)
