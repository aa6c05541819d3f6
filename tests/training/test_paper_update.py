"""Whole updates of the published PPO, recomputed from its formulas by other means.

The oracle shares nothing with the code under test but the tokens that were asked and answered. It
runs plain ``transformers`` one prompt at a time on weights into which the adapter is merged by
hand; numbers between the forward and the gradient are loops over floats; the gradient of the loss
by each log-probability and value is written out by hand; Adam is its formula. It follows its own
parameters, scores and coefficient from step to step, so any difference adds up.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny import never_narrowed

from moralscope.models.loading import LoadedModel
from moralscope.training import sampled, session
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import ALONE
from moralscope.training.learners import Learner
from moralscope.training.play import Turn
from moralscope.training.sampled import sampled_step
from moralscope.training.seating import learners_of, seats_of
from moralscope.training.session import Session, StepReport

RATE, BETA, TRACE, CLIP, VALUE_WEIGHT, TARGET, HORIZON = 1e-3, 0.2, 0.95, 0.2, 0.1, 6.0, 10000
PAYOFF = {("C", "C"): 3.0, ("C", "D"): 0.0, ("D", "C"): 4.0, ("D", "D"): 1.0}
PLAN = ("D", "C", "illegal", "C", "D", "D", "illegal", "C", "C", "D", "C", "D", "illegal", "D", "C")
Theta = dict[str, Tensor]
Rows = list[list[float]]


def settings(**sampling: object) -> TrainingConfig:
    """The preset, with an adapter for a small model."""
    adapter = {"rank": 4, "alpha": 8.0, "dropout": 0.05}
    return TrainingConfig.model_validate(
        {"preset": "paper", "reward": "game", "lora": adapter, "sampling": sampling}
    )


@dataclass(frozen=True)
class Judged:
    """What the gradient of a step's passes is made of: decisions, then tokens."""

    old: Rows
    base: Rows
    values: Rows
    advantages: Rows
    returns: Rows


