"""The exact objective against its formula in numpy, finite differences and sampled gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moralscope.games import (
    ILLEGAL_PENALTY,
    OPPONENTS,
    REWARDS,
    STATES,
    Opponent,
    expected_rewards,
    get_game,
    get_opponent,
    get_reward,
    meet,
    visitation,
)
from moralscope.training.objectives import Batch, Signals, exact_objective

Array = np.ndarray
ROUNDS = 5


def rewards_of(name: str, opponent: str = "tit-for-tat") -> Array:
    return expected_rewards(get_reward(name), get_game("IPD"), get_opponent(opponent))


def drawn_batch(seed: int, prompts: int = 9) -> tuple[Array, Array, Array]:
    """Log-probabilities (defect, cooperate) beside an illegal rest, a reference, and states."""
    rng = np.random.default_rng(seed)
    log_p, reference = (
        np.log(rng.dirichlet([1.0, 1.0, 0.5], prompts))[:, :2].clip(min=-12.0) for _ in range(2)
    )
    return log_p, reference, rng.integers(0, 4, prompts)


def played(cooperate: Array, legal: Array, opponent: Opponent) -> Array:
    """How often five rounds of play meet each state, by following every path."""
    frequency = np.zeros(4)
    p = opponent.p_cooperated_before
    now = {("C", "C"): p / 2, ("C", "D"): (1 - p) / 2, ("D", "C"): p / 2, ("D", "D"): (1 - p) / 2}
    index = {(s.own_previous, s.opponent_previous): i for i, s in enumerate(STATES)}
    for _ in range(ROUNDS):
        after = dict.fromkeys(now, 0.0)
        for (own, other), mass in now.items():
            s = index[own, other]
            frequency[s] += mass / ROUNDS
            q = opponent.p_cooperate_after[own, other]
            for move, share in (
                ("C", legal[s] * cooperate[s] + (1 - legal[s]) * (own == "C")),
                ("D", legal[s] * (1 - cooperate[s]) + (1 - legal[s]) * (own == "D")),
            ):
                after[move, "C"] += mass * share * q
                after[move, "D"] += mass * share * (1 - q)
        now = after
    return frequency


def weights_of(log_p: Array, state: Array, opponent: Opponent, weighting: str) -> Array:
    """Weight of each prompt: its state's, shared equally among the prompts of that state."""
    frequency = np.ones(4)
    if weighting == "visitation":
        p = np.array([np.exp(log_p[state == s]).mean(0) if (state == s).any() else [0.0, 0.0]
                      for s in range(4)])  # fmt: skip
        legal = p.sum(1)
        cooperate = np.divide(p[:, 1], legal, out=np.zeros(4), where=legal > 0)
        frequency = played(cooperate, legal, opponent)
    count = np.bincount(state, minlength=4)
    frequency = np.where(count > 0, frequency, 0.0)
    return (frequency / frequency.sum() / np.maximum(count, 1))[state]


@dataclass(frozen=True)
class Case:
    """A batch and an objective; ``table`` is [state, (C, D)], ``log_p`` is (D, C)."""

    log_p: Array
    reference: Array
    state: Array
    table: Array
    opponent: str = "tit-for-tat"
    beta: float = 0.2
    weighting: str = "uniform"

    def weight(self) -> Array:
        return weights_of(self.log_p, self.state, get_opponent(self.opponent), self.weighting)

    def at(self, log_p: Array) -> Case:
        return replace(self, log_p=log_p)


def loss_of(case: Case, weight: Array) -> float:
    """Minus J, term by term."""
    total = 0.0
    rows = zip(case.log_p, case.reference, case.state, weight, strict=True)
    for (d, c), (d0, c0), s, w in rows:
        p_d, p_c = np.exp(d), np.exp(c)
        kl = p_d * (d - d0) + p_c * (c - c0)
        points = p_c * case.table[s, 0] + p_d * case.table[s, 1] - 6 * (1 - p_d - p_c)
        total += w * (points - case.beta * kl)
    return -total


def evaluate(case: Case) -> tuple[float, Array, Signals]:
    encounter = replace(
        meet(get_game("IPD"), get_reward("game"), get_opponent(case.opponent)),
        rewards=np.column_stack([case.table, np.full(4, ILLEGAL_PENALTY)]),
    )
    log_p = torch.tensor(case.log_p, requires_grad=True)
    batch = Batch(log_p, torch.tensor(case.reference), torch.tensor(case.state, dtype=torch.long))
    loss, signals = exact_objective(
        batch, encounter, kl_coefficient=case.beta, weighting=case.weighting
    )
    loss.backward()
    assert log_p.grad is not None
    return float(loss.detach()), log_p.grad.numpy(), signals


