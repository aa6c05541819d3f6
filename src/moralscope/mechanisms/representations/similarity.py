"""How alike are two agents inside? Their changes from the base, compared depth by depth.

With ``h`` an agent's stream on a prompt and ``h0`` the base's,

    change_cosine = cos(h_a - h0, h_b - h0)       distance = |h_a - h_b| / |h0|

prompt by prompt, averaged by scenario. Of the base itself the distance is the relative size of an
agent's change. Linear CKA (Kornblith et al. 2019) compares whole sets of streams up to rotation and
scale. Its plain form is biased upwards where there are fewer scenarios than dimensions, so it is
debiased (Song et al. 2012, J. Mach. Learn. Res. 13:1393): with Gram matrices K, L over n scenario
means, their diagonals set to zero,

    HSIC(K, L) = [tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 / (n - 2)] / (n (n - 3))
    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

Raw streams of two agents that share a base are nearly parallel whatever was trained, because the
base is most of both; they are kept as a caution. Intervals over scenarios: of means as everywhere
(``cluster_interval``), of CKA by leaving out one scenario at a time on Fisher's scale, because a
resample that holds a scenario twice would undo the debiasing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from moralscope.core.errors import AgentError
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import Interval, cluster_interval, cluster_t
from moralscope.mechanisms.representations.streams import Array, Streams

BY_PROMPT: Final = ("change_cosine", "raw_cosine", "distance")
"""Measures that every prompt has by itself."""

MEASURES: Final = (*BY_PROMPT, "change_cka", "raw_cka")

_RANGES: Mapping[str, Interval] = {
    "change_cosine": (-1.0, 1.0),
    "raw_cosine": (-1.0, 1.0),
    "distance": (0.0, math.inf),
}
_DRAWS = 1_999
_ROUNDING = 16.0
_MIN_UNITS = 4


def cosines(first: Array, second: Array) -> Array:
    """Cosines along the last axis; NaN where one of the two is zero."""
    one, other = (np.linalg.norm(x, axis=-1) for x in (first, second))
    size = one * other
    top = (first * second).sum(axis=-1)
    return np.where(size > 0.0, top / np.where(size > 0.0, size, 1.0), np.nan).clip(-1.0, 1.0)


def changes(agent: Streams, base: Streams) -> Array:
    """``h - h0``, exactly zero where it is no more than rounding, ``(prompts, depths, width)``."""
    found = agent.values - base.values
    size, whole = (np.linalg.norm(x, axis=-1) for x in (found, base.values))
    fine = size > _ROUNDING * max(agent.resolution, base.resolution) * whole
    return np.where(fine[..., None], found, 0.0)


def pairs_table(first: Streams, second: Streams, base: Streams) -> pl.DataFrame:
    """The table ``representation_pairs`` of two agents.

    Args:
        first: an agent; it may be the base.
        second: another, on the same prompts in one order.
        base: what both were trained from.

    Raises:
        AgentError: they were not run on the same prompts, or differ in shape.
    """
    _check(first, second, base)
    one, other = changes(first, base), changes(second, base)
    scale = np.linalg.norm(base.values, axis=-1)
    apart = np.linalg.norm(one - other, axis=-1)
    measures = {
        "change_cosine": cosines(one, other),
        "raw_cosine": cosines(first.values, second.values),
        "distance": np.where(scale > 0.0, apart / np.where(scale > 0.0, scale, 1.0), np.nan),
    }
    layers = np.array(first.layers, dtype=np.int64)
    n, depths = scale.shape
    return pl.DataFrame(
        {
            "agent_a": [first.agent] * (n * depths),
            "agent_b": [second.agent] * (n * depths),
            "prompt": np.repeat(np.array(first.prompts, dtype=object), depths).tolist(),
            "layer": np.tile(layers, n),
            **{name: values.ravel() for name, values in measures.items()},
        }
    ).with_columns(pl.col(BY_PROMPT).fill_nan(None))


def similarity_table(
    pairs: pl.DataFrame, streams: Mapping[str, Streams], base: str, scenarios: Mapping[str, str]
) -> pl.DataFrame:
    """The table ``representation_similarity``: means over scenarios, and CKA over all of them.

    Args:
        pairs: the table ``representation_pairs``.
        streams: of every agent in it and of the base, on the same prompts.
        base: the base's name.
        scenarios: of each prompt.
    """
    rows: list[dict[str, object]] = []
    means = pairs.with_columns(
        scenario=pl.col("prompt").replace_strict(scenarios, return_dtype=pl.String)
    )
    for (a, b, layer), own in means.group_by("agent_a", "agent_b", "layer", maintain_order=True):
        units = own.group_by("scenario", maintain_order=True).agg(pl.col(BY_PROMPT).mean())
        common = {"agent_a": a, "agent_b": b, "layer": layer, "n": units.height}
        for measure in BY_PROMPT:
            values = units.get_column(measure)
            found = _mean(values.to_numpy(), measure, f"{a} {b}") if not values.null_count() else {}
            rows.append({**common, "measure": measure, **found})
        first, second = (_by_scenario(streams[str(name)], scenarios) for name in (a, b))
        zero = _by_scenario(streams[base], scenarios)
        depth = int(str(layer)) + 1
        rows.append({
            **common, "measure": "change_cka",
            **_cka(first[:, depth] - zero[:, depth], second[:, depth] - zero[:, depth]),
        })  # fmt: skip
        rows.append({**common, "measure": "raw_cka", **_cka(first[:, depth], second[:, depth])})
    return from_rows("representation_similarity", rows)


def debiased_cka(first: Array, second: Array) -> float | None:
    """Debiased linear CKA of two sets of vectors, in [-1, 1]; None where it is undefined.

    Args:
        first: ``(n, d)``, one row a scenario.
        second: ``(n, e)``, the same scenarios. Fewer than four, or a set without spread, give None.
    """
    n = len(first)
    if n < _MIN_UNITS:
        return None
    one, other = (_gram(x) for x in (first, second))
    top, left, right = _hsic(one, other), _hsic(one, one), _hsic(other, other)
    # Of a set without spread nothing but rounding is left.
    least = [1e-12 * float((gram * gram).mean()) for gram in (one, other)]
    if left <= least[0] or right <= least[1]:
        return None
    return max(-1.0, min(1.0, top / math.sqrt(left * right)))


def _gram(x: Array) -> Array:
    # Centring changes nothing of the debiased form, and keeps digits where the mean is large.
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(one: Array, other: Array) -> float:
    n = len(one)
    trace = float((one * other).sum())
    sums = float(one.sum()) * float(other.sum()) / ((n - 1) * (n - 2))
    cross = 2.0 * float(one.sum(axis=0) @ other.sum(axis=0)) / (n - 2)
    return (trace + sums - cross) / (n * (n - 3))


def _cka(first: Array, second: Array) -> dict[str, float | None]:
    value = debiased_cka(first, second)
    if value is None:
        return {}
    keep = ~np.eye(len(first), dtype=bool)
    without = [debiased_cka(first[rows], second[rows]) for rows in keep]
    interval = _jackknife(value, without)
    return {"value": value, **_ends(interval)}


def _jackknife(value: float, without: Sequence[float | None]) -> Interval | None:
    """Interval from leaving out one unit at a time, on Fisher's scale (Tukey 1958)."""
    known = [v for v in (value, *without) if v is not None and abs(v) < 1.0 - 1e-12]
    units = len(without)
    if len(known) <= units:
        return None
    z = np.arctanh(np.array(known))
    found = cluster_t(units * z[0] - (units - 1) * z[1:])
    return None if found is None else (math.tanh(found[0]), math.tanh(found[1]))


