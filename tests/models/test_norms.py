"""What a norm does to a direction, its scale frozen, against the live module."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.norms import check_norm, epsilon, gain, inverse_scale, pull_back

WIDTH = 32


def norms() -> dict[str, tuple[Any, bool]]:
    """A norm of each kind with random gains (and bias), and whether it stores them less one."""
    return {
        "llama": (tiny.tiny_model("llama").model.norm, False),
        "gemma2": (tiny.tiny_model("gemma2").model.layers[1].post_feedforward_layernorm, True),
        "olmo2": (tiny.tiny_model("olmo2").model.layers[0].post_attention_layernorm, False),
        "gpt2": (tiny.tiny_model("gpt2").transformer.ln_f, False),
    }


NORMS = norms()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
@given(seed=st.integers(0, 10**6), size=st.floats(1e-2, 1e3))
@settings(max_examples=10)
def test_a_pulled_direction_reads_before_the_norm_what_it_read_after(
    name: str, seed: int, size: float
):
    norm, unit_offset = NORMS[name]
    x, direction = size * drawn(5, WIDTH, seed=seed), drawn(5, WIDTH, seed=seed + 1)
    with torch.no_grad(), tiny.never_narrowed():
        after = (norm(x) * direction).sum(-1)
    pulled, offset = pull_back(norm, x, direction, unit_offset=unit_offset)
    assert torch.allclose((pulled * x).sum(-1) + offset, after, atol=1e-11, rtol=1e-11)
    # Whatever the input's size, the norm's output is of order one.
    assert after.abs().max() > 1e-2


@pytest.mark.parametrize("name", NORMS)
def test_parts_of_a_sum_add_up_under_the_frozen_scale(name: str):
    norm, unit_offset = NORMS[name]
    parts, direction = drawn(7, 1, WIDTH), drawn(1, WIDTH, seed=2)
    x = parts.sum(0)
    pulled, offset = pull_back(norm, x, direction, unit_offset=unit_offset)
    with torch.no_grad(), tiny.never_narrowed():
        whole = (norm(x) * direction).sum(-1)
    assert torch.allclose((pulled * parts).sum((0, 2)) + offset, whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NORMS)
def test_a_pulled_direction_is_the_gradient_with_the_denominator_detached(name: str):
    """Automatic differentiation of a norm written out, in which the denominator is a constant."""
    norm, unit_offset = NORMS[name]
    x, direction = drawn(WIDTH, seed=4).requires_grad_(True), drawn(WIDTH, seed=5)
    centred = x - x.mean() if isinstance(norm, nn.LayerNorm) else x
    scale = (centred.detach() ** 2).mean().add(epsilon(norm)).sqrt()
    weight = norm.weight + (1.0 if unit_offset else 0.0)
    (weight * centred / scale).dot(direction).backward()
    pulled, _ = pull_back(norm, x.detach(), direction, unit_offset=unit_offset)
    assert x.grad is not None
    assert torch.allclose(pulled, x.grad, atol=1e-12, rtol=0)
    assert isinstance(norm, nn.LayerNorm) == (abs(float(pulled.sum())) < 1e-10)


def test_the_bias_of_a_layer_norm_is_the_offset():
    norm, _ = NORMS["gpt2"]
    direction = drawn(3, WIDTH, seed=6)
    _, offset = pull_back(norm, drawn(3, WIDTH), direction)
    assert torch.allclose(offset, direction @ norm.bias, atol=1e-12, rtol=0)
    assert offset.abs().min() > 1e-3
    bare, _ = NORMS["llama"]
    assert not pull_back(bare, drawn(3, WIDTH), direction)[1].any()


def test_a_half_precision_gain_keeps_its_digits_beside_one():
    norm = nn.Module()
    norm.weight = nn.Parameter(torch.tensor([1e-3], dtype=torch.bfloat16))
    assert gain(norm, unit_offset=True).dtype == torch.float32
    assert float(gain(norm, unit_offset=True).detach()) == 1.0 + float(norm.weight.detach())
    assert float(gain(norm, unit_offset=False).detach()) == float(norm.weight.detach())


def test_the_scale_is_that_of_the_centred_input_where_a_norm_centres():
    x = drawn(4, WIDTH) + 3.0
    for name in ("llama", "gpt2"):
        norm, _ = NORMS[name]
        spread = x.var(-1, correction=0) if name == "gpt2" else (x**2).mean(-1)
        expected = (spread + epsilon(norm)).rsqrt()[:, None]
        assert torch.allclose(inverse_scale(norm, x), expected, atol=1e-14, rtol=0)


def test_a_norm_without_an_epsilon_is_refused():
    with pytest.raises(ModelError, match="A norm of this model has no epsilon") as e:
        epsilon(nn.Linear(2, 2))
    assert e.value.seen == "Linear"


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_gain_stored_in_the_other_way_is_noticed(name: str):
    norm, unit_offset = NORMS[name]
    with torch.no_grad(), tiny.never_narrowed():
        check_norm(norm, name, unit_offset=unit_offset)
        with pytest.raises(ModelError, match=f"A norm of this {name} model is neither") as e:
            check_norm(norm, name, unit_offset=not unit_offset)
    assert "RMSNorm" in e.value.seen