@dataclass
class Oracle:
    """The published update, followed on its own."""

    model: LlamaForCausalLM
    theta: Theta
    scaling: float
    rate: float
    scores: list[float] = field(default_factory=list[float])
    beta: float = BETA
    adam: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict[str, tuple[Tensor, Tensor]])
    updates: int = 0

    def read(self, theta: Theta | None, asked: tuple[int, ...], answer: tuple[int, ...]):
        """Log-probability and value of each answer token, ``[tokens]`` each, with gradient."""
        weights = dict(self.model.named_parameters())
        for name in theta or {}:
            if ".lora_A." in name and theta is not None:
                plain = cast("Any", re.match(r".*?(model\.layers.*)\.lora_A\..*", name))[1]
                up = theta[name.replace(".lora_A.", ".lora_B.")]
                weights[plain + ".weight"] = (
                    weights[plain + ".weight"] + self.scaling * up @ theta[name]
                )
        ids = torch.tensor([asked + answer])
        named = {"output_hidden_states": True, "use_cache": False}
        with never_narrowed():
            out = cast("Any", functional_call)(self.model, weights, (ids,), named)
        before = slice(len(asked) - 1, len(asked) + len(answer) - 1)
        log_p = out.logits[0, before].log_softmax(-1)[range(len(answer)), list(answer)]
        if theta is None:
            return log_p, None
        hidden = out.hidden_states[-1][0, before]
        return log_p, hidden @ theta["value_head.weight"][0] + theta["value_head.bias"]

    def judge(self, turns: Sequence[tuple[tuple[int, ...], tuple[int, ...], float]]) -> Judged:
        """Scores, rewards, advantages and returns of a step."""
        self.scores += [points for _, _, points in turns]
        mean, deviation = np.mean(self.scores), np.std(self.scores, ddof=1)
        old, base, values, raw, returns = [], [], [], [], []
        for asked, answer, points in turns:
            log_p, value = (x.tolist() for x in self.read(self.theta, asked, answer))
            reference = self.read(None, asked, answer)[0].tolist()
            rewards = [-self.beta * (p - q) for p, q in zip(log_p, reference, strict=True)]
            rewards[-1] += float((points - mean) / (deviation + np.finfo(np.float64).eps))
            row = [0.0] * len(answer)
            for t in range(len(answer)):
                for u in range(t, len(answer)):
                    after = value[u + 1] if u + 1 < len(answer) else 0.0
                    row[t] += TRACE ** (u - t) * (rewards[u] + after - value[u])
            raw.append(row)
            returns.append([a + v for a, v in zip(row, value, strict=True)])
            old.append(log_p)
            base.append(reference)
            values.append(value)
        flat = [a for row in raw for a in row]
        middle = sum(flat) / len(flat)
        variance = sum((a - middle) ** 2 for a in flat) / (len(flat) - 1)
        white = [[(a - middle) / math.sqrt(variance + 1e-8) for a in row] for row in raw]
        return Judged(old, base, values, white, returns)

    def loss(
        self, theta: Theta, judged: Judged, turns: Sequence[Any]
    ) -> tuple[float, float, Theta, float]:
        """Loss, value loss, gradient by hand as far as the model's outputs, share clipped."""
        count = sum(len(row) for row in judged.old)
        policy = value_error = clipped = 0.0
        total = torch.zeros((), dtype=torch.float64)
        for i, (asked, answer, _) in enumerate(turns):
            now = self.read(theta, asked, answer)
            log_p, value = (x.tolist() for x in now)
            for t in range(len(answer)):
                a, g = judged.advantages[i][t], judged.returns[i][t]
                ratio = math.exp(log_p[t] - judged.old[i][t])
                v, v_old = value[t], judged.values[i][t]
                bounded = min(max(ratio, 1 - CLIP), 1 + CLIP)
                near = min(max(v, v_old - CLIP), v_old + CLIP)
                stopped = -a * bounded > -a * ratio
                clipped += stopped / count
                policy += max(-a * ratio, -a * bounded) / count
                value_error += 0.5 * max((v - g) ** 2, (near - g) ** 2) / count
                by_log_p = 0.0 if stopped else -a * ratio / count
                kept = (v - g) ** 2 >= (near - g) ** 2
                by_value = VALUE_WEIGHT * (v - g) / count if kept else 0.0
                # Its derivative by the parameters is the loss's, its value is not.
                total = total + by_log_p * now[0][t] + by_value * now[1][t]
        found = cast("Any", torch.autograd).grad(total, list(theta.values()))
        gradient = dict(zip(theta, found, strict=True))
        return policy + VALUE_WEIGHT * value_error, value_error, gradient, clipped

    def descend(self, gradient: Theta) -> None:
        """Adam, as its paper has it."""
        self.updates += 1
        for name, g in gradient.items():
            zero = (torch.zeros_like(g), torch.zeros_like(g))
            m, v = self.adam.get(name, zero)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            self.adam[name] = m, v
            slope = m / (1 - 0.9**self.updates)
            size = torch.sqrt(v / (1 - 0.999**self.updates)) + 1e-8
            moved = self.theta[name].detach() - self.rate * slope / size
            self.theta[name] = moved.requires_grad_()

    def step(self, turns: Sequence[Any], *, one_update: bool, epochs: int) -> dict[str, float]:
        """One episode; what it reports."""
        judged = self.judge(turns)
        gathered: Theta = {}
        told: list[tuple[float, float, float]] = []
        for _ in range(epochs):
            loss, value_error, gradient, clipped = self.loss(self.theta, judged, turns)
            told.append((loss, value_error, clipped))
            if one_update:
                for name, g in gradient.items():
                    gathered[name] = gathered.get(name, torch.zeros_like(g)) + g / epochs
            else:
                self.descend(gradient)
        if one_update:
            self.descend(gathered)
        rows = zip(judged.old, judged.base, strict=True)
        divergence = [sum(p - q for p, q in zip(*row, strict=True)) for row in rows]
        report = dict(zip(("loss", "value_loss", "clip_fraction"), np.mean(told, 0), strict=True))
        report |= {"kl": float(np.mean(divergence)), "kl_coefficient": self.beta}
        report["reward_mean"] = float(np.mean([points for _, _, points in turns]))
        error = min(max(report["kl"] / TARGET - 1, -0.2), 0.2)
        self.beta *= 1 + error * len(turns) / HORIZON
        return report


@dataclass
class Table:
    """A training at its first step, its answers prescribed, and the oracle beside it."""

    session: Session
    learner: Learner
    oracle: Oracle
    turns: list[Turn]

    def advance(self, step: int, rate: float) -> tuple[StepReport, list[Any]]:
        """One step; its report, and question, answer and points of each decision."""
        self.turns.clear()
        (report,) = sampled_step(self.session, (self.learner,), step, 0, rate)
        return report, [self._seen(turn) for turn in self.turns]

    def _seen(self, turn: Turn) -> tuple[tuple[int, ...], tuple[int, ...], float]:
        prompt, answer = self.learner.seat.encoded[turn.prompt], turn.answer.tokens
        own = {prompt.positive[0]: "D", prompt.negative[0]: "C"}.get(answer)
        points = -6.0 if own is None else PAYOFF[own, turn.others[0]]
        return tuple(prompt.tokens), tuple(answer), points


