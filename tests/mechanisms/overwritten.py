"""Plain oracles for ablation and steering: a module's ``forward`` is replaced, no hook is used.

It shares no code with the package: parts are found by the names that transformers gives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import tiny
import torch
from torch import Tensor

from moralscope.models.rendering import EncodedPrompt

Edit = Callable[[Tensor], Tensor]

_PATHS = {
    "gpt2": ("transformer.h", "attn.c_proj", "transformer.ln_f", "lm_head"),
    "gpt_neox": ("gpt_neox.layers", "attention.dense", "gpt_neox.final_layer_norm", "embed_out"),
}
_USUAL = ("model.layers", "self_attn.o_proj", "model.norm", "lm_head")


def layer_of(model: Any, index: int) -> Any:
    return model.get_submodule(_PATHS.get(model.config.model_type, _USUAL)[0])[index]


def out_proj(model: Any, index: int) -> Any:
    name = _PATHS.get(model.config.model_type, _USUAL)[1]
    return layer_of(model, index).get_submodule(name)


def final(model: Any, stream: Tensor) -> Tensor:
    """Logits of a final stream, soft-cap included."""
    _, _, norm, unembed = _PATHS.get(model.config.model_type, _USUAL)
    head = model.get_output_embeddings() if unembed == "embed_out" else model.get_submodule(unembed)
    with torch.no_grad(), tiny.never_narrowed():
        logits = head(model.get_submodule(norm)(stream))
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


@contextlib.contextmanager
def edited(
    module: Any, *, before: Edit | None = None, after: Edit | None = None
) -> Generator[None]:
    """Let a module read an edited input, or give an edited output."""
    own = module.forward

    def forward(x: Tensor, *args: Any, **named: Any) -> Any:
        output = own(x if before is None else before(x), *args, **named)
        return output if after is None else after(output)

    with mock.patch.object(module, "forward", forward):
        yield


def setting(value: Tensor, *, start: int = 0, columns: slice = slice(None)) -> Edit:
    """Put a value at all positions from one on."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, start:, columns] = value
        return x

    return edit


def site_edit(model: Any, name: str, value: Tensor, *, start: int = 0) -> Any:
    """A context in which a site (``L1.h2``, ``L1.attn``, ``L1.mlp``, ``L1.resid_post``) is set."""
    layer, kind = name.removeprefix("L").split(".")
    index = int(layer)
    if kind == "attn":
        return edited(out_proj(model, index), after=setting(value, start=start))
    if kind == "mlp":
        return edited(layer_of(model, index).mlp, after=setting(value, start=start))
    if kind == "resid_post":
        return edited(layer_of(model, index), after=setting(value, start=start))
    head, dim = int(kind[1:]), len(value)
    columns = slice(head * dim, (head + 1) * dim)
    return edited(out_proj(model, index), before=setting(value, start=start, columns=columns))


def spans(model: Any, prompt: EncodedPrompt, name: str, dim: int) -> Tensor:
    """What a site holds at the distinct tokens of a prompt's answer span, ``(tokens, dim)``."""
    layer, kind = name.removeprefix("L").split(".")
    seen: list[Tensor] = []

    def see(x: Tensor) -> Tensor:
        seen.append(x[0].clone())
        return x

    found: dict[tuple[int, ...], Tensor] = {}
    for form in prompt.positive + prompt.negative:
        seen.clear()
        index = int(layer)
        module = layer_of(model, index).mlp if kind == "mlp" else out_proj(model, index)
        is_head = kind.startswith("h")
        with edited(module, before=see) if is_head else edited(module, after=see):
            tiny.plain_logits(model, [*prompt.tokens, *form[:-1]])
        head = int(kind[1:]) if is_head else 0
        for step in range(len(form)):
            at = len(prompt.tokens) - 1 + step
            found[form[:step]] = seen[0][at, head * dim : (head + 1) * dim]
    return torch.stack(list(found.values()))


def hook_count(model: Any) -> int:
    """How many hooks a model carries, of any sort, over all its modules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)
