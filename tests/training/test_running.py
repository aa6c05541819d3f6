"""Running statistics against numpy over the whole history and a replay of the published loop."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import AgentError, ConfigError
from moralscope.training.running import KLController, RunningMoments

SCORES = st.lists(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=6),
    min_size=1,
    max_size=6,
)
FEW = settings(max_examples=25, deadline=None)


def after(history: list[list[float]]) -> RunningMoments:
    moments = RunningMoments()
    for scores in history:
        moments = moments.updated(torch.tensor(scores, dtype=torch.float64))
    return moments


@given(history=SCORES)
@FEW
def test_merged_moments_are_those_of_the_whole_history(history: list[list[float]]) -> None:
    everything = np.concatenate([np.array(scores) for scores in history])
    moments = after(history)
    assert moments.count == everything.size
    assert moments.mean == pytest.approx(everything.mean(), rel=1e-9, abs=1e-9)
    assert moments.variance == pytest.approx(everything.var(), rel=1e-9, abs=1e-9)
    if everything.size > 1:
        assert moments.deviation == pytest.approx(everything.std(ddof=1), rel=1e-6, abs=1e-6)


def test_the_published_update_gives_the_same_moments() -> None:
    """Its initial weight of 1e-24 on variance 1 is nothing beside one score."""
    rng = np.random.default_rng(0)
    mean, variance, weight = 0.0, 1.0, 1e-24
    moments = RunningMoments()
    for size in (5, 5, 3, 1):
        scores = rng.choice([4.0, 3.0, 1.0, 0.0, -6.0], size)
        delta, total = scores.mean() - mean, weight + size
        squares = scores.var() * size + variance * weight + delta**2 * weight * size / total
        mean, variance, weight = mean + delta * size / total, squares / total, total
        deviation = math.sqrt(variance * total / (total - 1))
        moments = moments.updated(torch.tensor(scores))
        assert moments.mean == pytest.approx(mean, rel=1e-12)
        assert moments.deviation == pytest.approx(deviation, rel=1e-12)
        sought = (scores - mean) / (deviation + np.finfo(np.float64).eps)
        assert moments.normalised(torch.tensor(scores)).tolist() == pytest.approx(sought.tolist())


def test_what_all_history_says_is_what_divides() -> None:
    moments = after([[1.0, 3.0], [8.0]])
    found = moments.normalised(torch.tensor([4.0, 4.0 + math.sqrt(13.0)]))
    assert found.tolist() == pytest.approx([0.0, 1.0])
    assert found.dtype == torch.float32


@pytest.mark.parametrize("history", [[[0.1]], [[0.1] * 3], [[0.1] * 6, [0.1] * 3]])
def test_scores_that_never_differed_are_normalised_to_zero(history: list[list[float]]) -> None:
    assert after(history).normalised(torch.tensor([0.1], dtype=torch.float64)).tolist() == [0.0]


def test_before_the_second_score_the_deviation_is_one() -> None:
    assert RunningMoments().deviation == 1.0
    assert after([[7.0]]).deviation == 1.0
    assert after([[7.0, 7.0]]).deviation == 0.0


@given(history=SCORES)
@FEW
def test_moments_survive_json_bit_for_bit(history: list[list[float]]) -> None:
    moments = after(history)
    read = RunningMoments.from_json(json.loads(json.dumps(moments.to_json())))
    assert read == moments
    assert (read.mean.hex(), read.variance.hex()) == (moments.mean.hex(), moments.variance.hex())
    assert isinstance(read.count, int)


def test_updating_leaves_the_old_moments() -> None:
    start = RunningMoments()
    start.updated(torch.tensor([1.0]))
    assert start == RunningMoments(0.0, 1.0, 0)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(6.6, 1 + 0.1 * 5 / 10000), (60.0, 1 + 0.2 * 5 / 10000), (0.0, 1 - 0.2 * 5 / 10000), (6.0, 1)],
)
def test_the_coefficient_follows_its_target(kl: float, factor: float) -> None:
    controller = KLController(0.2, target=6.0, horizon=10000)
    assert controller.updated(kl, 5).coefficient == pytest.approx(0.2 * factor, rel=1e-12)
    assert controller.coefficient == 0.2


def test_a_thousand_published_steps_hardly_move_the_coefficient() -> None:
    controller = KLController(0.2, target=6.0)
    for _ in range(1000):
        controller = controller.updated(0.0, 5)
    assert controller.coefficient == pytest.approx(0.2 * (1 - 1e-4) ** 1000)
    assert controller.coefficient == pytest.approx(0.181, abs=1e-3)


def test_without_a_target_the_coefficient_stays() -> None:
    controller = KLController(0.2)
    assert controller.updated(100.0, 5) == controller
    assert controller.updated(math.nan, 5) == controller


@given(kl=st.lists(st.floats(-5, 100), max_size=8), adaptive=st.booleans())
@FEW
def test_a_controller_survives_json_bit_for_bit(kl: list[float], adaptive: bool) -> None:
    controller = KLController(0.2, 6.0 if adaptive else None, 50)
    for each in kl:
        controller = controller.updated(each, 5)
    read = KLController.from_json(json.loads(json.dumps(controller.to_json())))
    assert read == controller
    assert read.coefficient.hex() == controller.coefficient.hex()
    assert (read.target is None) == (not adaptive)


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="cannot be normalised.*1 of 2 .*check the reward"):
        RunningMoments().updated(torch.tensor([1.0, math.nan]))
    with pytest.raises(ConfigError, match="at least one score"):
        RunningMoments().updated(torch.zeros(0))
    controller = KLController(0.2, target=6.0, horizon=10)
    with pytest.raises(ConfigError, match="KL that is not finite.*learning_rate"):
        controller.updated(math.inf, 5)
    with pytest.raises(ConfigError, match="kl_horizon 10, 50 decisions.*raise kl_horizon"):
        controller.updated(0.0, 50)
    assert controller.updated(0.0, 49).coefficient > 0


def test_statistics_that_no_run_wrote_are_refused() -> None:
    good = RunningMoments(1.0, 2.0, 3).to_json()
    for bad, told in (
        ({**good, "more": 1}, "exactly mean, variance, count"),
        ({k: v for k, v in good.items() if k != "mean"}, "exactly mean"),
        ({**good, "mean": math.nan}, "a finite number as mean"),
        ({**good, "mean": True}, "a finite number as mean"),
        ({**good, "variance": -1.0}, "not negative"),
        ({**good, "count": 2.5}, "whole count"),
    ):
        with pytest.raises(AgentError, match=f"not what a checkpoint holds.*{told}"):
            RunningMoments.from_json(bad)
    steady = KLController(0.2).to_json()
    for change in ({"coefficient": -0.1}, {"target": 0.0}, {"horizon": 0}, {"horizon": 1.5}):
        with pytest.raises(AgentError, match="not what a checkpoint holds.*horizon above 0"):
            KLController.from_json({**steady, **change})
    with pytest.raises(AgentError, match="a finite number as coefficient"):
        KLController.from_json({**steady, "coefficient": "0.2"})
    assert KLController.from_json(steady) == replace(KLController(0.2), horizon=10000)