def _mean(values: Array, measure: str, who: str) -> dict[str, float | None]:
    least, most = _RANGES[measure]
    rng = stream(0, "representations", measure, who)
    interval = cluster_interval(values, rng, draws=_DRAWS)
    if interval is not None:
        interval = max(least, interval[0]), min(most, interval[1])
    return {"value": float(values.mean()), **_ends(interval)}


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {} if interval is None else {"low": interval[0], "high": interval[1]}


def _by_scenario(streams: Streams, scenarios: Mapping[str, str]) -> Array:
    """Means over the prompts of each scenario, ``(scenarios, depths, width)``."""
    names = [scenarios[prompt] for prompt in streams.prompts]
    groups = list(dict.fromkeys(names))
    return np.stack([
        streams.values[[at for at, name in enumerate(names) if name == group]].mean(axis=0)
        for group in groups
    ])  # fmt: skip


def _check(*several: Streams) -> None:
    first = several[0]
    for other in several[1:]:
        if other.prompts != first.prompts or other.values.shape != first.values.shape:
            raise AgentError(
                "The streams of two agents cannot be compared",
                seen=f"{len(first.prompts)} prompts of {first.agent!r} and {len(other.prompts)} of "
                f"{other.agent!r}, {first.values.shape[1:]} and {other.values.shape[1:]} numbers",
                allowed="agents of one base on the same prompts, in one order",
                remedy="run both on the same prompts, or pick them with Streams.of",
            )
