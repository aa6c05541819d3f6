"""One-by-one patching with plain hooks: a full, ordinary forward for every form of every prompt.

It shares no code with the package: parts are found by the names that transformers gives them, heads
by arithmetic of its own. Activations of the source are recorded on its own sequence and put into
the target token by token, one intervention at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tiny
import torch
from families import named
from torch import Tensor

from moralscope.core.site import Site
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

Recording = dict[tuple[int, str], Tensor]
Places = list[tuple[int, int]]
"""(position in the target's sequence, position in the source's)."""


@contextlib.contextmanager
def hooked(handles: list[Any]) -> Generator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def forms_of(prompt: EncodedPrompt) -> list[tuple[tuple[int, ...], bool]]:
    """Each form of a prompt, and whether it is a positive one."""
    return [(f, True) for f in prompt.positive] + [(f, False) for f in prompt.negative]


def layers_of(model: Any) -> Any:
    names = named(model)
    return model.get_submodule(f"{names.body}.{names.layers}")


def out_proj(model: Any, layer: int) -> Any:
    return layers_of(model)[layer].get_submodule(named(model).out_proj)


def added(model: Any, layer: int) -> Any:
    """The module whose output attention adds to the residual stream."""
    name = named(model).post_norm
    return out_proj(model, layer) if name is None else layers_of(model)[layer].get_submodule(name)


@dataclass(frozen=True)
class Part:
    """The module at whose output queries, keys or values of a layer are, and one head in it."""

    module: Any
    select: Callable[[Tensor], Tensor]


def part(model: Any, site: Site) -> Part:
    """Where one head's query, key or value is before rotary positions."""
    config, names, kind, head = model.config, named(model), site.kind, site.head or 0
    layer, heads = layers_of(model)[site.layer], config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    start = head * dim
    if names.fused is not None:
        module, which = layer.get_submodule(names.fused), "qkv".index(kind)
        kv = getattr(config, "num_key_value_heads", None) or heads
        start += which * dim + 2 * head * dim if names.interleaved else 0
        start += 0 if names.interleaved else dim * [0, heads, heads + kv][which]
    elif names.query_norm is not None and kind != "v":
        module = layer.self_attn.get_submodule(f"{kind}_norm")
        if names.query_norm == "token_head":
            return Part(module, lambda output: output[0, :, head])
        if names.query_norm == "head_token":
            return Part(module, lambda output: output[0, head])
    else:
        module = layer.self_attn.get_submodule(f"{kind}_proj")
    return Part(module, lambda output: output[0, :, start : start + dim])


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


@torch.no_grad()
def record(model: Any, tokens: Sequence[int], parts: Sequence[Site] = ()) -> Recording:
    """What flows through every layer on one sequence, and some queries, keys and values."""
    kept: Recording = {}

    def before(module: Any, key: tuple[int, str]) -> Any:
        return module.register_forward_pre_hook(
            lambda _, args, kwargs: kept.update({key: _entering(args, kwargs)[0].clone()}),
            with_kwargs=True,
        )

    def after(module: Any, key: tuple[int, str]) -> Any:
        return module.register_forward_hook(
            lambda _, __, output: kept.update({key: _first(output)[0].clone()})
        )

    def selected(site: Site) -> Any:
        at = part(model, site)
        return at.module.register_forward_hook(
            lambda _, __, output: kept.update({(0, str(site)): at.select(output).clone()})
        )

    handles = [selected(site) for site in parts]
    for index, layer in enumerate(layers_of(model)):
        handles += [
            before(layer, (index, "resid_pre")),
            before(out_proj(model, index), (index, "z")),
            after(out_proj(model, index), (index, "attn")),
            after(layer.mlp, (index, "mlp")),
            after(layer, (index, "resid_post")),
        ]
        name = named(model).before_mlp
        if name is not None:
            handles.append(before(layer.get_submodule(name), (index, "resid_mid")))
    with hooked(handles):
        tiny.plain_logits(model, tokens)
    return kept


def matrix(linear: Any, n: int, dtype: torch.dtype) -> Tensor:
    """The matrix that a layer multiplies by now, adapters included, found by trying."""
    zero = torch.zeros(1, n, dtype=dtype)
    return (linear(torch.eye(n, dtype=dtype)) - linear(zero)).T


def out_matrices(model: Any, like: Recording) -> list[Tensor]:
    """The matrix of each layer's output projection."""
    z = like[0, "z"]
    return [
        matrix(out_proj(model, layer).forward, z.shape[-1], z.dtype)
        for layer in range(len(layers_of(model)))
    ]


@dataclass(frozen=True)
class Given:
    """What the source gives: its recording, its output projections, and how heads are written."""

    recording: Recording
    matrices: list[Tensor]
    places: Places
    write: str = "write"


def _put(output: Any, places: Places, values: Tensor) -> Tensor:
    changed = _first(output).clone()
    for mine, theirs in places:
        changed[0, mine] = values[theirs]
    return changed


