"""What does intervening with a direction do, beyond random directions and a style? By question.

A measure m_q (nats; typically the paired log-likelihood difference of a question) is taken of the
agent as it is and under an intervention:

    effect_q = m_q(intervened) - m_q(as it is)

by the same code on both sides. Three things have to hold before a direction is said to carry it:

1. the effect is not zero, by sign-flips of the questions, corrected over the interventions (max-T);
2. its mean is further from zero than that of random directions of equal length, of which twenty or
   more are tried: p = (1 + as many as reach it) / (1 + random ones) is at most .05, so that with
   twenty none may reach it;
3. it is larger than that of a direction of style, found in the same way on answers that differ in
   style alone: with the effects turned to their own signs, effect_q - style_q is above zero.

What the same directions do in other organisms is in ``directions.transfer``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.streams import stream
from moralscope.evidence.statistics.intervals import Interval, cluster_interval
from moralscope.evidence.statistics.resampling import max_t, sign_flip
from moralscope.models.anatomy import Anatomy
from moralscope.models.scoring import MAX_NODES
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.directions.interventions import Intervention, applied
from moralscope.organisms.spread.paired import Unit, score_items

Array = NDArray[np.float64]

Measure = Callable[[nn.Module], Array]
"""What is measured of an agent in force: one value for each question, always in one order."""

LEAST_RANDOM = 20
"""Random directions that an effect is held against, at least."""

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Controls:
    """Directions that an effect is held against.

    Attributes:
        random: as long as the direction, ``(draws, layers, width)``; twenty or more.
        style: of a difference in style, as long as the direction, ``(layers, width)``; or None.
    """

    random: Array
    style: Array | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """What is tried on an agent.

    Attributes:
        measure: what is measured.
        vectors: the direction after each layer, ``(layers, width)``, model units.
        interventions: what is done with it.
        controls: what else that is done with.

    Raises:
        ConfigError: fewer than twenty random directions.
    """

    measure: Measure
    vectors: Array
    interventions: tuple[Intervention, ...]
    controls: Controls

    def __post_init__(self) -> None:
        if len(self.controls.random) < LEAST_RANDOM:
            raise ConfigError(
                "There are too few random directions to hold an effect against",
                seen=len(self.controls.random),
                allowed=f"{LEAST_RANDOM} or more: with fewer, p cannot be {LEVEL} or less",
                remedy="draw more with random_directions",
            )

    @property
    def measurements(self) -> int:
        """How often an agent is measured: as it is, and under each intervention and direction."""
        each = 1 + len(self.controls.random) + (self.controls.style is not None)
        return 1 + len(self.interventions) * each


@dataclass(frozen=True, eq=False)
class Tried:
    """One intervention as it was measured.

    Attributes:
        intervention: what was done.
        effect: of the direction, by question, ``(questions,)``.
        random: of random directions, ``(draws, questions)``.
        style: of the style direction, ``(questions,)``; None without one.
    """

    intervention: Intervention
    effect: Array
    random: Array
    style: Array | None


@dataclass(frozen=True, eq=False)
class Effect:
    """What an intervention does to a measure, beside its controls; nats unless said otherwise.

    Attributes:
        tried: the values by question.
        mean: over questions.
        interval: 95% over questions; None where it is undefined.
        p, p_adjusted, floor: of sign-flips over questions, alone and over all interventions, and
            the smallest that so many questions can give.
        random_high: the size that the mean of a random direction exceeds in 5% of the cases; the
            largest of them where there are fewer than 39.
        random_p: share of random directions, this one among them, with at least its mean's size.
        style_mean: of the style direction; None without one.
        beyond_style, beyond_style_p: mean of ``effect - style``, both turned to their own signs,
            and its p over questions; None without a style direction.
        questions: units.
    """

    tried: Tried
    mean: float
    interval: Interval | None
    p: float
    p_adjusted: float
    floor: float
    random_high: float
    random_p: float
    style_mean: float | None
    beyond_style: float | None
    beyond_style_p: float | None
    questions: int

    @property
    def holds(self) -> bool | None:
        """Whether all three conditions hold at .05; None without a style direction."""
        if self.beyond_style is None or self.beyond_style_p is None:
            return None
        return (
            max(self.p_adjusted, self.random_p, self.beyond_style_p) <= LEVEL
            and self.beyond_style > 0.0
        )


def leaning_measure(
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Asking],
    *,
    unit: Unit = "token",
    max_nodes: int = MAX_NODES,
) -> Measure:
    """The paired log-likelihood difference of each question, selfish minus prosocial, nats.

    Args:
        tokenizer: of the agents.
        items: what is asked; questions come in the order in which they first appear.
        unit: by what log-likelihoods are divided.
        max_nodes: largest tree that is run at once.
    """

    def measure(model: nn.Module) -> Array:
        scores = score_items(model, tokenizer, items, max_nodes=max_nodes)
        return scores.by_question(unit)[1]

    return measure


def try_directions(
    model: nn.Module,
    anatomy: Anatomy,
    trial: Trial,
    *,
    task: str = "intervene",
    progress: Progress = silent,
) -> list[Tried]:
    """Measure an agent under interventions with a direction, random ones and a style direction.

    Args:
        model: the decoder, with the wanted adapter active.
        anatomy: its parts.
        trial: what is tried.
        task: what is running, for the progress.
        progress: told after each measurement.

    Raises:
        EvidenceError: a measure changes how many values it gives, or gives one that is no number;
            a direction that is used is zero.
        ModelError: directions do not fit the model; no adapter writes to the stream.
        SiteError: a layer does not exist.
    """
    before = checked(trial.measure(model))
    done = 1

    def changed(intervention: Intervention, along: Array) -> Array:
        nonlocal done
        with applied(model, anatomy, along, intervention):
            after = checked(trial.measure(model), len(before))
        done += 1
        progress(ProgressEvent(task, done, trial.measurements))
        return after - before

    controls = trial.controls
    return [
        Tried(
            one,
            changed(one, trial.vectors),
            np.array([changed(one, along) for along in controls.random]),
            None if controls.style is None else changed(one, controls.style),
        )
        for one in trial.interventions
    ]


def checked(values: Array, expected: int | None = None) -> Array:
    """What a measure gave, refused where it cannot be compared.

    Args:
        values: one for each question.
        expected: how many; any number if not given.

    Raises:
        EvidenceError: it is no list of that many finite numbers.
    """
    found = np.asarray(values, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(found)))
    if found.ndim != 1 or not len(found) or bad or expected not in (None, len(found)):
        raise EvidenceError(
            "A measure cannot be compared before and after an intervention",
            seen=f"values of shape {found.shape}, {bad} of them no finite number",
            allowed=f"{'one or more' if expected is None else expected} finite values, "
            "one for each question",
            remedy="leave questions out beforehand that cannot be measured; a missing value is "
            "not zero",
        )
    return found


def judge_effects(tried: Sequence[Tried], *, seed: int = 0) -> list[Effect]:
    """Hold effects against zero, random directions and style; all interventions are one family.

    Args:
        tried: of one agent, on the same questions.
        seed: of sampled sign-flips and resamples.

    Raises:
        EvidenceError: there are none.
    """
    if not tried:
        raise EvidenceError(
            "There are no interventions to judge",
            seen="an empty list",
            allowed="one or more",
            remedy="name the interventions that are tried",
        )
    columns = np.stack([one.effect for one in tried], axis=1)
    family = max_t(columns, stream(seed, "directions", "family"))
    return [
        _judged(one, float(family.p[k]), float(family.p_adjusted[k]), family.floor, seed)
        for k, one in enumerate(tried)
    ]


def _judged(one: Tried, p: float, adjusted: float, floor: float, seed: int) -> Effect:
    mean = float(one.effect.mean())
    sizes = np.abs(one.random.mean(axis=1))
    hits = int((sizes >= abs(mean) * (1.0 - 1e-9)).sum())
    above = max(1, math.floor(LEVEL * (len(sizes) + 1) + 1e-9))
    name = one.intervention.name
    rest: tuple[float | None, float | None, float | None] = (None, None, None)
    if one.style is not None:
        style = float(one.style.mean())
        beyond = _turned(one.effect, mean) - _turned(one.style, style)
        beyond_p, _ = sign_flip(beyond, stream(seed, "directions", "style", name))
        rest = (style, float(beyond.mean()), beyond_p)
    return Effect(
        one,
        mean,
        cluster_interval(one.effect, stream(seed, "directions", "interval", name)),
        p,
        adjusted,
        floor,
        float(np.sort(sizes)[-above]),
        (1 + hits) / (1 + len(sizes)),
        *rest,
        len(one.effect),
    )


def _turned(values: Array, mean: float) -> Array:
    return -values if mean < 0.0 else values
