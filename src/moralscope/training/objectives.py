"""What is maximised? The exact objective: every answer weighed by its own probability.

For a prompt in state s with options C and D, legal mass ``m = P(C) + P(D)``, values ``v`` exact
over the others' moves (``games.decision_values``), and the base model as reference,

    J(s) = P(C) v(s, C) + P(D) v(s, D) + (1 - m) v(s, neither) - beta KL,
    KL   = sum_a P(a) (log P(a) - log P_base(a))   over the two options,

and the objective is its mean over states: equally weighted (``uniform``), or by the exact
frequencies of the policy's own play (``visitation``). Values and frequencies are constants of the
step, so the gradient is that of the policy gradient theorem without sampling noise; the published
experiment (arXiv 2410.01639) estimates the same expectation by sampling answers. With the horizon
``bandit``, ``v(s, neither) = -6`` and v is the reward of the round alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moralscope.games import Encounter, decision_values
from moralscope.training.config import Horizon, Visitation


@dataclass(frozen=True)
class Batch:
    """What an objective sees of one step; rows are prompts.

    Attributes:
        log_p: log-probability of defecting and of cooperating, ``(prompts, 2)``, with gradient.
        reference: the same of the base model, without gradient.
        state: index into the game's states, ``(prompts,)``.
        swapped: whether labels are exchanged, ``(prompts,)``; the objective does not see it.
    """

    log_p: Tensor
    reference: Tensor
    state: Tensor
    swapped: Tensor | None = None


@dataclass(frozen=True)
class Signals:
    """What a step reports, averaged like the objective: points, probabilities, nats."""

    reward_mean: float
    cooperation: float
    legal_mass: float
    kl: float


def answer_probabilities(log_p: Tensor) -> Tensor:
    """Probabilities of C, D and neither, ``(..., 3)``, from log-probabilities of (D, C)."""
    p = log_p.exp().flip(-1)
    return torch.cat([p, (1.0 - p.sum(-1, keepdim=True)).clamp(min=0.0)], -1)


def policy_table(log_p: Tensor, state: Tensor, states: int) -> NDArray[np.float64]:
    """The policy as an encounter sees it: the mean over prompts of each state.

    Returns:
        Probabilities of C, D and neither, ``[states, 3]``; rows sum to 1. A state that no prompt
        is in has no legal answer here, and weight 0 later.
    """
    p = answer_probabilities(log_p.detach().double().cpu())
    p = p / p.sum(-1, keepdim=True)  # rounding of float32 leaves sums of 1 +- 1e-7
    total = torch.zeros(states, 3, dtype=torch.float64).index_add_(0, state.cpu(), p)
    present = torch.bincount(state.cpu(), minlength=states)
    table = total / present.clamp(min=1)[:, None]
    table[present == 0] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return table.numpy()


def exact_objective(
    batch: Batch,
    encounter: Encounter,
    *,
    kl_coefficient: float,
    weighting: Visitation = "uniform",
    horizon: Horizon = "bandit",
    rounds: int = 5,
    discount: float = 1.0,
) -> tuple[Tensor, Signals]:
    """The exact objective as a loss.

    Args:
        batch: the step's prompts.
        encounter: the game against the others, rewards in points.
        kl_coefficient: beta, in points per nat.
        weighting: how states are weighted.
        horizon: what a decision is credited with.
        rounds: rounds of a game, for ``visitation`` and ``reward-to-go``.
        discount: of later rounds.

    Returns:
        The loss, a scalar in points to minimise, and what to report of the step.
    """
    states = len(encounter.initial)
    policy = policy_table(batch.log_p, batch.state, states)
    frequency, values = decision_values(
        encounter,
        policy,
        weighting=weighting,
        horizon=horizon,
        rounds=rounds,
        discount=discount,
    )
    weight = _prompt_weights(frequency, batch.state).to(batch.log_p)
    p = answer_probabilities(batch.log_p)
    worth, points = (
        torch.as_tensor(table).to(batch.log_p)[batch.state] for table in (values, encounter.rewards)
    )
    kl = (batch.log_p.exp() * (batch.log_p - batch.reference)).sum(1)
    loss = -(((p * worth).sum(1) - kl_coefficient * kl) * weight).sum()
    seen = p.detach()
    legal = batch.log_p.detach().exp().sum(1)
    return loss, Signals(
        reward_mean=float(((seen * points).sum(1) * weight).sum()),
        cooperation=float((seen[:, 0] / legal * weight).sum()),
        legal_mass=float((legal * weight).sum()),
        kl=float((kl.detach() * weight).sum()),
    )


def _prompt_weights(frequency: NDArray[np.float64], state: Tensor) -> Tensor:
    """Weight of each prompt: that of its state, shared by the state's prompts; they sum to 1."""
    present = torch.bincount(state, minlength=len(frequency))
    known = torch.as_tensor(frequency).to(state.device) * (present > 0)
    return (known / known.sum() / present.clamp(min=1))[state]
