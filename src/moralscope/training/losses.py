"""What is descended when play is sampled? The losses of PPO and estimates of KL.

With ratio ``r = pi / pi_old`` of a token, its advantage A and the interval ``1 +- clip``, the mean
over all tokens of (arXiv 1707.06347)

    L_policy = max(-A r, -A clamp(r, 1 - clip, 1 + clip))
    L_value  = 1/2 max((V - G)^2, (clamp(V, V_old - clip, V_old + clip) - G)^2)

and the step descends ``L_policy + c L_value``. At ``r = 1`` the gradient is that of
``-A log pi``, so REINFORCE and GRPO descend the first line alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from moralscope.core.errors import ConfigError, nearest
from moralscope.training.advantages import check_mask
from moralscope.training.config import KLEstimator

KL_ESTIMATORS: tuple[KLEstimator, ...] = ("k1", "abs", "mse", "k3")

MAX_LOG_RATIO = 40.0
"""Ratios beyond its exponential are taken to be that, in nats."""


@dataclass(frozen=True, slots=True)
class UpdateSize:
    """How far did one pass find the policy from the one that played? Means over tokens.

    Attributes:
        clip_fraction: share of tokens whose ratio earned nothing more, in [0, 1].
        mean_ratio: of ``pi / pi_old``; 1 while parameters are those that played.
        approx_kl: half the mean square of ``log pi - log pi_old``, in nats.
    """

    clip_fraction: float
    mean_ratio: float
    approx_kl: float


def kl_estimate(log_p: Tensor, log_reference: Tensor, kind: KLEstimator) -> Tensor:
    """How far is the policy from its reference, judged by one sampled token?

    With ``d = log p - log reference`` (http://joschu.net/blog/kl-approx.html):

    ======  ===================  =====================================================
    kind    estimate             expected under the policy
    ======  ===================  =====================================================
    k1      ``d``                ``KL(policy || reference)``; can be negative
    abs     ``|d|``              at least that
    mse     ``d^2 / 2``          close to that while both are close
    k3      ``exp(-d) - 1 + d``  ``KL(policy || reference)``; never negative
    ======  ===================  =====================================================

    As a term of the loss what counts is the gradient, and the expected gradient of a sampled
    estimate is not the gradient of its expectation: that of k1 is zero (it penalises nothing),
    that of mse is the gradient of ``KL(policy || reference)``, that of k3 the gradient of
    ``KL(reference || policy)``.

    Args:
        log_p: log-probability of the sampled token under the policy, any shape, in nats.
        log_reference: the same under the reference.
        kind: which estimate.

    Returns:
        Same shape, in nats, with gradient.

    Raises:
        ConfigError: an unknown kind.
    """
    difference = log_p - log_reference
    if kind == "k1":
        return difference
    if kind == "abs":
        return difference.abs()
    if kind == "mse":
        return 0.5 * difference.square()
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise ConfigError(
        "There is no estimate of KL of this name",
        seen=kind,
        allowed=", ".join(KL_ESTIMATORS),
        remedy=nearest(kind, KL_ESTIMATORS),
    )


def policy_loss(
    log_p: Tensor, old_log_p: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, UpdateSize]:
    """The clipped policy loss, averaged over all tokens.

    A token whose ratio has left the interval in the direction that its advantage asks for has no
    gradient any more; one that left it in the other direction is brought back.

    Args:
        log_p: log-probability of each answer token now, ``(decisions, tokens)``, in nats, with
            gradient.
        old_log_p: the same when it was played.
        advantages: same shape.
        mask: true at the answers' tokens; padding is on the right.
        clip: half-width of the interval, above 0.

    Returns:
        The loss, a scalar in the unit of the advantages, and how large the update is.

    Raises:
        ConfigError: shapes differ, or the mask is not a beginning of each row.
    """
    for x in (log_p, old_log_p, advantages):
        check_mask(mask, x)
    gain = torch.where(mask, advantages.detach(), 0.0)
    # Whatever stands at padding must not reach exp: an infinity times zero is not zero.
    change = torch.where(mask, log_p - old_log_p.detach(), 0.0)
    # A ratio that overflows has no gradient to take, not even times zero; this one is excessive.
    ratio = change.clamp(max=MAX_LOG_RATIO).exp()
    free = -gain * ratio
    bounded = -gain * ratio.clamp(1.0 - clip, 1.0 + clip)
    size = UpdateSize(
        clip_fraction=float(masked_mean((bounded > free).to(ratio.dtype), mask)),
        mean_ratio=float(masked_mean(ratio.detach(), mask)),
        approx_kl=0.5 * float(masked_mean(change.detach().square(), mask)),
    )
    return masked_mean(torch.maximum(free, bounded), mask), size


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """The clipped squared error of the value head, halved and averaged over all tokens.

    Args:
        values: of the head now, ``(decisions, tokens)``, in points, with gradient.
        old_values: of the head when it was played.
        returns: what values should have been.
        mask: true at the answers' tokens; padding is on the right.
        clip: how far from the old value a new one still counts, in points, above 0.

    Returns:
        A scalar, in points squared.

    Raises:
        ConfigError: shapes differ, or the mask is not a beginning of each row.
    """
    for x in (values, old_values, returns):
        check_mask(mask, x)
    now, old, goal = (
        torch.where(mask, x, 0.0) for x in (values, old_values.detach(), returns.detach())
    )
    near = torch.maximum(torch.minimum(now, old + clip), old - clip)
    worse = torch.maximum((now - goal).square(), (near - goal).square())
    return 0.5 * masked_mean(worse, mask)


def excessive(size: UpdateSize, limit: float) -> bool:
    """Is the policy so far from the one that played that this pass must not be descended?

    Args:
        size: of the pass.
        limit: largest mean ratio; one that is not a number is too large as well.
    """
    return not size.mean_ratio <= limit


def answer_kl(kl: Tensor, mask: Tensor) -> float:
    """How far is the policy from its reference over a whole answer, on average over decisions?

    Args:
        kl: of each token, ``(decisions, tokens)``, in nats.
        mask: true at the answers' tokens; padding is on the right.

    Returns:
        The sum over tokens, averaged over decisions, in nats.

    Raises:
        ConfigError: shapes differ, or the mask is not a beginning of each row.
    """
    check_mask(mask, kl)
    return float(torch.where(mask, kl.detach(), 0.0).sum(1).mean())


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over true positions, whatever stands at the others.

    Args:
        x: ``(decisions, tokens)``.
        mask: true at the answers' tokens.
    """
    return torch.where(mask, x, 0.0).sum() / mask.sum()
