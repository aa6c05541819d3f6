"""Drawn tables of what only some runs ask for: controls of the lens, circuits and the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from synthetic_judged import control_patches
from synthetic_run import Size, sites

from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, read_table, write_table

Row = dict[str, object]

PAIRS = (("base", "game"), ("game", "base"))
METHODS = ("attribution_patching", "integrated_gradients", "relp")
WAY: Row = {"positions": "answer_span", "write": "write"}


def add_further(run: Path, size: Size | None = None) -> Path:
    """Add the further tables to a synthetic run of this size."""
    size = size or Size()
    rng = stream(12, "further tables")
    lens = read_table("lens", run / "tables")
    patching = read_table("patching", run / "tables")
    tables = {
        "lens_controls": lens_controls(rng, lens),
        "stabilisation_summary": summary(lens),
        "agreement": agreement(),
        "circuits": [circuit(*pair, name) for pair in PAIRS for name in ("first", "disjoint-2")],
        "circuit_curves": [row for pair in PAIRS for row in curves(rng, *pair)],
        "circuit_stability": [row for pair in PAIRS for row in stability(*pair)],
        "control_patches": control_patches(size),
        "localisation": [localisation(*pair) for pair in PAIRS],
        "targeting": targeting(),
        "checkpoints": checkpoints(),
        "course": course(),
        "depths": depths(),
        "members": members(),
    }
    for name, rows in tables.items():
        write_table(name, from_rows(name, rows), run / "tables")
    across = from_rows("patching", patches_across(rng, run, size))
    write_table("patching", pl.concat([patching, across]), run / "tables")
    return run


def lens_controls(rng: np.random.Generator, lens: pl.DataFrame) -> list[Row]:
    """Five random pairs and three unrelated prompts for each prompt of the lens."""
    places = lens.filter("is_branch").drop("token", "is_branch", "logit_diff")
    return [
        {
            **place,
            "control": control,
            "draw": draw,
            "logit_diff": float(rng.normal(0.2, 0.5)),
            "scale": scale,
        }
        for control, draws, scale in (("random_pair", 5, 0.4), ("unrelated_prompt", 3, 1.0))
        for draw in range(draws)
        for place in places.iter_rows(named=True)
    ]


def summary(lens: pl.DataFrame) -> list[Row]:
    """One agent beyond both controls, one beyond one, one beyond none."""
    beyond = ((0.5, 1.5), (1.0, None), (None, None))
    agents = lens.get_column("agent").unique(maintain_order=True).to_list()
    return [
        {
            "agent": agent,
            "depth": 1.25,
            "low": -3.0 if i else None,
            "high": 1.75 if i else None,
            "n_scenarios": 4,
            "n_prompts": 4,
            "beyond_random_pairs": beyond[i % 3][0],
            "beyond_unrelated_prompts": beyond[i % 3][1],
            "beyond_controls": 1.5 if i == 0 else None,
        }
        for i, agent in enumerate(agents)
    ]


def patches_across(rng: np.random.Generator, run: Path, size: Size) -> list[Row]:
    """Each prompt patched from two whose other player moved differently, both ways."""
    prompts = read_table("prompts", run / "tables")
    names = prompts.filter(pl.col("family") == "structured").get_column("prompt").to_list()
    here, there = names[0], names[1]
    rows: list[Row] = []
    for source, target in (*PAIRS, ("game", "game")):
        for prompt, source_prompt in ((here, there), (there, here)):
            push = 3.0 if prompt == here else -3.0
            for site, layer, kind, head in [*sites(size), ("all", None, "all", None)]:
                effect = push + float(rng.normal(0, 0.5))
                rows.append(
                    {
                        "source": source,
                        "target": target,
                        "prompt": prompt,
                        "source_prompt": source_prompt,
                        "site": site,
                        "layer": layer,
                        "kind": kind,
                        "head": head,
                        **WAY,
                        "baseline_log_odds": 1.0,
                        "patched_log_odds": 1.0 + effect,
                        "effect": effect,
                        "margin": 1.0 + effect,
                        "flipped": effect < -1.0,
                    }
                )
    return rows


def agreement() -> list[Row]:
    """One method that passes the gate, one that fails it, one that was not compared everywhere."""
    values = {
        "attribution_patching": ((0.99, 0.97), (0.95, 0.91), (0.96, 0.93)),
        "integrated_gradients": ((0.85, 0.72), (0.9, 0.88), (0.83, 0.74)),
        "relp": ((-0.25, 0.45), (None, None), (0.7, 0.5)),
    }
    return [
        {
            "source": source,
            "target": target,
            "method": method,
            "kind": kind,
            "n": 0 if pearson is None else 40,
            "pearson": pearson,
            "spearman": spearman,
        }
        for source, target in PAIRS
        for method in METHODS
        for kind, (pearson, spearman) in zip(("head", "mlp", "all"), values[method], strict=True)
    ]


def circuit(source: str, target: str, name: str) -> Row:
    """A circuit of two sites; only the second pair's first one misses the goal."""
    return {
        "source": source,
        "target": target,
        **WAY,
        "circuit": name,
        "method": "forward_backward",
        "goal": "share",
        "threshold": 0.8,
        "sites": "L1.mlp+L0.h2",
        "n_sites": 2,
        "share": 0.91 if source == "base" else 0.55,
        "flipped": None,
        "reached": source == "base",
        "minimal": False,
        "n_candidates": 8,
        "top_k": None,
        "n_sets": 20,
        "n_prompts": 4,
    }


