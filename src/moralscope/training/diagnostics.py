"""Is this training still worth its time? What goes wrong again and again, told when it shows.

Each check reads the rows of the table ``training`` so far and says at most one thing, once a run:

=====================  =====================================================================
``legal-collapse``     the mean legal mass fell below half of its start, or below .1
``no-advantage``       every sampled answer earns the same, so that nothing can be learned
``kl-runaway``         KL(policy || base) beyond 10 nats, or doubling twice to beyond 5
``dead-adapter``       no gradient, or no change of the adapter
``value-divergence``   the value head's loss is ten times its start and still doubling
``label-learned``      P(defect) moves apart under the two label assignments: a word is taught
``label-kept``         P(defect) stays apart under the two: the base answers by the word
``fixed-labels``       told before training: one label assignment alone teaches the word
``no-effect``          told before training: a setting that nothing reads
=====================  =====================================================================

Means and medians are taken over up to ten steps, and a fall must be significant at .0005 by a
t-test of those steps, so that sampled play does not raise an alarm by chance. The limits are
conventions of this project, wide of the courses that trainings here take when they go well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import stdtrit

from moralscope.core.tables import from_rows
from moralscope.training.config import TrainingConfig
from moralscope.training.idle import idle_settings

Row = Mapping[str, object]
Rows = Sequence[Row]

WINDOW = 10
"""Steps that a mean is taken over, where there are as many."""
CHANCE = 5e-4
"""One-sided level at which a fall is more than the scatter of steps (Student's t)."""
LEGAL_SHARE, LEGAL_LEAST = 0.5, 0.1
KL_MOST, KL_DOUBLING = 10.0, 5.0
VALUE_GROWTH = 10.0
STILL = 5
"""Steps in a row that must show nothing before nothing is what they are said to show."""
NO_SPREAD, NO_GRADIENT = 1e-8, 1e-12
APART, MOVED = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that goes wrong.

    Attributes:
        kind: its name, see above.
        step: the step at which it showed, 0 before training.
        measured, threshold: the figure and the limit that it passed; null where it is no number.
        sentence: what it means, with the figures.
        advice: what to do.
    """

    kind: str
    step: int
    measured: float | None
    threshold: float | None
    sentence: str
    advice: str


def before_training(config: TrainingConfig) -> tuple[Diagnosis, ...]:
    """What the settings alone foretell."""
    return (*_fixed_labels(config), *_no_effect(config))


def _fixed_labels(config: TrainingConfig) -> tuple[Diagnosis, ...]:
    if config.labels not in ("same", "swapped"):
        return ()
    cooperate, defect = config.words if config.labels == "same" else config.words[::-1]
    return (
        Diagnosis(
            "fixed-labels",
            0,
            1.0,
            2.0,
            f"With labels: {config.labels}, defecting is always called {defect!r} and cooperating "
            f"always {cooperate!r}, so a reward for a move is a reward for a word",
            "train with labels: both or random, unless a word is what you mean to teach",
        ),
    )


def _no_effect(config: TrainingConfig) -> tuple[Diagnosis, ...]:
    idle = idle_settings(config)
    if not idle:
        return ()
    return (
        Diagnosis(
            "no-effect",
            0,
            float(len(idle)),
            0.0,
            "Nothing reads " + "; ".join(f"{key}: {why}" for key, why in idle.items()),
            "leave out what is not read, or choose the method that reads it",
        ),
    )


def diagnose(rows: Rows, *, known: Iterable[str] = ()) -> tuple[Diagnosis, ...]:
    """Everything that a course shows, each kind at the first step at which it does.

    Args:
        rows: of the table ``training``, in order of ``step``.
        known: kinds that have been told.
    """
    found: dict[str, Diagnosis] = {}
    told = set(known)
    for end in range(1, len(rows) + 1):
        for diagnosis in diagnose_last(rows[:end], known=told):
            found[diagnosis.kind] = diagnosis
            told.add(diagnosis.kind)
    return tuple(found.values())


def diagnose_last(rows: Rows, *, known: Iterable[str] = ()) -> tuple[Diagnosis, ...]:
    """What the last row shows in the light of those before it, kinds in ``known`` left out."""
    told = set(known)
    if not rows:
        return ()
    results = (check(rows) for kind, check in _CHECKS.items() if kind not in told)
    return tuple(found for found in results if found is not None)


def diagnosed(agent: str, config: TrainingConfig, training: pl.DataFrame) -> pl.DataFrame:
    """Everything that a whole training shows, as the table ``diagnostics``.

    Args:
        agent: who was trained; what the settings alone foretell is told of it.
        config: its training.
        training: its table ``training``, with the rows of an opponent that learned beside it.
    """
    found = diagnostics_table(agent, config.seed, before_training(config))
    for name in training.get_column("agent").unique(maintain_order=True).to_list():
        rows = training.filter(pl.col("agent") == name).to_dicts()
        found = found.vstack(diagnostics_table(str(name), config.seed, diagnose(rows)))
    return found


def diagnostics_table(agent: str, seed: int, found: Sequence[Diagnosis]) -> pl.DataFrame:
    """Diagnoses as the table ``diagnostics``."""
    return from_rows(
        "diagnostics",
        [
            {
                "agent": agent,
                "training_seed": seed,
                "step": one.step,
                "diagnosis": one.kind,
                "measured": one.measured,
                "threshold": one.threshold,
                "sentence": one.sentence,
                "advice": one.advice,
            }
            for one in found
        ],
    )


def _legal(rows: Rows) -> Diagnosis | None:
    width = min(WINDOW, len(rows) // 2)
    last = _column(rows, "legal_mass", width)
    first = _column(rows[:width], "legal_mass", width)
    if last is None or first is None or width < 3:
        return None
    start, now = float(first.mean()), float(last.mean())
    error = math.sqrt((float(first.var(ddof=1)) + float(last.var(ddof=1))) / width)
    noise = error * float(stdtrit(2 * width - 2, 1 - CHANCE))
    threshold = LEGAL_SHARE * start if start >= LEGAL_LEAST else LEGAL_LEAST
    lost = start >= LEGAL_LEAST and (now < threshold or now < LEGAL_LEAST) and start - now > noise
    least = LEGAL_LEAST if width == WINDOW else LEGAL_LEAST / 10  # sooner where it is hopeless
    never = start < LEGAL_LEAST and width >= WINDOW // 2 and now < least and now <= start
    if not (lost or never):
        return None
    story = f"fell from {start:.2g} to {now:.2g}" if lost else f"stays at {now:.2g}"
    return Diagnosis(
        "legal-collapse",
        _step(rows),
        now,
        threshold,
        f"The probability of a legal answer {story}: the agent answers neither option",
        "lower learning_rate or raise kl_coefficient; with generated answers, set stem: true so "
        "that an answer begins as both options do",
    )


def _no_advantage(rows: Rows) -> Diagnosis | None:
    spread = _column(rows, "advantage_std", STILL)
    rewards = _column(rows, "reward_mean", STILL)
    first = _column(rows[:STILL], "reward_mean", STILL)
    if spread is None or rewards is None or first is None or float(spread.max()) > NO_SPREAD:
        return None
    if len(rows) > STILL and float(rewards.mean()) > float(first.mean()) + NO_SPREAD:
        return None  # it has learned, and all answers are now equally good
    return Diagnosis(
        "no-advantage",
        _step(rows),
        float(spread.max()),
        NO_SPREAD,
        f"In the last {STILL} steps all sampled answers earned the same "
        f"({float(rewards.mean()):.3g} points), so nothing can be learned from them",
        "sample more games or larger groups a step, or use method: exact, which weighs answers "
        "that are never sampled",
    )


def _kl(rows: Rows) -> Diagnosis | None:
    width = min(WINDOW, len(rows) // 3)
    kl = _column(rows, "kl", 3 * max(width, 1))
    if kl is None or len(rows) < 3:
        return None
    now, limit = float(kl[-min(3, len(kl)) :].mean()), KL_MOST
    if not now > KL_MOST:
        if width < 2:
            return None
        early, middle, late = (float(part.mean()) for part in np.split(kl, 3))
        doubling = early > 0 and middle >= 2 * early and late >= 2 * middle and late > KL_DOUBLING
        if not doubling:
            return None
        now, limit = late, 2 * middle
    return Diagnosis(
        "kl-runaway",
        _step(rows),
        now,
        limit,
        f"KL(policy || base) is {now:.3g} nats and growing: the agent leaves the base behind",
        "lower learning_rate, raise kl_coefficient, or let it adapt (sampling.adaptive_kl)",
    )


def _dead(rows: Rows) -> Diagnosis | None:
    gradient = _column(rows, "gradient_norm", STILL)
    norms = _column(rows, "adapter_norm", STILL + 1)
    spread = _column(rows, "advantage_std", STILL)
    if spread is not None and float(spread.max()) <= NO_SPREAD:
        return None  # nothing to learn is another matter
    if gradient is not None and float(gradient.max()) <= NO_GRADIENT:
        measured, what = float(gradient.max()), "gets no gradient"
    elif norms is not None and float(np.ptp(norms)) == 0.0:
        measured, what = 0.0, "does not change"
    else:
        return None
    return Diagnosis(
        "dead-adapter",
        _step(rows),
        measured,
        NO_GRADIENT,
        f"For {STILL} steps the adapter {what}",
        "check lora.sites and learning_rate; with narrow weights use dtype: float32",
    )


def _value(rows: Rows) -> Diagnosis | None:
    last = rows[-1].get("value_loss")
    width = min(WINDOW, len(rows) // 3)
    if isinstance(last, float) and not math.isfinite(last):
        now, limit = None, None
    else:
        losses = _column(rows, "value_loss", 2 * max(width, 1))
        first = _column(rows[: max(width, 1)], "value_loss", max(width, 1))
        if losses is None or first is None or width < 3:
            return None
        before, after = (float(np.median(part)) for part in np.split(losses, 2))
        now, limit = after, VALUE_GROWTH * float(np.median(first))
        if not (limit > 0 and now > limit and now >= 2 * before):
            return None
    return Diagnosis(
        "value-divergence",
        _step(rows),
        now,
        limit,
        f"The value head's loss grows without bound (now {last:.3g})",
        "lower learning_rate or sampling.value_coefficient, or normalise scores "
        "(sampling.normalise_scores)",
    )


def _label_learned(rows: Rows) -> Diagnosis | None:
    width = min(WINDOW, len(rows) // 2)
    same, swapped = (_column(rows, f"p_defect_{name}", width) for name in ("same", "swapped"))
    if same is None or swapped is None or width < 3:
        return None
    first = [_column(rows[:width], f"p_defect_{name}", width) for name in ("same", "swapped")]
    if first[0] is None or first[1] is None:
        return None
    now = float(same.mean()), float(swapped.mean())
    moved = now[0] - float(first[0].mean()), now[1] - float(first[1].mean())
    parted = moved[0] * moved[1] < 0 and min(abs(moved[0]), abs(moved[1])) > MOVED
    return _apart(rows, "label-learned", now) if parted else None


def _label_kept(rows: Rows) -> Diagnosis | None:
    same, swapped = (_column(rows, f"p_defect_{name}", 2 * WINDOW) for name in ("same", "swapped"))
    first = [_column(rows[:3], f"p_defect_{name}", 3) for name in ("same", "swapped")]
    if same is None or swapped is None or first[0] is None or first[1] is None:
        return None
    if float(np.abs(first[0] - first[1]).mean()) < APART:
        return None  # the base does not answer by the word
    gaps = np.abs(same - swapped)
    if float(gaps[WINDOW:].mean()) < float(gaps[:WINDOW].mean()):
        return None  # still closing
    now = float(same[WINDOW:].mean()), float(swapped[WINDOW:].mean())
    return _apart(rows, "label-kept", now)


def _apart(rows: Rows, kind: str, now: tuple[float, float]) -> Diagnosis | None:
    """The diagnosis where the two assignments lie far apart on either side of a half."""
    gap = abs(now[0] - now[1])
    if gap < APART or (now[0] - 0.5) * (now[1] - 0.5) >= 0:
        return None
    verb = "has come to depend" if kind == "label-learned" else "still depends"
    return Diagnosis(
        kind,
        _step(rows),
        gap,
        APART,
        f"P(defect) is {now[0]:.2f} under one assignment of labels and {now[1]:.2f} under the "
        f"other: the answer {verb} on the word, not on the move",
        "train with labels: both over several wordings, table_orders and more_words, or longer",
    )


_CHECKS: Mapping[str, Callable[[Rows], Diagnosis | None]] = {
    "legal-collapse": _legal,
    "no-advantage": _no_advantage,
    "kl-runaway": _kl,
    "dead-adapter": _dead,
    "value-divergence": _value,
    "label-learned": _label_learned,
    "label-kept": _label_kept,
}

KINDS = (*_CHECKS, "fixed-labels", "no-effect")
"""Every diagnosis."""


def _column(
    rows: Rows, name: str, last: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """The last values of a column; None where there are fewer, or one is missing or not finite."""
    if last < 1 or len(rows) < last:
        return None
    values = [row.get(name) for row in rows[-last:]]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return None
    return np.array(values, dtype=np.float64)


def _step(rows: Rows) -> int:
    step = rows[-1]["step"]
    return step if isinstance(step, int) else len(rows)
