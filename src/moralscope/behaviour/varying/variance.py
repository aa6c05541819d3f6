"""How much of a decision is the wording, the order, the label, the state?

An agent's log-odds of defecting y on a fully crossed and balanced set of prompts, every level of
every factor with every level of every other exactly once, split without remainder into

    y = sum over subsets A of the factors of f_A,    f_A averages to 0 over each factor in A,
    V_A = mean over prompts of f_A^2,                V = sum over A of V_A

(functional analysis of variance: Hoeffding 1948; Sobol 1993; on balanced data the sums of squares
of the ordinary one, divided by the number of prompts). The factors are

- *wording*: the structured text and the seven other wordings;
- *order*: which of the two moves is named first. All variance of an agent that takes what is
  named first, or last, is here;
- *label*: which of the two labels means cooperation. All variance of an agent that goes by the
  words is here and in interactions with it;
- *state*: what both players did before.

``share = V_A / V``, and ``total_share`` of a factor adds every interaction that it takes part in
(its total Sobol index). Interactions of three and four factors are ``rest``.

Intervals are jackknife over wordings (Tukey 1958): with s_(-w) the share computed without wording
w and g a scale, ``g(share) +- t_{W-1} sqrt((W-1)/W sum_w (g(s_(-w)) - mean)^2)``. The scale of
shares alone holds the truth in some 80% of small designs, because shares near 0 and 1 are skewed;
that of log(s / (1 - s)) misses shares of exactly zero. An interval here reaches as far as the first
of them, the second, and the second around the estimate with the jackknife's correction for bias,
``W g(share) - (W-1) mean_w g(s_(-w))``: with eight wordings that holds the truth in 94% or more. It
says how far a share hangs on the choice of wordings like these; the levels of the other factors
are all that there are.
The mean of y, how much an agent defects at all, is no part of the variance.

What it does not do: split a set that is not balanced. There the parts depend on the order in which
they are taken out, and such a set is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from moralscope.behaviour.joining import STATE, join_prompts, named_first, with_state
from moralscope.behaviour.learning.training_sets import swap_labels
from moralscope.behaviour.learning.transfer import WORDING_FAMILIES
from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import cluster_t, t_quantile
from moralscope.games import LABELS
from moralscope.games.asking.wording import MIRROR_SUFFIX

Array = NDArray[np.float64]

FACTORS = ("wording", "order", "label", "state")
"""The factors of the design, in the order of the array's axes."""

_MAINS = tuple((i,) for i in range(len(FACTORS)))
_PAIRS = tuple(combinations(range(len(FACTORS)), 2))
_COMMON = {"design": "crossed wordings"}

_NEGLIGIBLE = 1e-12
"""Variance below this share of the mean square is rounding of equal numbers."""


def variance_table(
    prompts: pl.DataFrame,
    decisions: pl.DataFrame,
    *,
    labels: str = "/".join(LABELS),
    game: str = "IPD",
) -> pl.DataFrame:
    """Which share of the variance of each agent's decisions is due to which factor?

    Args:
        prompts: a ``prompts`` table that holds ``crossed_wordings`` of the game.
        decisions: a ``decisions`` table. Agents without log-odds (scripted policies) are split by
            their probability of defecting instead, whose unit is then probability.
        labels: the pair, in either assignment.
        game: the game.

    Returns:
        A ``variance`` table: agents in order of appearance, each with its factors, their
        interactions in pairs, ``rest`` and ``total``. Shares are in [0, 1] and those of all rows
        but ``total`` sum to 1; they are null where there is no variance. Of an agent that has no
        legal answer to some prompt there is one row, ``total``, without figures. ``effect`` is the
        mean difference between the two levels of ``label`` and of ``order``, with a t interval over
        wordings: of ``label`` log-odds of defecting under ``labels`` minus under its swap, above
        zero for an agent that leans to the second of the two words; of ``order`` with D named
        first minus with C named first, above zero for one that leans to what is named first.

    Raises:
        TableError: the tables break their schemas or do not belong together, the set is not fully
            crossed and balanced, or an agent has log-odds on some of its prompts only.
        ConfigError: the labels are not two words.
    """
    joined = design_of(join_prompts(prompts, decisions), labels=labels, game=game)
    if joined.is_empty():
        raise TableError(
            "There is no crossed set of wordings to split the variance over",
            seen=f"no decision on a wording of {game} under {labels} and its swap",
            allowed="decisions on crossed_wordings",
            remedy="evaluate the agents on crossed_wordings (the part robustness)",
        )
    rows = (
        row
        for (agent,), answered in joined.group_by("agent", maintain_order=True)
        for row in _of_agent(str(agent), answered, labels)
    )
    return from_rows("variance", rows)


