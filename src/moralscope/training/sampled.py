"""One step of the sampled methods: play, judge every answer, descend.

1. Games are played with the policy as it is (``play``).
2. Scores become advantages: over an answer's tokens by a learned value (PPO), or against the other
   games of the group (REINFORCE with the leave-one-out baseline, GRPO).
3. The policy's loss is descended, in one pass or in several over minibatches.

    PPO        L = mean_t max(-A_t r_t, -A_t clip(r_t))  +  c_v L_value,   r_t = pi / pi_old
    REINFORCE  L = mean_i -A_i sum_t log pi(token t of answer i)
    GRPO       L = mean_t max(-A_i r_t, -A_i clip(r_t))  +  beta mean_t k3(pi, base)

The KL penalty enters each token's reward, or the loss, as the training says. With ``one_update``
the gradient is averaged over all passes and taken once; parameters do not move between those
passes, so they are equal, and one is computed. Everything but the model's work is computed alike
in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moralscope.core.streams import stream
from moralscope.training.advantages import (
    generalised_advantages,
    group_relative,
    leave_one_out,
    rewards_to_go,
    token_rewards,
    whitened,
)
from moralscope.training.answers import Question, Reading
from moralscope.training.exact import defection_by_labels
from moralscope.training.learners import Learner, adapter_norm, facing
from moralscope.training.losses import (
    answer_kl,
    excessive,
    kl_estimate,
    masked_mean,
    policy_loss,
    value_loss,
)
from moralscope.training.objectives import policy_table
from moralscope.training.others import Others
from moralscope.training.play import Turn, play
from moralscope.training.replies import answering, question_of
from moralscope.training.session import Session, StepReport


@dataclass(frozen=True)
class _Played:
    """A step's decisions and how they were judged; N decisions of T tokens.

    Attributes:
        questions: prompt and answer of each decision.
        moves: index of each move among (D, C, neither).
        old: log-probability of each token when it was played, ``[N, T]``.
        base: the same under the base.
        mask: which tokens there are.
        advantages: of each token.
        values, returns: of the value head, PPO alone.
    """

    questions: tuple[Question, ...]
    moves: Tensor
    old: Tensor
    base: Tensor
    mask: Tensor
    advantages: Tensor
    values: Tensor | None = None
    returns: Tensor | None = None


def sampled_step(
    session: Session, learners: Sequence[Learner], step: int, phase: int, rate: float
) -> list[StepReport]:
    """One step of every learner; all play before any of them moves."""
    tables = _policies(session, learners)
    plays: list[tuple[Turn, ...]] = []
    for i, learner in enumerate(learners):
        others = _others(learners, i, tables)
        plays.append(
            play(
                learner.seat.config,
                learner.seat.game,
                learner.seat.rewards[phase],
                learner.seat.cells,
                others,
                policy=tables[i],
                answer=answering(session, learner, step),
                step=step,
            )
        )
    return [
        _learn(session, learner, turns, step, rate)
        for learner, turns in zip(learners, plays, strict=True)
    ]


@torch.no_grad()
def _policies(session: Session, learners: Sequence[Learner]) -> list[NDArray[np.float64] | None]:
    """Each learner's policy by state, where somebody reacts to it."""
    found: list[NDArray[np.float64] | None] = []
    for learner in learners:
        seat = learner.seat
        if seat.others is not None and not seat.others.reacts:
            found.append(None)
            continue
        reading = session.read(seat.adapter, [Question(prompt) for prompt in seat.encoded])
        state = torch.tensor(seat.cells.state, device=reading.log_p.device)
        found.append(policy_table(reading.log_p, state, seat.states))
    return found


def _others(
    learners: Sequence[Learner], i: int, tables: Sequence[NDArray[np.float64] | None]
) -> Others:
    seat, table = learners[i].seat, tables[1 - i] if len(learners) > 1 else None
    if seat.others is not None:
        return seat.others
    if table is None:
        raise ValueError("the other learner's policy is not known")
    return facing(seat, learners[1 - i].seat.name, table)


