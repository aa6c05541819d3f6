"""What do all steps of a training work with? The base with its adapters, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moralscope.core.streams import integer_seed
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.tree import Tokens
from moralscope.training.answers import Question, Reading, generate_answers, read_answers
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import Processes
from moralscope.training.learners import Learner, descend
from moralscope.training.lora import adapter_dropout, speaking
from moralscope.training.optimising import require_finite


@dataclass(frozen=True)
class StepReport:
    """What one learner's step reports.

    Attributes:
        agent: whose.
        values: columns of the table ``training``.
        turns: rows of the table ``plays``, where play was sampled.
    """

    agent: str
    values: Mapping[str, object]
    turns: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True)
class Session:
    """A training that is under way.

    Attributes:
        config: the training.
        base: the base model.
        wrapped: the same with its adapters.
        processes: who shares the work.
        max_nodes: largest packed forward, in tree nodes.
    """

    config: TrainingConfig
    base: LoadedModel
    wrapped: Any
    processes: Processes
    max_nodes: int

    def read(
        self, adapter: str | None, questions: Sequence[Question], *, hidden: bool = False
    ) -> Reading:
        """Read questions with an adapter active, or the base; gradients where enabled."""
        with speaking(self.wrapped, adapter):
            return read_answers(
                self.base.model,
                questions,
                dtype=self.config.compute_dtype,
                max_nodes=self.max_nodes,
                hidden=hidden,
                processes=self.processes,
            )

    def generate(
        self,
        adapter: str,
        prompts: Sequence[EncodedPrompt],
        uniforms: NDArray[np.float64],
        known: dict[Tokens, NDArray[np.float64]],
        address: tuple[int, ...],
    ) -> tuple[Tokens, ...]:
        """Draw answers with an adapter active, with its dropout on where the training says so.

        Args:
            adapter: who answers.
            prompts: one for each answer.
            uniforms: ``[prompts, tokens]``, see ``generate_answers``.
            known: distributions since the adapter last moved; with dropout none is used twice.
            address: of what dropout draws.
        """
        dropout = self.config.sampling.dropout_while_playing and self.config.lora.dropout > 0
        seed = integer_seed(self.config.seed, "dropout", *address)
        own = list(self.processes.share(len(prompts)))
        drawn: tuple[Tokens, ...] = ()
        if own:
            with speaking(self.wrapped, adapter), adapter_dropout(self.wrapped, dropout, seed):
                drawn = generate_answers(
                    self.base.model,
                    [prompts[i] for i in own],
                    uniforms[own],
                    {} if dropout else known,
                    dtype=self.config.compute_dtype,
                    max_nodes=self.max_nodes,
                )
        # Processes have blocks of the games in their order, and tokens are exact in float64.
        mine = torch.tensor(drawn, dtype=torch.float64).reshape(len(own), uniforms.shape[1])
        everyone: list[list[float]] = self.processes.gather_rows(mine).numpy().tolist()
        return tuple(tuple(int(token) for token in row) for row in everyone)

    def descend(self, learner: Learner, losses: Sequence[Tensor], rate: float) -> float:
        """One optimiser step; returns the gradient's length before it is shortened, if it is."""
        # What is recomputed in the backward pass must be recomputed with the same adapter.
        with speaking(self.wrapped, learner.seat.adapter):
            return descend(learner, losses, rate=rate, share=self.share)

    def share(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Sum over all processes the gradients of parameters that are reached through rows."""
        self.processes.sum_gradients(parameters)

    def require_finite(self, agent: str, step: int, loss: Tensor) -> None:
        """Refuse a loss that is not finite.

        Raises:
            AgentError: it is not; the last checkpoint is kept.
        """
        require_finite(agent, step, loss)