@contextmanager
def table(
    config: TrainingConfig,
    base: LoadedModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
) -> Generator[Table]:
    plan = iter(PLAN)
    played: list[Turn] = []

    def answers(model: Any, prompts: Sequence[Any], uniforms: Any, *_: Any, **__: Any) -> Any:
        assert uniforms.shape == (len(prompts), 2)
        return tuple(
            {"D": p.positive[0], "C": p.negative[0], "illegal": p.negative[0][::-1]}[next(plan)]
            for p in prompts
        )

    real: Callable[..., tuple[Turn, ...]] = sampled.play

    def listening(*args: Any, **named: Any) -> tuple[Turn, ...]:
        found = real(*args, **named)
        played.extend(found)
        return found

    monkeypatch.setattr(session, "generate_answers", answers)
    monkeypatch.setattr(sampled, "play", listening)
    seats = seats_of("pupil", config, base, max_nodes=4096)
    with learners_of(seats, config, base, processes=ALONE, max_nodes=4096) as (held, pupils):
        assert pupils[0].value_head is not None
        rng = np.random.default_rng(0)
        theta: Theta = {}
        for name, parameter in pupils[0].parameters.items():
            parameter.data = parameter.data.double()
            if ".lora_B." in name:
                # An adapter that already does something, so that KL and its penalty are there.
                noise = torch.as_tensor(rng.normal(0, 0.05, parameter.shape))
                parameter.data.copy_(noise)
            theta[name] = parameter.detach().clone().requires_grad_()
        plain = LlamaForCausalLM.from_pretrained(str(folder), dtype=torch.float64).eval()
        oracle = Oracle(plain.requires_grad_(False), theta, 8.0 / 4.0, rate)
        yield Table(held, pupils[0], oracle, played)


def agree(report: StepReport, expected: dict[str, float], learner: Learner, theta: Theta) -> None:
    for key, value in expected.items():
        assert report.values[key] == pytest.approx(value, rel=1e-8, abs=1e-11), key
    for name, parameter in learner.parameters.items():
        assert parameter.dtype == torch.float64
        assert torch.allclose(parameter, theta[name], rtol=1e-7, atol=1e-9), name


def test_three_published_episodes(
    wide_base: LoadedModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings()
    with table(config, wide_base, tiny_folder, monkeypatch, RATE) as played:
        coefficients: list[float] = []
        for step in (1, 2, 3):
            before = {k: p.detach().clone() for k, p in played.learner.parameters.items()}
            report, turns = played.advance(step, RATE)
            assert len(turns) == 5
            assert {len(answer) for _, answer, _ in turns} == {2}
            assert -6.0 in [points for _, _, points in turns]
            assert len({points for _, _, points in turns}) > 1
            expected = played.oracle.step(turns, one_update=True, epochs=4)
            agree(report, expected, played.learner, played.oracle.theta)
            assert played.oracle.updates == step
            moved = [
                float((p - before[k]).detach().abs().mean())
                for k, p in played.learner.parameters.items()
            ]
            assert min(moved) > 0.1 * RATE
            assert abs(expected["kl"]) > 1e-3
            coefficients.append(expected["kl_coefficient"])
        assert coefficients[0] == 0.2
        assert len(set(coefficients)) == 3


def test_several_updates_an_episode_with_the_clip_acting(
    wide_base: LoadedModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(one_update=False, epochs=3)
    rate = 0.02
    with table(config, wide_base, tiny_folder, monkeypatch, rate) as played:
        for step in (1, 2):
            report, turns = played.advance(step, rate)
            expected = played.oracle.step(turns, one_update=False, epochs=3)
            assert 0.0 < expected["clip_fraction"] < 1.0
            agree(report, expected, played.learner, played.oracle.theta)
        assert played.oracle.updates == 6


def test_the_gradient_of_the_oracle_is_that_of_its_loss(
    wide_base: LoadedModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By central differences of the loss itself along random directions."""
    with table(settings(), wide_base, tiny_folder, monkeypatch, RATE) as played:
        _, turns = played.advance(1, RATE)
    oracle = played.oracle
    judged = oracle.judge(turns)
    gradient = oracle.loss(oracle.theta, judged, turns)[2]
    rng = np.random.default_rng(1)
    for _ in range(2):
        way = {k: torch.as_tensor(rng.normal(size=tuple(p.shape))) for k, p in gradient.items()}
        ends: list[float] = []
        for h in (1e-6, -1e-6):
            moved = {k: (p.detach() + h * way[k]).requires_grad_() for k, p in oracle.theta.items()}
            ends.append(oracle.loss(moved, judged, turns)[0])
        slope = sum(float((gradient[k] * way[k]).sum()) for k in gradient)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-4)
        assert abs(slope) > 1e-3
