"""Attention weights at the decision against plain calls that return them, on every family."""

import dataclasses

import numpy as np
import plain_attention
import pytest
import tiny
import torch
from families import FAMILIES, WINDOW
from torch import nn
from worlds import Worlds

from moralscope.core.errors import AgentError, ModelError
from moralscope.games import CATEGORIES, structured
from moralscope.mechanisms.attention.categories import categories_of
from moralscope.mechanisms.attention.edits import OWN, Edit, run_edits
from moralscope.mechanisms.attention.weights import attention_module, attention_weights
from moralscope.mechanisms.clean import run_clean
from moralscope.models.anatomy import dissect
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_a_plain_call(worlds: Worlds, family: str):
    """Un-merged adapters, grouped heads, soft-caps, windows: as the model has them."""
    here = worlds(family, n=3, forms="several")
    for agent in ("base", "moral"):
        with here.roster.speaking(agent) as model:
            kernel = model.config._attn_implementation
            found = attention_weights(model, here.roster.anatomy(agent), here.runs[agent])
            assert model.config._attn_implementation == kernel
            for prompt, weights in zip(here.prompts, found, strict=True):
                expected = plain_attention.last_weights(model, prompt.tokens)
                assert weights == pytest.approx(expected, abs=1e-10)
                assert weights.sum(-1) == pytest.approx(np.ones(weights.shape[:2]), abs=1e-12)


def test_a_window_hides_what_lies_before_it(worlds: Worlds):
    here = worlds("gemma2", n=3, forms="several")
    with here.roster.speaking("base") as model:
        found = attention_weights(model, here.anatomy(), here.runs["base"])[0]
        kinds = model.config.layer_types
    assert found.shape[-1] > WINDOW
    for layer, kind in enumerate(kinds):
        hidden = found[layer, :, : found.shape[-1] - WINDOW]
        assert (hidden == 0.0).all() if kind == "sliding_attention" else (hidden > 0.0).all()
    assert set(kinds) == {"sliding_attention", "full_attention"}


def test_agents_differ_and_packs_do_not_matter(worlds: Worlds):
    here, other = worlds(n=5), worlds(n=5, max_nodes=30)
    assert len(other.runs["moral"].packs) > len(here.runs["moral"].packs)
    found = {}
    for name, place in (("one", here), ("many", other)):
        with place.roster.speaking("moral") as model:
            anatomy = place.roster.anatomy("moral")
            found[name] = attention_weights(model, anatomy, place.runs["moral"])
    with here.roster.speaking("base") as model:
        base = attention_weights(model, here.anatomy(), here.runs["base"])
    for one, many, theirs in zip(found["one"], found["many"], base, strict=True):
        assert one == pytest.approx(many, abs=1e-12)
        assert np.abs(one - theirs).max() > 1e-3


def test_prompts_that_share_their_text_share_their_weights():
    """Two questions about one text differ in their options alone."""
    prompts = tiny.token_prompts(2)
    asked = (*prompts, dataclasses.replace(prompts[0], name="again", positive=((40,),)))
    model = tiny.tiny_model()
    run = run_clean("base", model, dissect(model), asked)
    found = attention_weights(model, dissect(model), run)
    assert (found[0] == found[2]).all()
    assert found[0].shape != found[1].shape or not np.allclose(found[0], found[1])


def test_half_precision_sums_to_one(worlds: Worlds):
    here = worlds("qwen2", n=2, dtype=torch.bfloat16)
    with here.roster.speaking("moral") as model:
        found = attention_weights(model, here.roster.anatomy("moral"), here.runs["moral"])
    for weights in found:
        assert weights.sum(-1) == pytest.approx(np.ones(weights.shape[:2]), abs=1e-12)


def test_the_clean_run_must_have_kept_keys_and_values(worlds: Worlds):
    here = worlds(n=2)
    with here.roster.speaking("base") as model:
        anatomy = here.anatomy()
        run = run_clean("base", model, anatomy, here.prompts, keep_cache=False)
        with pytest.raises(AgentError, match="needs the keys and values of the clean run"):
            attention_weights(model, anatomy, run)


def test_attention_that_hides_its_weights_is_refused(worlds: Worlds):
    here = worlds(n=2)

    def hide(_: nn.Module, __: object, output: object) -> object:
        assert isinstance(output, tuple)
        return (output[0], None)

    with here.roster.speaking("base") as model:
        anatomy = here.anatomy()
        handle = attention_module(anatomy.blocks[1]).register_forward_hook(hide)
        try:
            with pytest.raises(ModelError, match="does not give its attention weights away") as e:
                attention_weights(model, anatomy, here.runs["base"])
        finally:
            handle.remove()
    assert e.value.seen == "LlamaAttention"


@pytest.mark.slow
def test_the_real_model_looks_and_reacts_as_plain_calls_say(real_base: LoadedModel):
    """Prompts in words, in single precision: weights, categories and a masked category."""
    asked = tuple(structured())[:2]
    model, anatomy = real_base.model, dissect(real_base.model)
    encoded = encode_all(real_base.tokenizer, asked)
    run = run_clean("base", model, anatomy, encoded)
    for prompt, weights in zip(encoded, attention_weights(model, anatomy, run), strict=True):
        expected = plain_attention.last_weights(model, prompt.tokens)
        assert weights == pytest.approx(expected, abs=1e-5)
    categories = categories_of(encoded[1])
    assert set(categories) == {"first", "rest", *CATEGORIES}
    masks = [Edit(name, 0.0, OWN, categories[name]) for name in CATEGORIES]
    baseline, found = run_edits(model, anatomy, run, member=1, edits=masks)
    for mask, value in zip(masks, found, strict=True):
        expected = plain_attention.edited_log_odds(model, encoded[1], mask.tokens, 0.0)
        assert value == pytest.approx(expected, abs=5e-4)
        assert abs(value - baseline) > 1e-3
