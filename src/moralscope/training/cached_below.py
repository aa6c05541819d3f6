"""How is a frozen lower part run only once? Its residual stream is kept, and each pass resumes.

Where every adapter stands at layer L or above, nothing below L changes in training. The stream x
that enters layer L at a token depends on that token and those before it alone, so

1. the layers below L run once over the prefix tree of all sequences, and x is kept for every node;
2. every later forward begins at layer L with the kept x.

Both are the model's own forward in which some layers hand on what they are given: those from L on
while x is computed, those below L afterwards. Positions, masks, norms and the unembedding are the
model's. The kept stream takes ``nodes * width * bytes of a number``; beyond a limit it is a file
that is mapped into memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.core.errors import ConfigError, ModelError, OutputError
from moralscope.core.files import make_folder
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.models.anatomy import dissect
from moralscope.models.capture import hooks
from moralscope.models.families import FAMILIES
from moralscope.models.forward import run_tree
from moralscope.models.weights import is_lora
from moralscope.training.answers import autocast
from moralscope.training.config import ComputeDtype
from moralscope.training.supervised_batches import Corpus, Pack, packs_of

FILE = "stream.bin"

FILL_NODES = 512
"""Largest pack in which the stream is computed: attention costs the square of a pack, and nothing
is gained by larger ones beyond a shared beginning."""

_library: Any = torch
_Forward = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class KeptStream:
    """The residual stream that enters a layer, at every node of a tree.

    Attributes:
        values: ``[nodes, width]``, in the dtype in which the model computes its stream.
        mapped: whether it is a file that is mapped into memory.
        below: the layers that are not run.
    """

    values: Tensor
    mapped: bool
    below: tuple[nn.Module, ...]

    @property
    def layer(self) -> int:
        """The layer that it enters, at least 1."""
        return len(self.below)

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.values.numel() * self.values.element_size()


def adapted_layers(model: nn.Module) -> tuple[int, ...]:
    """The decoder layers that have an adapter, ascending.

    Raises:
        ModelError: the architecture is not supported.
    """
    return tuple(
        index
        for index, block in enumerate(dissect(model).blocks)
        if any(is_lora(module) for module in block.layer.modules())
    )


def layer_to_cache(model: nn.Module, wanted: int | str | None) -> int | None:
    """The layer at whose input the stream is kept; None where there is none to keep.

    Args:
        model: the decoder with its adapters.
        wanted: a layer, ``auto`` for the lowest one with an adapter where the architecture is
            supported, or None.

    Raises:
        ConfigError: no adapter stands at that layer or above, or one stands below it.
        ModelError: the architecture is not supported.
    """
    if wanted is None or (wanted == "auto" and not _is_known(model)):
        return None
    layers = adapted_layers(model)
    if wanted == "auto":
        return layers[0] if layers and layers[0] > 0 else None
    limit = int(wanted)
    if not layers or layers[-1] < limit:
        raise ConfigError(
            "No adapter stands at or above the layer whose input is kept",
            seen=f"cache_below {limit}, adapters at layers {_told(layers)}",
            allowed=f"layers up to {layers[0]}" if layers else "an adapter in a decoder layer",
            remedy="use cache_below: auto",
        )
    if layers[0] < limit:
        raise ConfigError(
            "An adapter stands below the layer whose input is kept: it would not be trained",
            seen=f"cache_below {limit}, adapters at layers {_told(layers)}",
            allowed=f"layers up to {layers[0]}",
            remedy="use cache_below: auto",
        )
    return limit


def _is_known(model: nn.Module) -> bool:
    config: Any = model.config
    return str(getattr(config, "model_type", "")) in FAMILIES


def _told(layers: Sequence[int]) -> str:
    return ", ".join(str(layer) for layer in layers) or "none"


@torch.no_grad()
def keep_stream(
    model: nn.Module,
    corpus: Corpus,
    layer: int,
    *,
    dtype: ComputeDtype = "float32",
    max_nodes: int,
    most_bytes: int,
    folder: Path,
    progress: Progress = silent,
) -> KeptStream:
    """Run the layers below one of them over all sequences, and keep what enters it.

    Args:
        model: the decoder.
        corpus: all sequences.
        layer: at least 1.
        dtype: of the forward.
        max_nodes: largest packed forward, in tree nodes; more than ``FILL_NODES`` are not used.
        most_bytes: of the cache in memory; a larger one is a file.
        folder: where that file is put; it is empty until it is filled, and is not read again.
        progress: called after each pack.

    Raises:
        ModelError: the stream is not finite, or the layers do not hand on a plain tensor.
        OutputError: the file cannot be made.
    """
    modules = tuple(block.layer for block in dissect(model).blocks)
    packs = packs_of(corpus, range(len(corpus.predicted)), min(max_nodes, FILL_NODES))
    kept: KeptStream | None = None
    for done, pack in enumerate(packs, 1):
        stream = _entering(model, modules, layer, pack, dtype)
        if not bool(torch.isfinite(stream).all()):
            raise ModelError(
                "An activation is not finite",
                seen=f"the residual stream that enters layer {layer}",
                allowed="finite numbers",
                remedy="check the weights, or run in float32: float16 overflows",
            )
        if kept is None:
            shape = (len(corpus.tree), stream.shape[-1])
            values, mapped = _place(shape, stream, most_bytes, folder)
            kept = KeptStream(values, mapped, modules[:layer])
        nodes = torch.as_tensor(pack.nodes, device=kept.values.device)
        kept.values[nodes] = stream.to(kept.values.device)
        where = "mapped from a file" if kept.mapped else "in memory"
        note = f"{kept.bytes / 2**20:.1f} MiB {where}"
        progress(ProgressEvent("keep the stream", done, len(packs), note))
    if kept is None:
        raise ValueError("a corpus has at least one sequence")
    return kept


def _entering(
    model: nn.Module, modules: Sequence[nn.Module], layer: int, pack: Pack, dtype: ComputeDtype
) -> Tensor:
    """The stream that enters a layer at the nodes of a pack, ``[nodes, width]``."""
    found: list[Tensor] = []

    def hear(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append((inputs[0] if inputs else named["hidden_states"])[0].clone())

    def check(module: nn.Module, _: object, output: object) -> None:
        _require_tensor(module, output)

    handles = [
        modules[layer].register_forward_pre_hook(hear, with_kwargs=True),
        modules[layer - 1].register_forward_hook(check),
    ]
    above: dict[nn.Module, _Forward] = dict.fromkeys(modules[layer:], _handed_on)
    with hooks(handles), _instead(above), autocast(model, dtype):
        run_tree(model, pack.tree, np.zeros(1, dtype=np.int64))
    return found[0]


def _require_tensor(layer: nn.Module, output: object) -> None:
    if not isinstance(output, Tensor):
        raise ModelError(
            "The layers of this model hand on more than their stream",
            seen=f"{type(layer).__name__} returned {type(output).__name__}",
            allowed="layers that return the residual stream as one tensor",
            remedy="use cache_below: null",
        )


def _handed_on(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    return hidden_states


def _begun(stream: Tensor, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    return stream.to(hidden_states.device)[None]


@contextlib.contextmanager
def _instead(forwards: dict[nn.Module, _Forward]) -> Generator[None]:
    """Give modules other forwards for the length of a block, and back what they had."""
    before = {module: vars(module).get("forward") for module in forwards}
    untyped: Any
    try:
        for untyped, forward in forwards.items():
            untyped.forward = forward
        yield
    finally:
        for untyped, was in before.items():
            if was is not None:
                untyped.forward = was
            elif "forward" in vars(untyped):
                del untyped.forward


def _place(
    shape: tuple[int, int], like: Tensor, most_bytes: int, folder: Path
) -> tuple[Tensor, bool]:
    """Room for the stream, and whether it is a file."""
    size = prod(shape) * like.element_size()
    if size <= most_bytes:
        return like.new_empty(shape), False
    path = make_folder(folder) / FILE
    try:
        path.unlink(missing_ok=True)
        values: Tensor = _library.from_file(
            str(path), shared=True, size=prod(shape), dtype=like.dtype
        )
    except (OSError, RuntimeError) as cause:
        raise OutputError(
            "The cache of the frozen layers cannot be made",
            seen=f"{path}, {size} bytes ({str(cause).splitlines()[0]})",
            allowed="a folder with that much space left",
            remedy="free some space, raise cache_gib, or use cache_below: null",
        ) from cause
    return values.view(shape), True


def read_pack(
    model: nn.Module,
    pack: Pack,
    *,
    kept: KeptStream | None = None,
    dtype: ComputeDtype = "float32",
) -> Tensor:
    """Logits where a pack's tokens are predicted, ``[kept nodes, vocabulary]``.

    Args:
        model: the decoder, with the wanted adapter active; gradients flow where they are enabled.
        pack: what to run.
        kept: the stream at the corpus' nodes, so that the layers below are not run; None runs all.
        dtype: of the forward.
    """
    with autocast(model, dtype), _resumed(pack, kept):
        return run_tree(model, pack.tree, pack.keep)


@contextlib.contextmanager
def _resumed(pack: Pack, kept: KeptStream | None) -> Generator[None]:
    if kept is None:
        yield
        return
    nodes = torch.as_tensor(pack.nodes, device=kept.values.device)
    below: dict[nn.Module, _Forward] = dict.fromkeys(kept.below, _handed_on)
    below[kept.below[0]] = partial(_begun, kept.values[nodes])
    with _instead(below):
        yield
