"""Sizes and shares of writes against plain forwards that share no code with the package."""

from __future__ import annotations

from typing import Any

import hooked
import numpy as np
import polars as pl
import pytest
import tiny
import torch
from worlds import World, Worlds

from moralscope.core.site import Site
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.interactions.writes import Writes, writes_of, writes_tables
from moralscope.models.rendering import EncodedPrompt

FAMILIES = ("llama_bias", "gemma2", "gpt2")
MLP_ADDED = {"gemma2": "post_feedforward_layernorm"}
Seen = dict[Site, torch.Tensor]


def measured(here: World, name: str) -> Writes:
    with here.roster.speaking(name):
        return writes_of(here.roster.anatomy(name), here.runs[name])


def recorded(model: Any, family: str, prompt: EncodedPrompt) -> Seen:
    """What is added at the last prompt token in an ordinary forward, heads one by one."""
    seen: Seen = {}
    inputs: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}

    def keep(site: Site) -> Any:
        return lambda _, __, output: seen.update({site: output[0, -1].clone()})

    def keep_heads(layer: int) -> Any:
        def hook(_: object, args: Any, output: torch.Tensor) -> None:
            inputs[layer], outputs[layer] = args[0][0, -1].clone(), output[0, -1].clone()

        return hook

    layers = list(hooked.layers_of(model))
    handles: list[Any] = []
    for layer, block in enumerate(layers):
        mlp = block.get_submodule(MLP_ADDED.get(family, "mlp"))
        handles += [
            hooked.out_proj(model, layer).register_forward_hook(keep_heads(layer)),
            hooked.added(model, layer).register_forward_hook(keep(Site("attn", layer))),
            mlp.register_forward_hook(keep(Site("mlp", layer))),
        ]
    with hooked.hooked(handles):
        tiny.plain_logits(model, prompt.tokens)
    heads = model.config.num_attention_heads
    for layer in range(len(layers)):
        project, z = hooked.out_proj(model, layer), inputs[layer]
        nothing = project(torch.zeros_like(z)[None])[0]
        # A norm without a mean multiplies each entry; its factor is what it did to the whole.
        factor = seen[Site("attn", layer)] / outputs[layer]
        for head, alone in enumerate(torch.eye(heads, dtype=z.dtype)):
            masked = z * alone.repeat_interleave(len(z) // heads)
            seen[Site("head", layer, head)] = (project(masked[None])[0] - nothing) * factor
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_what_is_added_in_a_plain_forward(worlds: Worlds, family: str):
    here = worlds(family)
    found = measured(here, "moral")
    for row, prompt in enumerate(here.prompts):
        with here.roster.speaking("moral") as model, torch.no_grad():
            seen = recorded(model, family, prompt)
        assert set(seen) == set(found.sites)
        expected = [float(seen[site].norm()) for site in found.sites]
        assert found.norms[row] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("forms", ["single", "multi"])
@pytest.mark.parametrize("family", ["llama_bias", "gemma2"])
def test_sub_layers_and_embedding_push_as_much_as_the_logits_differ(
    worlds: Worlds, family: str, forms: str
):
    """Biases of attention included; the families have no bias behind the last layer."""
    here = worlds(family, forms=forms)
    found = measured(here, "game")
    with here.roster.speaking("game"):
        anatomy = here.roster.anatomy("game")
        attribution, completeness = attribution_tables(anatomy, here.runs["game"])
    whole = [i for i, site in enumerate(found.sites) if site.kind != "head"]
    for row, prompt in enumerate(here.prompts):
        branch = next(
            i for i, (a, b) in enumerate(zip(prompt.positive[0], prompt.negative[0], strict=False))
            if a != b
        )  # fmt: skip
        own = attribution.filter(prompt=prompt.name, site="embed")
        tokens = own["token"].to_list()
        at = branch if branch in tokens else -1
        total = own.filter(token=at)["contribution"].item() + found.projections[row, whole].sum()
        if forms == "single":
            expected = completeness.filter(prompt=prompt.name)["logit_diff"].item()
        elif family == "gemma2":
            continue  # its logits are capped; the exact difference is checked above
        else:
            shared = prompt.positive[0][:branch]
            with here.roster.speaking("game") as model:
                logits = tiny.plain_logits(model, [*prompt.tokens, *shared])[-1]
            expected = float(
                logits[prompt.positive[0][branch]] - logits[prompt.negative[0][branch]]
            )
        assert total == pytest.approx(expected, abs=1e-9)


def test_heads_and_mlps_push_as_they_are_attributed(worlds: Worlds):
    here = worlds("gemma2")
    found = measured(here, "moral")
    with here.roster.speaking("moral"):
        attribution, _ = attribution_tables(here.roster.anatomy("moral"), here.runs["moral"])
    _, projections = writes_tables(found)
    both = projections.join(attribution.filter(token=-1), on=["agent", "prompt", "site"])
    assert both.height == len(here.prompts) * sum(s.kind != "attn" for s in found.sites)
    assert (both["projection"] - both["contribution"]).abs().max() == 0.0
    # Without biases in attention its heads are all of it.
    sums = (
        projections.filter(pl.col("site").str.starts_with("L1.h"))
        .group_by("prompt").agg(pl.col("projection").sum())
        .join(projections.filter(site="L1.attn"), on="prompt")
    )  # fmt: skip
    assert (sums["projection"] - sums["projection_right"]).abs().max() < 1e-12


def test_packs_do_not_matter_and_no_cache_is_needed(worlds: Worlds):
    here = worlds("llama_bias")
    whole = measured(here, "moral")
    with here.roster.speaking("moral") as model:
        anatomy = here.roster.anatomy("moral")
        run = run_clean("moral", model, anatomy, here.prompts, max_nodes=40, keep_cache=False)
        packed = writes_of(anatomy, run)
    assert len(run.packs) > 1
    assert np.allclose(packed.norms, whole.norms, rtol=1e-9, atol=0.0)
    assert np.allclose(packed.projections, whole.projections, rtol=0.0, atol=1e-9)


def test_rows_say_whose_and_where(worlds: Worlds):
    found = measured(worlds("llama_bias"), "game")
    norms, projections = writes_tables(found)
    assert norms.height == projections.height == len(found.prompts) * len(found.sites)
    at = (2, found.sites.index(Site("mlp", 1)))
    (row,) = norms.filter(prompt=found.prompts[2], site="L1.mlp").rows(named=True)
    assert row == {
        "agent": "game", "prompt": found.prompts[2], "site": "L1.mlp", "norm": found.norms[at],
    }  # fmt: skip
    (row,) = projections.filter(prompt=found.prompts[2], site="L1.mlp").rows(named=True)
    assert row["projection"] == found.projections[at]
