"""Observed activations: undisturbed, complete, and equal to a computation by hand."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from families import named
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.anatomy import dissect
from moralscope.models.capture import Capture, capture, first_tensor
from moralscope.models.forward import run_tree
from moralscope.models.scoring import make_packs


def observed(family: str, *, dtype: torch.dtype = torch.float64) -> tuple[Any, Any, Capture]:
    model = tiny.tiny_model(family, dtype=dtype)
    (pack,) = make_packs(tiny.token_prompts(forms="multi"))
    return model, pack, capture(model, dissect(model), pack.tree, pack.keep)


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_observing_changes_nothing(family: str, dtype: torch.dtype):
    model, pack, found = observed(family, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(found.logits, run_tree(model, pack.tree, pack.keep))
    assert n_hooks(model) == 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_activations_are_those_of_a_plain_run_of_each_path(family: str):
    """One ordinary call for each sequence, with hooks of the test's own."""
    model, pack, found = observed(family)
    row_of = {int(node): row for row, node in enumerate(pack.keep)}
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, value: Tensor) -> None:
        seen.setdefault(name, []).append(value[0])

    names = named(model)
    for layer in model.get_submodule(f"{names.body}.{names.layers}"):
        projection = layer.get_submodule(names.out_proj)
        projection.register_forward_pre_hook(lambda _, a: note("z", a[0]))
        projection.register_forward_hook(lambda _, __, o: note("attn_out", o))
        layer.mlp.register_forward_hook(lambda _, __, o: note("mlp_out", o))
        layer.register_forward_hook(lambda _, __, o: note("after", first_tensor(o)))
    checked = 0
    for path in pack.tree.paths:
        seen.clear()
        logits = tiny.plain_logits(model, pack.tree.tokens[path].tolist())
        kept = [(depth, row_of[int(n)]) for depth, n in enumerate(path) if int(n) in row_of]
        for depth, row in kept:
            for name in ("z", "attn_out", "mlp_out"):
                direct = torch.stack([x[depth] for x in seen[name]])
                assert torch.allclose(getattr(found, name)[:, row], direct, atol=1e-10, rtol=0)
            after = torch.stack([x[depth] for x in seen["after"]])
            assert torch.allclose(found.resid_pre[1:, row], after[:-1], atol=1e-10, rtol=0)
            assert torch.allclose(found.resid_final[row], after[-1], atol=1e-10, rtol=0)
            assert torch.allclose(found.logits[row], logits[depth], atol=1e-10, rtol=0)
            checked += 1
    assert checked >= len(pack.keep)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_writes_add_up_to_the_residual_stream(family: str):
    _, _, found = observed(family)
    after = found.resid_pre + found.attn_write + found.mlp_write
    expected = torch.cat([found.resid_pre[1:], found.resid_final[None]])
    assert torch.allclose(after, expected, atol=1e-12, rtol=0)


def test_post_norms_stand_between_output_and_write():
    _, _, found = observed("gemma2")
    assert (found.attn_out - found.attn_write).abs().max() > 0.1
    _, _, plain = observed("llama")
    assert plain.attn_write is plain.attn_out


def test_heads_are_kept_apart_at_the_input_of_the_projection():
    model, _, found = observed("qwen3")
    assert found.z.shape == (3, len(found.logits), 4 * 16)
    weight = model.model.layers[1].self_attn.o_proj.weight
    assert torch.allclose(found.z[1] @ weight.T, found.attn_out[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("where", ["o_proj", "mlp", "norm"])
def test_hooks_are_gone_after_an_exception(where: str):
    model = tiny.tiny_model("gemma2")
    part = {
        "o_proj": model.model.layers[2].self_attn.o_proj,
        "mlp": model.model.layers[2].mlp,
        "norm": model.model.norm,
    }[where]
    (pack,) = make_packs(tiny.token_prompts())
    anatomy = dissect(model)
    handle = part.register_forward_hook(fail)
    with pytest.raises(InterruptedError):
        capture(model, anatomy, pack.tree, pack.keep)
    assert n_hooks(model) == 1
    handle.remove()
    assert n_hooks(model) == 0


def fail(*_: object) -> None:
    raise InterruptedError


def test_what_is_observed_is_float32_at_least():
    _, _, found = observed("llama", dtype=torch.bfloat16)
    assert {getattr(found, name).dtype for name in ("z", "mlp_out", "logits")} == {torch.float32}


def test_the_keys_and_values_of_every_node_are_kept_on_request():
    model = tiny.tiny_model("gemma2")
    (pack,) = make_packs(tiny.token_prompts())
    cache = transformers.DynamicCache()
    capture(model, dissect(model), pack.tree, pack.keep, cache=cache)
    assert [layer.keys.shape[2] for layer in cache.layers] == [len(pack.tree)] * 4
    assert np.isfinite(cache.layers[0].keys.numpy()).all()


def test_every_node_is_kept_on_request_and_picked_again():
    model = tiny.tiny_model("gemma2")
    (pack,) = make_packs(tiny.token_prompts(forms="multi"))
    anatomy = dissect(model)
    spans = capture(model, anatomy, pack.tree, pack.keep)
    every = capture(model, anatomy, pack.tree, pack.keep, everywhere=True, parts=("q", "v"))
    assert every.mlp_out.shape[1] == len(pack.tree) > len(pack.keep)
    assert every.q is not None
    assert every.q.shape == (4, len(pack.tree), 4, 16)
    assert every.k is None
    picked = every.at(torch.as_tensor(pack.keep))
    for name in ("z", "attn_out", "mlp_out", "attn_write", "mlp_write", "resid_pre"):
        assert torch.equal(getattr(picked, name), getattr(spans, name))
    assert torch.equal(picked.resid_final, spans.resid_final)
    assert torch.equal(picked.resid_post(3), picked.resid_final)
    assert torch.equal(picked.resid_post(0), picked.resid_pre[1])
    assert picked.q is not None
    assert torch.equal(picked.q, every.q[:, pack.keep])


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        ("model.embed_tokens.weight", "embed"),
        ("model.layers.1.self_attn.v_proj.weight", "L1.attn"),
        ("model.layers.2.mlp.up_proj.weight", "L2.mlp"),
        ("model.layers.1.input_layernorm.weight", "L1.attn"),
    ],
)
def test_the_first_site_that_is_not_finite_is_named(broken: str, first: str):
    model = tiny.tiny_model("qwen2")
    model.get_parameter(broken).data.fill_(float("nan"))
    (pack,) = make_packs(tiny.token_prompts(2))
    anatomy = dissect(model)
    with pytest.raises(ModelError, match="An activation is not finite") as e:
        capture(model, anatomy, pack.tree, pack.keep)
    assert e.value.seen == f"first at {first}"
    assert "float32" in str(e.value.remedy)
    assert n_hooks(model) == 0


def test_a_query_that_is_not_finite_is_named_where_it_was_asked_for():
    model = tiny.tiny_model("qwen2")
    model.model.layers[1].self_attn.q_proj.weight.data[9, 0] = float("inf")
    (pack,) = make_packs(tiny.token_prompts(2))
    with pytest.raises(ModelError) as e:
        capture(model, dissect(model), pack.tree, pack.keep, parts=("q", "k"))
    assert e.value.seen == "first at L1.h1.q"
