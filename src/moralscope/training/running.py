"""What does sampled training remember between steps? Moments of all scores, and the KL weight.

Moments of two samples merge exactly (Chan, Golub and LeVeque 1983). With counts n and m, means
a and b, population variances u and v, and ``d = b - a``:

    mean = a + d m / (n + m),    variance = (n u + m v + d^2 n m / (n + m)) / (n + m)

The coefficient of the KL penalty follows a target proportionally (arXiv 1909.08593, section 2.2):

    beta <- beta (1 + clamp(KL / target - 1, -0.2, 0.2) decisions / horizon)

Both are values: updating returns a new one. Both survive JSON bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from moralscope.core.errors import AgentError, ConfigError

MAX_PROPORTION = 0.2
"""Bound on how far from its target KL is taken to be, as a proportion."""


@dataclass(frozen=True, slots=True)
class RunningMoments:
    """Mean and population variance of every score so far, without forgetting.

    Attributes:
        mean: in points.
        variance: of the population, in points squared.
        count: scores seen.
    """

    mean: float = 0.0
    variance: float = 1.0
    count: int = 0

    @property
    def deviation(self) -> float:
        """Standard deviation with Bessel's correction, in points; 1 before the second score."""
        if self.count < 2:
            return 1.0
        return math.sqrt(self.variance * self.count / (self.count - 1))

    def updated(self, scores: Tensor) -> RunningMoments:
        """The moments with further scores seen.

        Args:
            scores: any shape, in points.

        Raises:
            ConfigError: there are none, or one is not a finite number.
        """
        seen = scores.detach().to("cpu", torch.float64)
        if not seen.numel() or not bool(seen.isfinite().all()):
            raise ConfigError(
                "Scores of a step cannot be normalised",
                seen=f"{int((~seen.isfinite()).sum())} of {seen.numel()} are not finite",
                allowed="at least one score, all of them finite",
                remedy="check the reward: it must be a finite number in every round",
            )
        new = seen.numel()
        total = self.count + new
        # Around one of them, so that equal scores have exactly their value as mean: the tiny eps
        # of ``normalised`` would otherwise blow rounding up.
        first = seen.flatten()[0]
        mean = float(first + (seen - first).mean())
        delta = mean - self.mean
        squares = float((seen - mean).square().sum()) + self.variance * self.count
        squares += delta * delta * self.count * new / total
        return RunningMoments(self.mean + delta * (new / total), squares / total, total)

    def normalised(self, scores: Tensor) -> Tensor:
        """Scores minus the mean, in deviations, by the moments as they are.

        Args:
            scores: any shape, in points.

        Returns:
            ``(score - mean) / (deviation + eps)``, same shape, with the precision of the scores'
            type as eps; 0 while all scores ever seen are equal.
        """
        return (scores - self.mean) / (self.deviation + torch.finfo(scores.dtype).eps)

    def to_json(self) -> dict[str, float | int]:
        """As JSON values, from which ``from_json`` makes the same bits."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> RunningMoments:
        """Read what ``to_json`` gave.

        Raises:
            AgentError: fields are missing or unknown, or cannot be moments.
        """
        mean, variance, count = _numbers(values, ("mean", "variance", "count"))
        if variance < 0 or count < 0 or count != int(count):
            raise _broken(values, "a variance and a whole count that are not negative")
        return cls(mean, variance, int(count))


@dataclass(frozen=True, slots=True)
class KLController:
    """The coefficient of the KL penalty, and how it follows its target.

    Attributes:
        coefficient: beta now, in points per nat, at least 0.
        target: KL of an answer that is aimed at, in nats, above 0; None keeps beta fixed.
        horizon: decisions over which a proportional error of 1 would double beta, at least 1.
    """

    coefficient: float
    target: float | None = None
    horizon: int = 10000

    def updated(self, mean_kl: float, decisions: int) -> KLController:
        """The controller after a step.

        Args:
            mean_kl: KL of an answer, averaged over the step's decisions, in nats.
            decisions: how many there were.

        Raises:
            ConfigError: the KL is not finite, or the horizon so short that one step could make
                the coefficient negative.
        """
        if self.target is None:
            return self
        if not math.isfinite(mean_kl):
            raise ConfigError(
                "The coefficient of KL cannot follow a KL that is not finite",
                seen=mean_kl,
                allowed="a finite number of nats",
                remedy="lower learning_rate or raise kl_coefficient",
            )
        if decisions * MAX_PROPORTION >= self.horizon:
            raise ConfigError(
                "One step could take the coefficient of KL to zero or below",
                seen=f"kl_horizon {self.horizon}, {decisions} decisions in a step",
                allowed="a horizon above a fifth of the decisions of a step",
                remedy="raise kl_horizon",
            )
        error = min(max(mean_kl / self.target - 1.0, -MAX_PROPORTION), MAX_PROPORTION)
        factor = 1.0 + error * decisions / self.horizon
        return replace(self, coefficient=self.coefficient * factor)

    def to_json(self) -> dict[str, float | int | None]:
        """As JSON values, from which ``from_json`` makes the same bits."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> KLController:
        """Read what ``to_json`` gave.

        Raises:
            AgentError: fields are missing or unknown, or cannot be a controller.
        """
        fixed = "target" in values and values["target"] is None
        given = {**values, "target": 1.0} if fixed else values
        coefficient, target, horizon = _numbers(given, ("coefficient", "target", "horizon"))
        if coefficient < 0 or target <= 0 or horizon < 1 or horizon != int(horizon):
            raise _broken(values, "a coefficient of at least 0, a target and a horizon above 0")
        return cls(coefficient, None if fixed else target, int(horizon))


def _numbers(values: Mapping[str, object], names: tuple[str, ...]) -> list[float]:
    """The named values as numbers.

    Raises:
        AgentError: others are there, or one is no finite number.
    """
    if set(values) != set(names):
        raise _broken(values, f"exactly {', '.join(names)}")
    found: list[float] = []
    for name in names:
        value = values[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise _broken(values, f"a finite number as {name}")
        found.append(float(value))
    return found


def _broken(values: Mapping[str, object], allowed: str) -> AgentError:
    return AgentError(
        "Statistics of a training are not what a checkpoint holds",
        seen=dict(values),
        allowed=allowed,
        remedy="start again from an earlier checkpoint",
    )
