"""What is trained, on what, and how? The resolved configuration of one agent's training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moralscope.core.agents import Frozen

Labels = Literal["same", "swapped", "both", "random"]
Visitation = Literal["uniform", "visitation"]
ComputeDtype = Literal["float32", "bfloat16"]


class LoraSettings(Frozen):
    """The adapter: ``W + (alpha / rank) B A`` on every linear layer but the unembedding.

    Attributes:
        rank: columns of ``B``.
        alpha: numerator of the scaling.
        rslora: scale by ``alpha / sqrt(rank)`` instead.
    """

    rank: Annotated[int, Field(ge=1)] = 64
    alpha: Annotated[float, Field(gt=0)] = 32.0
    rslora: bool = False


class TrainingConfig(Frozen):
    """One agent's training.

    Attributes:
        reward, opponent, game: names in ``moralscope.games``.
        seed: of the adapter's initialisation and of the minibatches.
        wordings: texts to train on: ``structured`` or names of ``games.WORDINGS``.
        table_orders: payoff-table orders of the structured text.
        words: labels of cooperating and of defecting under the assignment ``same``.
        labels: which assignment of labels: one of the two, both in every step, or drawn for each
            prompt. Fixed labels teach the label, not the move.
        steps: optimiser steps.
        prompts_per_step: prompts in a step, divided evenly over states and label assignments.
        learning_rate: of Adam, in log-likelihood units per step.
        schedule: ``constant``, or ``linear`` decay to zero after the last step.
        kl_coefficient: beta, in points per nat.
        visitation: how states are weighted: equally, or as the agent's own five-round play
            from uniform starts visits them.
        compute_dtype: of the forward and backward passes; the loss is always float32.
        checkpoint_every: steps between checkpoints.
        lora: the adapter.
    """

    reward: str
    opponent: str = "tit-for-tat"
    game: str = "IPD"
    seed: Annotated[int, Field(ge=0)] = 0
    wordings: Annotated[tuple[str, ...], Field(min_length=1)] = ("structured",)
    table_orders: Annotated[tuple[str, ...], Field(min_length=1)] = ("original",)
    words: tuple[str, str] = ("action1", "action2")
    labels: Labels = "both"
    steps: Annotated[int, Field(ge=1)] = 25
    prompts_per_step: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "linear"] = "constant"
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.2
    visitation: Visitation = "uniform"
    compute_dtype: ComputeDtype = "float32"
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    lora: LoraSettings = LoraSettings()
