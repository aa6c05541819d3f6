"""What if the adapters had said on this prompt what they said on another?

At every token of a prompt the scalar s of chosen adapters is replaced by that of another prompt at
the same index, and everything after follows: other layers, other tokens, the answers. At the
answers' own tokens each adapter speaks for itself. Prompts must be of equal length (Soligo et al.
2025, arXiv 2506.11618, appendix J). With the prompt itself as the other one nothing changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moralscope.core.errors import PromptError
from moralscope.models.capture import hooks
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import Normalise, make_packs, option_log_probabilities
from moralscope.organisms.scalars.adapters import RankOne
from moralscope.organisms.scalars.reading import Array, read_scalars


@dataclass(frozen=True, slots=True)
class PatchedScalars:
    """Log-odds of a prompt with the adapters' scalars of another, in nats.

    Attributes:
        baseline: with its own.
        patched: with the other's.
        other: of the other prompt, with its own.
    """

    baseline: float
    patched: float
    other: float

    @property
    def effect(self) -> float:
        """Patched minus baseline."""
        return self.patched - self.baseline


@contextlib.contextmanager
def saying(adapters: Sequence[RankOne], nodes: Tensor, scalars: Array) -> Generator[None]:
    """Replace the scalars at some tokens of every forward pass inside the block.

    Args:
        adapters: whose.
        nodes: indices of tokens in the packed sequence, ``(n,)``.
        scalars: (n, adapters) what they say there.
    """

    def replace(index: int) -> RemovableHandle:
        wanted = torch.as_tensor(scalars[:, index])

        def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[0, nodes.to(output.device), 0] = wanted.to(output)
            return changed

        down: Any = adapters[index].down
        return down.register_forward_hook(hook)

    with hooks([replace(index) for index in range(len(adapters))]):
        yield


@torch.no_grad()
def patch_scalars(
    model: nn.Module,
    adapters: Sequence[RankOne],
    prompt: EncodedPrompt,
    other: EncodedPrompt,
    *,
    normalise: Normalise = "none",
) -> PatchedScalars:
    """Log-odds of a prompt when adapters say what they said on another.

    Args:
        model: the decoder, while the agent speaks.
        adapters: whose scalars are replaced; the others speak for themselves.
        prompt: what is asked.
        other: where the scalars are from, as many tokens.
        normalise: as in ``models.scoring``.

    Raises:
        PromptError: the prompts are of different length.
    """
    if len(prompt.tokens) != len(other.tokens):
        raise PromptError(
            "Scalars of one prompt cannot be put into another",
            seen=f"{prompt.name!r} of {len(prompt.tokens)} tokens, {other.name!r} of "
            f"{len(other.tokens)}",
            allowed="prompts of equal length",
            remedy="pair questions that differ in single words of one token each",
        )
    (theirs,) = read_scalars(model, adapters, [other.tokens])
    (pack,) = make_packs([prompt], max_nodes=1)
    path = pack.tree.paths[0][: len(prompt.tokens)]
    nodes = torch.as_tensor(np.asarray(path))
    baseline = _log_odds(model, prompt, normalise)
    with saying(adapters, nodes, theirs):
        patched = _difference(option_log_probabilities(model, pack, normalise))
    return PatchedScalars(baseline, patched, _log_odds(model, other, normalise))


def _log_odds(model: nn.Module, prompt: EncodedPrompt, normalise: Normalise) -> float:
    (pack,) = make_packs([prompt], max_nodes=1)
    return _difference(option_log_probabilities(model, pack, normalise))


def _difference(values: Tensor) -> float:
    found = values.double()
    return float(found[0, 0] - found[0, 1])
