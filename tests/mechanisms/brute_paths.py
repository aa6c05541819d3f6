"""Path patching as it is defined, one path at a time: two ordinary calls of the model for each.

It shares no code with the package. On every sequence of every option on its own,

1. the target runs with the sender replaced, and the output of every other attention layer and MLP
   held at what it was: what each receiver would hear is noted on the way, before it is held;
2. the target runs again with one receiver set to that, everything after it free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny
import torch
from torch import Tensor

from moralscope.core.site import Edge, Site
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

Values = dict[tuple[str, int], Tensor]
"""What was seen on one sequence, by name and layer."""


@dataclass(frozen=True)
class Names:
    """What transformers calls the parts of a layer."""

    layers: str = "model.layers"
    out: str = "self_attn.o_proj"
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    before_mlp: str = "post_attention_layernorm"
    after_attention: str | None = None


_NORMED = {"q": "self_attn.q_norm", "k": "self_attn.k_norm"}
_SANDWICH = {
    "before_mlp": "pre_feedforward_layernorm",
    "after_attention": "post_attention_layernorm",
}
_FUSED = dict.fromkeys("qkv", "self_attn.qkv_proj")
NAMES = {
    "qwen3": Names(**_NORMED),
    "gemma2": Names(**_SANDWICH),
    "gemma3_text": Names(**_NORMED, **_SANDWICH),
    "olmo2": Names(**_NORMED, before_mlp="mlp", after_attention="post_attention_layernorm"),
    "phi3": Names(**_FUSED),
    "gpt2": Names("transformer.h", "attn.c_proj", *["attn.c_attn"] * 3, before_mlp="ln_2"),
    "gpt_neox": Names("gpt_neox.layers", "attention.dense", *["attention.query_key_value"] * 3),
}


def names_of(model: Any) -> Names:
    return NAMES.get(model.config.model_type, Names())


def part(model: Any, layer: int, path: str) -> Any:
    stack = model.get_submodule(names_of(model).layers)
    return stack[layer].get_submodule(path) if path else stack[layer]


def window(model: Any, site: Site, output: Tensor) -> Tensor:
    """The part of a projection's output that is one head's query, key or value."""
    config, head = model.config, site.head or 0
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", heads)
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if config.model_type == "gemma3_text" and site.kind in "qk":
        return output[0, head]
    if config.model_type == "qwen3" and site.kind in "qk":
        return output[0, :, head]
    at = {
        "gpt2": "qkv".index(site.kind) * heads + head,
        "gpt_neox": 3 * head + "qkv".index(site.kind),
        "phi3": {"q": 0, "k": heads, "v": heads + groups}[site.kind] + head,
    }.get(config.model_type, head)
    return output[0, :, at * dim : (at + 1) * dim]


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextlib.contextmanager
def hooked(handles: list[Any]) -> Generator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_input(module: Any, see: Callable[[Tensor], Tensor | None]) -> Any:
    """Let a function see, and perhaps exchange, what a module reads."""

    def hook(_: Any, args: tuple[Any, ...]) -> Any:
        found = see(args[0])
        return None if found is None else (found, *args[1:])

    return module.register_forward_pre_hook(hook)


def on_output(module: Any, see: Callable[[Tensor], Tensor | None]) -> Any:
    """Let a function see, and perhaps exchange, what a module gives."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        found = see(first(output))
        if found is None:
            return None
        return (found, *output[1:]) if isinstance(output, tuple) else found

    return module.register_forward_hook(hook)


def record(model: Any, tokens: Sequence[int]) -> Values:
    """The stream before each layer, head activations and outputs of the sub-layers."""
    kept: Values = {}

    def keep(name: str, layer: int) -> Callable[[Tensor], None]:
        return lambda x: kept.update({(name, layer): x[0].clone()})

    handles: list[Any] = []
    for layer in range(model.config.num_hidden_layers):
        out = part(model, layer, names_of(model).out)
        handles += [
            on_input(part(model, layer, ""), keep("resid_pre", layer)),
            on_input(out, keep("z", layer)),
            on_output(out, keep("attn", layer)),
            on_output(part(model, layer, "mlp"), keep("mlp", layer)),
        ]
    with hooked(handles):
        tiny.plain_logits(model, tokens)
    return kept


def matrices(model: Any, n: int) -> list[Tensor]:
    """What each output projection multiplies by now, adapters included, found by trying."""
    found: list[Tensor] = []
    for layer in range(model.config.num_hidden_layers):
        out = part(model, layer, names_of(model).out)
        zero = out(torch.zeros(1, n, dtype=torch.float64))
        found.append((out(torch.eye(n, dtype=torch.float64)) - zero).T)
    return found


@dataclass(frozen=True)
class Sides:
    """Target and source on one sequence: values, output projections, tokens that are replaced."""

    own: Values
    theirs: Values
    own_out: list[Tensor]
    their_out: list[Tensor]
    own_at: list[int]
    their_at: list[int]


def instead(model: Any, sides: Sides, sender: Site, write: str) -> Tensor:
    """What a sender's place in the model holds when the sender is the source's."""
    layer, mine, theirs = sender.layer or 0, sides.own_at, sides.their_at
    name = {"head": "attn", "embed": "resid_pre"}.get(sender.kind, sender.kind)
    value = sides.own[name, layer].clone()
    if sender.kind != "head":
        value[mine] = sides.theirs[name, layer][theirs]
        return value
    dim = sides.own["z", layer].shape[-1] // model.config.num_attention_heads
    head = slice((sender.head or 0) * dim, ((sender.head or 0) + 1) * dim)
    through = sides.own_out if write == "z" else sides.their_out
    value[mine] += sides.theirs["z", layer][theirs, head] @ through[layer][:, head].T
    value[mine] -= sides.own["z", layer][mine, head] @ sides.own_out[layer][:, head].T
    return value


