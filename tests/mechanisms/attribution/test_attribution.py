"""Exact attribution: complete, and each share what it claims to be."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny
import torch
from hooked import hooked
from torch import Tensor, nn
from worlds import BODY, World, Worlds, world

from moralscope.mechanisms.attribution.contributions import attribute_pack, attribution_tables
from moralscope.mechanisms.readout import read_out

AGENTS = ("base", "game", "moral")


def tables(here: World, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    with here.roster.speaking(name):
        return attribution_tables(here.roster.anatomy(name), here.runs[name])


@pytest.mark.parametrize("forms", ["single", "several"])
@pytest.mark.parametrize("family", ["llama_bias", "gemma2", "gpt2", "gpt_neox", "phi3"])
def test_contributions_sum_to_the_logit_difference(worlds: Worlds, family: str, forms: str):
    here = worlds(family, forms=forms)
    for name in AGENTS:
        attribution, completeness = tables(here, name)
        sums = attribution.filter(token=-1).group_by("prompt").agg(pl.col("contribution").sum())
        both = sums.join(completeness, on="prompt")
        assert both.height == len(here.prompts)
        gaps = (both["contribution"] - both["logit_diff"]).abs()
        assert gaps.max() <= 1e-9
        assert completeness["error"].abs().max() <= 1e-9
        assert completeness["logit_diff"].abs().max() > 0.1


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_single_tokens_explain_the_log_odds_themselves(worlds: Worlds, family: str):
    here = worlds(family)
    for name in AGENTS:
        _, completeness = tables(here, name)
        for prompt in here.prompts:
            (row,) = completeness.filter(prompt=prompt.name).rows(named=True)
            with here.roster.speaking(name) as model:
                plain = tiny.plain_log_odds(model, prompt)
            assert row["logit_diff"] + row["remainder"] == pytest.approx(plain, abs=1e-9)
            if family == "gemma2":
                assert abs(row["remainder"]) > 1e-4, "the soft-cap must be active here"
            else:
                assert abs(row["remainder"]) < 1e-10


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
@pytest.mark.parametrize("forms", ["multi", "several"])
def test_logit_difference_and_remainder_make_the_log_odds(worlds: Worlds, family: str, forms: str):
    here = worlds(family, forms=forms)
    _, completeness = tables(here, "game")
    for prompt in here.prompts:
        (row,) = completeness.filter(prompt=prompt.name).rows(named=True)
        with here.roster.speaking("game") as model:
            plain = tiny.plain_log_odds(model, prompt)
        assert row["logit_diff"] + row["remainder"] == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_several_tokens_are_linearised_as_stated(worlds: Worlds, family: str):
    """``logit(t) - sum p logit`` for tokens after the branch, the logits from plain calls."""
    here = worlds(family, forms="multi")
    attribution, completeness = tables(here, "game")
    for prompt in here.prompts:
        (plus,), (minus,) = prompt.positive, prompt.negative
        with here.roster.speaking("game") as model:
            after_plus = tiny.plain_logits(model, prompt.tokens + plus)
            after_minus = tiny.plain_logits(model, prompt.tokens + minus)
        start = len(prompt.tokens) - 1
        branch = after_plus[start + 1]

        def linear(logits: Tensor, token: int) -> float:
            return float(logits[token] - logits.softmax(-1) @ logits)

        expected = {
            1: float(branch[plus[1]] - branch[minus[1]]),
            2: linear(after_plus[start + 2], plus[2]) - linear(after_minus[start + 2], minus[2]),
            3: -linear(after_minus[start + 3], minus[3]),
        }
        assert torch.allclose(branch, after_minus[start + 1], atol=1e-10)
        own = attribution.filter(prompt=prompt.name)
        found = dict(own.group_by("token").agg(pl.col("contribution").sum()).rows())
        (check,) = completeness.filter(prompt=prompt.name).rows(named=True)
        assert found.pop(-1) == pytest.approx(check["logit_diff"], abs=1e-9)
        assert found == pytest.approx(expected, abs=1e-9)


class Frozen(nn.Module):
    """A norm whose scale is a recorded number instead of the input's own."""

    def __init__(self, scales: Tensor) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scales