def design_of(prompts: pl.DataFrame, *, labels: str, game: str) -> pl.DataFrame:
    """The rows of a table of prompts, joined with anything, that belong to the crossed design.

    Wordings of the game as they are written, under both assignments of the labels, with the
    options in one order throughout, a chat template and no system message. Mirrors are a control
    of another question and no part of it.
    """
    return with_state(prompts).filter(
        pl.col("family").is_in(WORDING_FAMILIES),
        pl.col("game") == game,
        pl.col("labels").is_in((labels, swap_labels(labels))),
        pl.col("table_order").is_in(("original", "none")),
        pl.col("option_order") == pl.col("answer_order"),
        pl.col("system") == "",
        pl.col("chat_template"),
        ~pl.col("template").str.ends_with(MIRROR_SUFFIX),
    )


def _of_agent(agent: str, rows: pl.DataFrame, labels: str) -> Iterator[dict[str, object]]:
    if rows.get_column("p_positive_given_legal").null_count():
        size = {"levels": rows.height, "n_prompts": rows.height}
        yield {**_COMMON, **size, "agent": agent, "factor": "total"}
        return
    values = _crossed(agent, rows, labels)
    parts = components(values)
    total = sum(parts.values())
    counts = values.shape
    spread = total > _NEGLIGIBLE * float(np.mean(values**2))
    intervals = _jackknife(values) if spread else {}
    common = {**_COMMON, "agent": agent, "n_prompts": values.size}
    named = {subset: ":".join(FACTORS[i] for i in subset) for subset in (*_MAINS, *_PAIRS)}
    small = {subset: parts[subset] for subset in named}
    for subset, name in named.items():
        together = sum(v for other, v in parts.items() if set(subset) <= set(other))
        low, high = intervals.get(subset, (None, None))
        yield {
            **common,
            "factor": name,
            "variance": parts[subset],
            "share": parts[subset] / total if spread else None,
            "total_share": together / total if spread and len(subset) == 1 else None,
            "low": low,
            "high": high,
            "levels": math.prod(counts[i] for i in subset),
            **_effect(values, FACTORS[subset[0]] if len(subset) == 1 else ""),
        }
    rest = sum(v for subset, v in parts.items() if subset not in small)
    low, high = intervals.get((), (None, None))
    share = rest / total if spread else None
    everything = {"levels": values.size, "variance": rest}
    yield {**common, **everything, "factor": "rest", "share": share, "low": low, "high": high}
    everything["variance"] = total
    yield {**common, **everything, "factor": "total", "share": 1.0 if spread else None}


def _crossed(agent: str, rows: pl.DataFrame, labels: str) -> Array:
    """The decisions as ``[wordings, 2 orders, 2 assignments, states]``; C named first, then D."""
    column = _quantity(agent, rows)
    asked = rows.select(
        "prompt",
        "template",
        named_first() + " first",
        "labels",
        pl.concat_str(STATE).alias("state"),
        column,
    )
    axes: tuple[list[str], ...] = (
        asked.get_column("template").unique(maintain_order=True).to_list(),
        ["C first", "D first"],
        [labels, swap_labels(labels)],
        asked.get_column("state").unique(maintain_order=True).to_list(),
    )
    values = np.full([len(axis) for axis in axes], np.nan)
    for prompt, *cell, value in asked.iter_rows():
        at = tuple(axis.index(level) for axis, level in zip(axes, cell, strict=True))
        if not np.isnan(values[at]):
            raise _not_balanced(agent, f"{prompt} repeats {_told(cell)}")
        values[at] = value
    empty = np.argwhere(np.isnan(values)).tolist()
    if empty:
        cell = [axis[i] for axis, i in zip(axes, empty[0], strict=True)]
        raise _not_balanced(agent, f"no prompt with {_told(cell)}; {len(empty)} are missing")
    if min(values.shape) < 2:
        raise _not_balanced(agent, f"one {FACTORS[values.shape.index(1)]} only")
    return values


