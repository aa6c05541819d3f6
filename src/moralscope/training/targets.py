"""Where do adapters go? Names of sites and layers, turned into the linear layers that they mean.

An entry of ``LoraSettings.sites`` is one of

    L11-L23 mlp    L5 attn    L3.q    L0-L3 q,v    layers, and parts of them
    L11-L23                                        layers, every linear layer of them
    mlp    q,v    down_proj                        parts of every layer
    model.layers.3.mlp.down_proj                   one linear layer by its own name

A part is ``attn``, ``mlp``, ``q``, ``k``, ``v``, ``o`` (attention's output projection), or what the
model calls a projection. Entries add up. An adapter changes a whole linear layer, so it has no
heads; and where a family computes queries, keys and values in one layer, no adapter changes one
of the three alone.

An adapter of rank r (LoRA, Hu et al. 2021) beside a layer of m inputs and n outputs has
``r (m + n)`` trainable parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from moralscope.core.errors import ConfigError, nearest
from moralscope.models.anatomy import dissect
from moralscope.models.families import FAMILIES, Family
from moralscope.models.libraries import transformers
from moralscope.models.weights import is_lora, shape_of
from moralscope.training.config import LoraSettings

_ENTRY = re.compile(r"(?:L(?P<first>\d+)(?:\s*-\s*L?(?P<last>\d+))?(?![\w-]))?[\s.]*(?P<parts>.*)")
_HEAD = re.compile(r"(?:h|kv)\d+(?:\.[qkv])?")
_PARTS = ("attn", "mlp", "q", "k", "v", "o")
_CONV1D: Any = transformers.pytorch_utils.Conv1D

_FLOATS = 4
"""Numbers kept of each trainable parameter: itself, its gradient, Adam's two moments."""


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer but the unembedding, by name, in the model's order.

    These are what an adapter stands beside where no sites are given. Layers that have an adapter
    already count as the one layer that they adapt.
    """
    untyped: Any = model
    output: object = untyped.get_output_embeddings()
    found: dict[str, nn.Module] = {}
    named: Iterable[tuple[str, nn.Module]] = untyped.named_modules()
    for name, module in named:
        inside = any(name.startswith(f"{above}.") for above in found)
        plain = is_lora(module) or isinstance(module, nn.Linear | _CONV1D)
        if plain and not inside and module is not output:
            found[name] = module
    return found


def target_modules(model: nn.Module, sites: Sequence[str]) -> tuple[str, ...]:
    """The linear layers that sites mean.

    Args:
        model: the decoder.
        sites: entries in the grammar above; every linear layer but the unembedding with none.

    Returns:
        Full names, each once, in the model's order; at least one.

    Raises:
        ConfigError: a layer or part that the model does not have, a head, one of several
            projections that are computed together, or an entry that chooses nothing.
        ModelError: layers or parts are named, and the architecture is not supported.
    """
    layers = linear_layers(model)
    if not sites:
        return tuple(layers)
    chosen: set[str] = set()
    for entry in sites:
        if entry.strip() in layers:
            chosen.add(entry.strip())
        else:
            chosen |= _chosen(_parse(entry), _take_apart(model, layers))
    return tuple(name for name in layers if name in chosen)


@dataclass(frozen=True)
class _Entry:
    text: str
    first: int | None
    last: int | None
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Model:
    """A decoder's linear layers, layer by layer: name within the layer, to the full name."""

    family: Family
    layers: tuple[Mapping[str, str], ...]

    @property
    def own_names(self) -> tuple[str, ...]:
        """What the model calls its projections: the last parts of their names."""
        return tuple(sorted({name.rpartition(".")[2] for layer in self.layers for name in layer}))


def _parse(entry: str) -> _Entry:
    found = _ENTRY.fullmatch(entry.strip())
    named = [] if found is None else [part.strip() for part in found["parts"].split(",")]
    parts = tuple(part for part in named if part)
    if found is None or (found["first"] is None and not parts):
        raise ConfigError(
            "An adapter's site chooses nothing",
            seen=repr(entry),
            allowed="L11-L23 mlp, L5 attn, L3.q, L0-L3 q,v, L11-L23, down_proj, or a layer's name",
            remedy="leave sites out to adapt every linear layer",
        )
    first = None if found["first"] is None else int(found["first"])
    last = first if found["last"] is None else int(found["last"])
    return _Entry(entry, first, last, parts)


