"""A tiny model made to look, and to read what it looks at: both found from its tables alone."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import polars as pl
import pytest
import tiny
import torch

from moralscope.core.hashing import sha256_text
from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.mechanisms.attention.edits import Editing, attention_edits_table
from moralscope.mechanisms.attention.tables import attention_table
from moralscope.mechanisms.attention.weights import attention_weights
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.models.anatomy import dissect
from moralscope.models.rendering import EncodedPrompt

LAYER, HEAD, GROUP = 2, 3, 1
"""The planted head, and the keys that it shares."""

PAYOFFS, GOAL = (7, 8, 9), (13, 14)
SPANS = (("payoffs", PAYOFFS), ("goal", GOAL))
N = 20


def prompts() -> tuple[EncodedPrompt, ...]:
    """Five words at random, the same ones wherever a category stands, another one at each end."""
    fixed = {7: 300, 8: 300, 9: 300, 13: 310, 14: 311}
    return tuple(
        dataclasses.replace(
            prompt,
            tokens=(
                *(fixed.get(at, 30 + t % 5) for at, t in enumerate(prompt.tokens[:22])),
                200 + index,
            ),
            spans=SPANS,
        )
        for index, prompt in enumerate(tiny.token_prompts(N))
    )


def clean(name: str, model: Any) -> CleanRun:
    return run_clean(name, model, dissect(model), prompts())


def turned_back(model: Any, vector: torch.Tensor) -> torch.Tensor:
    """What has to enter rotary positions at the last token for a vector to come out."""
    cos, sin = model.model.rotary_emb(vector[None, None], torch.tensor([[22]]))
    half = len(vector) // 2
    swapped = torch.cat([-vector[half:], vector[:half]])
    return (vector * cos[0, 0] - swapped * sin[0, 0]).to(vector.dtype)


@torch.no_grad()
def made_to_look(base: Any, strength: float) -> Any:
    """A copy of which one head asks for what only the payoffs' keys have.

    Along the direction that tells those keys from all others best (least squares), so that scores
    of payoffs lie ``strength`` nats above the others on average.
    """
    run, keys = clean("base", base), []
    for part in run.packs:
        cached = part.cache.layers[LAYER].keys[0, GROUP]
        paths = {tuple(path[:23].tolist()) for path in part.pack.tree.paths}
        keys += [cached[list(path)] for path in sorted(paths)]
    stacked = torch.stack(keys)
    own = torch.zeros(stacked.shape[:2], dtype=stacked.dtype)
    own[:, list(PAYOFFS)] = 1.0
    centred = stacked.flatten(0, 1) - stacked.mean((0, 1))
    direction = torch.linalg.lstsq(centred, (own - own.mean()).flatten()[:, None]).solution[:, 0]
    scores = stacked @ direction
    gap = scores[own == 1.0].mean() - scores[own == 0.0].mean()
    size = len(direction)
    wanted = strength * size**0.5 * direction / gap
    model = copy.deepcopy(base)
    bias = model.model.layers[LAYER].self_attn.q_proj.bias
    bias[HEAD * size : (HEAD + 1) * size] += turned_back(base, wanted)
    return model


@torch.no_grad()
def reading_one_head(model: Any, kept: float) -> Any:
    """A copy in which no head writes anything, but the planted one as much as told."""
    model = copy.deepcopy(model)
    size = model.config.hidden_size // model.config.num_attention_heads
    for layer, block in enumerate(model.model.layers):
        weight = block.self_attn.o_proj.weight
        own = weight[:, HEAD * size : (HEAD + 1) * size].clone()
        weight.zero_()
        if layer == LAYER:
            weight[:, HEAD * size : (HEAD + 1) * size] = kept * own
    return model


def tables_of(models: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """What a study of a base and one agent would write of attention."""
    asked = prompts()
    found: dict[str, list[pl.DataFrame]] = {"attention": [], "attention_edits": []}
    decisions: list[dict[str, object]] = []
    for name, model in models.items():
        anatomy, run = dissect(model), clean(name, model)
        weights = attention_weights(model, anatomy, run)
        found["attention"].append(attention_table(name, asked, weights))
        found["attention_edits"].append(attention_edits_table(model, anatomy, run, Editing()))
        decisions += [
            {"agent": name, "prompt": p.name, "game": "IPD", "scenario": p.name,
             "log_odds": float(value), "p_positive": 0.4, "p_negative": 0.4, "legal_mass": 0.8,
             "p_positive_given_legal": 0.5,
             "fingerprint_log_odds": None if name == "base" else float(value)}
            for p, value in zip(asked, run.log_odds, strict=True)
        ]  # fmt: skip
    described = [
        {"prompt": p.name, "game": "IPD", "scenario": p.name, "family": "clusters",
         "template": "t", "labels": "a/b", "option_order": 0, "answer_order": 0,
         "table_order": "none", "stem": "", "system": "", "chat_template": True,
         "text": p.name, "sha256": sha256_text(p.name), "positive": "b", "negative": "a"}
        for p in asked
    ]  # fmt: skip
    agents = [
        {"agent": name, "base": "tiny", "kind": "base" if name == "base" else "checkpoint",
         "dtype": "float64"} for name in models
    ]  # fmt: skip
    return {
        "agents": from_rows("agents", agents),
        "prompts": from_rows("prompts", described),
        "decisions": from_rows("decisions", decisions),
        **{name: pl.concat(parts) for name, parts in found.items()},
    }


def claims_of(models: dict[str, Any]) -> dict[str, dict[str, Any]]:
    claims = make_claims(tables_of(models), draws=499).iter_rows(named=True)
    return {row["id"]: row for row in claims if row["id"].startswith(("attention", "uses"))}


@pytest.fixture(scope="module")
def base() -> Any:
    """Its early layers write little, so that keys in the last one tell tokens apart."""
    model = tiny.tiny_model("llama_bias")
    with torch.no_grad():
        for block in model.model.layers[:LAYER]:
            block.self_attn.o_proj.weight.mul_(0.1)
            block.mlp.down_proj.weight.mul_(0.1)
    return model


def test_a_planted_shift_is_found_at_its_head_and_category(base: Any):
    found = claims_of({"base": base, "shifted": made_to_look(base, 6.0)})
    heads = found["attention:shifted:base"]
    assert heads["verdict"] == "supported"
    assert f"at L{LAYER}.h{HEAD} on payoffs" in heads["statement"]
    assert heads["estimate"] > 1.0
    assert found["attention:shifted:base:payoffs"]["verdict"] == "supported"
    assert (
        "shifted looks more at payoffs than base"
        in (found["attention:shifted:base:payoffs"]["statement"])
    )
    # No other head moved, because nothing changed below: three categories of one head at most.
    assert int(re.findall(r"In (\d+) of 36 heads", heads["statement"])[0]) <= 3


def test_without_the_plant_nothing_is_claimed(base: Any):
    found = claims_of({"base": base, "same": copy.deepcopy(base)})
    between = {name: c for name, c in found.items() if ":same:base" in name}
    assert len(between) == 1 + 3 + 2
    assert {claim["estimate"] for claim in between.values()} == {0.0}
    assert "supported" not in {claim["verdict"] for claim in between.values()}


def test_what_the_decision_reads_is_used_and_what_it_does_not_is_not(base: Any):
    reader, deaf = (made_to_look(reading_one_head(base, kept), 40.0) for kept in (2.0, 0.0))
    found = claims_of({"base": deaf, "reader": reader})
    used = found["uses:reader:payoffs"]
    assert used["verdict"] == "supported"
    assert used["estimate"] > 0.1
    assert found["uses:reader:base:payoffs"]["verdict"] == "supported"
    # The head gives the goal next to nothing, so masking it does next to nothing.
    assert abs(found["uses:reader:goal"]["estimate"]) < 0.01 * used["estimate"]
    assert found["uses:reader:goal"]["verdict"] != "supported"
    # Without the head that reads, the same looks are used for nothing.
    for category in ("payoffs", "goal"):
        claim = found[f"uses:base:{category}"]
        assert claim["estimate"] == pytest.approx(0.0, abs=1e-12)
        assert claim["verdict"] != "supported"
    assert found["attention:reader:base"]["estimate"] == pytest.approx(0.0, abs=1e-9)
