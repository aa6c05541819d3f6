"""Decisions decompose exactly whatever kind of adapter, and of base, the weights come from."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tiny
import torch
from worlds import World, clean_runs, world

from moralscope.core.agents import AgentSpec
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": ("llama", {"use_dora": True}),
    "dora with biases below": ("llama_bias", {"use_dora": True}),
    "lora_bias": ("llama", {"lora_bias": True}),
    "lora_bias on biases": ("llama_bias", {"lora_bias": True}),
    "patterns": ("qwen2", {"rank_pattern": {"o_proj": 5}, "alpha_pattern": {"down_proj": 9}}),
    "conv1d": ("gpt2", {}),
    "conv1d dora": ("gpt2", {"use_dora": True}),
    "conv1d lora_bias": ("gpt2", {"lora_bias": True}),
}


def gaps(here: World, name: str) -> tuple[float, float]:
    """Largest error of the sum over a decision's parts, and the largest logit difference."""
    with here.roster.speaking(name):
        attribution, stored = attribution_tables(here.roster.anatomy(name), here.runs[name])
    sums = attribution.filter(token=-1).group_by("prompt").agg(pl.col("contribution").sum())
    both = sums.join(stored, on="prompt").with_columns(
        error=(pl.col("contribution") - pl.col("logit_diff")).abs(), size=pl.col("logit_diff").abs()
    )
    assert both.height == len(here.prompts)
    return float(both["error"].to_numpy().max()), float(both["size"].to_numpy().max())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_is_complete(tmp_path: Path, kind: str):
    family, settings = KINDS[kind]
    here = world(tmp_path, family, settings=settings)
    for name in here.runs:
        error, size = gaps(here, name)
        assert error <= 1e-9
        assert size > 0.1
        with here.roster.speaking(name) as model:
            plain = [tiny.plain_log_odds(model, prompt) for prompt in here.prompts]
        assert here.runs[name].log_odds == pytest.approx(plain, abs=1e-9)
    moved = here.runs["game"].log_odds - here.runs["base"].log_odds
    assert abs(moved).max() > 0.05


@pytest.mark.parametrize(
    ("dtype", "allowed"), [("nf4", 1e-5), ("bfloat16", 0.05), ("float16", 0.01)]
)
def test_narrow_and_4_bit_bases_are_complete_to_their_arithmetic(
    tmp_path: Path, dtype: Any, allowed: float
):
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    base = tiny.save_base(tmp_path / "base", "llama", **sizes)
    plain = tiny.tiny_model("llama", dtype=torch.float32, **sizes)
    roster = Roster(load_model(locate_model(str(base)), dtype=dtype))
    roster.add(AgentSpec(name="base", base="tiny"))
    place = tiny.save_adapter(tmp_path / "game", plain, size=0.05)
    roster.add(AgentSpec(name="game", base="tiny", adapter=str(place)))
    prompts = tiny.token_prompts(4)
    here = World(roster, prompts, clean_runs(roster, prompts))
    for name in here.runs:
        error, size = gaps(here, name)
        assert error <= allowed * max(1.0, size)
    assert abs(here.runs["game"].log_odds - here.runs["base"].log_odds).max() > 0.05