def differences(f: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    result = np.empty_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        result[i] = (f(up) - f(down)) / (2 * step)
    return result


@given(
    seed=st.integers(0, 10_000),
    reward=st.sampled_from(sorted(REWARDS)),
    opponent=st.sampled_from(sorted(OPPONENTS)),
    beta=st.sampled_from([0.0, 0.2, 1.5]),
    weighting=st.sampled_from(["uniform", "visitation"]),
)
def test_loss_and_gradient_are_those_of_the_formula(
    seed: int, reward: str, opponent: str, beta: float, weighting: str
) -> None:
    log_p, reference, state = drawn_batch(seed)
    case = Case(log_p, reference, state, rewards_of(reward, opponent), opponent, beta, weighting)
    weight = case.weight()
    loss, gradient, signals = evaluate(case)
    assert loss == pytest.approx(loss_of(case, weight), rel=1e-9, abs=1e-9)
    expected = differences(lambda x: loss_of(case.at(x), weight), log_p)
    assert np.abs(gradient - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())

    p = np.exp(log_p)
    assert signals.legal_mass == pytest.approx(float((p.sum(1) * weight).sum()))
    assert signals.cooperation == pytest.approx(float((p[:, 1] / p.sum(1) * weight).sum()))
    kl = (p * (log_p - reference)).sum(1)
    assert signals.kl == pytest.approx(float((kl * weight).sum()))
    assert -loss == pytest.approx(signals.reward_mean - beta * signals.kl)


@given(
    seed=st.integers(0, 10_000), opponent=st.sampled_from(sorted(OPPONENTS)),
)  # fmt: skip
def test_play_visits_states_as_following_every_path_does(seed: int, opponent: str) -> None:
    rng = np.random.default_rng(seed)
    cooperate, legal = rng.random(4), rng.random(4)
    met = get_opponent(opponent)
    assert np.allclose(visitation(cooperate, legal, met), played(cooperate, legal, met), atol=1e-12)


def test_no_gradient_flows_through_the_visitation_weights() -> None:
    case = Case(*drawn_batch(3), rewards_of("game"), weighting="visitation")
    _, gradient, _ = evaluate(case)
    moving = differences(lambda x: loss_of(case.at(x), case.at(x).weight()), case.log_p)
    assert np.abs(gradient - moving).max() > 1e-3


@pytest.mark.parametrize("reward", sorted(REWARDS))
def test_the_gradient_is_the_mean_of_sampled_policy_gradients(reward: str) -> None:
    """Score-function estimates with the sampled answer's own reward, as published work uses."""
    beta, samples = 0.2, 200_000
    rng = np.random.default_rng(11)
    table, state = rewards_of(reward), np.arange(4)
    logits = rng.normal(size=(4, 3))  # defect, cooperate, illegal
    log_pi = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    reference = np.log(rng.dirichlet([1.0, 1.0, 1.0], 4))

    z = torch.tensor(logits, requires_grad=True)
    met = meet(get_game("IPD"), get_reward(reward), get_opponent("tit-for-tat"))
    batch = Batch(z.log_softmax(1)[:, :2], torch.tensor(reference[:, :2]), torch.tensor(state))
    loss, _ = exact_objective(batch, met, kl_coefficient=beta)
    loss.backward()
    assert z.grad is not None

    value = np.stack([table[:, 1], table[:, 0], np.full(4, -6.0)], 1)
    # d/dz of sum P (log P - log ref): the logarithm's own derivative adds one to each legal term.
    value[:, :2] -= beta * (log_pi - reference)[:, :2] + beta
    for s in state:
        answer = rng.choice(3, size=samples, p=np.exp(log_pi[s]))
        score_function = np.eye(3)[answer] - np.exp(log_pi[s])
        estimates = score_function * value[s, answer][:, None] / 4
        error = estimates.std(0) / np.sqrt(samples)
        assert np.all(np.abs(-z.grad[s].numpy() - estimates.mean(0)) < 5 * error)


def test_rewards_stand_by_their_own_move() -> None:
    """An agent sure to betray a cooperator earns what betraying earns, and the like."""
    sure = np.log(np.array([[1.0, 1e-300], [1e-300, 1.0]]))
    state = np.array([0])  # both cooperated last: tit-for-tat cooperates now
    points = {
        (reward, move): evaluate(Case(row, row, state, rewards_of(reward)))[2].reward_mean
        for reward in ("game", "deontological", "utilitarian")
        for move, row in (("D", sure[:1]), ("C", sure[1:]))
    }
    assert points == pytest.approx(
        {
            ("game", "D"): 4.0,
            ("game", "C"): 3.0,
            ("deontological", "D"): -3.0,
            ("deontological", "C"): 0.0,
            ("utilitarian", "D"): 4.0,
            ("utilitarian", "C"): 6.0,
        }
    )


def test_states_weigh_the_same_however_many_prompts_they_have() -> None:
    log_p, reference, _ = drawn_batch(5, prompts=4)
    state, table = np.arange(4), rewards_of("hybrid")
    again = np.concatenate([np.arange(4), [0, 0, 2]])
    few = evaluate(Case(log_p, reference, state, table, "random"))
    many = evaluate(Case(log_p[again], reference[again], again, table, "random"))
    assert many[0] == pytest.approx(few[0])


def test_an_answer_of_no_legal_mass_earns_the_penalty() -> None:
    log_p = np.full((4, 2), -80.0)
    case = Case(log_p, log_p, np.arange(4), rewards_of("game"), weighting="visitation")
    assert evaluate(case)[2].reward_mean == pytest.approx(-6.0)
