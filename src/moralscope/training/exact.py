"""One step of the exact method: score a balanced batch, weigh every answer, descend.

Several learners take their step at the same time: all are scored before any of them moves, and
each meets the other as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moralscope.training.answers import Question
from moralscope.training.batches import draw_batch
from moralscope.training.learners import Learner, adapter_norm, facing
from moralscope.training.objectives import Batch, Signals, exact_objective, policy_table
from moralscope.training.session import Session, StepReport


def exact_step(
    session: Session, learners: Sequence[Learner], step: int, phase: int, rate: float
) -> list[StepReport]:
    """One step of every learner."""
    batches = [_score(session, learner, step) for learner in learners]
    tables = [
        policy_table(batch.log_p, batch.state, learner.seat.states)
        for batch, learner in zip(batches, learners, strict=True)
    ]
    reports: list[StepReport] = []
    for i, learner in enumerate(learners):
        seat, config = learner.seat, learner.seat.config
        others = seat.others or facing(seat, learners[1 - i].seat.name, tables[1 - i])
        loss, signals = exact_objective(
            batches[i],
            others.encounter(seat.rewards[phase], tables[i], step),
            kl_coefficient=learner.controller.coefficient,
            weighting=config.visitation,
            horizon=config.horizon,
            rounds=config.sampling.rounds,
            discount=config.discount,
        )
        session.require_finite(seat.name, step, loss)
        norm = session.descend(learner, [loss], rate)
        reports.append(_report(learner, batches[i], float(loss.detach()), signals, norm))
    return reports


def _score(session: Session, learner: Learner, step: int) -> Batch:
    seat = learner.seat
    chosen = list(draw_batch(seat.config, seat.cells, step))
    reading = session.read(seat.adapter, [Question(seat.encoded[i]) for i in chosen])
    device = reading.log_p.device
    state = torch.tensor([seat.cells.state[i] for i in chosen], device=device)
    swapped = torch.tensor([seat.cells.swapped[i] for i in chosen], device=device)
    reference = learner.reference[chosen].to(reading.log_p.dtype)
    return Batch(reading.log_p, reference, state, swapped)


def _report(
    learner: Learner, batch: Batch, loss: float, signals: Signals, norm: float
) -> StepReport:
    same, swapped = defection_by_labels(batch.log_p.detach(), batch.swapped)
    return StepReport(
        learner.seat.name,
        {
            "reward_mean": signals.reward_mean,
            "cooperation": signals.cooperation,
            "legal_mass": signals.legal_mass,
            "kl": signals.kl,
            "loss": loss,
            "gradient_norm": norm,
            "adapter_norm": adapter_norm(learner),
            "kl_coefficient": learner.controller.coefficient,
            "p_defect_same": same,
            "p_defect_swapped": swapped,
        },
    )


def defection_by_labels(
    log_p: torch.Tensor, swapped: torch.Tensor | None
) -> tuple[float | None, float | None]:
    """Mean P(defect given legal) of prompts under either label assignment; None without any."""
    if swapped is None:
        return None, None
    p = log_p.softmax(1)[:, 0]
    same, other = p[~swapped], p[swapped]
    return (
        float(same.mean()) if len(same) else None,
        float(other.mean()) if len(other) else None,
    )