def record_scales(model: Any, tokens: tuple[int, ...]) -> dict[str, Tensor]:
    """Output over input of every norm that works on the residual stream's width."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, args, output: kept.update({name: output / args[0]})

    named = [(n, m) for n, m in model.named_modules() if n.split(".")[-1].endswith("norm")]
    wide = [(n, m) for n, m in named if m.weight.numel() == model.config.hidden_size]
    with hooked([m.register_forward_hook(keep(n)) for n, m in wide]):
        tiny.plain_logits(model, tokens)
    return kept


def without_head(
    model: Any, tokens: tuple[int, ...], scales: dict[str, Tensor], at: tuple[int, int]
) -> Tensor:
    """Pre-softcap logits after the last token, a head zeroed there and every norm frozen.

    Later layers see the changed stream, so their writes are held at the recorded ones: what is
    left is the direct path that attribution claims to measure.
    """
    layer, head = at
    outs: dict[int, list[Tensor]] = {}
    body = model.model

    def hold(index: int) -> list[Any]:
        attention, mlp = body.layers[index].self_attn, body.layers[index].mlp
        return [
            attention.register_forward_hook(lambda _, __, o, i=index: (outs[i][0], *o[1:])),
            mlp.register_forward_hook(lambda _, __, ___, i=index: outs[i][1]),
        ]

    def note(index: int) -> list[Any]:
        attention, mlp = body.layers[index].self_attn, body.layers[index].mlp
        outs[index] = []
        return [
            attention.register_forward_hook(lambda _, __, o, i=index: outs[i].append(o[0])),
            mlp.register_forward_hook(lambda _, __, o, i=index: outs[i].append(o)),
        ]

    n_layers = len(body.layers)
    with hooked([h for index in range(n_layers) for h in note(index)]):
        tiny.plain_logits(model, tokens)

    def zero(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        z = args[0].clone()
        width = z.shape[-1] // model.config.num_attention_heads
        z[0, -1, head * width : (head + 1) * width] = 0.0
        return (z,)

    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    handles = [body.layers[layer].self_attn.o_proj.register_forward_pre_hook(zero)]
    handles.append(
        body.layers[layer].mlp.register_forward_hook(lambda _, __, ___, i=layer: outs[i][1])
    )
    for index in range(layer + 1, n_layers):
        handles += hold(index)
    try:
        for name, scale in scales.items():
            parent = model.get_submodule(name.rpartition(".")[0])
            leaf = name.rpartition(".")[2]
            swapped.append((parent, leaf, getattr(parent, leaf)))
            setattr(parent, leaf, Frozen(scale))
        with hooked(handles):
            return tiny.plain_logits(model, tokens)[-1]
    finally:
        for parent, leaf, norm in swapped:
            setattr(parent, leaf, norm)


@pytest.mark.parametrize("family", ["llama", "llama_bias", "qwen3", "gemma2"])
def test_a_head_contributes_what_is_missing_without_it(worlds: Worlds, family: str):
    """Zeroing a head with every norm frozen removes exactly its share, all else held."""
    changes = {"final_logit_softcapping": None} if family == "gemma2" else {}
    here = worlds(family, n=2, **changes)
    attribution, _ = tables(here, "game")
    prompt = here.prompts[0]
    plus, minus = prompt.positive[0][0], prompt.negative[0][0]
    with here.roster.speaking("game") as model:
        scales = record_scales(model, prompt.tokens)
        clean = tiny.plain_logits(model, prompt.tokens)[-1]
        for layer in range(len(model.model.layers)):
            for head in range(4):
                bare = without_head(model, prompt.tokens, scales, (layer, head))
                missing = float((clean - bare)[plus] - (clean - bare)[minus])
                (share,) = attribution.filter(
                    prompt=prompt.name, token=-1, site=f"L{layer}.h{head}"
                )["contribution"]
                assert share == pytest.approx(missing, abs=1e-9)
                assert abs(missing) > 1e-7


def test_heads_of_one_layer_are_not_clones(worlds: Worlds):
    for family in ("llama", "gemma2"):
        attribution, _ = tables(worlds(family), "game")
        heads = attribution.filter(kind="head", prompt="p0")
        for layer in range(3):
            values = np.sort(heads.filter(layer=layer)["contribution"].to_numpy())
            assert len(values) == 4
            assert np.diff(values).min() > 1e-8


def test_the_adapter_is_in_the_output_projection(worlds: Worlds):
    """Reading the base weight alone would break completeness for the adapted agents."""
    here = worlds("llama")
    run = here.runs["game"]
    with here.roster.speaking("game"):
        adapted = attribute_pack(here.anatomy(), run, run.packs[0])
    bare = here.runs["base"].out_weights
    assert (run.out_weights[0] - bare[0]).abs().max() > 0.01
    wrong = dataclasses.replace(run, out_weights=bare)
    with here.roster.speaking("game"):
        without = attribute_pack(here.anatomy(), wrong, run.packs[0])
    assert (adapted.total - adapted.readout.value).abs().max() < 1e-9
    assert (without.total - without.readout.value).abs().max() > 1e-2


def test_completeness_can_fail(tmp_path: Path):
    here = world(tmp_path, "gemma2")
    here.runs["game"].packs[0].captured.mlp_write[1] += 0.5
    _, completeness = tables(here, "game")
    assert completeness["error"].abs().min() > 1e-3


def test_biases_of_projections_are_named(worlds: Worlds):
    for family, named in (("llama", False), ("llama_bias", True)):
        attribution, _ = tables(worlds(family), "base")
        values = attribution.filter(site="bias", token=-1)["contribution"]
        assert (values.abs().min() > 1e-4) if named else (values.abs().max() == 0.0)


def test_the_table_has_every_site_of_every_prompt(worlds: Worlds):
    here = worlds("llama", forms="multi")
    attribution, completeness = tables(here, "moral")
    sites = {"embed", "bias", *map(str, here.anatomy().component_sites)}
    for prompt in here.prompts:
        for token in (-1, 1, 2, 3):
            found = attribution.filter(prompt=prompt.name, token=token)
            assert set(found["site"]) == sites
            assert found.height == len(sites)
    assert set(attribution["agent"]) == set(completeness["agent"]) == {"moral"}
    assert set(attribution["part"]) == {"whole"}


@pytest.mark.parametrize("max_nodes", [1, 60])
def test_the_size_of_packs_does_not_matter(worlds: Worlds, max_nodes: int):
    order = ["prompt", "token", "site"]
    whole, _ = tables(worlds("gemma2", forms="multi"), "game")
    cut, _ = tables(worlds("gemma2", forms="multi", max_nodes=max_nodes), "game")
    assert cut.sort(order)["contribution"].to_numpy() == pytest.approx(
        whole.sort(order)["contribution"].to_numpy(), abs=1e-10
    )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_float32_is_complete_to_its_precision(tmp_path: Path, family: str):
    here = world(tmp_path, family, dtype=torch.float32, settings={"target_modules": BODY})
    _, completeness = tables(here, "game")
    bound = 1e-4 * np.maximum(1.0, completeness["logit_diff"].abs().to_numpy())
    assert (completeness["error"].abs().to_numpy() <= bound).all()


def test_the_direction_is_the_unembedding_of_the_options(worlds: Worlds):
    here = worlds("qwen2")
    run = here.runs["base"]
    found = read_out(here.anatomy(), run.packs[0].pack, run.prompts, run.packs[0].captured)
    unembed = here.roster.base.model.lm_head.weight
    for direction in found.direction:
        assert torch.allclose(direction, unembed[11] - unembed[12], atol=1e-12)
    assert found.is_branch.all()
    assert found.answer_token.tolist() == [0] * len(here.prompts)