def heard(
    model: Any, tokens: Sequence[int], sides: Sides, sender: Site, receivers: Sequence[Site],
    *, write: str,
) -> dict[Site, Tensor]:  # fmt: skip
    """What receivers are when the sender alone has changed and all else is held."""
    names, kept = names_of(model), dict[Site, Tensor]()
    value = instead(model, sides, sender, write)
    place = ("attn" if sender.kind == "head" else sender.kind, sender.layer or 0)

    def keep(site: Site, look: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
        return lambda x: kept.update({site: look(x).clone()})

    def whole(x: Tensor) -> Tensor:
        return x[0]

    handles: list[Any] = []
    if sender.kind == "embed":
        handles.append(on_input(part(model, 0, ""), lambda _: value[None]))
    for site in receivers:
        layer = site.layer or 0
        if site.kind in "qkv":
            module = part(model, layer, getattr(names, site.kind))
            look = keep(site, lambda x, s=site: window(model, s, x))
            handles.append(on_output(module, look))
        elif site.kind in ("resid_pre", "resid_mid"):
            path = "" if site.kind == "resid_pre" else names.before_mlp
            handles.append(on_input(part(model, layer, path), keep(site, whole)))
        else:
            path = {"attn": names.out, "mlp": "mlp", "resid_post": ""}[site.kind]
            handles.append(on_output(part(model, layer, path), keep(site, whole)))
    # After the receivers' eyes: hooks of one module run in the order in which they came.
    for layer in range(model.config.num_hidden_layers):
        for kind, path in (("attn", names.out), ("mlp", "mlp")):
            held = value if (kind, layer) == place else sides.own[kind, layer]
            handles.append(on_output(part(model, layer, path), lambda _, h=held: h[None]))
    with hooked(handles):
        tiny.plain_logits(model, tokens)
    return kept


def setting(model: Any, receiver: Site, value: Tensor) -> list[Any]:
    """Hooks that set a receiver, at every token, in an otherwise clean run."""
    names, layer = names_of(model), receiver.layer or 0
    if receiver.kind in "qkv":

        def put(x: Tensor) -> Tensor:
            changed = x.clone()
            window(model, receiver, changed)[:] = value
            return changed

        return [on_output(part(model, layer, getattr(names, receiver.kind)), put)]
    if receiver.kind == "resid_pre":
        return [on_input(part(model, layer, ""), lambda _: value[None])]
    if receiver.kind == "resid_mid":
        before: list[Tensor] = []
        written = part(model, layer, names.after_attention or names.out)
        return [
            on_input(part(model, layer, ""), before.append),
            on_output(written, lambda _: value[None] - before[-1]),
        ]
    path = {"attn": names.out, "mlp": "mlp", "resid_post": ""}[receiver.kind]
    return [on_output(part(model, layer, path), lambda _: value[None])]


def replaced(prompt: EncodedPrompt, positions: str, answered: int) -> list[int]:
    """Which tokens of a prompt, followed by some of its answer, are replaced."""
    end = len(prompt.tokens) + answered
    if positions in ("answer_span", "all"):
        return list(range(0 if positions == "all" else len(prompt.tokens) - 1, end))
    return list(dict(prompt.spans)[positions])


@torch.no_grad()
def brute_paths(
    roster: Roster,
    source: str,
    target: str,
    prompt: EncodedPrompt,
    edges: Sequence[Edge],
    *,
    other: EncodedPrompt | None = None,
    positions: str = "answer_span",
    write: str = "write",
) -> list[float]:
    """Log-odds of the target with each path patched.

    Args:
        roster: both agents.
        source: who the senders are taken from.
        target: who is patched.
        prompt: the target's prompt.
        edges: the paths.
        other: the source's prompt, of the same length; the target's unless given.
        positions: ``answer_span``, ``all`` or a named span.
        write: ``write`` or ``z``, for heads that send.
    """
    found = np.full((len(edges), 2), -np.inf)
    runs: dict[tuple[int, ...], list[Tensor]] = {}
    for side, forms in enumerate((prompt.positive, prompt.negative)):
        for form in forms:
            read = form[:-1]
            if read not in runs:
                with roster.speaking(source) as model:
                    theirs = record(model, [*(other or prompt).tokens, *read])
                    their_out = matrices(model, theirs["z", 0].shape[-1])
                with roster.speaking(target) as model:
                    tokens = [*prompt.tokens, *read]
                    own_out = matrices(model, theirs["z", 0].shape[-1])
                    at = [replaced(p, positions, len(read)) for p in (prompt, other or prompt)]
                    sides = Sides(record(model, tokens), theirs, own_out, their_out, *at)
                    every = each_path(model, tokens, sides, edges, write=write)
                    runs[read] = [value.log_softmax(-1) for value in every]
            for row, log_p in enumerate(runs[read]):
                at = len(prompt.tokens) - 1
                total = sum(float(log_p[at + step, token]) for step, token in enumerate(form))
                found[row, side] = np.logaddexp(found[row, side], total)
    return [float(value) for value in found[:, 0] - found[:, 1]]


def each_path(
    model: Any, tokens: Sequence[int], sides: Sides, edges: Sequence[Edge],
    *, write: str,
) -> Generator[Tensor]:  # fmt: skip
    """Logits with one path patched after another."""
    values: dict[Site, dict[Site, Tensor]] = {}
    for edge in edges:
        if edge.sender not in values:
            receivers = [e.receiver for e in edges if e.sender == edge.sender]
            values[edge.sender] = heard(model, tokens, sides, edge.sender, receivers, write=write)
        with hooked(setting(model, edge.receiver, values[edge.sender][edge.receiver])):
            yield tiny.plain_logits(model, tokens)