def _quantity(agent: str, rows: pl.DataFrame) -> str:
    undefined = rows.get_column("log_odds").null_count()
    if undefined == rows.height:
        return "p_positive_given_legal"
    if undefined:
        raise TableError(
            f"Agent {agent!r} has log-odds on some prompts only",
            seen=f"{undefined} of {rows.height} without",
            allowed="log-odds on every prompt, or on none as in scripted policies",
            remedy="find out why they are undefined, or leave the agent out",
        )
    return "log_odds"


def _told(cell: Sequence[str]) -> str:
    return ", ".join(f"{factor} {level}" for factor, level in zip(FACTORS, cell, strict=True))


def _not_balanced(agent: str, seen: str) -> TableError:
    return TableError(
        f"The decisions of {agent!r} are not fully crossed: their variance has no single split",
        seen=seen,
        allowed="two wordings or more; each wording x option order x label assignment x state "
        "exactly once",
        remedy="evaluate the agent on crossed_wordings (the part robustness)",
    )


def components(values: Array) -> dict[tuple[int, ...], float]:
    """The variance of every main effect and interaction of a crossed array.

    Args:
        values: one axis per factor.

    Returns:
        By subset of axes, in the squared unit of the values; they sum to ``np.var(values)``.
    """
    axes = range(values.ndim)
    effects: dict[tuple[int, ...], Array] = {(): values.mean(keepdims=True)}
    found: dict[tuple[int, ...], float] = {}
    for size in range(1, values.ndim + 1):
        for subset in combinations(axes, size):
            others = tuple(axis for axis in axes if axis not in subset)
            effect: Array = np.asarray(values.mean(axis=others, keepdims=True), dtype=np.float64)
            for smaller, known in effects.items():
                if set(smaller) < set(subset):
                    effect = effect - known
            effects[subset] = effect
            found[subset] = float(np.mean(effect**2))
    return found


def _shares(values: Array) -> Mapping[tuple[int, ...], float] | None:
    """Shares of mains and pairs, and of the rest under ``()``; None without variance."""
    parts = components(values)
    total = sum(parts.values())
    if total <= _NEGLIGIBLE * float(np.mean(values**2)):
        return None
    small = {subset: parts[subset] / total for subset in (*_MAINS, *_PAIRS)}
    return {**small, (): max(0.0, 1.0 - sum(small.values()))}


def _jackknife(values: Array) -> dict[tuple[int, ...], tuple[float, float]]:
    """95% intervals of shares over wordings; none below three wordings."""
    n = values.shape[0]
    shares = _shares(values)
    without = [_shares(np.delete(values, w, axis=0)) for w in range(n)] if n > 2 else []
    defined = [left for left in without if left is not None]
    if shares is None or not defined or len(defined) < n:
        return {}
    found: dict[tuple[int, ...], tuple[float, float]] = {}
    for subset, share in shares.items():
        left = np.array([one[subset] for one in defined], dtype=np.float64)
        if np.ptp(left) > 0.0:
            found[subset] = _reach(share, left)
    return found


def _reach(share: float, left: Array) -> tuple[float, float]:
    """The interval of one share from those ``[wordings]`` that are left without one wording."""
    n = len(left)
    spread = t_quantile(0.975, n - 1) * math.sqrt(n - 1)
    half = spread * float(left.std())
    low, high = max(0.0, share - half), min(1.0, share + half)
    if not 0.0 < min(share, *left) <= max(share, *left) < 1.0:
        return low, high
    odds: Array = np.asarray(special.logit(left), dtype=np.float64)
    centre, half = float(special.logit(share)), spread * float(np.std(odds))
    corrected = n * centre - (n - 1) * float(np.mean(odds))
    reached = special.expit([c + side for c in (centre, corrected) for side in (-half, half)])
    return min(low, float(np.min(reached))), max(high, float(np.max(reached)))


def _effect(values: Array, factor: str) -> dict[str, object]:
    """Mean difference between a factor's two levels, with its interval over wordings."""
    if factor == "label":
        of_wordings = (values[:, :, 0] - values[:, :, 1]).mean(axis=(1, 2))
    elif factor == "order":
        of_wordings = (values[:, 1] - values[:, 0]).mean(axis=(1, 2))
    else:
        return {}
    low, high = cluster_t(of_wordings) or (None, None)
    return {"effect": float(of_wordings.mean()), "effect_low": low, "effect_high": high}