def _take_apart(model: nn.Module, linear: Mapping[str, nn.Module]) -> _Model:
    anatomy = dissect(model)
    family = FAMILIES[anatomy.model_type]
    found: list[dict[str, str]] = []
    for index in range(anatomy.n_layers):
        prefix = f"{family.core}.{family.layers}.{index}."
        found.append({n.removeprefix(prefix): n for n in linear if n.startswith(prefix)})
    return _Model(family, tuple(found))


def _chosen(entry: _Entry, model: _Model) -> set[str]:
    last = len(model.layers) - 1
    first, until = entry.first or 0, last if entry.last is None else entry.last
    if until > last or first > until:
        what = f"The model has no layer {until}" if until > last else "A range of layers is empty"
        raise ConfigError(
            what,
            seen=entry.text,
            allowed=f"layers 0 to {last}, the lower one first",
            remedy=f"the nearest is L{min(first, until, last)}-L{min(max(first, until), last)}",
        )
    chosen: set[str] = set()
    for layer in model.layers[first : until + 1]:
        if not entry.parts:
            chosen |= set(layer.values())
        if model.family.fused is not None and {"q", "k", "v"} <= set(entry.parts):
            chosen.add(layer[model.family.fused])
        for part in entry.parts:
            chosen |= {layer[name] for name in _named(part, layer, model, entry)}
    return chosen


def _named(part: str, layer: Mapping[str, str], model: _Model, entry: _Entry) -> list[str]:
    """The names within a layer that a part means."""
    family = model.family
    paths = {"q": family.query, "k": family.key, "v": family.value, "o": family.out_proj}
    if part in ("q", "k", "v") and family.fused is not None:
        if {"q", "k", "v"} <= set(entry.parts):
            return []
        own = family.fused.rpartition(".")[2]
        raise ConfigError(
            f"An adapter cannot change {part} alone: this model computes queries, keys and values "
            "in one linear layer",
            seen=entry.text,
            allowed=f"all three together, as q,k,v or {own}",
            remedy=f"write {own}, or train a model whose projections are apart",
        )
    if part in paths:
        return [paths[part]]
    if part in ("attn", "mlp"):
        above = family.mlp if part == "mlp" else family.out_proj.rpartition(".")[0]
        return [name for name in layer if name == above or name.startswith(f"{above}.")]
    found = [name for name in layer if name == part or name.endswith(f".{part}")]
    if not found:
        head = _HEAD.fullmatch(part) is not None
        known = (*_PARTS, *model.own_names)
        raise ConfigError(
            "An adapter cannot stand on a head: it changes a whole linear layer"
            if head
            else f"A layer of the model has no part {part!r}",
            seen=entry.text,
            allowed=", ".join(known),
            remedy=f"write L{entry.first or 0} attn" if head else nearest(part, known),
        )
    return found


@dataclass(frozen=True, slots=True)
class TrainableCount:
    """How many parameters an adapter trains, and what its sites save.

    Attributes:
        parameters: trainable ones.
        all_linear: what the same rank would train beside every linear layer.
        layers: linear layers with an adapter.
    """

    parameters: int
    all_linear: int
    layers: int

    @property
    def share(self) -> float:
        """Of the parameters that all linear layers would have, in (0, 1]."""
        return self.parameters / self.all_linear

    @property
    def saved(self) -> float:
        """``1 - share``."""
        return 1.0 - self.share

    @property
    def bytes(self) -> int:
        """Memory of training them in float32: parameter, gradient and Adam's two moments."""
        return 4 * _FLOATS * self.parameters

    @property
    def saved_bytes(self) -> int:
        """The same of the parameters that are left out."""
        return 4 * _FLOATS * (self.all_linear - self.parameters)

    def to_json(self) -> dict[str, int | float]:
        """As it is written beside the adapter."""
        return {
            "parameters": self.parameters,
            "all_linear": self.all_linear,
            "layers": self.layers,
            "share": self.share,
            "bytes": self.bytes,
            "saved_bytes": self.saved_bytes,
        }


def count_trainable(model: nn.Module, settings: LoraSettings) -> TrainableCount:
    """Count an adapter's parameters without making it.

    Raises:
        ConfigError: as ``target_modules``.
    """
    layers = linear_layers(model)
    sizes = {name: settings.rank * sum(shape_of(layer)) for name, layer in layers.items()}
    chosen = target_modules(model, settings.sites)
    return TrainableCount(sum(sizes[n] for n in chosen), sum(sizes.values()), len(chosen))
