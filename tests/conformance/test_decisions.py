"""On every family: lens, attribution and gradients of the decision."""

import numpy as np
import polars as pl
import pytest
import tiny
import torch
from families import FAMILIES, named
from hooked import hooked, layers_of, out_matrices, record
from torch import Tensor, nn
from worlds import World, Worlds

from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.models.scoring import make_packs, option_log_probabilities

BOUNDS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 6e-2}
"""Largest error of completeness, as a share of the logit difference or of one nat. In bfloat16 the
residual stream itself is rounded to eight bits at every sub-layer."""


def tables(here: World, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    with here.roster.speaking(name):
        return attribution_tables(here.roster.anatomy(name), here.runs[name])


@pytest.mark.parametrize("dtype", BOUNDS, ids=["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_is_complete(worlds: Worlds, family: str, dtype: torch.dtype):
    here = worlds(family, forms="multi", n=3, dtype=dtype)
    for name in ("base", "game"):
        attribution, completeness = tables(here, name)
        difference = completeness["logit_diff"].to_numpy()
        bound = BOUNDS[dtype] * np.maximum(1.0, np.abs(difference))
        assert (np.abs(completeness["error"].to_numpy()) <= bound).all()
        assert np.abs(difference).max() > 0.1
        parts = attribution.filter(token=-1)["contribution"]
        assert parts.abs().median() > 1e-3, "parts must be there to be summed"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_ends_at_the_logit_difference(worlds: Worlds, family: str):
    here = worlds(family, n=3)
    with here.roster.speaking("game") as model:
        lens = lens_table(here.anatomy(), here.runs["game"])
        for prompt in here.prompts:
            (plus,), (minus,) = prompt.positive[0], prompt.negative[0]
            logits = tiny.plain_logits(model, prompt.tokens)[-1]
            cap = getattr(model.config, "final_logit_softcapping", None)
            logits = logits if cap is None else cap * torch.atanh(logits / cap)
            own = lens.filter(prompt=prompt.name)
            depths = own["logit_diff"].to_list()
            assert len(depths) == 1 + 2 * here.anatomy().n_layers
            assert depths[-1] == pytest.approx(float(logits[plus] - logits[minus]), abs=1e-9)
            assert len({round(value, 6) for value in depths}) == len(depths)


def frozen(norm: nn.Module, x: Tensor, y: Tensor, part: Tensor) -> Tensor:
    """What a norm makes of a part of its input ``x``, its scale as it was when it gave ``y``."""
    if not isinstance(norm, nn.LayerNorm):
        return part * (y / x)
    return (part - part.mean()) * ((y - norm.bias) / (x - x.mean()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_contributes_what_its_write_becomes_under_frozen_norms(worlds: Worlds, family: str):
    """Its activation through the projection, a post-norm and the final norm, all recorded."""
    here = worlds(family, n=2)
    attribution, _ = tables(here, "game")
    prompt = here.prompts[1]
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def note(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        seen[module] = (args[0][0, -1], output[0, -1])

    with here.roster.speaking("game") as model, torch.no_grad():
        names = named(model)
        final = model.get_submodule(names.body).get_submodule(names.final_norm)
        after = [
            None if names.post_norm is None else layer.get_submodule(names.post_norm)
            for layer in layers_of(model)
        ]
        norms = [final, *(norm for norm in after if norm is not None)]
        with hooked([norm.register_forward_hook(note) for norm in norms]):
            recording = record(model, prompt.tokens)
        matrices = out_matrices(model, recording)
        rows = model.get_output_embeddings().weight
        towards = rows[prompt.positive[0][0]] - rows[prompt.negative[0][0]]
        shares: list[float] = []
        for layer, norm in enumerate(after):
            z = recording[layer, "z"][-1]
            for columns in torch.arange(len(z)).view(model.config.num_attention_heads, -1):
                write = matrices[layer][:, columns] @ z[columns]
                write = write if norm is None else frozen(norm, *seen[norm], write)
                shares.append(float(towards @ frozen(final, *seen[final], write)))
    found = attribution.filter(prompt=prompt.name, token=-1, kind="head")["contribution"]
    assert found.to_list() == pytest.approx(shares, abs=1e-9)
    gaps = np.abs(np.subtract.outer(shares, shares)) + np.eye(len(shares))
    assert gaps.min() > 1e-8, "no two heads are alike"


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_tree_are_finite_differences_of_single_runs(family: str):
    """A direction through all weights at once, against plain calls, in float64."""
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(2, forms="multi", length=20)
    (pack,) = make_packs(prompts)
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(7)
    towards = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in parameters.items()
    }
    model.requires_grad_(True)
    log_p = option_log_probabilities(model, pack)
    (log_p[:, 0] - log_p[:, 1]).sum().backward()
    slope = sum(float((p.grad * towards[n]).sum()) for n, p in parameters.items())
    model.requires_grad_(False)
    start = {name: p.clone() for name, p in parameters.items()}

    def value(step: float) -> float:
        for name, p in parameters.items():
            p.copy_(start[name] + step * towards[name])
        return sum(tiny.plain_log_odds(model, prompt) for prompt in prompts)

    def central(h: float) -> float:
        return (value(h) - value(-h)) / (2 * h)

    h = 1e-4
    expected = (4 * central(h / 2) - central(h)) / 3
    assert abs(expected) > 1e-2
    assert slope == pytest.approx(expected, rel=1e-6)
