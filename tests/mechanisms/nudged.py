"""Plain forwards in which the output of any sub-layer is recorded or changed at the answer span.

Each form of each prompt is an ordinary call of the model on one sequence; nothing here is packed or
differentiated. Slopes are finite differences of fourth order in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hooked
import numpy as np
import tiny
import torch
from torch import Tensor

from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.models.anatomy import Anatomy, dissect
from moralscope.models.rendering import EncodedPrompt

Edits = dict[Site, Callable[[Tensor], Tensor]]
"""What becomes of a sub-layer's output at the answer span, ``(span, width)`` to the same."""

Recording = dict[Site, Tensor]
"""Outputs of sub-layers, head activations (``resid_mid``) and the embedding, by site."""


@dataclass
class Two:
    """A target and a source: decoders of one shape with the same embeddings and unembedding."""

    target_model: Any
    source_model: Any
    anatomy: Anatomy
    source_anatomy: Anatomy
    prompts: tuple[EncodedPrompt, ...]
    target: CleanRun
    source: CleanRun


def two(
    family: str,
    *,
    forms: str = "single",
    n: int = 3,
    size: float = 0.1,
    embeddings: bool = False,
    attention: str | None = None,
    prompts: tuple[EncodedPrompt, ...] | None = None,
) -> Two:
    """A target and a copy of it with changed layers, biases of output projections excepted.

    Args:
        family: of both.
        forms: of the prompts' options.
        n: how many prompts.
        size: of the change, as a share of each weight's spread.
        embeddings: change the token embeddings too.
        attention: how both compute attention; as the library chooses unless given.
        prompts: other prompts.
    """
    changes: dict[str, Any] = {"tie_word_embeddings": False} if embeddings else {}
    models = [tiny.tiny_model(family, **changes) for _ in range(2)]
    generator = torch.Generator().manual_seed(5)
    anatomies = [dissect(model) for model in models]
    parts = [block.layer for block in anatomies[1].blocks]
    parts += [anatomies[1].embed] if embeddings else []
    output_biases = ("attn.c_proj.bias", "attention.dense.bias", "self_attn.o_proj.bias")
    with torch.no_grad():
        for part in parts:
            for name, parameter in part.named_parameters():
                if "norm" in name or "ln_" in name or name in output_biases:
                    continue
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(size * float(parameter.std()) * noise)
    chosen = tiny.token_prompts(n, forms=forms) if prompts is None else prompts
    runs: list[CleanRun] = []
    for name, model, anatomy in zip(("target", "source"), models, anatomies, strict=True):
        if attention is not None:
            model.set_attn_implementation(attention)
        runs.append(run_clean(name, model, anatomy, chosen))
    return Two(models[0], models[1], anatomies[0], anatomies[1], chosen, runs[0], runs[1])


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def plain(
    model: Any, anatomy: Anatomy, tokens: Sequence[int], start: int, edits: Edits
) -> tuple[Tensor, Recording]:
    """Logits of one sequence with edits from ``start`` on, and what each site gave before them."""
    seen: Recording = {}

    def after(site: Site) -> Callable[..., Tensor]:
        def hook(_: Any, __: Any, output: Any) -> Tensor:
            whole = _first(output).clone()
            seen[site] = whole[0].clone()
            if site in edits:
                whole[0, start:] = edits[site](whole[0, start:])
            return whole

        return hook

    def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        whole = (args[0] if args else kwargs["hidden_states"]).clone()
        seen[Site("embed")] = whole[0].clone()
        if Site("embed") in edits:
            whole[0, start:] = edits[Site("embed")](whole[0, start:])
        return ((whole, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": whole})

    handles: list[Any] = [
        anatomy.blocks[0].layer.register_forward_pre_hook(before, with_kwargs=True)
    ]
    for layer, block in enumerate(anatomy.blocks):
        store = Site("resid_mid", layer)
        handles += [
            block.out_proj.register_forward_pre_hook(
                lambda _, args, store=store: seen.update({store: args[0][0].clone()})
            ),
            block.out_proj.register_forward_hook(after(Site("attn", layer))),
            block.mlp.register_forward_hook(after(Site("mlp", layer))),
        ]
    with hooked.hooked(handles):
        return tiny.plain_logits(model, tokens), seen


def spans(prompt: EncodedPrompt) -> list[tuple[list[int], int]]:
    """Each form's tokens, and where the answer span begins."""
    start = len(prompt.tokens) - 1
    return [([*prompt.tokens, *form[:-1]], start) for form, _ in hooked.forms_of(prompt)]


def log_odds(
    model: Any, anatomy: Anatomy, prompt: EncodedPrompt, edits: Callable[[int], Edits]
) -> float:
    """Log-odds of a prompt; ``edits`` says what is changed on each form."""
    found = np.full(2, -np.inf)
    for index, (form, positive) in enumerate(hooked.forms_of(prompt)):
        tokens, start = spans(prompt)[index]
        log_p = plain(model, anatomy, tokens, start, edits(index))[0].log_softmax(-1)
        value = sum(float(log_p[start + i, token]) for i, token in enumerate(form))
        side = 0 if positive else 1
        found[side] = np.logaddexp(found[side], value)
    return float(found[0] - found[1])


def slope(value: Callable[[float], float], step: float = 2e-3) -> float:
    """The derivative at zero: central differences, extrapolated."""

    def central(h: float) -> float:
        return (value(h) - value(-h)) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


def writes(model: Any, anatomy: Anatomy, prompt: EncodedPrompt) -> list[Recording]:
    """What each site gives at the answer span of each form, heads as contributions."""
    found: list[Recording] = []
    for tokens, start in spans(prompt):
        _, seen = plain(model, anatomy, tokens, start, {})
        own = {site: value[start:] for site, value in seen.items() if site.kind != "resid_mid"}
        for layer, block in enumerate(anatomy.blocks):
            z = seen[Site("resid_mid", layer)][start:]
            full = hooked.matrix(block.out_proj, z.shape[-1], z.dtype)
            for head in range(anatomy.n_heads):
                part = slice(head * anatomy.head_dim, (head + 1) * anatomy.head_dim)
                own[Site("head", layer, head)] = z[:, part] @ full[:, part].T
        found.append(own)
    return found


def place(site: Site) -> Site:
    """The site whose output a change of this one is added to."""
    return Site("attn", site.layer) if site.kind == "head" else site


def some_sites(anatomy: Anatomy) -> list[Site]:
    """First, middle and last layers; every kind."""
    last = anatomy.n_layers - 1
    return [Site("head", 0, 1), Site("attn", 0), Site("mlp", 0), Site("head", 1, 3),
            Site("mlp", 1), Site("head", last, 0), Site("attn", last), Site("mlp", last),
            Site("embed")]  # fmt: skip