def curves(rng: np.random.Generator, source: str, target: str) -> list[Row]:
    """Curves of the first circuit over 0 to 2 sites, with four random draws and two layers."""
    sets = [("circuit", k, 0) for k in range(3)]
    sets += [("random", k, draw) for k in range(3) for draw in range(4)]
    sets += [("layers", k, 0) for k in (0, 4, 8)]
    return [
        {
            "source": source,
            "target": target,
            **WAY,
            "circuit": "first",
            "curve": curve,
            "sets": name,
            "size": k,
            "draw": draw,
            "share": float(rng.normal(0.5, 0.4)),
        }
        for curve in ("faithfulness", "completeness")
        for name, k, draw in sets
    ]


def stability(source: str, target: str) -> list[Row]:
    """Circuits of two wordings tried in each other."""
    return [
        {
            "source": source,
            "target": target,
            **WAY,
            "wording_a": a,
            "wording_b": b,
            "overlap": 0.25,
            "overlap_random": 0.05,
            "overlap_p": 0.04,
            "transfer": 0.3,
            "transfer_random": 0.1,
            "transfer_p": 0.2,
        }
        for a, b in (("table", "prose"), ("prose", "table"))
    ]


def localisation(source: str, target: str) -> Row:
    """One pair localised, one for which the design cannot tell."""
    known = source == "base"
    return {
        "source": source,
        "target": target,
        **WAY,
        "n_eff": 2.5 if known else None,
        "gini": 0.6 if known else None,
        "null_low": 3.0 if known else None,
        "null_median": 4.5 if known else None,
        "null_high": 6.0 if known else None,
        "p": 0.01 if known else None,
        "p_floor": 0.001 if known else None,
        "top_share": 0.9,
        "n_top": 1,
        "threshold": 0.8,
        "word": "localised" if known else "not identified by this design",
        "n_sites": 8,
        "n_prompts": 4,
        "unit": "scenario",
        "n_units": 4 if known else 1,
    }


def targeting() -> list[Row]:
    """Three trainings of everything, of parts chosen by patching, and of as many at random."""
    kept = {("all", 12): 1.0, ("patching", 4): 0.8, ("patching", 8): 0.95,
            ("random", 4): 0.3, ("random", 8): 0.6}  # fmt: skip
    return [
        {
            "agent": f"game-{k}-{way}-{budget}",
            "of": f"game-{k}",
            "strategy": way,
            "budget": budget,
            "training_seed": k,
            "chosen_here": way == "patching" and k == 0,
            "parameters": 1000 * budget,
            "share": budget / 12,
            "behaviour_kept": value + (0.0 if way == "all" else 0.05 * (k - 1)),
            "low": value - 0.1,
            "high": value + 0.1,
            "n": 4,
        }
        for (way, budget), value in kept.items()
        for k in range(3)
    ]


LEFT = {("behaviour", 5): 0.7, ("behaviour", 10): 0.3, ("weights", 5): 0.9, ("weights", 10): 0.6}
"""Distance left of the first of three trainings, by level and step."""

TRAININGS = (("game-0", 0.0), ("game-1", 0.02), ("game-2", 0.04), ("own", -0.1))


def checkpoints() -> list[Row]:
    """Two states of three trainings of one reward, and of one of another."""
    return [
        {"agent": f"{of}-step{step}", "of": of, "step": step, "steps": 20, "training_seed": 0}
        for of, _ in TRAININGS
        for step in (5, 10)
    ]


def course() -> list[Row]:
    """Behaviour ahead of weights; a second measure that figures leave aside."""
    measures = [("behaviour", "log_odds"), ("behaviour", "second"), ("weights", "update")]
    return [
        {
            "of": of,
            "agent": f"{of}-step{step}",
            "step": step,
            "level": level,
            "measure": measure,
            "moved": 1.0 - left,
            "remaining": left,
            "low": left - 0.1 if level == "behaviour" else None,
            "high": left + 0.1 if level == "behaviour" else None,
            "n_units": 4,
        }
        for level, measure in measures
        for of, more in TRAININGS
        for step in (5, 10)
        for left in (LEFT[level, step] + more + (9.0 if measure == "second" else 0.0),)
    ]


def depths() -> list[Row]:
    """Two models of two and four layers: attribution lies late, patching is spread evenly."""
    shares = {
        ("small", "attribution"): (0.25, 0.75),
        ("small", "patching"): (0.5, 0.5),
        ("large", "attribution"): (0.0, 0.5, 0.0, 0.5),
        ("large", "patching"): (0.25, 0.25, 0.25, 0.25),
    }
    return [
        {
            "member": member,
            "level": level,
            "agent": "game",
            "scenario": f"s{scenario}",
            "layer": layer,
            "relative_depth": (layer + 0.5) / len(of),
            "share": share,
        }
        for (member, level), of in shares.items()
        for scenario in range(2)
        for layer, share in enumerate(of)
    ]


def members() -> list[Row]:
    """What the two models are."""
    return [
        {
            "member": member,
            "model": f"{member}-model",
            "n_layers": layers,
            "n_agents": 1,
            "n_claims": 10,
            "supported": 2,
            "finished": True,
        }
        for member, layers in (("small", 2), ("large", 4))
    ]
