"""RelP's backward pass equals the slope of a model in which all but the linear is held constant."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import hooked
import nudged
import pytest
import tiny
import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.core.site import Site
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    activity_of,
    attribution_patching,
    slopes,
    span_groups,
)
from moralscope.mechanisms.approximation.relevance import (
    _activation_of,
    _Rules,
    relevance_patching,
    relevance_rules,
)
from moralscope.models.anatomy import dissect
from moralscope.models.forward import run_tree
from moralscope.models.rendering import EncodedPrompt

FAMILIES = ["llama", "gemma2", "qwen3", "phi3", "olmo2", "gemma3_text", "gpt2", "gpt_neox"]


def relevance(both: nudged.Two) -> Estimates:
    return relevance_patching(
        both.target_model, both.anatomy, both.target, 0, activity_of(both.source, 0)
    )


class Frozen:
    """A model whose norms' scales, patterns, activations' ratios and gates are those of one run.

    It computes the same as the model there, and is affine in what sub-layers write up to the final
    logits, so finite differences of it are the rules, written out.
    """

    def __init__(self, model: Any, anatomy: Any, tokens: list[int]) -> None:
        self.model, self.anatomy, self.tokens = model, anatomy, tokens
        self.norms: dict[nn.Module, Tensor] = {}
        self.mlps: dict[nn.Module, Tensor] = {}
        self.patterns: list[Tensor] = []
        keep = [
            *(m.register_forward_pre_hook(lambda m, a: self.norms.update({m: a[0].clone()}))
              for m in model.modules() if self._is_norm(m)),
            *(b.mlp.register_forward_pre_hook(lambda m, a: self.mlps.update({m: a[0].clone()}))
              for b in anatomy.blocks),
        ]  # fmt: skip
        softmax = nn.functional.softmax

        def recorded(*args: Any, **named: Any) -> Tensor:
            self.patterns.append(softmax(*args, **named))
            return self.patterns[-1]

        with hooked.hooked(keep), mock.patch.object(nn.functional, "softmax", recorded):
            tiny.plain_logits(model, tokens)

    @staticmethod
    def _is_norm(module: nn.Module) -> bool:
        own = module.get_parameter("weight") if hasattr(module, "weight") else None
        return "Norm" in type(module).__name__ and own is not None

    def _norm(self, module: Any) -> Callable[[Tensor], Tensor]:
        at = self.norms[module]
        layer_norm = isinstance(module, nn.LayerNorm)
        eps = getattr(module, "variance_epsilon", None) or module.eps
        centre = at.mean(-1, keepdim=True) if layer_norm else 0.0
        scale = ((at - centre) ** 2).mean(-1, keepdim=True).add(eps).sqrt()
        gain = module.weight + (1.0 if "Gemma" in type(module).__name__ else 0.0)
        bias = module.bias if layer_norm else 0.0

        def frozen(x: Tensor) -> Tensor:
            x = x - x.mean(-1, keepdim=True) if layer_norm else x
            return x / scale * gain + bias

        return frozen

    def _mlp(self, mlp: Any) -> Callable[[Tensor], Tensor]:
        at = self.mlps[mlp]
        name = type(mlp).__name__
        if "GPT2" in name or "GPTNeoX" in name:
            up, down = (
                (mlp.c_fc, mlp.c_proj) if "GPT2" in name else (mlp.dense_h_to_4h, mlp.dense_4h_to_h)
            )
            act = mlp.act
            ratio = act(up(at)) / up(at)
            return lambda x: down(up(x) * ratio)
        if "Phi3" in name:
            width = mlp.gate_up_proj.out_features // 2

            def gate_and_up(x: Tensor) -> tuple[Tensor, Tensor]:
                both = mlp.gate_up_proj(x)
                return both[..., :width], both[..., width:]

            act = mlp.activation_fn
        else:

            def gate_and_up(x: Tensor) -> tuple[Tensor, Tensor]:
                return mlp.gate_proj(x), mlp.up_proj(x)

            act = mlp.act_fn
        gate0, up0 = gate_and_up(at)
        ratio = act(gate0) / gate0

        def frozen(x: Tensor) -> Tensor:
            gate, up = gate_and_up(x)
            return mlp.down_proj((gate * ratio * up0 + gate0 * ratio * up) / 2)

        return frozen

    def logits(self, start: int, edits: nudged.Edits) -> Tensor:
        forwards = [
            *(mock.patch.object(m, "forward", self._norm(m)) for m in self.norms),
            *(mock.patch.object(m, "forward", self._mlp(m)) for m in self.mlps),
        ]
        with contextlib.ExitStack() as stack:
            for forward in forwards:
                stack.enter_context(forward)
            with tiny.never_narrowed():
                stack.enter_context(
                    mock.patch.object(tiny, "never_narrowed", contextlib.nullcontext)
                )
                with mock.patch.object(nn.functional, "softmax", side_effect=self.patterns):
                    return nudged.plain(self.model, self.anatomy, self.tokens, start, edits)[0]


def frozen_tangent(both: nudged.Two, prompt: EncodedPrompt, site: Site) -> tuple[float, float]:
    """The slope of the frozen model's log-odds, and how far it misses the model's own."""
    own = nudged.writes(both.target_model, both.anatomy, prompt)
    theirs = nudged.writes(both.source_model, both.source_anatomy, prompt)
    frozen = [Frozen(both.target_model, both.anatomy, tokens) for tokens, _ in nudged.spans(prompt)]
    split = len(prompt.positive)

    def value(t: float) -> float:
        totals: list[Tensor] = []
        for index, (form, _) in enumerate(hooked.forms_of(prompt)):
            _, start = nudged.spans(prompt)[index]
            change = t * (theirs[index][site] - own[index][site])
            edits = {nudged.place(site): lambda out, change=change: out + change}
            log_p = frozen[index].logits(start, edits).log_softmax(-1)
            totals.append(sum(log_p[start + i, token] for i, token in enumerate(form)))
        stacked = torch.stack(totals)
        return float(stacked[:split].logsumexp(0) - stacked[split:].logsumexp(0))

    return nudged.slope(value, 1e-2), value(0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_tangents_of_the_frozen_model(family: str):
    both = nudged.two(family, forms="multi" if family == "llama" else "single", n=1,
                      attention="eager")  # fmt: skip
    found = relevance(both)
    gradient = attribution_patching(
        both.target_model, both.anatomy, both.target, 0, activity_of(both.source, 0)
    )
    last = both.anatomy.n_layers - 1
    for site in (Site("head", 0, 1), Site("mlp", 0), Site("attn", 1), Site("mlp", last)):
        expected, value = frozen_tangent(both, both.prompts[0], site)
        assert value == pytest.approx(float(both.target.log_odds[0]), abs=1e-9)
        assert float(found.of(site)[0]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert abs(expected) > 1e-5
        assert float(gradient.of(site)[0]) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_both_ways_of_computing_attention_obey_the_rules(family: str):
    fused, plain = (
        relevance(nudged.two(family, n=2, attention=kind)) for kind in ("sdpa", "eager")
    )
    for name in ("heads", "attn", "mlp"):
        torch.testing.assert_close(
            getattr(fused, name), getattr(plain, name), rtol=1e-9, atol=1e-11
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forward_pass_is_untouched(family: str):
    both = nudged.two(family, n=2, forms="several")
    pack = both.target.packs[0].pack
    (group,) = span_groups(pack)
    with relevance_rules(both.anatomy):
        found = slopes(both.target_model, both.anatomy, pack, group)
    assert torch.equal(found.log_odds, both.target.packs[0].log_odds)
    with torch.no_grad(), relevance_rules(both.anatomy):
        logits = run_tree(both.target_model, pack.tree, pack.keep)
    assert torch.equal(logits, both.target.packs[0].captured.logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in both.target_model.modules())


def gradient(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    value(x).sum().backward()
    assert x.grad is not None
    return x.grad


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_rule_for_norms():
    x, weight, bias, towards = drawn(3, 8), drawn(8, seed=1), drawn(8, seed=2), drawn(3, 8, seed=3)
    with _Rules():
        by_layer = gradient(
            lambda v: towards * nn.functional.layer_norm(v, (8,), weight, bias, 1e-3), x
        )
        by_root = gradient(
            lambda v: towards * v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-3), x
        )
    pulled = towards * weight
    centred = pulled - pulled.mean(-1, keepdim=True)
    torch.testing.assert_close(by_layer, centred / (x.var(-1, False, keepdim=True) + 1e-3).sqrt())
    torch.testing.assert_close(by_root, towards / ((x * x).mean(-1, keepdim=True) + 1e-3).sqrt())


def test_the_rule_for_attention():
    query, key, value = (drawn(1, 2, 5, 4, seed=s) for s in range(3))
    towards = drawn(1, 2, 5, 4, seed=4)
    parts = [part.clone().requires_grad_() for part in (query, key, value)]
    with _Rules():
        output = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
    (output * towards).sum().backward()
    assert parts[0].grad is None
    assert parts[1].grad is None
    scores = (query @ key.transpose(-1, -2) / 2.0).masked_fill(
        torch.ones(5, 5).triu(1).bool(), float("-inf")
    )
    pattern = scores.exp() / scores.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(parts[2].grad, pattern.transpose(-1, -2) @ towards)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("silu", lambda x: 1 / (1 + torch.exp(-x))),
        ("gelu", lambda x: (1 + torch.erf(x / 2**0.5)) / 2),
        ("gelu_pytorch_tanh",
         lambda x: (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
        ("gelu_new",
         lambda x: (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
        ("quick_gelu", lambda x: 1 / (1 + torch.exp(-1.702 * x))),
        ("relu", lambda x: (x > 0).double()),
    ],
)  # fmt: skip
def test_the_rules_for_activations_and_gates(name: str, by_hand: Callable[[Tensor], Tensor]):
    """An activation passes its ratio, a product half to each factor; at zero too."""
    activation = tiny.transformers.activations.ACT2FN[name]
    assert (
        _activation_of(0, nn.ModuleList([nn.Linear(2, 2), activation, nn.Dropout()])) is activation
    )
    x, up = drawn(7), drawn(7, seed=1)
    x[3] = 0.0
    rules = _Rules()
    handle = activation.register_forward_hook(rules.after_activation)
    with hooked.hooked([handle]), rules:
        torch.testing.assert_close(gradient(activation, x), by_hand(x))
        torch.testing.assert_close(gradient(lambda v: activation(v) * up, x), by_hand(x) * up / 2)
        torch.testing.assert_close(gradient(lambda u: u * activation(x), up), by_hand(x) * x / 2)
    assert (rules.activations, rules.products) == (3, 2)


@pytest.mark.parametrize(("name", "called"), [("mish", "MishActivation"), ("sigmoid", "Sigmoid")])
def test_an_activation_without_a_rule_is_refused_by_name(name: str, called: str):
    model = tiny.tiny_model("llama", hidden_act=name)
    anatomy = dissect(model)
    problem = "An activation function has no relevance rule"
    with pytest.raises(ModelError, match=problem) as caught, relevance_rules(anatomy):
        raise AssertionError("never reached")
    assert caught.value.seen == f"{called} in L0.mlp"
    assert "SiLU" in caught.value.allowed
    assert "patch exactly" in caught.value.remedy


def test_a_rule_that_is_never_met_is_refused():
    """A norm that divides by a square root would silently be differentiated as it is."""
    both = nudged.two("llama", n=1)

    def dividing(x: Tensor) -> Tensor:
        return x / x.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()

    layers = [block.layer for block in both.anatomy.blocks]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(mock.patch.object(layer.input_layernorm, "forward", dividing))
        with pytest.raises(ModelError) as caught:
            relevance(both)
    assert "not met in every layer of this llama model" in caught.value.problem
    assert caught.value.seen == "norms"


def test_an_error_of_the_model_is_passed_on():
    both = nudged.two("llama", n=1)
    broken = both.anatomy.blocks[2].mlp.register_forward_hook(lambda *_: 1 / 0)
    with hooked.hooked([broken]), pytest.raises(ZeroDivisionError):
        relevance(both)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in both.target_model.modules())
