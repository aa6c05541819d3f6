"""How much better than expected was an answer? From rewards to advantages.

Three estimates of the same thing. By a learned value (PPO), over the tokens t of one answer, with
discount g, trace l and value 0 after the last token (arXiv 1506.02438):

    delta_t = r_t + g V_{t+1} - V_t,    A_t = delta_t + g l A_{t+1},    return_t = A_t + V_t

By the other answers in the same place, among K games (arXiv 2402.14740; arXiv 2402.03300):

    A_i = R_i - mean_{j != i} R_j          A_i = (R_i - mean R) / (sd R + eps)

With a KL penalty inside the reward, ``r_t = -beta kl_t``, and the answer's score is added to its
last token. Advantages are numbers to follow, not to differentiate: none carries a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moralscope.core.errors import ConfigError

WHITENING_EPSILON = 1e-8
"""Added to the variance that whitening divides by."""

GROUP_EPSILON = 1e-4
"""Added to the deviation that group-relative advantages are divided by, in points."""


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """What does each token of an answer earn? ``-beta kl_t``, and the score on the last one.

    Args:
        scores: of the answers, ``(decisions,)``, in points.
        kl: estimate of each token's divergence from the base, ``(decisions, tokens)``, in nats.
        mask: true at the answer's tokens, ``(decisions, tokens)``; padding is on the right.
        coefficient: beta, in points per nat; 0 where the penalty is part of the loss.

    Returns:
        ``(decisions, tokens)``, in points; 0 at padding.

    Raises:
        ConfigError: shapes differ, or the mask is not a beginning of each row.
    """
    check_mask(mask, kl)
    if scores.shape != mask.shape[:1]:
        raise ConfigError(
            "Every answer needs one score",
            seen=f"scores of shape {tuple(scores.shape)} for {mask.shape[0]} answers",
            allowed=f"shape ({mask.shape[0]},)",
            remedy="score each decision once",
        )
    rewards = torch.where(mask, -coefficient * kl.detach(), 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.detach().to(kl.dtype)[:, None])


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """How much better was each token than its value said? Generalised advantage estimation.

    With trace 1 the advantage is the discounted sum of rewards from here on minus the value (no
    bias, most variance); with trace 0 it is the one-step error ``delta_t``.

    Args:
        rewards: ``(decisions, tokens)``, in points.
        values: of the state before each token, same shape, in points.
        mask: true at the answer's tokens; padding is on the right.
        discount: per token, in [0, 1].
        trace: lambda, in [0, 1].

    Returns:
        Advantages, not whitened, and returns ``advantage + value``, in points; 0 at padding.

    Raises:
        ConfigError: shapes differ, or the mask is not a beginning of each row.
    """
    check_mask(mask, rewards)
    check_mask(mask, values)
    rewards, values = (torch.where(mask, x.detach(), 0.0) for x in (rewards, values))
    columns: list[Tensor] = []
    advantage = following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + discount * following - values[:, t]
        # Right of the last token everything is zero, so this is zero until the answer begins.
        advantage = delta + discount * trace * advantage
        following = values[:, t]
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, advantages + values


def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """The same with mean 0 and variance 1 over all tokens of the step.

    ``(x - mean) / sqrt(variance + 1e-8)``, the variance with Bessel's correction. Where all are
    equal the result is 0.

    Args:
        x: ``(decisions, tokens)``.
        mask: true at the answers' tokens; padding is on the right.

    Returns:
        Same shape, in standard deviations; 0 at padding.

    Raises:
        ConfigError: fewer than two tokens, shapes differ, or the mask is not a beginning of each
            row.
    """
    check_mask(mask, x)
    inside = x.detach()[mask]
    if inside.numel() < 2:
        raise ConfigError(
            "One token alone cannot be whitened",
            seen=f"{inside.numel()} token in the step",
            allowed="at least two tokens",
            remedy="play more games or rounds in a step, or set whiten: false",
        )
    variance, mean = torch.var_mean(inside, correction=1)
    return torch.where(mask, (x.detach() - mean) / torch.sqrt(variance + WHITENING_EPSILON), 0.0)


def rewards_to_go(rewards: Tensor, discount: float) -> Tensor:
    """What is still to come? ``G_k = r_k + g G_{k+1}`` over the last axis.

    Args:
        rewards: ``(..., rounds)``, in points.
        discount: g per round, in [0, 1]; with 0 every round is on its own.

    Returns:
        Same shape, in points.
    """
    result = rewards.detach().clone()
    for k in reversed(range(rewards.shape[-1] - 1)):
        result[..., k] += discount * result[..., k + 1]
    return result


def leave_one_out(returns: Tensor) -> Tensor:
    """How much better than the other games of its group was each? REINFORCE leave-one-out.

    The baseline of a game is the mean return of the other ``K - 1`` in the same round. It does
    not depend on the game's own answer, so the estimate of the gradient stays unbiased.

    Args:
        returns: ``(groups, games of a group, rounds)``, in points.

    Returns:
        Same shape, in points; they sum to 0 over a group.

    Raises:
        ConfigError: a group is a single game.
    """
    offsets, size = _offsets(returns)
    return offsets - (offsets.sum(1, keepdim=True) - offsets) / (size - 1)


def group_relative(returns: Tensor, *, scale: bool, eps: float = GROUP_EPSILON) -> Tensor:
    """How much better than its group's mean was each game, in the group's deviations? GRPO.

    ``R - mean`` over the games of a group in the same round, divided by ``sd + eps`` (the
    deviation with Bessel's correction) where ``scale``. Scaling weights groups in which answers
    hardly differ like groups in which they differ a lot; arXiv 2503.20783 leaves it out for that.

    Args:
        returns: ``(groups, games of a group, rounds)``, in points.
        scale: divide by the deviation.
        eps: added to the deviation, in points.

    Returns:
        Same shape, in deviations or in points; they sum to 0 over a group, and are 0 in a group
        of equal returns.

    Raises:
        ConfigError: a group is a single game.
    """
    offsets, _ = _offsets(returns)
    centred = offsets - offsets.mean(1, keepdim=True)
    return centred / (offsets.std(1, keepdim=True, correction=1) + eps) if scale else centred


def _offsets(returns: Tensor) -> tuple[Tensor, int]:
    """Returns minus the first of their group: equal returns then give exactly 0, not rounding."""
    if returns.ndim != 3 or returns.shape[1] < 2:
        raise ConfigError(
            "A baseline from the other games of a group needs other games",
            seen=f"returns of shape {tuple(returns.shape)}",
            allowed="(groups, at least 2 games, rounds)",
            remedy="set sampling.group to 2 or more",
        )
    returns = returns.detach()
    return returns - returns[:, :1], returns.shape[1]


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Refuse a mask that does not mark the beginning of each row of ``x``.

    Args:
        mask: boolean, ``(decisions, tokens)``, at least one token of each row.
        x: what it is the mask of.

    Raises:
        ConfigError: shapes differ, it is not boolean, a row is empty, or padding is not on the
            right.
    """
    if mask.shape != x.shape or mask.ndim != 2 or mask.dtype != torch.bool:
        raise ConfigError(
            "A mask does not fit what it masks",
            seen=f"{mask.dtype} {tuple(mask.shape)} for {tuple(x.shape)}",
            allowed="a boolean mask of shape (decisions, tokens), the same for both",
            remedy="give one row for each decision and one column for each token",
        )
    gap = bool((mask[:, 1:] & ~mask[:, :-1]).any())
    if gap or not bool(mask[:, :1].all()) or not mask.numel():
        raise ConfigError(
            "A mask does not mark the beginning of each answer",
            seen="tokens after padding" if gap else "an answer without tokens",
            allowed="true at an answer's tokens, at least one, then false",
            remedy="pad answers on the right",
        )
