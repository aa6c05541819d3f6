"""What is maximised? The exact objective: every answer weighed by its own probability.

For a prompt in state s with options C and D, legal mass ``m = P(C) + P(D)``, rewards ``r`` exact
over the opponent's move, and the base model as reference,

    J(s) = P(C) r(C) + P(D) r(D) - 6 (1 - m) - beta KL,
    KL   = sum_a P(a) (log P(a) - log P_base(a))   over the two options,

and the objective is its mean over states: equally weighted (``uniform``), or by the exact
frequencies of the policy's own five-round play (``visitation``, gradient stopped). Two options
make the expectation a sum of two terms, so the gradient has no sampling noise; the published
experiment (arXiv 2410.01639) estimates the same expectation by sampling answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moralscope.games import ILLEGAL_PENALTY, STATES, Opponent, visitation
from moralscope.training.config import Visitation


@dataclass(frozen=True)
class Batch:
    """What an objective sees of one step; rows are prompts.

    Attributes:
        log_p: log-probability of defecting and of cooperating, ``(prompts, 2)``, with gradient.
        reference: the same of the base model, without gradient.
        state: index into ``games.STATES``, ``(prompts,)``.
    """

    log_p: Tensor
    reference: Tensor
    state: Tensor


@dataclass(frozen=True)
class Signals:
    """What a step reports, averaged like the objective: points, probabilities, nats."""

    reward_mean: float
    cooperation: float
    legal_mass: float
    kl: float


Objective = Callable[[Batch], tuple[Tensor, Signals]]
"""Loss to minimise (a scalar, in points) and what to report of the step."""


def exact_objective(
    rewards: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    opponent: Opponent,
    *,
    kl_coefficient: float,
    weighting: Visitation,
) -> Objective:
    """The exact objective as a loss.

    Args:
        rewards: expected reward ``[state, (C, D)]`` from ``games.expected_rewards``, in points.
        opponent: whom play is against, for ``visitation``.
        kl_coefficient: beta, in points per nat.
        weighting: how states are weighted.
    """
    table = torch.as_tensor(rewards[:, ::-1].copy(), dtype=torch.float32)

    def objective(batch: Batch) -> tuple[Tensor, Signals]:
        p = batch.log_p.exp()
        legal = p.sum(1)
        points = table.to(p.device)[batch.state]
        reward = (p * points).sum(1) + ILLEGAL_PENALTY * (1.0 - legal).clamp(min=0.0)
        kl = (p * (batch.log_p - batch.reference)).sum(1)
        weight = _prompt_weights(p.detach(), batch.state, opponent, weighting)
        loss = -((reward - kl_coefficient * kl) * weight).sum()
        signals = Signals(
            reward_mean=float((reward.detach() * weight).sum()),
            cooperation=float(((p[:, 1] / legal).detach() * weight).sum()),
            legal_mass=float((legal.detach() * weight).sum()),
            kl=float((kl.detach() * weight).sum()),
        )
        return loss, signals

    return objective


def _prompt_weights(p: Tensor, state: Tensor, opponent: Opponent, weighting: Visitation) -> Tensor:
    """Weight of each prompt: that of its state, shared by the state's prompts; they sum to 1."""
    present = torch.bincount(state, minlength=len(STATES))
    if weighting == "uniform":
        frequency = (present > 0).double()
    else:
        mean = torch.zeros(len(STATES), 2, dtype=torch.float64, device=p.device)
        mean.index_add_(0, state, p.double())
        mean = (mean / present.clamp(min=1)[:, None]).cpu()
        legal = mean.sum(1).clamp(max=1.0)
        cooperate = mean[:, 1] / mean.sum(1).clamp(min=1e-12)
        frequency = torch.as_tensor(visitation(cooperate.numpy(), legal.numpy(), opponent))
        frequency = frequency.to(p.device) * (present > 0)
    weight = frequency.to(p.device) / present.clamp(min=1)
    return (weight / frequency.sum())[state].to(p.dtype)
