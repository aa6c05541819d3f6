"""From which depth on is the decision settled, and from which is it more than its controls?

Depth counts decoder layers passed: 0 the embedding, ``l + 0.5`` after the attention of layer ``l``,
``l + 1`` after its MLP. For a prompt with readings ``v_0 ... v_N`` of the logit lens,

    depth = smallest d with sign(v_e) = sign(v_N) for all e >= d

The mean over scenario clusters, the units of replication, has a cluster interval
(``evidence.intervals``).

*More than its controls* is asked of the mean over prompts, each aligned with its own final sign s:
``D(d) = mean_p s_p v_p(d)``. Random pairs are treated exactly as the decision: scaled to directions
of its length, each is aligned with its own final sign on each prompt. Unrelated prompts, which have
no decision of their own, are aligned with that of the prompt that they control, so that what stem
and labels alone would show is compared at its own sign. Either gives one curve for each draw, and
at each depth the 95% range of one more draw,

    mean +- t_{n-1} sd sqrt(1 + 1/n)

which is honest for the ten neutral questions, where quantiles of the draws would be too narrow. It
takes draws to be about normal. The depth from which ``D`` stays above the range's upper end, on the
side of the final decision, is reported; differences below 1e-4 nats are rounding and do not count:
where the last token is the same, the embedding is too.

Does not compute readings (``lens``, ``lens.controls``); a lens shows what is readable, not what is
used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.core.errors import TableError
from moralscope.core.streams import stream
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.statistics.intervals import cluster_interval, t_quantile
from moralscope.mechanisms.lens.controls import RANDOM_PAIR, UNRELATED_PROMPT

Array = NDArray[np.float64]

ROUNDING = 1e-4
"""Nats by which a reading may differ between two orders of summing in float32."""


def settled_from(holds: Sequence[bool]) -> float | None:
    """The depth, in layers, from which a condition holds to the end; None if it fails at the end.

    Args:
        holds: at each depth, ``1 + 2 * layers`` of them, whether the condition holds.
    """
    fails = [index for index, held in enumerate(holds) if not held]
    first = fails[-1] + 1 if fails else 0
    return first / 2.0 if first < len(holds) else None


def sign_depth(values: Array) -> float | None:
    """The depth, in layers, from which readings have their final sign; None if that is zero.

    Args:
        values: readings at each depth, shape ``(1 + 2 * layers,)``.
    """
    final = np.sign(values[-1])
    return None if final == 0.0 else settled_from((np.sign(values) == final).tolist())


@dataclass(frozen=True)
class Comparison:
    """The decision beside one control, at each depth, all ``(1 + 2 * layers,)`` in nats.

    Attributes:
        decision: mean over prompts, aligned with the final decisions.
        low, high: 95% range of one more draw of the control.
    """

    decision: Array
    low: Array
    high: Array

    @property
    def beyond(self) -> NDArray[np.bool_]:
        """Whether the decision lies above the range."""
        return self.decision > self.high + ROUNDING


def compare(values: Array, control: str, drawn: Array) -> Comparison | None:
    """The decision of one agent beside one of its controls; None for fewer than two draws.

    Args:
        values: the lens, shape ``(prompts, depths)``.
        control: ``random_pair`` or ``unrelated_prompt``.
        drawn: the control's readings, scaled, shape ``(prompts, draws, depths)``.
    """
    n = drawn.shape[1]
    if n < 2:
        return None
    sign = np.sign(values[:, -1])
    own = np.sign(drawn[:, :, -1]) if control == RANDOM_PAIR else sign[:, None]
    curves = (own[:, :, None] * drawn).mean(0)
    half = t_quantile(0.975, n - 1) * curves.std(0, ddof=1) * math.sqrt(1.0 + 1.0 / n)
    middle = curves.mean(0)
    return Comparison((sign[:, None] * values).mean(0), middle - half, middle + half)


def compare_agent(lens: pl.DataFrame, controls: pl.DataFrame, agent: str) -> dict[str, Comparison]:
    """One agent's decisions beside each control that was measured.

    Args:
        lens: the table ``lens``.
        controls: the table ``lens.controls``.
        agent: whose.

    Returns:
        By control, ``random_pair`` and ``unrelated_prompt``; those with two draws or more.

    Raises:
        TableError: the controls do not cover the prompts, depths and draws of the lens.
    """
    prompts, values = _readings(lens, agent)
    found: dict[str, Comparison] = {}
    for control in (RANDOM_PAIR, UNRELATED_PROMPT):
        rows = controls.filter(pl.col("agent") == agent, pl.col("control") == control)
        if rows.height:
            comparison = compare(values, control, _draws(rows, agent, prompts, values.shape[1]))
            if comparison is not None:
                found[control] = comparison
    return found


def stabilisation_tables(
    lens: pl.DataFrame,
    scenarios: Mapping[str, str],
    *,
    seed: int,
    controls: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``stabilisation`` and ``stabilisation_summary`` of every agent in a lens table.

    Args:
        lens: the table ``lens``; tokens after the branch are left out.
        scenarios: the scenario of each prompt, the unit of replication.
        seed: of the bootstrap, which is used from 20 scenarios on; each agent has its own stream.
        controls: the table ``lens.controls``, or None where it was not measured.

    Raises:
        TableError: a table does not follow its schema, a prompt has no scenario, or prompts were
            not read at the same depths.
    """
    lens = conform("lens", lens)
    controls = None if controls is None else conform("lens_controls", controls)
    rows: list[dict[str, object]] = []
    for agent in lens.get_column("agent").unique(maintain_order=True).to_list():
        prompts, values = _readings(lens, agent)
        rows.extend(
            {
                "agent": agent,
                "prompt": prompt,
                "scenario": _scenario(scenarios, prompt),
                "depth": sign_depth(readings),
                "final_logit_diff": float(readings[-1]),
            }
            for prompt, readings in zip(prompts, values, strict=True)
        )
    by_prompt = from_rows("stabilisation", rows)
    summary: list[dict[str, object]] = []
    for (agent,), own in by_prompt.group_by("agent", maintain_order=True):
        compared = {} if controls is None else compare_agent(lens, controls, str(agent))
        rng = stream(seed, "stabilisation", str(agent))
        summary.append({"agent": agent, **_average(own, rng), **_beyond(compared)})
    return by_prompt, from_rows("stabilisation_summary", summary)


