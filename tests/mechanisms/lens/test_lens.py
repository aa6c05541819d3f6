"""The logit lens: the model's own answer at the end, a truncated model in the middle."""

import numpy as np
import polars as pl
import pytest
import tiny
import torch
from plain_lens import final_norm, plain_lens
from torch import nn
from worlds import World, Worlds

from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.lens.reading import lens_table, read_depths
from moralscope.models.anatomy import dissect


def lens(here: World, name: str) -> pl.DataFrame:
    with here.roster.speaking(name):
        return lens_table(here.roster.anatomy(name), here.runs[name])


def at(frame: pl.DataFrame, prompt: str, layer: int, sublayer: str) -> float:
    rows = frame.filter("is_branch", prompt=prompt, layer=layer, sublayer=sublayer)
    (value,) = rows["logit_diff"]
    return float(value)


def uncapped(model: nn.Module, tokens: tuple[int, ...]) -> torch.Tensor:
    """Logits after the last token as they are before any soft-cap."""
    logits = tiny.plain_logits(model, tokens)[-1]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.atanh(logits / cap)


@pytest.mark.parametrize("family", ["llama_bias", "qwen2", "gemma2"])
def test_the_last_depth_is_the_logit_difference_before_soft_capping(worlds: Worlds, family: str):
    here = worlds(family)
    for name in ("base", "game"):
        frame = lens(here, name)
        last = here.anatomy().n_layers - 1
        for prompt in here.prompts:
            with here.roster.speaking(name) as model:
                logits = uncapped(model, prompt.tokens)
            direct = float(logits[prompt.positive[0][0]] - logits[prompt.negative[0][0]])
            assert at(frame, prompt.name, last, "mlp") == pytest.approx(direct, abs=1e-8)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2_window", "qwen3", "gemma2"])
def test_a_middle_depth_is_a_model_that_ends_there(worlds: Worlds, family: str):
    here = worlds(family)
    frame = lens(here, "game")
    with here.roster.speaking("game") as model:
        for prompt in here.prompts:
            plus, minus = prompt.positive[0][0], prompt.negative[0][0]
            for layer in range(len(model.model.layers)):
                for sublayer in ("attn", "mlp"):
                    logits = truncated(model, prompt.tokens, layer, sublayer)
                    assert at(frame, prompt.name, layer, sublayer) == pytest.approx(
                        float(logits[plus] - logits[minus]), abs=1e-8
                    )
            with torch.no_grad(), tiny.never_narrowed():
                entered = embedded(model, prompt.tokens)
                logits = model.model.norm(entered[-1]) @ model.lm_head.weight.T
            assert at(frame, prompt.name, -1, "embed") == pytest.approx(
                float(logits[plus] - logits[minus]), abs=1e-8
            )


def embedded(model: nn.Module, tokens: tuple[int, ...]) -> torch.Tensor:
    """What enters the first layer; Gemma scales its embeddings."""
    found = model.model.embed_tokens(torch.tensor(tokens))
    scale = model.config.hidden_size**0.5
    already = getattr(model.model.embed_tokens, "embed_scale", None)
    return found * scale if model.config.model_type == "gemma2" and already is None else found


@torch.no_grad()
def truncated(model: nn.Module, tokens: tuple[int, ...], layer: int, sublayer: str) -> torch.Tensor:
    """Pre-softcap logits of the model with every later sub-layer removed."""
    whole = model.model.layers
    last = whole[layer]
    handles = []
    if sublayer == "attn":
        # The MLP's write, after a post-norm where there is one, becomes nothing.
        final = getattr(last, "post_feedforward_layernorm", last.mlp)
        handles.append(final.register_forward_hook(lambda _, __, output: output * 0.0))
    depth = model.config.num_hidden_layers
    model.model.layers = whole[: layer + 1]
    model.config.num_hidden_layers = layer + 1
    try:
        return uncapped(model, tokens)
    finally:
        model.model.layers = whole
        model.config.num_hidden_layers = depth
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_depth_equals_a_lens_of_plain_hooks(family: str):
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(3)
    anatomy = dissect(model)
    frame = lens_table(anatomy, run_clean("base", model, anatomy, prompts))
    assert frame["token"].unique().to_list() == [0]
    for prompt in prompts:
        logits = plain_lens(model, prompt.tokens)
        expected = logits[:, prompt.positive[0][0]] - logits[:, prompt.negative[0][0]]
        found = frame.filter("is_branch", prompt=prompt.name)["logit_diff"].to_numpy()
        assert np.abs(found - expected.numpy()).max() < 1e-9
        assert np.abs(np.diff(found)).min() > 1e-4, "each sub-layer must write something"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_half_precision_weights_are_read_without_rounding_the_reading(family: str):
    model = tiny.tiny_model(family, dtype=torch.bfloat16)
    anatomy = dissect(model)
    prompts = tiny.token_prompts(2)
    run = run_clean("base", model, anatomy, prompts)
    (part,) = run.packs
    found = read_depths(anatomy, run, part)
    wide = tiny.tiny_model(family, dtype=torch.bfloat16).double()
    with torch.no_grad(), tiny.never_narrowed():
        entered = part.captured.resid_final[found.readout.row].double()
        logits = wide.lm_head(final_norm(wide)(entered))
    assert found.normed.dtype == torch.float32
    assert (found.values[-1] - (logits[:, 11] - logits[:, 12])).abs().max() < 1e-4


