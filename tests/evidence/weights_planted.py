"""Updates drawn as small matrices with known directions, and the tables that they give by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import synthetic

from moralscope.core.tables import from_rows

LAYERS = 24
MODULES = {"self_attn.o_proj": "writes", "mlp.up_proj": "reads"}
WIDTH = 24
K = 2
TOKENS = 199

Array = np.ndarray
Updates = dict[tuple[int, str], Array]


def drawn(
    rng: np.random.Generator,
    shared: Mapping[tuple[int, str], Array] | None = None,
    *,
    along: Array | None = None,
    size: Array | None = None,
) -> Updates:
    """One agent's updates, of rank 3: random, and what is planted with twice their size.

    Args:
        rng: of what is random.
        shared: an output direction per linear layer.
        along: a direction that writing layers write and reading layers read.
        size: (LAYERS,) of the updates.
    """
    found: Updates = {}
    for place in itertools.product(range(LAYERS), MODULES):
        dw = rng.normal(size=(WIDTH, 3)) @ rng.normal(size=(3, WIDTH)) / 10.0
        if shared is not None:
            dw += np.outer(shared[place], rng.normal(size=WIDTH))
        if along is not None:
            own = rng.normal(size=WIDTH)
            dw += np.outer(along, own) if MODULES[place[1]] == "writes" else np.outer(own, along)
        found[place] = dw * (1.0 if size is None else size[place[0]])
    return found


def directions(rng: np.random.Generator) -> dict[tuple[int, str], Array]:
    """A random unit vector per linear layer."""
    made = {}
    for place in itertools.product(range(LAYERS), MODULES):
        vector = rng.normal(size=WIDTH)
        made[place] = 3.0 * vector / np.linalg.norm(vector)
    return made


def norms(agents: Mapping[str, Updates]) -> pl.DataFrame:
    rows = []
    for agent, updates in agents.items():
        for (layer, module), dw in updates.items():
            s = np.linalg.svd(dw, compute_uv=False)
            norm, moved = float(np.linalg.norm(dw)), bool(s[0] > 0)
            rows.append({
                "agent": agent, "layer": layer, "module": module, "norm": norm, "base_norm": 20.0,
                "relative_norm": norm / 20.0, "spectral_norm": float(s[0]),
                "effective_rank": 3.0 if moved else None, "stable_rank": 2.0 if moved else None,
                "rank": 3 if moved else 0, "n_parameters": 3 * 2 * WIDTH,
            })  # fmt: skip
    return from_rows("update_norms", rows)


def spectra(agents: Mapping[str, Updates]) -> pl.DataFrame:
    rows = []
    for agent, updates in agents.items():
        for (layer, module), dw in updates.items():
            s = np.linalg.svd(dw, compute_uv=False)
            rows += [
                {"agent": agent, "layer": layer, "module": module, "index": i + 1,
                 "singular_value": float(v), "share": float(v**2 / (s**2).sum())}
                for i, v in enumerate(s) if v > 1e-9
            ]  # fmt: skip
    return from_rows("update_spectra", rows)


def random_overlaps(rng: np.random.Generator) -> Array:
    """Overlaps of random subspaces, 399 of them."""
    frames = np.linalg.qr(rng.normal(size=(399, 2, WIDTH, K)))[0]
    return np.square(np.swapaxes(frames[:, 0], 1, 2) @ frames[:, 1]).sum((1, 2)) / K


def overlaps(
    agents: Mapping[str, Updates], pairs: Sequence[tuple[str, str]], rng: np.random.Generator
) -> pl.DataFrame:
    found = {
        (name, place): np.linalg.svd(dw)
        for name, own in agents.items()
        for place, dw in own.items()
    }
    nulls = {
        (place, side): np.sort(random_overlaps(rng))
        for place in next(iter(agents.values()))
        for side in ("outputs", "inputs")
    }
    rows = []
    for a, b in pairs:
        for place in agents[a]:
            one, other = (found[name, place] for name in (a, b))
            for side, x, y in (("outputs", one[0], other[0]), ("inputs", one[2].T, other[2].T)):
                rows.append({
                    "agent_a": a, "agent_b": b, "layer": place[0], "module": place[1],
                    "side": side, "k": K,
                    "overlap": float(np.square(x[:, :K].T @ y[:, :K]).sum() / K),
                    "expected": K / WIDTH, "null_low": float(nulls[place, side][9]),
                    "null_high": float(nulls[place, side][-10]),
                })  # fmt: skip
    return from_rows("update_overlap", rows)


def distances(
    agents: Mapping[str, Updates], pairs: Sequence[tuple[str, str]], reach: float | None = 0.1
) -> pl.DataFrame:
    rows = []
    for a, b in pairs:
        for layer, module in agents[a]:
            x, y = agents[a][layer, module], agents[b][layer, module]
            inner, na, nb = float((x * y).sum()), float(np.linalg.norm(x)), float(np.linalg.norm(y))
            rows.append({
                "agent_a": a, "agent_b": b, "layer": layer, "module": module, "inner": inner,
                "norm_a": na, "norm_b": nb, "cosine": inner / (na * nb) if na * nb else None,
                "distance": float(np.linalg.norm(x - y)) / math.hypot(na, nb) if na + nb else None,
                "reach": reach,
            })  # fmt: skip
    return from_rows("update_distances", rows)


def along_axes(
    agents: Mapping[str, Updates], axis: Array, rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares along an axis and along random ones, the same for every agent."""
    every = [axis, *rng.normal(size=(TOKENS, WIDTH))]
    units = np.array([v / np.linalg.norm(v) for v in every]).T
    rows, controls = [], []
    for agent, updates in agents.items():
        sums = {side: np.zeros(TOKENS + 1) for side in ("writes", "reads")}
        for (layer, module), dw in updates.items():
            side = MODULES[module]
            found = np.square(units.T @ dw if side == "writes" else (dw @ units).T).sum(axis=1)
            total = float(np.square(dw).sum())
            moved = total > 0
            share = found / total if moved else None
            rows.append({
                "agent": agent, "axis": "1/2", "layer": layer, "module": module, "side": side,
                "norm": total**0.5, "share": float(share[0]) if moved else None,
                "expected": 1 / WIDTH, "ratio": float(share[0] * WIDTH) if moved else None,
                "null_high": 0.15 if moved else None,
                "control": float(np.median(share[1:])) if moved else None,
                "control_high": float(np.sort(share[1:])[-3]) if moved else None,
            })  # fmt: skip
            sums[side] += found
        for side, summed in sums.items():
            total = sum(np.square(dw).sum() for at, dw in updates.items() if MODULES[at[1]] == side)
            controls += [
                {"agent": agent, "axis": "1/2", "side": side, "draw": draw,
                 "share": float(value / total) if total else None}
                for draw, value in enumerate(summed[1:])
            ]  # fmt: skip
    return from_rows("update_directions", rows), from_rows("update_controls", controls)