def _learn(
    session: Session, learner: Learner, turns: Sequence[Turn], step: int, rate: float
) -> StepReport:
    config = learner.seat.config
    questions = tuple(question_of(learner, turn) for turn in turns)
    passes = 1 if config.sampling.one_update else config.sampling.epochs
    parts = 1 if config.sampling.one_update else config.sampling.minibatches
    alone = passes * parts == 1
    hidden = learner.value_head is not None
    with torch.set_grad_enabled(alone):
        first = session.read(learner.seat.adapter, questions, hidden=hidden)
    played = _judge(session, learner, turns, questions, first)
    losses: list[dict[str, float]] = []
    for number in range(passes):
        order = stream(config.seed, "minibatch", step, number).permutation(len(turns))
        for rows in np.array_split(order, parts):
            chosen = torch.as_tensor(np.arange(len(turns)) if alone else np.sort(rows))
            now = first
            if not alone:
                asked = [questions[int(i)] for i in chosen]
                now = session.read(learner.seat.adapter, asked, hidden=hidden)
            loss, seen = _loss(learner, _rows(played, chosen), now)
            session.require_finite(learner.seat.name, step, loss)
            seen["gradient_norm"] = session.descend(learner, [loss], rate)
            losses.append(seen)
    means = {key: float(np.mean([seen[key] for seen in losses])) for key in losses[0]}
    report = _report(learner, turns, played, first.log_p.detach(), means)
    kl = answer_kl(kl_estimate(played.old, played.base, "k1"), played.mask)
    learner.controller = learner.controller.updated(kl, len(turns))
    return report