def replace(model: Any, site: Site, given: Given) -> list[Any]:
    """Hook one site so that the target's positions get the source's activity."""
    layer, kind, places = site.layer or 0, site.kind, given.places
    block = layers_of(model)[layer]

    def output_of(module: Any, values: Tensor) -> list[Any]:
        return [module.register_forward_hook(lambda _, __, out: _put(out, places, values))]

    if kind in ("mlp", "attn"):
        module = block.mlp if kind == "mlp" else out_proj(model, layer)
        return output_of(module, given.recording[layer, kind])
    if kind == "resid_post":
        return output_of(block, given.recording[layer, kind])
    if kind in ("embed", "resid_pre"):

        def stream(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            changed = _put(_entering(args, kwargs), places, given.recording[layer, "resid_pre"])
            return (
                ((changed, *args[1:]), kwargs)
                if args
                else ((), kwargs | {"hidden_states": changed})
            )

        return [block.register_forward_pre_hook(stream, with_kwargs=True)]
    if kind == "resid_mid":
        return _replace_middle(model, layer, given)
    if kind in ("q", "k", "v"):
        at = part(model, site)

        def projected(_: Any, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            for mine, theirs in places:
                at.select(changed)[mine] = given.recording[0, str(site)][theirs]
            return changed

        return [at.module.register_forward_hook(projected)]
    return [_replace_head(model, site, given)]


def _replace_middle(model: Any, layer: int, given: Given) -> list[Any]:
    """What attention adds becomes what is missing from the stream that the source has."""
    entered: list[Tensor] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append(_entering(args, kwargs)[0])

    def fill(_: Any, __: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        for mine, theirs in given.places:
            changed[0, mine] = given.recording[layer, "resid_mid"][theirs] - entered[-1][mine]
        return changed

    return [
        layers_of(model)[layer].register_forward_pre_hook(note, with_kwargs=True),
        added(model, layer).register_forward_hook(fill),
    ]


def _replace_head(model: Any, site: Site, given: Given) -> Any:
    layer, places = site.layer or 0, given.places
    projection, theirs = out_proj(model, layer), given.recording[layer, "z"]
    dim = theirs.shape[-1] // model.config.num_attention_heads
    head = slice((site.head or 0) * dim, ((site.head or 0) + 1) * dim)
    if given.write == "z":

        def activity(_: Any, args: tuple[Tensor]) -> tuple[Tensor]:
            changed = args[0].clone()
            for mine, other in places:
                changed[0, mine, head] = theirs[other, head]
            return (changed,)

        return projection.register_forward_pre_hook(activity)
    own_matrix = matrix(projection.forward, theirs.shape[-1], theirs.dtype)[:, head]

    def contribution(_: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        changed = output.clone()
        for mine, other in places:
            own = own_matrix @ args[0][0, mine, head]
            changed[0, mine] += given.matrices[layer][:, head] @ theirs[other, head] - own
        return changed

    return projection.register_forward_hook(contribution)


def places_of(
    prompt: EncodedPrompt, other: EncodedPrompt, positions: str, form: int
) -> tuple[list[int], list[int], Places]:
    """The two sequences of one form, and which positions of one answer to which of the other."""
    mine, theirs = forms_of(prompt)[form][0], forms_of(other)[form][0]
    n, m = len(prompt.tokens), len(other.tokens)
    if positions == "answer_span":
        places = [(n - 1 + step, m - 1 + step) for step in range(len(mine))]
    elif positions == "all":
        places = [(at, at) for at in range(n + len(mine) - 1)]
    else:
        spans = (dict(prompt.spans)[positions], dict(other.spans)[positions])
        places = list(zip(*spans, strict=True))
    return [*prompt.tokens, *mine[:-1]], [*other.tokens, *theirs[:-1]], places


@torch.no_grad()
def hooked_sweep(
    roster: Roster,
    source: str,
    target: str,
    prompt: EncodedPrompt,
    *,
    interventions: Sequence[Sequence[Site]],
    write: str = "write",
    other: EncodedPrompt | None = None,
    positions: str = "answer_span",
) -> list[float]:
    """Log-odds of the target on a prompt with the source's activity put in.

    Args:
        roster: holds both agents.
        source: agent that activity comes from.
        target: agent that it is put into.
        prompt: the target's.
        interventions: lists of sites that are patched together; one value for each.
        write: ``write`` or ``z``, for heads.
        other: the source's prompt, if another.
        positions: ``answer_span``, ``all`` or a named span.
    """
    other = other or prompt
    parts = [s for sites in interventions for s in sites if s.kind in ("q", "k", "v")]
    found = np.full((len(interventions), 2), -np.inf)
    for index, (form, positive) in enumerate(forms_of(prompt)):
        tokens, theirs, places = places_of(prompt, other, positions, index)
        with roster.speaking(source) as model:
            recording = record(model, theirs, parts)
            given = Given(recording, out_matrices(model, recording), places, write)
        with roster.speaking(target) as model:
            for row, sites in enumerate(interventions):
                with hooked([handle for site in sites for handle in replace(model, site, given)]):
                    log_p = tiny.plain_logits(model, tokens).log_softmax(-1)
                start = len(prompt.tokens) - 1
                value = sum(float(log_p[start + i, t]) for i, t in enumerate(form))
                side = 0 if positive else 1
                found[row, side] = np.logaddexp(found[row, side], value)
    return [float(value) for value in found[:, 0] - found[:, 1]]