def _average(own: pl.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    """Mean depth of one agent over scenarios, with its interval."""
    counted = own.drop_nulls("depth")
    means = counted.group_by("scenario", maintain_order=True).agg(pl.col("depth").mean())
    depths = means.get_column("depth").to_numpy()
    interval = cluster_interval(depths, rng) if len(depths) else None
    return {
        "depth": float(depths.mean()) if len(depths) else None,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
        "n_scenarios": len(depths),
        "n_prompts": counted.height,
    }


def _beyond(compared: Mapping[str, Comparison]) -> dict[str, object]:
    depths = {name: settled_from(c.beyond.tolist()) for name, c in compared.items()}
    pair, unrelated = depths.get(RANDOM_PAIR), depths.get(UNRELATED_PROMPT)
    return {
        "beyond_random_pairs": pair,
        "beyond_unrelated_prompts": unrelated,
        "beyond_controls": None if pair is None or unrelated is None else max(pair, unrelated),
    }


def _scenario(scenarios: Mapping[str, str], prompt: str) -> str:
    if prompt not in scenarios:
        raise TableError(
            f"Prompt {prompt!r} has no scenario",
            seen=f"scenarios of {len(scenarios)} prompts",
            allowed="the scenario of every prompt in the lens table",
            remedy="give each prompt its scenario, or its own name where it is the only one",
        )
    return scenarios[prompt]


def _by_depth(rows: pl.DataFrame, keys: list[str]) -> tuple[pl.DataFrame, Array]:
    """Readings as a matrix, one row for each combination of the keys, one column for each depth.

    Raises:
        TableError: not every one of them was read at every depth.
    """
    # Within a layer "attn" comes before "mlp", as in the alphabet.
    ordered = rows.sort(*keys, "layer", "sublayer")
    counts = ordered.group_by(*keys, maintain_order=True).len()
    depths = rows.select("layer", "sublayer").unique().height
    short = counts.filter(pl.col("len") != depths)
    if short.height:
        raise TableError(
            "Readings of the lens do not cover the same depths",
            seen=f"{short.row(0, named=True)} of {depths} depths",
            allowed="every depth of every prompt, once",
            remedy="compute the lens of all prompts again, with the same model",
        )
    return counts, ordered.get_column("logit_diff").to_numpy().reshape(-1, depths)


def _readings(lens: pl.DataFrame, agent: str) -> tuple[list[str], Array]:
    """Prompts of an agent, sorted, and their branch-token readings ``(prompts, depths)``."""
    counts, values = _by_depth(
        lens.filter(pl.col("agent") == agent, pl.col("is_branch")), ["prompt"]
    )
    return counts.get_column("prompt").to_list(), values


def _draws(rows: pl.DataFrame, agent: str, prompts: list[str], depths: int) -> Array:
    """A control's readings, scaled, ``(prompts, draws, depths)``, in the order of the prompts."""
    scaled = rows.with_columns(pl.col("logit_diff") * pl.col("scale"))
    counts, values = _by_depth(scaled, ["prompt", "draw"])
    draws = rows.get_column("draw").n_unique()
    named = counts.get_column("prompt").unique(maintain_order=True).to_list()
    if named != prompts or values.shape != (len(prompts) * draws, depths):
        raise TableError(
            f"The lens controls of {agent!r} do not fit its lens",
            seen=f"{len(named)} prompts, {len(values)} curves of {values.shape[1]} depths",
            allowed=f"{len(prompts)} prompts, equally many draws each, {depths} depths",
            remedy="compute lens and controls from the same clean run",
        )
    return values.reshape(len(prompts), draws, depths)