def patches(agents: Sequence[str], effects: Array, rng: np.random.Generator) -> pl.DataFrame:
    """The base patched into each agent: a layer's effect in its MLP, noise in a head."""
    rows = []
    for agent in agents:
        for layer in range(LAYERS):
            for kind, effect in (("mlp", effects[layer]), ("head", 0.01)):
                for prompt in ("s0w02", "s1w02"):
                    value = float(-effect + 0.001 * rng.normal())
                    rows.append({
                        "source": "base", "target": agent, "prompt": prompt,
                        "source_prompt": prompt, "layer": layer, "kind": kind,
                        "site": f"L{layer}.mlp" if kind == "mlp" else f"L{layer}.h0",
                        "head": None if kind == "mlp" else 0, "positions": "answer_span",
                        "write": "write", "baseline_log_odds": 1.0,
                        "patched_log_odds": 1.0 + value, "effect": value, "margin": 1.0 + value,
                        "flipped": value < -1.0,
                    })  # fmt: skip
    return from_rows("patching", rows)


def study(
    seeds: int = 5,
    *,
    rewards: bool = False,
    common: bool = False,
    along: bool = False,
    layers: bool = False,
    same_seeds: bool = False,
    seed: int = 3,
) -> synthetic.Tables:
    """Two rewards with some seeds each, whose updates are unrelated but for what is planted.

    Args:
        seeds: of each reward.
        rewards: agents of one reward share their output directions.
        common: agents share them whatever their reward.
        along: the first reward's agents write and read along the axis of the answers.
        layers: patches find effects where updates are large.
        same_seeds: both rewards are trained from the same seeds.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    every = directions(rng)
    of_reward = {name: directions(rng) if rewards else None for name in ("game", "utilitarian")}
    axis = 3.0 * rng.normal(size=WIDTH) / WIDTH**0.5
    size = rng.uniform(0.5, 2.0, LAYERS)
    made: dict[str, Updates] = {}
    rows: list[dict[str, object]] = [{"agent": "base", "kind": "base"}]
    for index, (reward, own) in enumerate(of_reward.items()):
        for k in range(seeds):
            name = f"{reward}-{k}"
            first = along and reward == "game"
            planted = every if common else own
            made[name] = drawn(rng, planted, along=axis if first else None, size=size)
            start = k if same_seeds else k + index * seeds
            rows.append({"agent": name, "kind": "adapter", "reward": reward,
                         "training_seed": start})  # fmt: skip
    who = from_rows("agents", [{**row, "base": "tiny", "dtype": "float64"} for row in rows])
    asked = synthetic.prompts(10, 1)
    effects = {"game": 2.0, "utilitarian": -1.0}
    pairs = list(itertools.combinations(made, 2))
    shares, controls = along_axes(made, axis, rng)
    found = 0.3 * size if layers else rng.uniform(0.1, 1.0, LAYERS)
    return {
        "agents": who,
        "prompts": asked,
        "decisions": synthetic.decisions(who, asked, rng, effects),
        "comparisons": comparisons(made, seeds),
        "update_norms": norms(made),
        "update_spectra": spectra(made),
        "update_overlap": overlaps(made, pairs, rng),
        "update_distances": distances(made, pairs),
        "update_directions": shares,
        "update_controls": controls,
        "patching": patches(list(made), found, rng),
    }


def comparisons(agents: Mapping[str, Updates], seeds: int) -> pl.DataFrame:
    """The two rewards, one pair of agents with the same number judged by itself; seeds in turn."""
    names = list(agents)
    rows = [
        {"comparison": "rewards", "kind": "named", "agent_a": a, "agent_b": b, "tested": i == j}
        for i, a in enumerate(names[:seeds])
        for j, b in enumerate(names[seeds:])
    ]
    rows += [
        {"comparison": "seeds", "kind": "replicate", "agent_a": a, "agent_b": b,
         "tested": names.index(b) == names.index(a) + 1}
        for part in (names[:seeds], names[seeds:])
        for a, b in itertools.combinations(part, 2)
    ]  # fmt: skip
    rows += [
        {"comparison": "base", "kind": "base", "agent_a": "base", "agent_b": name, "tested": True}
        for name in names
    ]
    return from_rows("comparisons", rows)
