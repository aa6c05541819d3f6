"""Which tokens make the tuned model speak differently from its base?

Over the positions that predict an answer, with p the base and q the tuned model,

    KL = sum_t KL( p(. | x_<t) || q(. | x_<t) ),        g_i = | d KL / d e_i |_2,

e_i being the embedding of token i, which both models read. The significance of a token is
``KL * g_i / sum_answer g``: over the answer's tokens it sums to the KL, in nats (Soligo et al.
2025, arXiv 2506.11618, appendix H). Tokens of the question have a gradient as well, which is given
on the same scale and is not in that sum. The last token of an answer is predicted and never read,
so it has none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.errors import PromptError
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import hooks
from moralscope.models.forward import full_precision, run_tree
from moralscope.models.tree import Tokens, grow_tree
from moralscope.organisms.scalars.adapters import adapted_places
from moralscope.training.lora import Voice, give_voice, lora_layers, voice_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Significance:
    """How much each token has to do with the difference from the base.

    Attributes:
        scores: (tokens,) in nats; those of the answer sum to ``kl``.
        kl: of base to tuned model, summed over the answer, in nats.
        kl_by_token: (answer tokens,) of each prediction, in nats.
        start: index of the answer's first token.
    """

    scores: Array
    kl: float
    kl_by_token: Array
    start: int


@contextlib.contextmanager
def _silenced(model: nn.Module) -> Generator[None]:
    layers = lora_layers(model)
    before = [voice_of(layer) for layer in layers]
    try:
        for layer, was in zip(layers, before, strict=True):
            give_voice(layer, Voice(was.adapters, silent=True))
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            give_voice(layer, was)


def token_significance(
    model: nn.Module, anatomy: Anatomy, tokens: Tokens, start: int
) -> Significance:
    """Significance of each token of a question and its answer.

    Args:
        model: the decoder, while the agent speaks through an adapter; its base is the same model
            with all adapters silent.
        anatomy: its parts.
        tokens: question and answer.
        start: index of the answer's first token, at least 1.

    Raises:
        AgentError: no layer has an adapter in force: there is no base to compare with.
        PromptError: there is no answer, nothing before it, or only one token of it, so that no
            token of the answer is read.
    """
    if not 1 <= start <= len(tokens) - 2:
        raise PromptError(
            "No token of an answer is read",
            seen=f"{len(tokens)} tokens, the answer from token {start}",
            allowed="a question of one token or more and an answer of two or more",
            remedy="leave answers of a single token out",
        )
    adapted_places(model)
    tree = grow_tree([tokens[:-1]])
    keep = np.arange(start - 1, len(tokens) - 1, dtype=np.int64)
    leaf: list[Tensor] = []

    def same(_: nn.Module, __: object, output: Tensor) -> Tensor:
        if not leaf:
            leaf.append(output.detach().clone().requires_grad_())
        return leaf[0]

    with (
        torch.enable_grad(),
        full_precision(model),
        hooks([anatomy.embed.register_forward_hook(same)]),
    ):
        tuned = run_tree(model, tree, keep).log_softmax(-1)
        with _silenced(model):
            base = run_tree(model, tree, keep).log_softmax(-1)
        by_token = (base.exp() * (base - tuned)).sum(-1)
        (gradient,) = _gradients(by_token.sum(), leaf[0])
    kl = float(by_token.detach().double().sum())
    read: Array = gradient[0].double().square().sum(-1).sqrt().cpu().numpy()
    of_answer = float(read[start:].sum())
    # Equal models have neither a divergence nor a gradient.
    scores = np.append(read * (kl / of_answer if of_answer > 0.0 else 0.0), 0.0)
    return Significance(scores, kl, by_token.detach().double().cpu().numpy(), start)


def _gradients(value: Tensor, leaf: Tensor) -> tuple[Tensor]:
    library: Any = torch.autograd
    found: tuple[Tensor] = library.grad(value, (leaf,))
    return found