def _rows(played: _Played, chosen: Tensor) -> _Played:
    def of(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[chosen.to(values.device)]

    index = chosen.to(played.old.device)
    return _Played(
        tuple(played.questions[int(i)] for i in chosen),
        played.moves[index],
        played.old[index],
        played.base[index],
        played.mask[index],
        played.advantages[index],
        of(played.values),
        of(played.returns),
    )


@torch.no_grad()
def _judge(
    session: Session,
    learner: Learner,
    turns: Sequence[Turn],
    questions: tuple[Question, ...],
    reading: Reading,
) -> _Played:
    """From a step's games to the advantage of each token."""
    config = learner.seat.config
    moves = torch.tensor([_MOVES.index(turn.answer.move) for turn in turns])
    moves = moves.to(reading.log_p.device)
    old, mask = token_log_p(reading, moves, config.actions)
    old = old.detach()  # of a reading that is descended as well
    base = _base_log_p(session, learner, turns, questions, moves)
    scores = _scores(learner, [turn.points for turn in turns], old)
    beta = learner.controller.coefficient
    inside = config.sampling.kl_in == "reward"
    kl = kl_estimate(old, base, config.sampling.kl_estimator)
    games, rounds = config.sampling.games, config.sampling.rounds
    if config.method == "ppo":
        if config.horizon == "reward-to-go":
            scores = rewards_to_go(scores.view(games, rounds), config.discount).flatten()
        values = _values(learner, reading)
        rewards = token_rewards(scores, kl, mask, beta if inside else 0.0)
        advantages, returns = generalised_advantages(
            rewards, values, mask, 1.0, config.sampling.gae_lambda
        )
        if config.sampling.whiten:
            advantages = whitened(advantages, mask)
        return _Played(questions, moves, old, base, mask, advantages, values, returns)
    if inside:
        scores = scores - beta * torch.where(mask, kl, 0.0).sum(1)
    group = config.sampling.group
    gains = scores.view(games // group, group, rounds)
    if config.horizon == "reward-to-go":
        gains = rewards_to_go(gains, config.discount)
    if config.method == "reinforce":
        judged = leave_one_out(gains)
    else:
        judged = group_relative(gains, scale=config.sampling.scale)
    advantages = judged.flatten()[:, None].expand_as(old) * mask
    return _Played(questions, moves, old, base, mask, advantages)


_MOVES = ("D", "C", None)
"""In the order of a reading's options, and what is neither."""


def token_log_p(reading: Reading, moves: Tensor, actions: str) -> tuple[Tensor, Tensor]:
    """Log-probability of what was answered, token by token, and which tokens there are.

    Among scored answers the whole answer is one token: ``log P(option)``, or ``log (1 - m)`` of an
    answer that is neither.
    """
    if actions == "generate":
        return reading.token_log_p, reading.mask
    illegal = (1.0 - reading.log_p.exp().sum(1)).clamp(min=_SMALLEST).log()
    everything = torch.cat([reading.log_p, illegal[:, None]], 1)
    picked = everything.gather(1, moves[:, None])
    return picked, torch.ones_like(picked, dtype=torch.bool)


_SMALLEST = 1e-9
"""Illegal mass below this is rounding of the sum of two probabilities."""


def _base_log_p(
    session: Session,
    learner: Learner,
    turns: Sequence[Turn],
    questions: Sequence[Question],
    moves: Tensor,
) -> Tensor:
    """What the base says of the same answers.

    Generated ones are read anew in every step: packed with others a number can differ in its last
    bit, so one that is remembered would depend on where training was interrupted.
    """
    if learner.seat.config.actions == "generate":
        return session.read(None, questions).token_log_p
    log_p = learner.reference[[turn.prompt for turn in turns]]
    nothing = log_p.new_zeros(len(turns), 1)
    return token_log_p(Reading(log_p, nothing, nothing > 0, None), moves, "score")[0]


def _scores(learner: Learner, points: Sequence[float], like: Tensor) -> Tensor:
    """Points of each decision, normalised and bounded as the training says."""
    sampling = learner.seat.config.sampling
    scores = torch.tensor(points, dtype=like.dtype, device=like.device)
    if sampling.normalise_scores:
        learner.moments = learner.moments.updated(scores)
        scores = learner.moments.normalised(scores)
    if sampling.score_clip is not None:
        scores = scores.clamp(-sampling.score_clip, sampling.score_clip)
    return scores


def _values(learner: Learner, reading: Reading) -> Tensor:
    if learner.value_head is None or reading.hidden is None:
        raise ValueError("values need a value head and the activations that it reads")
    head = learner.value_head
    values: Tensor = head(reading.hidden.to(head.weight.dtype)).squeeze(-1)
    return values


def _loss(learner: Learner, played: _Played, now: Reading) -> tuple[Tensor, dict[str, float]]:
    config = learner.seat.config
    sampling = config.sampling
    log_p, _ = token_log_p(now, played.moves, config.actions)
    mask = played.mask
    if config.method == "reinforce":
        loss = -(played.advantages * log_p * mask).sum(1).mean()
        ratio = float((log_p.detach() - played.old)[mask].exp().mean())
        seen = {"clip_fraction": 0.0, "mean_ratio": ratio}
    else:
        loss, size = policy_loss(log_p, played.old, played.advantages, mask, sampling.clip)
        seen = {"clip_fraction": size.clip_fraction, "mean_ratio": size.mean_ratio}
        if played.values is not None and played.returns is not None:
            values = _values(learner, now)
            error = value_loss(values, played.values, played.returns, mask, sampling.value_clip)
            seen["value_loss"] = float(error.detach())
            loss = loss + sampling.value_coefficient * error
        if excessive(size, sampling.ratio_limit):
            loss = loss * 0.0
    if sampling.kl_in == "loss":
        kl = kl_estimate(log_p, played.base, sampling.kl_estimator)
        loss = loss + learner.controller.coefficient * masked_mean(kl, mask)
    return loss, seen | {"loss": float(loss.detach())}


def _report(
    learner: Learner,
    turns: Sequence[Turn],
    played: _Played,
    log_p: Tensor,
    means: dict[str, float],
) -> StepReport:
    legal = log_p.exp().sum(1)
    swapped = torch.tensor([learner.seat.cells.swapped[turn.prompt] for turn in turns])
    same, other = defection_by_labels(log_p, swapped.to(log_p.device))
    kl = kl_estimate(played.old, played.base, "k1")
    lawful = [turn.answer.move for turn in turns if turn.answer.move is not None]
    spread = played.advantages[played.mask]
    return StepReport(
        learner.seat.name,
        {
            "reward_mean": float(np.mean([turn.points for turn in turns])),
            "cooperation": float((log_p[:, 1].exp() / legal).mean()),
            "legal_mass": float(legal.mean()),
            "kl": answer_kl(kl, played.mask),
            "loss": means["loss"],
            "gradient_norm": means["gradient_norm"],
            "adapter_norm": adapter_norm(learner),
            "kl_coefficient": learner.controller.coefficient,
            "p_defect_same": same,
            "p_defect_swapped": other,
            "sampled_cooperation": lawful.count("C") / len(lawful) if lawful else None,
            "sampled_legal": len(lawful) / len(turns),
            "advantage_std": float(spread.std()) if len(spread) > 1 else 0.0,
            "value_loss": means.get("value_loss"),
            "clip_fraction": means["clip_fraction"],
        },
        tuple(_row(learner, turn) for turn in turns),
    )


def _row(learner: Learner, turn: Turn) -> dict[str, object]:
    prompt = learner.seat.prompts[turn.prompt]
    return {
        "game_number": turn.game,
        "round": turn.round,
        "prompt": prompt.name,
        "own": turn.answer.move or "illegal",
        "others": "".join(turn.others),
        "answer": turn.answer.text,
        "points": turn.points,
    }
