"""Advantages against loops over the published formulas, closed forms and invariants."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moralscope.core.errors import ConfigError
from moralscope.training.advantages import (
    check_mask,
    generalised_advantages,
    group_relative,
    leave_one_out,
    rewards_to_go,
    token_rewards,
    whitened,
)

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=15, deadline=None)


def drawn(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(0, scale, shape))


def answers(seed: int, decisions: int = 5, tokens: int = 4) -> Tensor:
    """A mask of answers of differing lengths, the first of them full and the second of one."""
    lengths = np.random.default_rng(seed).integers(1, tokens + 1, decisions)
    lengths[:2] = tokens, 1
    return torch.as_tensor(np.arange(tokens) < lengths[:, None])


def lengths_of(mask: Tensor) -> list[int]:
    return [sum(row) for row in mask.tolist()]


def direct_advantage(
    rewards: list[float], values: list[float], start: int, discount: float, trace: float
) -> float:
    """Equation 16 of arXiv 1506.02438: the sum of discounted one-step errors."""
    total = 0.0
    for step in range(start, len(rewards)):
        after = values[step + 1] if step + 1 < len(rewards) else 0.0
        error = rewards[step] + discount * after - values[step]
        total += (discount * trace) ** (step - start) * error
    return total


def test_each_token_pays_for_its_kl_and_the_last_one_gets_the_score() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    kl = torch.tensor([[0.5, -1.0, 9.0], [2.0, math.nan, 9.0]], dtype=torch.float64)
    rewards = token_rewards(torch.tensor([3.0, -6.0], dtype=torch.float64), kl, mask, 0.2)
    assert torch.allclose(
        rewards, torch.tensor([[-0.1, 3.2, 0.0], [-6.4, 0.0, 0.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_advantages_are_the_discounted_sum_of_one_step_errors(
    discount: float, trace: float
) -> None:
    mask, rewards, values = answers(1), drawn(2, 5, 4), drawn(3, 5, 4)
    advantages, returns = generalised_advantages(rewards, values, mask, discount, trace)
    for i, length in enumerate(lengths_of(mask)):
        r, v = rewards[i, :length].tolist(), values[i, :length].tolist()
        for t in range(4):
            expected = direct_advantage(r, v, t, discount, trace) if t < length else 0.0
            assert float(advantages[i, t]) == pytest.approx(expected, rel=1e-12, abs=1e-12)
            sought = expected + v[t] if t < length else 0.0
            assert float(returns[i, t]) == pytest.approx(sought, rel=1e-12, abs=1e-12)


def test_a_full_trace_gives_monte_carlo_returns_and_none_gives_one_step_errors() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    rewards, values = drawn(4, 3, 4), drawn(5, 3, 4)
    _, whole = generalised_advantages(rewards, values, mask, 0.7, 1.0)
    powers = torch.tensor([[0.7 ** (u - t) if u >= t else 0.0 for u in range(4)] for t in range(4)])
    assert torch.allclose(whole, rewards @ powers.T.double(), rtol=1e-6)
    one_step, _ = generalised_advantages(rewards, values, mask, 0.7, 0.0)
    ahead = torch.nn.functional.pad(values[:, 1:], (0, 1))
    assert torch.allclose(one_step, rewards + 0.7 * ahead - values)


@given(seed=SEEDS)
@FEW
def test_nothing_at_padding_reaches_an_advantage(seed: int) -> None:
    mask, rewards, values = answers(seed), drawn(seed, 5, 4), drawn(seed + 1, 5, 4)
    clean = generalised_advantages(rewards, values, mask, 0.9, 0.8)
    noise = torch.full_like(rewards, math.nan)
    dirty = generalised_advantages(
        torch.where(mask, rewards, noise), torch.where(mask, values, noise), mask, 0.9, 0.8
    )
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert torch.equal(whitened(torch.where(mask, rewards, noise), mask), whitened(rewards, mask))


def test_whitening_divides_by_the_corrected_deviation_of_the_tokens() -> None:
    mask, x = answers(6), drawn(7, 5, 4)
    inside = [float(x[i, t]) for i in range(5) for t in range(4) if mask[i, t]]
    mean = sum(inside) / len(inside)
    variance = sum((v - mean) ** 2 for v in inside) / (len(inside) - 1)
    result = whitened(x, mask)
    for i in range(5):
        for t in range(4):
            sought = (float(x[i, t]) - mean) / math.sqrt(variance + 1e-8) if mask[i, t] else 0.0
            assert float(result[i, t]) == pytest.approx(sought, rel=1e-12)


@given(seed=SEEDS)
@FEW
def test_what_is_whitened_has_mean_zero_and_variance_one(seed: int) -> None:
    mask = answers(seed)
    inside = whitened(drawn(seed, 5, 4) + 100.0, mask)[mask].numpy()
    assert abs(inside.mean()) < 1e-10
    assert inside.var(ddof=1) == pytest.approx(1.0, abs=1e-6)


def test_the_variance_is_kept_from_zero() -> None:
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(whitened(torch.full((2, 2), 0.1), mask), torch.zeros(2, 2))
    tiny = torch.tensor([[1e-4, -1e-4]], dtype=torch.float64)
    result = whitened(tiny, mask[:1])
    assert float(result[0, 0]) == pytest.approx(1e-4 / math.sqrt(2e-8 + 1e-8))


def test_rewards_to_go_are_sums_over_later_rounds() -> None:
    rewards = drawn(8, 2, 3, 5)
    result = rewards_to_go(rewards, 0.6)
    for i in range(2):
        for j in range(3):
            for k in range(5):
                later = [0.6 ** (n - k) * float(rewards[i, j, n]) for n in range(k, 5)]
                assert float(result[i, j, k]) == pytest.approx(sum(later), rel=1e-12)
    assert torch.equal(rewards_to_go(rewards, 0.0), rewards)
    assert torch.allclose(rewards_to_go(rewards, 1.0)[..., 0], rewards.sum(-1))


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    returns = drawn(9, 2, 4, 3)
    result = leave_one_out(returns)
    for g in range(2):
        for i in range(4):
            for k in range(3):
                others = [float(returns[g, j, k]) for j in range(4) if j != i]
                sought = float(returns[g, i, k]) - sum(others) / 3
                assert float(result[g, i, k]) == pytest.approx(sought, rel=1e-12)


@pytest.mark.parametrize("scale", [False, True])
def test_group_advantages_are_standard_scores(scale: bool) -> None:
    returns = drawn(10, 2, 4, 3)
    result = group_relative(returns, scale=scale, eps=0.5)
    for g in range(2):
        for k in range(3):
            column = [float(v) for v in returns[g, :, k]]
            mean = sum(column) / 4
            spread = math.sqrt(sum((v - mean) ** 2 for v in column) / 3)
            for i in range(4):
                sought = (column[i] - mean) / (spread + 0.5 if scale else 1.0)
                assert float(result[g, i, k]) == pytest.approx(sought, rel=1e-12)


def test_groups_that_hardly_differ_are_not_blown_up() -> None:
    returns = torch.tensor([0.0, 1e-4], dtype=torch.float64)[None, :, None]
    sought = 0.5e-4 / (math.sqrt(0.5e-8) + 1e-4)
    assert float(group_relative(returns, scale=True)[0, 1, 0]) == pytest.approx(sought)


ESTIMATES: list[Callable[[Tensor], Tensor]] = [
    leave_one_out,
    lambda x: group_relative(x, scale=True),
    lambda x: group_relative(x, scale=False),
]


@pytest.mark.parametrize("estimate", ESTIMATES)
@given(seed=SEEDS, shift=st.floats(-50, 50))
@FEW
def test_group_advantages_sum_to_zero_and_ignore_constants(
    estimate: Callable[[Tensor], Tensor], seed: int, shift: float
) -> None:
    returns = drawn(seed, 2, 5, 2)
    result = estimate(returns)
    assert float(result.sum(1).abs().max()) < 1e-10
    assert torch.allclose(estimate(returns + shift), result, rtol=0, atol=1e-8)
    assert float(result.abs().max()) > 0.1
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(estimate(returns[:, order]), result[:, order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_equal_returns_have_no_advantage_at_all(estimate: Callable[[Tensor], Tensor]) -> None:
    assert torch.equal(estimate(torch.full((1, 3, 2), 0.1)), torch.zeros(1, 3, 2))


def test_the_leave_one_out_gradient_is_unbiased_and_the_mean_baseline_is_short_of_it() -> None:
    """Every pair of games of a policy with three answers, enumerated."""
    p, points = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([1.0, -2.0, 4.0]).double()
    # The gradient of E[points] by the logits, in closed form.
    exact = p * (points - (p * points).sum())
    eye = torch.eye(3).double()
    found = {"leave_one_out": torch.zeros(3).double(), "mean": torch.zeros(3).double()}
    for a in range(3):
        for b in range(3):
            returns = torch.stack([points[a], points[b]])[None, :, None]
            slopes = torch.stack([eye[a] - p, eye[b] - p])
            for name, advantage in (
                ("leave_one_out", leave_one_out(returns)),
                ("mean", group_relative(returns, scale=False)),
            ):
                found[name] += p[a] * p[b] * (advantage[0] * slopes).mean(0)
    assert torch.allclose(found["leave_one_out"], exact)
    assert torch.allclose(found["mean"], exact / 2)


def test_no_advantage_carries_a_gradient_and_precision_is_kept() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    group = x[..., None]
    results = [
        token_rewards(x.sum(1), x, mask, 0.1),
        *generalised_advantages(x, x, mask, 1.0, 0.9),
        whitened(x, mask),
        rewards_to_go(x, 1.0),
        leave_one_out(group),
        group_relative(group, scale=True),
    ]
    assert not any(result.requires_grad for result in results)
    assert {result.dtype for result in results} == {torch.float32}


def test_bad_input_is_refused_by_name() -> None:
    x, full = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ConfigError, match="A mask does not fit .* \\(2, 3\\) for \\(2, 4\\)"):
        token_rewards(torch.zeros(2), torch.zeros(2, 4), full, 0.1)
    with pytest.raises(ConfigError, match="does not fit .* boolean"):
        check_mask(full.long(), x)
    left = torch.tensor([[False, True, True], [True, True, True]])
    with pytest.raises(ConfigError, match="tokens after padding.*pad answers on the right"):
        generalised_advantages(x, x, left, 1.0, 0.9)
    with pytest.raises(ConfigError, match="answer without tokens"):
        generalised_advantages(x, x, full & torch.tensor([[True], [False]]), 1.0, 0.9)
    with pytest.raises(ConfigError, match="one score.*\\(3,\\) for 2 answers"):
        token_rewards(torch.zeros(3), x, full, 0.1)
    with pytest.raises(ConfigError, match="tokens after padding"):
        whitened(x, torch.tensor([[True, False, True], [True, True, True]]))
    with pytest.raises(ConfigError, match="One token alone .* whiten: false"):
        whitened(x[:1, :1], full[:1, :1])
    for single in (leave_one_out, lambda r: group_relative(r, scale=True)):
        with pytest.raises(ConfigError, match="needs other games.*sampling.group to 2"):
            single(torch.zeros(4, 1, 5))
