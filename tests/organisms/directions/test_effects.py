"""Effects are differences of a measure, and hold beyond chance, random directions and style."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from overwritten import edited, hook_count, layer_of

from moralscope.core.decision import Message
from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.streams import stream
from moralscope.models.anatomy import dissect
from moralscope.models.scoring import score
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.directions.effects import (
    Controls,
    Trial,
    Tried,
    judge_effects,
    leaning_measure,
    try_directions,
)
from moralscope.organisms.directions.interventions import Intervention
from moralscope.organisms.directions.nulls import equally_long, random_directions

LAST = Intervention("steer", 2, 1.0)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return stream(seed, "drawn").standard_normal(shape)


def log_odds(model: Any) -> np.ndarray:
    return score(model, tiny.token_prompts(8)).log_odds


def trial(vectors: np.ndarray, *done: Intervention, measure: Any = log_odds, **rest: Any) -> Trial:
    random = rest.pop("random", None)
    if random is None:
        random = random_directions(vectors, 20, stream(1, "random"))
    return Trial(measure, vectors, done or (LAST,), Controls(random, **rest))


def towards_positive(model: Any) -> np.ndarray:
    """The last layer's stream moved towards one option: what its logit reads minus the other's."""
    rows = model.lm_head.weight[[11, 12]] * model.model.norm.weight
    along = np.zeros((3, 32))
    along[:] = (rows[0] - rows[1]).double().numpy()
    return along


def test_effects_are_those_of_replaced_forwards():
    model = tiny.tiny_model("llama")
    vectors, events = drawn(3, 32), []
    style = equally_long(drawn(3, 32, seed=4), vectors)
    tried = trial(
        vectors, LAST, Intervention("layer", 1), style=equally_long(drawn(3, 32, seed=4), vectors)
    )
    found = try_directions(
        model, dissect(model), tried, progress=lambda e: events.append((e.done, e.total))
    )
    assert events[-1] == (tried.measurements, 1 + 2 * 22)
    prompts = tiny.token_prompts(8)
    clean = np.array([tiny.plain_log_odds(model, p) for p in prompts])

    def steered(vector: np.ndarray) -> np.ndarray:
        step = torch.tensor(vector)
        with edited(layer_of(model, 2), after=lambda x: x + step):
            return np.array([tiny.plain_log_odds(model, p) for p in prompts]) - clean

    assert found[0].effect == pytest.approx(steered(vectors[2]), abs=1e-9)
    assert found[0].style == pytest.approx(steered(style[2]), abs=1e-9)
    for draw in (0, 19):
        along = tried.controls.random[draw, 2]
        assert found[0].random[draw] == pytest.approx(steered(along), abs=1e-9)
    v = torch.tensor(vectors[1])
    keep = torch.eye(32, dtype=torch.float64) - torch.outer(v, v) / (v @ v)
    with edited(layer_of(model, 1), after=lambda x: x @ keep):
        expected = np.array([tiny.plain_log_odds(model, p) for p in prompts]) - clean
    assert found[1].effect == pytest.approx(expected, abs=1e-9)
    assert hook_count(model) == 0


def test_a_direction_that_carries_it_holds_and_a_random_one_does_not():
    model = tiny.tiny_model("llama")
    carrying = towards_positive(model)
    style = equally_long(drawn(3, 32, seed=4), carrying)
    for vectors, expected in ((carrying, True), (equally_long(drawn(3, 32), carrying), False)):
        tried = try_directions(model, dissect(model), trial(vectors, style=style))
        (judged,) = judge_effects(tried)
        assert judged.holds is expected
        assert judged.questions == 8
    (judged,) = judge_effects(try_directions(model, dissect(model), trial(carrying)))
    assert judged.holds is None
    assert judged.mean > judged.random_high > 0
    assert judged.random_p == 1 / 21
    nothing = trial(carrying, Intervention("none"), LAST, style=style)
    idle, same = judge_effects(try_directions(model, dissect(model), nothing))
    assert (idle.mean, idle.p, idle.random_p, idle.holds) == (0.0, 1.0, 1.0, False)
    assert idle.interval is None
    assert same.mean == pytest.approx(judged.mean, abs=1e-12)


def all_signs(values: np.ndarray) -> float:
    """Two-sided sign-flip p of a t statistic, every pattern one after the other."""

    def t(x: np.ndarray) -> float:
        spread = x.std(ddof=1)
        return abs(x.mean()) / spread if spread > 0 else math.inf if x.mean() else 0.0

    signs = itertools.product((1.0, -1.0), repeat=len(values))
    return float(np.mean([t(values * s) >= t(values) * (1 - 1e-9) for s in signs]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([20, 39, 57]), st.floats(-2, 2))
def test_each_condition_is_what_it_says(seed: int, draws: int, size: float):
    rng = np.random.default_rng(seed)
    one = Tried(
        LAST, size + rng.standard_normal(6), rng.standard_normal((draws, 6)), rng.standard_normal(6)
    )
    (judged,) = judge_effects([one])
    assert judged.mean == pytest.approx(one.effect.mean(), abs=1e-12)
    assert judged.p == pytest.approx(all_signs(one.effect), abs=1e-12)
    assert judged.p_adjusted == judged.p
    means = np.abs([row.mean() for row in one.random])
    reach = sum(m >= abs(one.effect.mean()) for m in means)
    assert judged.random_p == pytest.approx((1 + reach) / (1 + draws), abs=1e-12)
    assert (abs(judged.mean) > judged.random_high) == (judged.random_p <= 0.05)
    assert (means > judged.random_high).mean() <= 0.05
    assert one.style is not None
    beyond = np.sign(one.effect.mean()) * one.effect - np.sign(one.style.mean()) * one.style
    assert judged.beyond_style == pytest.approx(
        abs(one.effect.mean()) - abs(one.style.mean()), abs=1e-12
    )
    assert judged.beyond_style_p == pytest.approx(all_signs(beyond), abs=1e-12)
    turned = Tried(LAST, -one.effect, -one.random, -one.style)
    (other,) = judge_effects([turned])
    assert other.holds == judged.holds
    assert other.mean == pytest.approx(-judged.mean, abs=1e-12)


def test_all_interventions_are_one_family():
    rng = stream(2, "family")
    tried = [
        Tried(Intervention("layer", k), rng.standard_normal(7) + 0.6, np.zeros((20, 7)), None)
        for k in range(5)
    ]
    alone = [judge_effects([one])[0] for one in tried]
    together = judge_effects(tried)
    assert [j.p for j in together] == pytest.approx([j.p for j in alone])
    assert all(t.p_adjusted >= a.p_adjusted for t, a in zip(together, alone, strict=True))
    assert max(t.p_adjusted - a.p_adjusted for t, a in zip(together, alone, strict=True)) > 0.01
    assert together[0].floor == 2 / 2**7


def test_paired_continuations_are_a_measure():
    model = tiny.tiny_model("llama")
    tokenizer = tiny.tiny_tokenizer()
    items = [
        Asking(
            f"q{k // 2}",
            "play",
            k % 2,
            "none",
            (Message("user", f"Round {k}"),),
            "I choose",
            "You play",
        )
        for k in range(4)
    ]
    found = leaning_measure(tokenizer, items)(model)
    expected = []
    for item in items:
        asked = tokenizer(f"<|user|>{item.messages[0].content}</s><|assistant|>").input_ids
        sides = [
            tiny.plain_log_probability(model, asked, form) / len(form)
            for form in (tokenizer(item.selfish).input_ids, tokenizer(item.prosocial).input_ids)
        ]
        expected.append(sides[0] - sides[1])
    assert found == pytest.approx([np.mean(expected[:2]), np.mean(expected[2:])], abs=1e-9)


def test_what_cannot_be_judged_is_refused():
    model = tiny.tiny_model("llama")
    vectors = drawn(3, 32)
    with pytest.raises(ConfigError) as caught:
        trial(vectors, random=drawn(19, 3, 32))
    assert "too few random directions" in str(caught.value)
    assert "Seen: 19" in str(caught.value)
    for values, text in (
        ([1.0, math.nan], "1 of them no finite number"),
        ([], "values of shape (0,)"),
        ([[1.0]], "values of shape (1, 1)"),
    ):
        bad = trial(vectors, measure=lambda _, values=values: np.array(values))
        with pytest.raises(EvidenceError) as refused:
            try_directions(model, dissect(model), bad)
        assert text in str(refused.value)
    lengths = iter((3, 2))
    changing = trial(vectors, measure=lambda _: np.ones(next(lengths)))
    with pytest.raises(EvidenceError, match="3 finite values, one for each question"):
        try_directions(model, dissect(model), changing)
    with pytest.raises(EvidenceError, match="no interventions to judge"):
        judge_effects([])
    assert hook_count(model) == 0
