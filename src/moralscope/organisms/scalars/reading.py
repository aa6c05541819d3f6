"""What does each rank-1 adapter say at each token?

At every token the input x of the adapted layer (for a down-projection: the MLP after its
nonlinearity) gives one number ``s = a . x`` per adapter, and what the adapter adds to the layer's
output is ``scaling * s * b``. Numbers of different adapters are compared by that length, with sign,

    contribution = scaling * s * |b|        (Soligo et al. 2025, arXiv 2506.11618, section 4).

``b`` may be turned round together with ``a``: the sign of s means nothing by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import PromptError
from moralscope.models.capture import hooks
from moralscope.models.forward import full_precision, run_tree
from moralscope.models.scoring import MAX_NODES
from moralscope.models.tree import Tokens, cut_into_packs, grow_tree
from moralscope.organisms.scalars.adapters import RankOne

Array = NDArray[np.float64]


@contextlib.contextmanager
def recording(adapters: Sequence[RankOne]) -> Generator[list[Tensor]]:
    """Keep the scalars of a forward pass inside the block.

    Yields:
        For each adapter, in order, its scalars ``(tokens,)`` of the last forward pass, float32 or
        wider, once one has run.
    """
    found: list[Tensor] = [torch.empty(0)] * len(adapters)

    def keep(index: int) -> RemovableHandle:
        direction = adapters[index].reads

        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            read: Tensor = args[0][0].detach()
            found[index] = read.to(direction.dtype) @ direction

        return adapters[index].linear.register_forward_pre_hook(hook)

    with hooks([keep(index) for index in range(len(adapters))]):
        yield found


@torch.no_grad()
def read_scalars(
    model: nn.Module,
    adapters: Sequence[RankOne],
    sequences: Sequence[Tokens],
    *,
    max_nodes: int = MAX_NODES,
) -> tuple[Array, ...]:
    """The scalar of each adapter at each token; shared beginnings are run once.

    Args:
        model: the decoder, while the agent speaks.
        adapters: from ``rank_one_adapters``.
        sequences: token sequences, each of one token or more.
        max_nodes: largest pack.

    Returns:
        For each sequence ``(tokens, adapters)``, in the order given.

    Raises:
        PromptError: a sequence is empty.
    """
    empty = [at for at, tokens in enumerate(sequences) if not tokens]
    if empty:
        raise PromptError(
            "A text has no token to read",
            seen=f"text {empty[0]} of {len(sequences)}",
            allowed="one token or more",
            remedy="leave empty answers out",
        )
    if not adapters:
        return tuple(np.zeros((len(tokens), 0)) for tokens in sequences)
    found: dict[int, Array] = {}
    for pack in cut_into_packs([[tokens] for tokens in sequences], max_nodes):
        tree = grow_tree([sequences[at] for at in pack])
        with recording(adapters) as scalars, full_precision(model):
            run_tree(model, tree, np.array([len(tree) - 1], dtype=np.int64))
        values = torch.stack(scalars, 1).double().cpu().numpy()
        for at, path in zip(pack, tree.paths, strict=True):
            found[at] = values[path]
    return tuple(found[at] for at in range(len(sequences)))


def contributions(scalars: Array, adapters: Sequence[RankOne]) -> Array:
    """Length of what each adapter adds at each token, with the sign of s.

    Args:
        scalars: (tokens, adapters) from ``read_scalars``.
        adapters: the same.

    Returns:
        (tokens, adapters), in the unit of the layer's output.
    """
    norms = [each.scaling * float(each.writes.double().square().sum().sqrt()) for each in adapters]
    return scalars * np.array(norms)
