"""How is a running decoder changed, and surely changed back? Changes placed for one block of code.

A change is a function of one activation, placed at the input or the output of a module:

    change: (batch, tokens, ...) -> (batch, tokens, ...)

``placed`` holds changes for the length of a ``with`` block. They are taken away however the block
ends: normally, by an exception in a forward or in the block, or because the generator behind it is
closed. At one place, changes act in the order in which their blocks were entered; at different
places, in the order in which the decoder computes them, because every place has one point only:

    stream before layer 0       input of layer 0
    stream before layer l > 0   output of layer l - 1, which is also the stream after it
    attention's write           output of its post-norm, else of the output projection
    the MLP's write             output of its post-norm, else of the MLP

The stream between attention and MLP is no module's output, so it is changed through attention's
write, with the stream that the layer was really given. ``models.capture`` looks at the same points,
so a capture inside the block sees what was changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import ConfigError, ModelError
from moralscope.models.anatomy import Anatomy, Block
from moralscope.models.capture import first_tensor

Change = Callable[[Tensor], Tensor]

Positions = Literal["all", "last"] | Sequence[int]
"""Which tokens of a forward are changed: all, the last of each sequence, or those of these indices.

In a packed tree the last token is no prompt's end; give node indices there, such as ``pack.keep``.
"""


@dataclass(frozen=True, eq=False)
class Placement:
    """One change and its place.

    Attributes:
        module: where.
        end: at its input or its output.
        change: what is done there.
    """

    module: nn.Module
    end: Literal["input", "output"]
    change: Change


@contextlib.contextmanager
def placed(placements: Iterable[Placement]) -> Generator[None]:
    """Keep changes in force for the length of a block, and never longer."""
    with contextlib.ExitStack() as stack:
        for placement in placements:
            stack.enter_context(_hook(placement))
        yield


def _hook(placement: Placement) -> RemovableHandle:
    change = placement.change

    def on_output(_: nn.Module, __: object, output: object) -> object:
        changed = change(first_tensor(output))
        if not isinstance(output, tuple):
            return changed
        # Attention modules, and layers of some libraries, give more than the activation.
        return (changed, *cast("tuple[Any, ...]", output)[1:])

    def on_input(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    if placement.end == "output":
        return placement.module.register_forward_hook(on_output)
    return placement.module.register_forward_pre_hook(on_input, with_kwargs=True)


def at_stream(anatomy: Anatomy, depth: int, change: Change) -> Placement:
    """A change of the residual stream before layer ``depth``; after the last for ``n_layers``."""
    if depth == 0:
        return Placement(anatomy.blocks[0].layer, "input", change)
    return Placement(anatomy.blocks[depth - 1].layer, "output", change)


def at_attention_write(block: Block, change: Change) -> Placement:
    """A change of what attention adds to the stream."""
    norm = block.attention_post_norm
    return Placement(block.out_proj if norm is None else norm, "output", change)


def at_mlp_write(block: Block, change: Change) -> Placement:
    """A change of what the MLP adds to the stream."""
    norm = block.mlp_post_norm
    return Placement(block.mlp if norm is None else norm, "output", change)


def at_middle(block: Block, change: Change) -> tuple[Placement, ...]:
    """A change of the stream between attention and MLP.

    The new stream minus the layer's input becomes attention's write, so the stream has the new
    value up to one rounding. Tokens that the change leaves alone are not touched at all.
    """
    seen: list[Tensor] = []

    def begin(x: Tensor) -> Tensor:
        seen.clear()
        return x

    def observe(x: Tensor) -> Tensor:
        # The first part that a layer calls is given the stream itself, after every change of it.
        if not seen:
            seen.append(x)
        return x

    def write(x: Tensor) -> Tensor:
        before = seen.pop()
        middle = before + x
        wanted = change(middle)
        touched = (wanted != middle).any(-1, keepdim=True)
        return torch.where(touched, wanted - before, x)

    parts = [Placement(child, "input", observe) for child in block.layer.children()]
    return (Placement(block.layer, "input", begin), *parts, at_attention_write(block, write))


def check_anatomy(model: nn.Module, anatomy: Anatomy) -> None:
    """Refuse an anatomy that does not describe this model as it is now.

    Raises:
        ModelError: it is another model's, or adapters were added after it was made.
    """
    if not any(module is anatomy.core for module in model.modules()):
        raise ModelError(
            "The anatomy describes another model",
            seen=f"a {anatomy.model_type} decoder that is not inside this {type(model).__name__}",
            allowed="the anatomy of this very model",
            remedy="describe the model with dissect(model), an agent with roster.anatomy(name)",
        )
    for block in anatomy.blocks:
        parts = (block.out_proj, block.mlp, block.q.module, block.k.module, block.v.module)
        wrapped = {id(getattr(module, "base_layer", None)) for module in block.layer.modules()}
        if any(id(part) in wrapped for part in parts):
            raise ModelError(
                "The anatomy is older than the adapters of the model",
                seen="a projection that has become the base layer of an adapter",
                allowed="an anatomy made after the last adapter was added",
                remedy="describe the model again with dissect(model)",
            )


def check_positions(positions: Positions) -> None:
    """Refuse positions that no forward has.

    Raises:
        ConfigError: they are neither a word that is understood nor indices from 0.
    """
    if isinstance(positions, str):
        good = positions in ("all", "last")
    else:
        good = len(positions) > 0 and all(int(p) >= 0 for p in positions)
    if not good:
        raise ConfigError(
            "These are not positions of a forward",
            seen=repr(positions),
            allowed="'all', 'last', or indices of tokens from 0, at least one",
            remedy="give 'all', or pack.keep for the answer spans of a packed tree",
        )


def tokens_at(x: Tensor, positions: Positions) -> slice | Tensor:
    """Positions as an index of axis 1 of an activation.

    Raises:
        ModelError: this forward is too short for them.
    """
    if isinstance(positions, str):
        return slice(None) if positions == "all" else slice(x.shape[1] - 1, x.shape[1])
    indices = [int(p) for p in positions]
    if max(indices) >= x.shape[1]:
        raise ModelError(
            "A position is beyond the end of the forward",
            seen=f"position {max(indices)} of {x.shape[1]} tokens",
            allowed=f"0 to {x.shape[1] - 1}",
            remedy="give positions of the sequence or pack that is run inside the block",
        )
    return torch.as_tensor(indices, device=x.device)


def check_direction(name: str, values: Tensor, width: int, dtype: torch.dtype) -> None:
    """Refuse a vector of the stream that does not fit the model.

    Args:
        name: what it is called in the message.
        values: ``(..., width)``.
        width: of the stream.
        dtype: that the model computes in.

    Raises:
        ModelError: the width differs, or a number is not finite in that dtype.
    """
    if values.ndim == 0 or values.shape[-1] != width:
        raise ModelError(
            f"The {name} does not fit the model",
            seen=f"shape {tuple(values.shape)}",
            allowed=f"{width} numbers, the width of the residual stream",
            remedy="take it from a run of this model, for example with direction_between",
        )
    bad = ~torch.isfinite(values.to(dtype))
    if bad.any():
        raise ModelError(
            f"The {name} is not finite",
            seen=f"{int(bad.sum())} of {values.numel()} numbers, in {dtype}",
            allowed="finite numbers",
            remedy="check where it was computed",
        )
