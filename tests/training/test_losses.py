"""Losses against loops over the published formulas, enumeration and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moralscope.core.errors import ConfigError
from moralscope.training.config import KLEstimator
from moralscope.training.losses import (
    KL_ESTIMATORS,
    UpdateSize,
    answer_kl,
    excessive,
    kl_estimate,
    masked_mean,
    policy_loss,
    value_loss,
)

MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=15, deadline=None)


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(0, scale, shape))


def inside() -> list[tuple[int, int]]:
    return [(i, t) for i in range(3) for t in range(3) if MASK[i, t]]


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    return cast("Any", torch.autograd).grad(loss, x, retain_graph=True)[0]


def slopes(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences, one entry at a time."""
    result = torch.zeros_like(x)
    for index in np.ndindex(tuple(x.shape)):
        ends: list[float] = []
        for sign in (1.0, -1.0):
            moved = x.detach().clone()
            moved[index] += sign * step
            ends.append(float(function(moved)))
        result[index] = (ends[0] - ends[1]) / (2 * step)
    return result


def test_the_policy_loss_is_the_mean_of_the_worse_of_two() -> None:
    log_p, old, gain = drawn(0, 3, 3), drawn(1, 3, 3), drawn(2, 3, 3)
    losses: list[float] = []
    ratios: list[float] = []
    clipped = 0
    for i, t in inside():
        ratio = math.exp(float(log_p[i, t]) - float(old[i, t]))
        bounded = min(max(ratio, 0.8), 1.2)
        a = float(gain[i, t])
        losses.append(max(-a * ratio, -a * bounded))
        clipped += -a * bounded > -a * ratio
        ratios.append(ratio)
    assert 0 < clipped < len(losses)
    loss, size = policy_loss(log_p, old, gain, MASK, 0.2)
    assert float(loss) == pytest.approx(sum(losses) / 6, rel=1e-12)
    assert size.clip_fraction == pytest.approx(clipped / 6)
    assert size.mean_ratio == pytest.approx(sum(ratios) / 6, rel=1e-12)
    squares = [(float(log_p[i, t]) - float(old[i, t])) ** 2 for i, t in inside()]
    assert size.approx_kl == pytest.approx(sum(squares) / 12, rel=1e-12)


def test_at_ratio_one_the_gradient_is_that_of_the_log_probability_times_the_advantage() -> None:
    """Through a softmax, by finite differences of ``-mean A log p`` itself."""
    logits, gain = drawn(3, 3, 3, 4).requires_grad_(), drawn(4, 3, 3)
    chosen = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 3, 0]])

    def log_p(x: Tensor) -> Tensor:
        return x.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]

    def plain(x: Tensor) -> Tensor:
        now = log_p(x)
        return -sum((gain[i, t] * now[i, t] for i, t in inside()), torch.zeros(())) / 6

    now = log_p(logits)
    loss, size = policy_loss(now, now.detach(), gain, MASK, 0.2)
    assert size == UpdateSize(0.0, 1.0, 0.0)
    found = gradient(loss, logits)
    assert torch.allclose(found, slopes(plain, logits), atol=1e-9)
    assert float(found.abs().max()) > 0.01


@pytest.mark.parametrize(("gain", "change", "counts"), [
    (1.0, 0.5, False), (1.0, -0.5, True), (-1.0, -0.5, False), (-1.0, 0.5, True), (1.0, 0.1, True),
])  # fmt: skip
def test_clipping_ends_the_gradient_only_where_it_was_earned(
    gain: float, change: float, counts: bool
) -> None:
    old = torch.full((1, 1), -1.0, dtype=torch.float64)
    log_p = (old + change).requires_grad_()
    mask, advantage = torch.ones(1, 1, dtype=torch.bool), torch.full_like(old, gain)
    loss, size = policy_loss(log_p, old, advantage, mask, 0.2)
    sought = -gain * math.exp(change) if counts else 0.0
    assert float(gradient(loss, log_p)) == pytest.approx(sought, abs=1e-12)
    assert size.clip_fraction == (0.0 if counts else 1.0)


