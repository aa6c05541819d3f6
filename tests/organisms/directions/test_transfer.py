"""Directions undo of an organism's shift what its adapter wrote along them, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import optimize, stats

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.core.streams import stream
from moralscope.models.roster import Roster
from moralscope.models.scoring import score
from moralscope.organisms.directions.effects import Controls, Trial
from moralscope.organisms.directions.interventions import Intervention
from moralscope.organisms.directions.nulls import random_directions
from moralscope.organisms.directions.transfer import share_undone, transfer

ONE = {"rank": 1, "target_modules": ["down_proj"], "layers_to_transform": [2]}


def log_odds(model: Any) -> np.ndarray:
    return score(model, tiny.token_prompts(8)).log_odds


def organisms(folder: Path, written: dict[str, np.ndarray]) -> Roster:
    """A base, and organisms whose one adapter writes one direction after the last layer."""
    roster = Roster(tiny.loaded(tiny.tiny_model("llama")))
    roster.add(AgentSpec(name="base", base="tiny"))
    for name, direction in written.items():
        place = tiny.save_adapter(folder / name, tiny.tiny_model("llama"), **ONE)
        file = place / "adapter_model.safetensors"
        tensors = load_file(str(file))
        for key, tensor in tensors.items():
            if "lora_B" in key:
                tensors[key] = torch.tensor(direction[:, None]).to(tensor.dtype).contiguous()
        save_file(tensors, str(file), metadata={"format": "pt"})
        roster.add(AgentSpec(name=name, base="tiny", adapter=str(place)))
    return roster


def test_what_an_adapter_writes_along_a_direction_is_undone(tmp_path: Path):
    rng = stream(0, "written")
    v, w = rng.standard_normal((2, 32))
    w -= v * (v @ w) / (v @ v)
    roster = organisms(tmp_path, {"own": v, "turned": -2 * v, "other": w, "mixed": v + w})
    vectors = np.tile(v, (3, 1))
    random = random_directions(vectors, 20, stream(1, "random"))
    away = Intervention("adapter", 2)
    trial = Trial(log_odds, vectors, (away, Intervention("none")), Controls(random))
    found = transfer(roster, ["own", "turned", "other", "mixed"], trial)
    assert [one.agent for one in found] == ["own", "turned", "other", "mixed"]
    with roster.speaking("base") as model:
        base = log_odds(model)
    for one in found:
        with roster.speaking(one.agent) as model:
            assert one.shift == pytest.approx(log_odds(model) - base, abs=1e-12)
        assert np.abs(one.shift).max() > 1e-3
        assert (one.effects[1].tried.effect == 0).all()
    own, turned, other, mixed = found
    for whole in (own, turned):
        assert whole.effects[0].tried.effect == pytest.approx(-whole.shift, abs=1e-9)
    assert other.effects[0].tried.effect == pytest.approx(np.zeros(8), abs=1e-9)
    assert np.abs(mixed.effects[0].tried.effect).max() > 1e-3
    assert not np.allclose(mixed.effects[0].tried.effect, -mixed.shift, atol=1e-3)
    assert own.undone[0] == share_undone(own.effects[0].tried.effect, own.shift)
    with pytest.raises(AgentError, match="did you mean 'own'"):
        transfer(roster, ["owm"], trial)


def test_all_of_a_shift_is_one_and_none_of_it_zero():
    shift = 2.0 + stream(0, "shift").standard_normal(12)
    whole = share_undone(-shift, shift)
    assert whole is not None
    assert (whole.share, whole.low, whole.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-7)
    none = share_undone(np.zeros(12), shift)
    assert none is not None
    assert (none.share, none.low, none.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-7)
    assert share_undone(np.ones(12), shift - shift.mean()) is None
    assert share_undone(np.ones(1), np.ones(1)) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 15), st.floats(-3, 3))
def test_the_interval_holds_every_share_that_a_t_test_allows(seed: int, count: int, share: float):
    rng = np.random.default_rng(seed)
    shift = 1.5 + rng.standard_normal(count)
    effect = -share * shift + 0.5 * rng.standard_normal(count)
    clear = stats.ttest_1samp(shift, 0.0).pvalue < 0.05
    found = share_undone(effect, shift)
    assert (found is not None) == clear
    if found is None:
        return

    def excess(ratio: float) -> float:
        return stats.ttest_1samp(-effect - ratio * shift, 0.0).pvalue - 0.05

    assert found.share == pytest.approx(-effect.mean() / shift.mean(), rel=1e-12)
    assert excess(found.share) > 0
    for end in (found.low, found.high):
        reach = 1e-4 * max(1.0, abs(end - found.share))
        inward = reach if end < found.share else -reach
        assert optimize.brentq(excess, end - inward, end + inward, xtol=1e-14) == pytest.approx(
            end, abs=1e-9 * max(1.0, abs(end))
        )
