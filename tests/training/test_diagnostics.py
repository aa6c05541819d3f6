"""Courses that go wrong are told once, with figures; courses that go well are left in peace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.training.config import TrainingConfig
from moralscope.training.diagnostics import (
    KINDS,
    before_training,
    diagnose,
    diagnose_last,
    diagnostics_table,
)

STEPS = 60


def course(steps: int = STEPS, **columns: object) -> list[dict[str, object]]:
    """A healthy course of a sampled training, some columns replaced by arrays."""
    share = np.linspace(0, 1, steps)
    healthy: dict[str, object] = {
        "reward_mean": 1 + 2 * share,
        "legal_mass": 0.5 + 0.4 * share,
        "kl": 2 * share,
        "gradient_norm": 1 - 0.9 * share,
        "adapter_norm": 1 + share,
        "advantage_std": 1 - 0.5 * share,
        "value_loss": 1 - 0.9 * share,
        "p_defect_same": 0.6 + 0.39 * share,
        "p_defect_swapped": 0.4 + 0.59 * share,
    }
    values = {
        k: np.broadcast_to(np.asarray(v, dtype=object), steps)
        for k, v in (healthy | columns).items()
    }
    return [
        {"step": i + 1} | {k: None if v[i] is None else float(v[i]) for k, v in values.items()}
        for i in range(steps)
    ]


def ramp(before: float, after: float, at: int = 30) -> np.ndarray:
    return np.where(np.arange(STEPS) < at, before, after)


SICK: dict[str, dict[str, object]] = {
    "legal-collapse": {"legal_mass": ramp(0.9, 0.2)},
    "no-advantage": {"advantage_std": 0.0, "reward_mean": -6.0},
    "kl-runaway": {"kl": np.linspace(0, 30, STEPS)},
    "dead-adapter": {"gradient_norm": 0.0},
    "value-divergence": {"value_loss": np.exp(np.linspace(0, 8, STEPS))},
    "label-learned": {
        "p_defect_same": np.linspace(0.5, 0.97, STEPS),
        "p_defect_swapped": np.linspace(0.5, 0.03, STEPS),
    },
    "label-kept": {"p_defect_same": 0.9, "p_defect_swapped": 0.1},
}


def kinds(rows: list[dict[str, object]]) -> list[str]:
    return [one.kind for one in diagnose(rows)]


def test_a_healthy_course_is_left_in_peace():
    assert kinds(course()) == []
    assert kinds([]) == []


def test_every_kind_is_tried_here():
    assert {*SICK, "fixed-labels", "no-effect"} == set(KINDS)


@pytest.mark.parametrize("kind", SICK)
def test_what_goes_wrong_is_told_once_with_its_figures(kind: str):
    (found,) = diagnose(course(**SICK[kind]))
    assert found.kind == kind
    assert found.measured is not None
    assert found.threshold is not None
    assert 3 <= found.step <= STEPS
    assert len(found.sentence) > 30
    assert len(found.advice) > 30


def test_figures_are_those_of_the_course():
    (legal,) = diagnose(course(**SICK["legal-collapse"]))
    # After the fall to .2 at step 31, ten steps' mean is below half of .9 when seven have fallen.
    means = [np.mean(ramp(0.9, 0.2)[:n][-10:]) for n in range(1, STEPS + 1)]
    first = next(i for i, mean in enumerate(means) if mean < 0.45)
    assert (legal.step, legal.measured) == (first + 1, pytest.approx(means[first]))
    assert legal.threshold == pytest.approx(0.45)
    assert "fell from 0.9 to 0.41" in legal.sentence
    (kl,) = diagnose(course(**SICK["kl-runaway"]))
    assert (kl.threshold, kl.step) == (10.0, 22)
    (spread,) = diagnose(course(**SICK["no-advantage"]))
    assert (spread.step, spread.measured) == (5, 0.0)
    assert "-6 points" in spread.sentence


def test_live_and_afterwards_are_the_same():
    rows = course(**SICK["legal-collapse"], **SICK["kl-runaway"])
    told: dict[str, object] = {}
    for end in range(1, len(rows) + 1):
        for one in diagnose_last(rows[:end], known=told):
            told[one.kind] = one
    assert tuple(told.values()) == diagnose(rows)
    assert len(told) == 2
    assert diagnose(rows, known=told) == ()


def test_a_doubling_kl_is_told_before_it_is_beyond_all_bounds():
    (found,) = diagnose(course(kl=0.02 * 2 ** np.linspace(0, 8.8, STEPS)))
    assert found.kind == "kl-runaway"
    assert found.measured is not None
    assert 5.0 < found.measured < 10.0


def test_a_value_loss_that_is_not_finite_has_no_figure():
    (found,) = diagnose(course(value_loss=np.where(np.arange(STEPS) < 40, 1.0, np.nan)))
    assert (found.kind, found.step, found.measured) == ("value-divergence", 41, None)


def test_an_agent_that_never_answered_legally_is_told():
    (found,) = diagnose(course(legal_mass=0.03))
    assert (found.step, found.threshold) == (20, 0.1)
    assert "stays at 0.03" in found.sentence
    (sooner,) = diagnose(course(legal_mass=0.0001))
    assert sooner.step == 10


def test_a_collapse_within_few_steps_is_told_within_few():
    (found,) = diagnose(course(8, legal_mass=np.array([0.97, 0.96, 0.9, 0.4, 0.1, 0, 0, 0])))
    assert (found.kind, found.step) == ("legal-collapse", 7)
    assert found.measured == pytest.approx(0.1 / 3)


def test_one_that_learns_to_answer_is_not():
    assert kinds(course(legal_mass=np.linspace(0.001, 0.05, STEPS))) == []


def test_a_settled_policy_may_run_out_of_advantages():
    assert kinds(course(advantage_std=ramp(1.0, 0.0, 40), gradient_norm=ramp(1.0, 0.0, 40))) == []


def test_a_dead_adapter_shows_in_its_weights_too():
    assert kinds(course(adapter_norm=1.5)) == ["dead-adapter"]
    assert kinds(course(gradient_norm=None, adapter_norm=1.5)) == ["dead-adapter"]


def test_columns_that_do_not_apply_say_nothing():
    silent = dict.fromkeys(
        ["gradient_norm", "adapter_norm", "advantage_std", "value_loss", "p_defect_same",
         "p_defect_swapped"]
    )  # fmt: skip
    assert kinds(course(**silent)) == []
    bare = [{k: row[k] for k in ("step", "reward_mean", "kl")} for row in course()]
    assert kinds(bare) == []


def test_sampled_play_alone_raises_no_alarm():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        share = np.linspace(0, 1, STEPS)
        rows = course(
            legal_mass=rng.binomial(5, 0.4 + 0.5 * share) / 5,
            reward_mean=rng.normal(1 + 2 * share, 1.0),
            kl=2 * share + rng.normal(0, 0.2, STEPS),
            value_loss=rng.chisquare(5, STEPS) / 5,
            p_defect_same=rng.binomial(10, 0.5 + 0.4 * share) / 10,
            p_defect_swapped=rng.binomial(10, 0.4 + 0.5 * share) / 10,
        )
        assert kinds(rows) == []


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 80),
    rate=st.floats(0.01, 0.5),
    legal=st.floats(0.001, 0.99),
    defect=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from([0.0, 1.0])),
    kl=st.floats(0.1, 4.0),
)
def test_monotone_improvement_never_raises_an_alarm(
    steps: int, rate: float, legal: float, defect: tuple[float, float, float], kl: float
):
    same, swapped, goal = defect
    left = (1 - rate) ** np.arange(steps)
    rows = course(
        steps,
        legal_mass=1 - (1 - legal) * left,
        p_defect_same=goal + (same - goal) * left,
        p_defect_swapped=goal + (swapped - goal) * left,
        kl=kl * (1 - left),
        value_loss=left,
        reward_mean=-left,
    )
    assert kinds(rows) == []


@pytest.mark.parametrize("labels", ["same", "swapped"])
def test_fixed_labels_are_told_before_training(labels: str):
    config = TrainingConfig.model_validate({"reward": "game", "labels": labels})
    (found,) = before_training(config)
    assert (found.kind, found.step) == ("fixed-labels", 0)
    word = {"same": "action2", "swapped": "action1"}[labels]
    assert f"defecting is always called {word!r}" in found.sentence


def test_both_labels_are_not():
    for labels in ("both", "random"):
        config = TrainingConfig.model_validate({"reward": "game", "labels": labels})
        assert before_training(config) == ()


def test_the_table_holds_what_was_found():
    found = diagnose(course(**SICK["label-learned"]))
    table = diagnostics_table("one", 7, found)
    assert table.to_dicts() == [
        {
            "agent": "one",
            "training_seed": 7,
            "step": found[0].step,
            "diagnosis": "label-learned",
            "measured": found[0].measured,
            "threshold": 0.5,
            "sentence": found[0].sentence,
            "advice": found[0].advice,
        }
    ]
    assert diagnostics_table("one", 7, ()).height == 0