def test_the_value_loss_is_half_the_mean_of_the_larger_error() -> None:
    values, old, returns = drawn(5, 3, 3), drawn(6, 3, 3), drawn(7, 3, 3)
    total, kept = 0.0, 0
    for i, t in inside():
        v, o, g = (float(x[i, t]) for x in (values, old, returns))
        near = min(max(v, o - 0.2), o + 0.2)
        total += max((v - g) ** 2, (near - g) ** 2)
        kept += (v - g) ** 2 >= (near - g) ** 2
    assert 0 < kept < 6
    loss = value_loss(values, old, returns, MASK, 0.2)
    assert float(loss) == pytest.approx(total / 12, rel=1e-12)


def test_gradients_of_the_value_loss_by_finite_differences() -> None:
    values, old, returns = drawn(5, 3, 3).requires_grad_(), drawn(6, 3, 3), drawn(7, 3, 3)
    found = gradient(value_loss(values, old, returns, MASK, 0.2), values)
    assert torch.allclose(
        found, slopes(lambda x: value_loss(x, old, returns, MASK, 0.2), values), atol=1e-8
    )
    stopped = (found == 0) & MASK
    assert bool(stopped.any())
    assert not bool((stopped == MASK).all())
    # At the values that played nothing is clipped: the gradient is that of half the square.
    start = old.clone().requires_grad_()
    first = gradient(value_loss(start, old, returns, MASK, 0.2), start)
    assert torch.allclose(first, torch.where(MASK, old - returns, 0.0) / 6)


@given(seed=SEEDS)
@FEW
def test_nothing_at_padding_reaches_a_loss_or_its_gradient(seed: int) -> None:
    log_p, old, gain = (drawn(seed + k, 3, 3) for k in range(3))
    for junk in (math.nan, math.inf, 1e4):
        dirty = [torch.where(MASK, x, junk) for x in (log_p, old, gain)]
        for loss_of in (
            lambda x, rest: policy_loss(x, *rest, MASK, 0.2)[0],
            lambda x, rest: value_loss(x, *rest, MASK, 0.2),
        ):
            start, moved = log_p.clone().requires_grad_(), dirty[0].clone().requires_grad_()
            clean_loss, dirty_loss = loss_of(start, [old, gain]), loss_of(moved, dirty[1:])
            assert torch.equal(clean_loss, dirty_loss)
            assert torch.equal(gradient(clean_loss, start), gradient(dirty_loss, moved))
    assert answer_kl(torch.where(MASK, log_p, math.nan), MASK) == answer_kl(log_p, MASK)


def test_only_the_policy_of_now_has_a_gradient() -> None:
    log_p, old, gain = (drawn(k, 3, 3).requires_grad_() for k in range(3))
    policy_loss(log_p, old, gain, MASK, 0.2)[0].backward()
    assert log_p.grad is not None
    assert old.grad is None
    assert gain.grad is None
    values, before, goal = (drawn(k, 3, 3).requires_grad_() for k in range(3))
    value_loss(values, before, goal, MASK, 0.2).backward()
    assert values.grad is not None
    assert before.grad is None
    assert goal.grad is None


P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64)
TRUE_KL = sum(p * math.log(p / q) for p, q in zip(P.tolist(), Q.tolist(), strict=True))


def test_estimates_of_kl_are_their_formulas() -> None:
    sought = {
        "k1": lambda p, q: math.log(p / q),
        "abs": lambda p, q: abs(math.log(p / q)),
        "mse": lambda p, q: math.log(p / q) ** 2 / 2,
        "k3": lambda p, q: q / p - 1 - math.log(q / p),
    }
    assert set(sought) == set(KL_ESTIMATORS)
    for kind in KL_ESTIMATORS:
        found = kl_estimate(P.log(), Q.log(), kind)
        for k in range(4):
            assert float(found[k]) == pytest.approx(sought[kind](float(P[k]), float(Q[k])))


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(kind: KLEstimator) -> None:
    assert float((P * kl_estimate(P.log(), Q.log(), kind)).sum()) == pytest.approx(TRUE_KL)


