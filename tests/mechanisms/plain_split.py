"""What an agent's own weights do on its base's inputs, with plain hooks, one sequence at a time.

It shares no code with the package. A base runs as usual and is recorded. The agent then runs with
every layer's input, and what its attention adds, set to the base's, so that each layer computes on
what the base would have fed it. Contributions are read forwards: what a component writes goes
through the norms, their scales frozen at the base's, and meets the base's unembedding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tiny
import torch
from brute_paths import Values, hooked, matrices, names_of, on_input, on_output, part
from torch import Tensor, nn

from moralscope.models.rendering import EncodedPrompt

Speak = Callable[[], contextlib.AbstractContextManager[Any]]
"""Opens a block in which a model has its weights in force."""

_FINAL = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}


def final_norm(model: Any) -> Any:
    return model.get_submodule(_FINAL.get(model.config.model_type, "model.norm"))


def post_norm(model: Any, layer: int, kind: str) -> Any:
    """The norm between a sub-layer's output and the stream, or None."""
    after = names_of(model).after_attention
    if after is None:
        return None
    return part(model, layer, after if kind == "attn" else "post_feedforward_layernorm")


def frozen(norm: Any, x: Tensor, change: Tensor) -> Tensor:
    """What becomes of a part of ``x`` in a norm whose scale stays what it is at ``x``."""
    if norm is None:
        return change
    with torch.no_grad(), tiny.never_narrowed():
        moved = norm(x) - norm(torch.zeros_like(x))
    if isinstance(norm, nn.LayerNorm):
        return moved / (x - x.mean(-1, keepdim=True)) * (change - change.mean(-1, keepdim=True))
    return moved / x * change


def constant(norm: Any, x: Tensor) -> Tensor:
    """What a norm adds whatever it reads."""
    return norm(torch.zeros_like(x))


def observed(model: Any, tokens: list[int], fed: Values | None = None) -> Values:
    """What happens on a sequence; ``fed`` holds what layers and MLPs are to read instead."""
    names, kept = names_of(model), dict[tuple[str, int], Tensor]()

    def keep(name: str, layer: int) -> Callable[[Tensor], None]:
        return lambda x: kept.update({(name, layer): x[0].clone()})

    handles: list[Any] = []
    for layer in range(model.config.num_hidden_layers):
        whole, out, mlp = (part(model, layer, path) for path in ("", names.out, "mlp"))
        written = part(model, layer, names.after_attention or names.out)
        handles += [
            on_input(whole, keep("pre", layer)),
            on_input(out, keep("z", layer)),
            on_output(out, keep("attn", layer)),
            on_output(written, keep("write", layer)),
            on_output(mlp, keep("mlp", layer)),
        ]
        if fed is not None:
            handles += [
                on_input(whole, lambda _, x=fed["pre", layer]: x[None]),
                on_output(written, lambda _, x=fed["write", layer]: x[None]),
            ]
    handles.append(on_input(final_norm(model), keep("final", 0)))
    with hooked(handles):
        kept["logits", 0] = tiny.plain_logits(model, tokens)
    return kept


def read_at(prompt: EncodedPrompt) -> Iterator[tuple[int, tuple[int, ...], float, int, int | None]]:
    """Answer token, sequence, sign, token that counts, and the one that it is set against.

    None stands for the mean of all tokens under the base.
    """
    plus, minus = prompt.positive[0], prompt.negative[0]
    branch = next(i for i, (a, b) in enumerate(zip(plus, minus, strict=False)) if a != b)
    yield branch, plus, 1.0, plus[branch], minus[branch]
    for sign, form in ((1.0, plus), (-1.0, minus)):
        for step in range(branch + 1, len(form)):
            yield step, form, sign, form[step], None


@torch.no_grad()
def plain_weights(base: Speak, agent: Speak, prompt: EncodedPrompt) -> dict[tuple[str, int], float]:
    """The part *weights* of every site and answer token of a prompt, in nats."""
    found: dict[tuple[str, int], float] = {}
    for step, form, sign, token, against in read_at(prompt):
        tokens, at = [*prompt.tokens, *form[:-1]], len(prompt.tokens) - 1 + step
        with base() as model:
            own = observed(model, tokens)
            rows = model.get_output_embeddings().weight
            other = own["logits", 0][at].softmax(-1) @ rows if against is None else rows[against]
            direction = sign * (rows[token] - other)
            norm, ending = final_norm(model), own["final", 0][at]
            ratio_of = frozen(norm, ending, torch.eye(len(ending), dtype=torch.float64))
            before = contributions(model, own, own, at)
            bias = float(direction @ constant(norm, ending))
        with agent() as model:
            theirs = observed(model, tokens, fed=own)
            after = contributions(model, theirs, own, at)
            after["embed"] = embedding(model, tokens)[at]
            bias = float(direction @ constant(final_norm(model), ending)) - bias
        before["embed"] = own["pre", 0][at]
        for name, written in after.items():
            value = float(direction @ ((written - before[name]) @ ratio_of))
            found[name, step] = found.get((name, step), 0.0) + value
        found["bias", step] = found.get(("bias", step), 0.0) + bias
    return found


def embedding(model: Any, tokens: list[int]) -> Tensor:
    """The stream before the first layer."""
    seen: list[Tensor] = []
    with hooked([on_input(part(model, 0, ""), lambda x: seen.append(x[0].clone()))]):
        tiny.plain_logits(model, tokens)
    return seen[0]


def contributions(model: Any, seen: Values, base: Values, at: int) -> dict[str, Tensor]:
    """What each component adds to the stream at a token, post-norms' scales the base's."""
    heads, found = model.config.num_attention_heads, dict[str, Tensor]()
    width = seen["z", 0].shape[-1]
    bias = torch.zeros_like(base["final", 0][at])
    for layer, matrix in enumerate(matrices(model, width)):
        norm, x = post_norm(model, layer, "attn"), base["attn", layer][at]
        for head in range(heads):
            its = slice(head * width // heads, (head + 1) * width // heads)
            write = matrix[:, its] @ seen["z", layer][at, its]
            found[f"L{layer}.h{head}"] = frozen(norm, x, write)
        out = part(model, layer, names_of(model).out)
        bias = bias + frozen(norm, x, out(torch.zeros(1, width, dtype=torch.float64))[0])
        norm, x = post_norm(model, layer, "mlp"), base["mlp", layer][at]
        found[f"L{layer}.mlp"] = frozen(norm, x, seen["mlp", layer][at])
    return {**found, "bias": bias}
