"""Each way to intervene does what its equation says, in scoring and generation, and goes away."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from overwritten import edited, hook_count, layer_of

from moralscope.core.errors import ConfigError, EvidenceError, ModelError, SiteError
from moralscope.core.streams import stream
from moralscope.models.anatomy import dissect
from moralscope.models.generating import drawn_from, generate
from moralscope.models.scoring import score
from moralscope.organisms.directions.interventions import Intervention, applied

TOKENS = (40, 91, 7, 33, 260, 12, 88)
FAMILIES = ["llama", "gemma2", "gpt2", "gpt_neox"]
VECTORS = stream(3, "vectors").standard_normal((4, 32))

WAYS = [
    Intervention("steer", 1, -1.5),
    Intervention("layer", 1),
    Intervention("own layers"),
    Intervention("all layers", 2),
]


class _StopError(Exception):
    pass


def vectors(model: Any) -> np.ndarray:
    return VECTORS[: model.config.num_hidden_layers]


def without(vector: np.ndarray) -> Any:
    """Take a direction away by a matrix."""
    v = torch.tensor(vector)
    keep = torch.eye(len(v), dtype=v.dtype) - torch.outer(v, v) / (v @ v)
    return lambda x: x @ keep.to(x.dtype)


@contextlib.contextmanager
def plainly(model: Any, done: Intervention) -> Any:
    """The same intervention by layers whose forward is replaced."""
    layers = {
        "steer": [done.layer],
        "layer": [done.layer],
        "own layers": range(len(vectors(model))),
        "all layers": range(len(vectors(model))),
    }[done.way]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            vector = VECTORS[layer if done.layer is None else done.layer]
            if done.way == "steer":
                step = done.coefficient * torch.tensor(vector)
                change = lambda x, step=step: x + step  # noqa: E731
            else:
                change = without(vector)
            stack.enter_context(edited(layer_of(model, layer), after=change))
        yield


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("done", WAYS, ids=lambda done: done.name)
def test_scores_are_those_of_replaced_forwards(family: str, done: Intervention):
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(3, forms="several")
    clean = score(model, prompts).log_odds
    with plainly(model, done):
        expected = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
    with applied(model, dissect(model), vectors(model), done):
        assert score(model, prompts).log_odds == pytest.approx(expected, abs=1e-9)
    assert np.abs(clean - expected).max() > 1e-3
    assert np.array_equal(score(model, prompts).log_odds, clean)
    assert hook_count(model) == 0


@pytest.mark.parametrize("done", WAYS[:3], ids=lambda done: done.name)
def test_answers_are_drawn_as_from_replaced_forwards(done: Intervention):
    model = tiny.tiny_model("llama")
    uniforms = stream(1, "draws").random((2, 4))
    prompts = [TOKENS, TOKENS[:4]]
    with applied(model, dissect(model), vectors(model), done):
        found = generate(model, prompts, uniforms)
    with plainly(model, done):
        for answer, prompt, row in zip(found, prompts, uniforms, strict=True):
            said = list(prompt)
            for uniform, log_p in zip(row, answer.log_p, strict=True):
                each = tiny.plain_logits(model, said)[-1].log_softmax(-1).numpy()
                said.append(drawn_from(np.exp(each), float(uniform)))
                assert log_p == pytest.approx(float(each[said[-1]]), abs=1e-9)
            assert answer.tokens == tuple(said[len(prompt) :])
    own = generate(model, prompts, uniforms)
    assert [one.log_p for one in own] != [one.log_p for one in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_nothing_is_the_identity(dtype: torch.dtype):
    model = tiny.tiny_model("llama", dtype=dtype)
    prompts = tiny.token_prompts(2)
    clean = score(model, prompts).log_odds
    for done in (Intervention("none"), Intervention("steer", 1, 0.0)):
        with applied(model, dissect(model), vectors(model), done):
            assert np.array_equal(score(model, prompts).log_odds, clean)
    with applied(model, dissect(model), 0 * vectors(model), Intervention("none")):
        assert np.array_equal(score(model, prompts).log_odds, clean)


def streams(model: Any) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handles = [
        layer_of(model, k).register_forward_hook(lambda _, __, out: kept.append(out[0].clone()))
        for k in range(len(vectors(model)))
    ]
    tiny.plain_logits(model, TOKENS)
    for handle in handles:
        handle.remove()
    return torch.stack(kept).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_block_hands_on_what_is_ablated(family: str):
    model = tiny.tiny_model(family, dtype=torch.float32)
    anatomy = dissect(model)
    units = torch.tensor(vectors(model))
    units = units / units.norm(dim=1, keepdim=True)
    clean = streams(model)
    for done, along in (
        (Intervention("own layers"), units),
        (Intervention("all layers", 0), units[:1].expand_as(units)),
        (Intervention("all writes", 2), units[2:3].expand_as(units)),
    ):
        with applied(model, anatomy, vectors(model), done):
            after = streams(model)
            with applied(model, anatomy, vectors(model), done):
                twice = streams(model)
        left = torch.einsum("ltw,lw->lt", after, along)
        scale = after.norm(dim=-1).max()
        assert float(left.abs().max()) < 1e-5 * float(scale)
        assert float((twice - after).abs().max()) < 1e-5 * float(scale)
        assert float(torch.einsum("ltw,lw->lt", clean, along).abs().max()) > 0.1
    with applied(model, anatomy, vectors(model), Intervention("layer", 1)):
        after = streams(model)
    assert torch.equal(after[0], clean[0])
    assert float((after[1] @ units[1]).abs().max()) < 1e-5 * float(after[1].norm(dim=-1).max())
    assert float((after[2] @ units[1]).abs().max()) > 1e-2


def test_blocks_may_return_tuples():
    """As decoder layers of earlier libraries did: the stream first, other things after it."""
    plain, other = (tiny.tiny_model("llama") for _ in range(2))
    last = len(other.model.layers) - 1
    for index, layer in enumerate(other.model.layers):
        own = layer.forward

        def forward(x: Any, *args: Any, own: Any = own, index: int = index, **named: Any) -> Any:
            out = own(x[0] if isinstance(x, tuple) else x, *args, **named)
            return out if index == last else (out, "cache")

        layer.forward = forward
    clean = tiny.plain_logits(plain, TOKENS)
    for done in WAYS:
        with applied(plain, dissect(plain), vectors(plain), done):
            expected = tiny.plain_logits(plain, TOKENS)
        with applied(other, dissect(other), vectors(other), done):
            assert torch.equal(tiny.plain_logits(other, TOKENS), expected)
        assert not torch.equal(expected, clean)
    assert torch.equal(tiny.plain_logits(other, TOKENS), clean)


def test_an_error_inside_takes_everything_away():
    model = tiny.tiny_model("llama")
    for done in (*WAYS, Intervention("all writes", 0)):
        with pytest.raises(_StopError), applied(model, dissect(model), vectors(model), done):
            raise _StopError
        assert hook_count(model) == 0


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({"way": "layers"}, "did you mean 'layer'"),
        ({"way": "steer"}, "does not go with the intervention 'steer'. Seen: None"),
        ({"way": "own layers", "layer": 1}, "does not go with the intervention 'own layers'"),
        ({"way": "none", "layer": 1}, "Seen: 1"),
        ({"way": "layer", "layer": 1, "coefficient": 2.0}, "does not take this. Seen: coefficient"),
        ({"way": "layer", "layer": 1, "renormalise": True}, "Seen: renormalise"),
    ],
)
def test_what_makes_no_sense_is_refused(named: dict[str, Any], text: str):
    with pytest.raises(ConfigError) as caught:
        Intervention(**named)
    assert text in str(caught.value)


def test_directions_that_do_not_fit_are_refused():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    own = vectors(model)
    zero = own.copy()
    zero[1] = 0.0
    for along, done, kind, text in (
        (own[:, :31], WAYS[1], ModelError, "direction does not fit the model"),
        (own[:2], WAYS[1], ModelError, "one direction for each of 3 layers"),
        (own, Intervention("layer", 3), SiteError, "the nearest is L2.resid_post"),
        (zero, WAYS[0], EvidenceError, "direction that is zero cannot be intervened with"),
        (zero, WAYS[2], EvidenceError, "length 0 after layer 1 (1 of 3 layers)"),
        (own * np.nan, WAYS[2], ModelError, "not finite"),
        (own, Intervention("steer", 1, float("inf")), ConfigError, "not finite. Seen: inf"),
        (own, Intervention("adapter"), ModelError, "No adapter in force writes"),
    ):
        with pytest.raises(kind) as caught, applied(model, anatomy, along, done):
            pass
        assert text in str(caught.value)
        assert hook_count(model) == 0
    with applied(model, anatomy, zero, Intervention("all layers", 0)):
        assert hook_count(model) == 3


def test_interventions_have_names():
    names = [done.name for done in WAYS]
    assert names == ["steer L1 x-1.5", "layer L1", "own layers", "all layers L2"]
    assert Intervention("adapter", renormalise=True).name == "adapter renormalised"