@pytest.mark.parametrize("kind", ["abs", "mse"])
def test_the_other_two_are_not(kind: KLEstimator) -> None:
    assert abs(float((P * kl_estimate(P.log(), Q.log(), kind)).sum()) - TRUE_KL) > 0.03


@given(difference=st.floats(-30, 30))
@settings(max_examples=50, deadline=None)
def test_k3_is_never_negative(difference: float) -> None:
    value = float(kl_estimate(torch.tensor(difference).double(), torch.zeros(()).double(), "k3"))
    assert value >= -1e-15 * abs(difference)
    assert abs(difference) < 1e-3 or value > 0


def test_small_differences_keep_their_digits_in_k3() -> None:
    value = kl_estimate(torch.tensor(1e-4), torch.tensor(0.0), "k3")
    assert float(value) == pytest.approx(0.5e-8, rel=2e-3)


def test_which_divergence_the_gradient_of_an_estimate_descends() -> None:
    """The expectation over the policy of the estimate's gradient, by the logits, enumerated."""
    logits = P.log().requires_grad_()
    log_p = logits.log_softmax(0)

    def expected(kind: KLEstimator) -> Tensor:
        return gradient((P * kl_estimate(log_p, Q.log(), kind)).sum(), logits)

    def reverse(x: Tensor) -> Tensor:
        return (x.softmax(0) * (x.log_softmax(0) - Q.log())).sum()

    def forward(x: Tensor) -> Tensor:
        return (Q * (Q.log() - x.log_softmax(0))).sum()

    assert torch.allclose(expected("k1"), torch.zeros(4).double(), atol=1e-12)
    assert torch.allclose(expected("mse"), slopes(reverse, logits), atol=1e-8)
    assert torch.allclose(expected("k3"), slopes(forward, logits), atol=1e-8)
    assert float(expected("k3").abs().max()) > 0.1


def test_the_kl_of_an_answer_is_the_sum_over_its_tokens() -> None:
    kl = drawn(8, 3, 3)
    sums = [sum(float(kl[i, t]) for t in range(3) if MASK[i, t]) for i in range(3)]
    assert answer_kl(kl, MASK) == pytest.approx(sum(sums) / 3)
    assert float(masked_mean(kl, MASK)) == pytest.approx(sum(sums) / 6)


def test_a_pass_too_far_from_play_is_told() -> None:
    assert not excessive(UpdateSize(0.0, 10.0, 0.0), 10.0)
    assert excessive(UpdateSize(0.0, 10.1, 0.0), 10.0)
    assert excessive(UpdateSize(0.0, math.nan, 0.0), 10.0)
    mask = torch.ones(1, 1, dtype=torch.bool)
    x = torch.zeros(1, 1)
    for gain in (1.0, -1.0):
        far = (x + 800.0).requires_grad_()
        loss, size = policy_loss(far, x, x + gain, mask, 0.2)
        assert excessive(size, 10.0)
        assert float(gradient(loss * 0.0, far)) == 0.0


def test_bad_input_is_refused_by_name() -> None:
    x = torch.zeros(3, 3)
    with pytest.raises(ConfigError, match="no estimate of KL .* k4.* k1, abs, mse, k3"):
        kl_estimate(x, x, cast("KLEstimator", "k4"))
    with pytest.raises(ConfigError, match="does not fit"):
        policy_loss(x, x, torch.zeros(3), MASK, 0.2)
    with pytest.raises(ConfigError, match="does not fit"):
        value_loss(x, x[:2], x, MASK, 0.2)
    with pytest.raises(ConfigError, match="does not fit"):
        answer_kl(x[:2], MASK)
