"""Directions are added and taken away as their equations say, and nothing is left behind."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from overwritten import edited, final, hook_count, layer_of

from moralscope.core.errors import AgentError, ConfigError, ModelError, SiteError
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.intervening.ablation import ablate
from moralscope.mechanisms.intervening.steering import (
    direction_between,
    orthonormal,
    project_out,
    steer,
)
from moralscope.mechanisms.intervening.values import SiteValues
from moralscope.models.anatomy import dissect
from moralscope.models.capture import Capture, capture
from moralscope.models.scoring import make_packs, option_log_probabilities, score

TOKENS = [40, 91, 7, 33, 260, 12, 88]


def drawn(*shape: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def logits(model: Any) -> torch.Tensor:
    return tiny.plain_logits(model, TOKENS)


def seen(model: Any) -> Capture:
    pack = make_packs(tiny.token_prompts(2))[0]
    return capture(model, dissect(model), pack.tree, pack.keep)


def streams(model: Any) -> list[torch.Tensor]:
    """The streams between the layers of a plain forward, the last before its norm."""
    found: list[torch.Tensor] = []
    layers = [layer_of(model, index) for index in range(model.config.num_hidden_layers)]
    handles = [
        layer.register_forward_hook(lambda _, __, output: found.append(output.clone()))
        for layer in layers
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    return [one[0] for one in found]


class _StopError(Exception):
    pass


def _stop(_: torch.Tensor) -> torch.Tensor:
    raise _StopError


# --- adding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_direction_is_added_after_a_layer(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    d, last = drawn(32), anatomy.n_layers - 1
    own = streams(model)[last]
    with steer(model, anatomy, d, layer=last, coefficient=-1.5):
        found = logits(model)
    assert torch.allclose(found, final(model, own - 1.5 * d), atol=1e-11, rtol=0)
    with edited(layer_of(model, 0), after=lambda x: x + 0.7 * d):
        expected = logits(model)
    with steer(model, anatomy, d, layer=0, coefficient=0.7):
        assert torch.allclose(logits(model), expected, atol=1e-11, rtol=0)
    with steer(model, anatomy, d[None], layer=1, coefficient=0.7, at="resid_pre"):
        assert torch.allclose(logits(model), expected, atol=1e-11, rtol=0)
    assert (expected - logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_direction_is_added_before_the_first_layer_and_between_its_halves(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    d, clean = drawn(32), seen(model)
    with steer(model, anatomy, d, layer=0, coefficient=2.0, at="resid_pre"):
        moved = seen(model)
    assert torch.allclose(moved.resid_pre[0], clean.resid_pre[0] + 2 * d, atol=1e-12, rtol=0)
    assert (moved.attn_out[0] - clean.attn_out[0]).abs().max() > 1e-3
    if anatomy.parallel:
        with (
            pytest.raises(SiteError, match="the nearest is L1.resid_post"),
            steer(model, anatomy, d, layer=1, coefficient=1.0, at="resid_mid"),
        ):
            raise _StopError
        return
    with steer(model, anatomy, d, layer=1, coefficient=2.0, at="resid_mid"):
        moved = seen(model)
    assert torch.equal(moved.resid_pre[1], clean.resid_pre[1])
    assert torch.allclose(moved.resid_mid[1], clean.resid_mid[1] + 2 * d, atol=1e-12, rtol=0)
    assert (moved.mlp_out[1] - clean.mlp_out[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_steering_by_nothing_changes_nothing(family: str, dtype: torch.dtype):
    model = tiny.tiny_model(family, dtype=dtype)
    anatomy = dissect(model)
    prompts = tiny.token_prompts(2)
    before = score(model, prompts).log_odds
    with steer(model, anatomy, drawn(32), layer=1, coefficient=0.0):
        assert hook_count(model) == 1
        assert np.array_equal(score(model, prompts).log_odds, before)
    with steer(model, anatomy, drawn(32), layer=1, coefficient=3.0):
        assert not np.array_equal(score(model, prompts).log_odds, before)


@settings(max_examples=12, deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.integers(0, 2),
    st.sampled_from(["resid_pre", "resid_mid", "resid_post"]),
)
def test_nested_steering_adds_up(one: float, two: float, layer: int, at: Any):
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    a, b = drawn(2, 32)
    with (
        steer(model, anatomy, a, layer=layer, coefficient=one, at=at),
        steer(model, anatomy, b, layer=layer, coefficient=two, at=at),
    ):
        nested = logits(model)
    with steer(model, anatomy, one * a + two * b, layer=layer, coefficient=1.0, at=at):
        assert torch.allclose(logits(model), nested, atol=1e-9, rtol=0)
    assert hook_count(model) == 0


def test_at_one_place_blocks_act_in_the_order_they_were_entered():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    d, value = drawn(2, 32)
    (site,) = (site for site in anatomy.sites("resid_post") if site.layer == 2)
    put = SiteValues({site: value}, "drawn")

    def set_stream() -> Any:
        return ablate(model, anatomy, site, how="mean", values=put)

    def add() -> Any:
        return steer(model, anatomy, d, layer=2, coefficient=1.0)

    with set_stream(), add():
        assert torch.allclose(logits(model)[0], final(model, value + d), atol=1e-12, rtol=0)
    with add(), set_stream():
        assert torch.allclose(logits(model)[0], final(model, value), atol=1e-12, rtol=0)


@pytest.mark.parametrize("positions", ["last", [6]])
def test_some_positions_are_steered(positions: Any):
    model = tiny.tiny_model("llama")
    d = drawn(32)
    with steer(model, dissect(model), d, layer=1, coefficient=1.0, positions=positions):
        found = logits(model)
    own = logits(model)
    assert torch.equal(found[:-1], own[:-1])
    assert (found[-1] - own[-1]).abs().max() > 1e-3


def test_generation_is_steered():
    model = tiny.tiny_model("llama")
    d = 4 * drawn(32)

    def generated() -> list[int]:
        ids = torch.tensor([TOKENS])
        named = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
        return model.generate(ids, attention_mask=torch.ones_like(ids), **named)[0].tolist()

    expected = list(TOKENS)
    with edited(layer_of(model, 1), after=lambda x: x + d):
        for _ in range(6):
            expected.append(int(tiny.plain_logits(model, expected)[-1].argmax()))
    with steer(model, dissect(model), d, layer=1, coefficient=1.0):
        assert generated() == expected
    assert generated() != expected


def test_gradients_reach_the_direction():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    pack = make_packs(tiny.token_prompts(2))[0]
    d = drawn(32).requires_grad_()

    def total(direction: torch.Tensor) -> torch.Tensor:
        with steer(model, anatomy, direction, layer=0, coefficient=1.0):
            return option_log_probabilities(model, pack)[:, 0].sum()

    (gradient,) = torch.autograd.grad(total(d), d)
    along, step = drawn(32, seed=9), 1e-5
    with torch.no_grad():
        measured = (total(d + step * along) - total(d - step * along)) / (2 * step)
    assert float(measured) == pytest.approx(float(gradient @ along), rel=1e-6)


# --- taking away --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_layer_reads_what_was_projected_out(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    directions = drawn(2, 32)
    with project_out(model, anatomy, directions):
        after = seen(model)
        plain = streams(model)
    clean = seen(model)
    read = [*after.resid_pre, after.resid_final, *plain]
    read += [] if anatomy.parallel else [*after.resid_mid]
    for stream in read:
        assert (stream @ directions.T).abs().max() < 1e-10
        assert stream.abs().max() > 0.1
    assert (clean.resid_pre @ directions.T).abs().max() > 0.1
    # What is orthogonal to the directions stays: the embedding's other components.
    basis, _ = torch.linalg.qr(directions.T)
    rest = clean.resid_pre[0] - clean.resid_pre[0] @ basis @ basis.T
    assert torch.allclose(after.resid_pre[0], rest, atol=1e-12, rtol=0)


def test_projecting_out_is_what_orthogonal_weights_do():
    """Arditi et al. (2024): the same as taking the direction out of every matrix that writes."""
    model, other = (tiny.tiny_model("llama", tie_word_embeddings=False) for _ in range(2))
    d = drawn(32)
    keep = torch.eye(32, dtype=torch.float64) - torch.outer(d, d) / (d @ d)
    with torch.no_grad():
        other.model.embed_tokens.weight.copy_(other.model.embed_tokens.weight @ keep)
        for layer in other.model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.copy_(keep @ linear.weight)
    with project_out(model, dissect(model), d):
        assert torch.allclose(logits(model), logits(other), atol=1e-10, rtol=0)
    assert (logits(model) - logits(other)).abs().max() > 1e-2


def test_layers_that_are_not_chosen_write_it_back():
    model = tiny.tiny_model("gemma2")
    d = drawn(32)
    with project_out(model, dissect(model), d, layers=[1, 1]):
        after = seen(model)
    along = [float((stream @ d).abs().max()) for stream in (*after.resid_pre, after.resid_final)]
    assert along[1] < 1e-12
    assert along[2] < 1e-12
    assert float((after.resid_mid[1] @ d).abs().max()) < 1e-12
    assert min(along[0], along[3], along[4]) > 1e-3


def test_projecting_twice_is_projecting_once_and_dependent_directions_add_nothing():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    a, b = drawn(2, 32)
    with project_out(model, anatomy, torch.stack([a, b])):
        once = logits(model)
    with project_out(model, anatomy, torch.stack([1e-6 * a, b, 3 * a + b])):
        assert torch.allclose(logits(model), once, atol=1e-9, rtol=0)
    with project_out(model, anatomy, a), project_out(model, anatomy, torch.stack([a, b])):
        assert torch.allclose(logits(model), once, atol=1e-9, rtol=0)
    with project_out(model, anatomy, a):
        assert (logits(model) - once).abs().max() > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_a_basis_is_orthonormal_and_spans(count: int, seed: int):
    rows = drawn(count, 9, seed=seed)
    basis = orthonormal(torch.cat([rows, rows.sum(0, keepdim=True)]))
    assert basis.shape == (count, 9)
    assert torch.allclose(basis @ basis.T, torch.eye(count, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rows @ basis.T @ basis, rows, atol=1e-11)


def test_narrow_models_are_projected_in_float32():
    model = tiny.tiny_model("llama", dtype=torch.bfloat16)
    d = drawn(32)
    with project_out(model, dissect(model), d):
        after = seen(model)
    clean = seen(model)
    left = float((after.resid_final.double() @ d).abs().max())
    assert left < 0.05 * float((clean.resid_final.double() @ d).abs().max())


# --- directions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["resid_pre", "resid_mid", "resid_post"])
def test_a_direction_is_a_difference_of_means(worlds: Any, at: Any):
    w = worlds("llama", n=4)
    means: dict[str, torch.Tensor] = {}
    for agent in ("game", "base"):
        with w.roster.speaking(agent) as model:
            taken: list[torch.Tensor] = []
            for prompt in w.prompts:
                kept: list[torch.Tensor] = []
                norms = model.model.layers
                module = {
                    "resid_pre": norms[1].input_layernorm,
                    "resid_mid": norms[1].post_attention_layernorm,
                    "resid_post": norms[2].input_layernorm,
                }[at]
                with edited(module, before=lambda x, k=kept: k.append(x[0, -1].clone()) or x):
                    tiny.plain_logits(model, prompt.tokens)
                taken += kept
            means[agent] = torch.stack(taken).mean(0)
    found = direction_between(w.runs["game"], w.runs["base"], 1, at=at)
    assert torch.allclose(found, means["game"] - means["base"], atol=1e-11, rtol=0)
    assert found.norm() > 1e-2


def test_a_direction_between_groups_of_prompts_moves_one_to_the_other():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    prompts = tiny.token_prompts(2)
    one, two = (
        run_clean("base", model, anatomy, (prompt,), keep_cache=False) for prompt in prompts
    )
    d = direction_between(two, one, 2)
    # With one prompt a group, adding the difference after the last layer is the other prompt.
    with steer(model, anatomy, d, layer=2, coefficient=1.0):
        moved = score(model, prompts[:1]).log_odds[0]
    assert moved == pytest.approx(score(model, prompts[1:]).log_odds[0], abs=1e-9)
    assert abs(moved - score(model, prompts[:1]).log_odds[0]) > 1e-3
    other = tiny.tiny_model("llama", num_hidden_layers=2)
    small = run_clean("small", other, dissect(other), prompts, keep_cache=False)
    with pytest.raises(ModelError, match="3 layers of width 32 and 2 layers of width 32"):
        direction_between(one, small, 0)
    with pytest.raises(SiteError, match="the nearest is 2"):
        direction_between(one, two, 3)
    with pytest.raises(AgentError, match="run clean with everywhere=True"):
        direction_between(one, two, 0, over="all")
    bad: Any = "resid"
    with pytest.raises(ConfigError, match="not a residual stream"):
        direction_between(one, two, 0, at=bad)


# --- leaks and bad arguments --------------------------------------------------------------------


def test_no_hook_outlives_its_block():
    model = tiny.tiny_model("gemma2")
    anatomy = dissect(model)
    clean, d = logits(model), drawn(32)

    def entered() -> Any:
        return project_out(model, anatomy, d)

    with entered(), steer(model, anatomy, d, layer=1, coefficient=1.0):
        assert hook_count(model) == 3 * anatomy.n_layers + 1
    assert hook_count(model) == 0
    with pytest.raises(_StopError), steer(model, anatomy, d, layer=1, coefficient=1.0), entered():
        raise _StopError
    assert hook_count(model) == 0
    with edited(layer_of(model, 2).mlp, after=_stop), pytest.raises(_StopError), entered():
        logits(model)
    assert hook_count(model) == 0
    for block in (entered(), steer(model, anatomy, d, layer=1, coefficient=1.0)):
        block.__enter__()
    assert hook_count(model) > 0
    del block
    gc.collect()
    assert hook_count(model) == 0
    assert torch.equal(logits(model), clean)


@pytest.mark.parametrize(
    ("named", "kind", "text"),
    [
        ({"direction": torch.ones(31)}, ModelError, "direction does not fit the model"),
        ({"direction": torch.ones(2, 32)}, ModelError, "Steering takes one direction"),
        ({"direction": torch.tensor(1.0)}, ModelError, "32 numbers"),
        ({"direction": torch.full((32,), torch.nan)}, ModelError, "32 of 32 numbers"),
        ({"direction": torch.full((32,), 1e30), "dtype": torch.float16},
         ModelError, "direction is not finite. Seen: 32 of 32 numbers, in torch.float16"),
        ({"coefficient": 1e300, "direction": torch.full((32,), 1e300, dtype=torch.float64)},
         ModelError, "direction times its coefficient is not finite"),
        ({"coefficient": float("inf")}, ConfigError, "coefficient is not finite. Seen: inf"),
        ({"layer": 3}, SiteError, "the nearest is L2.resid_post"),
        ({"layer": -1}, SiteError, "layer -1"),
        ({"at": "resid_pst"}, ConfigError, "did you mean 'resid_post'"),
        ({"positions": "some"}, ConfigError, "Seen: 'some'"),
    ],
)  # fmt: skip
def test_bad_steering_is_refused_before_anything_is_placed(
    named: dict[str, Any], kind: type[Exception], text: str
):
    chosen: dict[str, Any] = {"direction": torch.ones(32), "layer": 1, "coefficient": 1.0, **named}
    dtype = chosen.pop("dtype", torch.float64)
    direction = chosen.pop("direction")
    model = tiny.tiny_model("llama", dtype=dtype)
    with pytest.raises(kind) as caught, steer(model, dissect(model), direction, **chosen):
        raise _StopError
    assert text in str(caught.value)
    assert hook_count(model) == 0


@pytest.mark.parametrize(
    ("directions", "layers", "kind", "text"),
    [
        (torch.ones(31), None, ModelError, "does not fit the model"),
        (torch.stack([torch.ones(32), torch.zeros(32)]), None, ModelError, "1 of 2 directions"),
        (torch.empty(0, 32), None, ModelError, "A direction is zero"),
        (torch.full((32,), torch.inf), None, ModelError, "is not finite"),
        (torch.ones(32), [0, 7], SiteError, "the nearest is L2.resid_pre"),
    ],
)
def test_bad_projections_are_refused_before_anything_is_placed(
    directions: torch.Tensor, layers: Any, kind: type[Exception], text: str
):
    model = tiny.tiny_model("llama")
    with (
        pytest.raises(kind) as caught,
        project_out(model, dissect(model), directions, layers=layers),
    ):
        raise _StopError
    assert text in str(caught.value)
    assert hook_count(model) == 0


def test_a_model_can_be_described_inside_a_block():
    model = tiny.tiny_model("gemma2")
    anatomy = dissect(model)
    with project_out(model, anatomy, drawn(32)):
        assert dissect(model).same_shape(anatomy)


def test_an_anatomy_of_another_model_is_refused():
    model, other = tiny.tiny_model("llama"), tiny.tiny_model("llama")
    for block in (
        steer(model, dissect(other), torch.ones(32), layer=0, coefficient=1.0),
        project_out(model, dissect(other), torch.ones(32)),
    ):
        with pytest.raises(ModelError, match="describes another model"), block:
            raise _StopError
