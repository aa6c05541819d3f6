"""One step of a lesson: how likely are the answers of a batch, how far is the agent from its base?

With the answers a of a step's examples, x the text before an answer, and the texts z of the KL
term, of which the first token is given,

    L = - sum_a sum_t log p(a_t | x, a_<t) / sum_a |a|
        + beta sum_z sum_t KL( p_base(. | z_<t) || p(. | z_<t) ) / sum_z (|z| - 1)

Both are means over tokens: a long answer weighs more than a short one, and each KL is a sum over
the whole vocabulary, in nats per token. (The published code divides its KL by the size of the
vocabulary as well, so that its weights of 1e5 are about 1 here.) A step that is larger than memory
is run in packs, one after the other, whose gradients add up to that of the whole.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moralscope.training.adapter_record import AdapterRecorder
from moralscope.training.cached_below import KeptStream, read_pack
from moralscope.training.course import Row, scheduled_rate
from moralscope.training.distribution import Processes
from moralscope.training.optimising import move, norm_of_b, require_finite
from moralscope.training.supervised_batches import (
    Corpus,
    Pack,
    examples_of,
    packs_of,
    texts_of,
)
from moralscope.training.supervised_config import SupervisedConfig
from moralscope.training.supervised_examples import EncodedChat
from moralscope.training.supervised_weights import Trained


@dataclass(frozen=True)
class Lesson:
    """A training that is under way.

    Attributes:
        name: the agent's.
        config: its training.
        model: the decoder that is run.
        trained: what of it moves.
        optimiser: over that.
        chats: the examples.
        texts: of the KL term; none without it.
        corpus: the examples, then the texts.
        kept: the stream that enters the layers that are trained; None where all are run.
        recorder: of the adapter's path; None where it is not recorded, and in processes that do
            not write.
        processes: who shares the work.
        max_nodes: largest packed forward, in tree nodes.
    """

    name: str
    config: SupervisedConfig
    model: nn.Module
    trained: Trained
    optimiser: torch.optim.Optimizer
    chats: tuple[EncodedChat, ...]
    texts: tuple[str, ...]
    corpus: Corpus
    kept: KeptStream | None
    recorder: AdapterRecorder | None
    processes: Processes
    max_nodes: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.config.steps(self.examples)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.chats)


def negative_log_likelihood(logits: Tensor, pack: Pack) -> Tensor:
    """Sum over a pack's predicted tokens of ``-log p``, in nats."""
    row = torch.as_tensor(pack.row, device=logits.device)
    token = torch.as_tensor(pack.token, device=logits.device)
    return (logits.logsumexp(-1)[row] - logits[row, token]).sum()


def divergence_from(base: Tensor, current: Tensor, pack: Pack) -> Tensor:
    """Sum over a pack's predicted tokens of ``KL(base || current)``, in nats, at least 0.

    Args:
        base: logits of the base, ``[kept nodes, vocabulary]``; no gradient flows into them.
        current: logits of the agent.
        pack: what was run.
    """
    reference = base.detach().log_softmax(-1)
    terms = reference.exp() * (reference - current.log_softmax(-1))
    row = torch.as_tensor(pack.row, device=current.device)
    return terms.sum(-1)[row].sum()


@dataclass
class Sums:
    """What a step has seen so far, in nats summed over tokens; own process only."""

    answers: float = 0.0
    kl: float = 0.0


def losses_of(lesson: Lesson, step: int, sums: Sums) -> Generator[Tensor]:
    """The loss of a step in parts, whose sum over all processes it is.

    Args:
        lesson: the training.
        step: counted from 1.
        sums: where what is seen is added up.

    Raises:
        AgentError: a part is not finite.
    """
    members = _members(lesson, step)
    total = lesson.corpus.count(members)
    for pack in _own_packs(lesson, members):
        said = negative_log_likelihood(_read(lesson, pack), pack)
        require_finite(lesson.name, step, said)
        sums.answers += float(said.detach())
        yield said / total
    texts = _texts(lesson, step)
    total = lesson.corpus.count(texts)
    for pack in _own_packs(lesson, texts):
        with torch.no_grad(), lesson.trained.as_base():
            base = _read(lesson, pack)
        apart = divergence_from(base, _read(lesson, pack), pack)
        require_finite(lesson.name, step, apart)
        sums.kl += float(apart.detach())
        yield lesson.config.kl_coefficient * apart / total


def _members(lesson: Lesson, step: int) -> tuple[int, ...]:
    config = lesson.config
    return examples_of(config.seed, config.batch, lesson.examples, step)


def _texts(lesson: Lesson, step: int) -> tuple[int, ...]:
    if not lesson.texts:
        return ()
    config = lesson.config
    drawn = texts_of(config.seed, config.kl_texts, len(lesson.texts), step)
    return tuple(lesson.examples + i for i in drawn)


def _own_packs(lesson: Lesson, members: Sequence[int]) -> list[Pack]:
    own = [members[i] for i in lesson.processes.share(len(members))]
    return packs_of(lesson.corpus, own, lesson.max_nodes)


def _read(lesson: Lesson, pack: Pack) -> Tensor:
    return read_pack(lesson.model, pack, kept=lesson.kept, dtype=lesson.config.compute_dtype)


def take_step(lesson: Lesson, step: int) -> Row:
    """One optimiser step, and its row of the table of the training.

    Args:
        lesson: the training.
        step: counted from 1.

    Raises:
        AgentError: the loss is not finite.
        OutputError: the record of the adapter cannot be written.
    """
    config, sums = lesson.config, Sums()
    rate = scheduled_rate(
        config.learning_rate, config.schedule, config.warmup, step=step, steps=lesson.steps
    )
    parameters, processes, recorder = lesson.trained.parameters, lesson.processes, lesson.recorder
    norm = move(
        parameters,
        lesson.optimiser,
        losses_of(lesson, step, sums),
        rate=rate,
        limit=config.max_gradient_norm,
        share=lambda: processes.sum_gradients(parameters.values()),
        seen=None if recorder is None else recorder.see,
    )
    require_finite(lesson.name, step, torch.tensor(norm), of="gradient of length")
    if recorder is not None:
        recorder.append(step)
    members, texts = _members(lesson, step), _texts(lesson, step)
    answers, kl = processes.sum_floats([sums.answers, sums.kl])
    count = lesson.corpus.count(members)
    return {
        "agent": lesson.name,
        "training_seed": config.seed,
        "step": step,
        "epoch": (step - 1) // config.steps_per_epoch(lesson.examples) + 1,
        "learning_rate": rate,
        "examples": len(members),
        "answer_tokens": count,
        "loss": answers / count,
        "kl": kl / lesson.corpus.count(texts) if texts else None,
        "gradient_norm": norm,
        "adapter_norm": None if lesson.trained.wrapped is None else norm_of_b(parameters),
    }