def test_several_tokens_are_read_where_the_options_part(worlds: Worlds):
    here = worlds("llama", forms="multi")
    frame = lens(here, "game")
    for prompt in here.prompts:
        with here.roster.speaking("game") as model:
            logits = tiny.plain_logits(model, (*prompt.tokens, 20))[-1]
        assert at(frame, prompt.name, 2, "mlp") == pytest.approx(
            float(logits[21] - logits[24]), abs=1e-10
        )


def test_tokens_after_the_branch_are_read_along_their_log_probability(worlds: Worlds):
    """At a middle depth, too, along the direction that the final distribution gives."""
    here = worlds("llama", forms="multi")
    frame = lens(here, "game")
    prompt = here.prompts[1]
    tokens = frame.filter(prompt=prompt.name)
    assert tokens.select("token", "is_branch").unique(maintain_order=True).rows() == [
        (1, True), (2, False), (3, False),
    ]  # fmt: skip

    def linearised(model: nn.Module, form: tuple[int, ...], step: int) -> np.ndarray:
        by_depth = plain_lens(model, (*prompt.tokens, *form[:step]))
        mean = by_depth @ by_depth[-1].softmax(-1)
        return (by_depth[:, form[step]] - mean).numpy()

    with here.roster.speaking("game") as model:
        plus, minus = prompt.positive[0], prompt.negative[0]
        expected = {
            2: linearised(model, plus, 2) - linearised(model, minus, 2),
            3: -linearised(model, minus, 3),
        }
    for token, curve in expected.items():
        found = tokens.filter(token=token)["logit_diff"].to_numpy()
        assert np.abs(found - curve).max() < 1e-10
        assert np.abs(curve).min() > 1e-3


@pytest.mark.parametrize("forms", ["single", "multi", "several"])
def test_the_last_depth_is_the_sum_of_the_attribution(worlds: Worlds, forms: str):
    here = worlds("gemma2", forms=forms)
    with here.roster.speaking("moral"):
        attribution, _ = attribution_tables(here.roster.anatomy("moral"), here.runs["moral"])
    last = lens(here, "moral").filter(layer=3, sublayer="mlp")
    total = last.group_by("prompt").agg(pl.col("logit_diff").sum())
    whole = attribution.filter(token=-1).group_by("prompt").agg(pl.col("contribution").sum())
    both = total.join(whole, on="prompt")
    assert both.height == len(here.prompts)
    assert (both["logit_diff"] - both["contribution"]).abs().max() < 1e-9


def test_the_table_holds_each_depth_of_each_prompt_once(worlds: Worlds):
    here = worlds("gemma2", max_nodes=60)
    frame = lens(here, "moral")
    depths = [(-1, "embed")] + [(layer, s) for layer in range(4) for s in ("attn", "mlp")]
    for prompt in here.prompts:
        found = frame.filter(prompt=prompt.name)
        assert list(zip(found["layer"], found["sublayer"], strict=True)) == depths
    assert set(frame["agent"]) == {"moral"}
    assert frame["logit_diff"].n_unique() > frame.height * 0.8


def test_depths_have_one_column_for_each_entry(worlds: Worlds):
    here = worlds("llama", forms="several")
    run = here.runs["base"]
    found = read_depths(here.anatomy(), run, run.packs[0])
    assert found.values.shape == (7, len(here.prompts))
    assert found.normed.shape == (7, len(here.prompts), 32)
    assert found.readout.is_branch.all()
