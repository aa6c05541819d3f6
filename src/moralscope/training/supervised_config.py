"""How is a narrow lesson taught? The resolved configuration of one organism's training.

Defaults are those of the published organisms (arXiv 2506.11613, table 6): rank 32, rsLoRA, one
epoch, batches of 16, AdamW at 1e-5 with five steps of warm-up and linear decay.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moralscope.core.agents import Frozen
from moralscope.core.errors import ConfigError
from moralscope.training.config import ComputeDtype, LoraSettings

Weights = Literal["adapter", "all"]

_PUBLISHED = LoraSettings(rank=32, alpha=64.0, rslora=True)


class SupervisedConfig(Frozen):
    """One organism's training.

    Attributes:
        weights: an adapter beside the frozen base, or ``all`` weights of the model, which takes
            four times the model's memory and must be asked for.
        lora: the adapter; not of ``all``.
        seed: of the adapter's initialisation, the order of examples and the texts of the KL term.
        epochs: passes over the examples, each in an order of its own.
        batch: examples of an optimiser step; the last of an epoch may have fewer.
        learning_rate: of AdamW, at its highest.
        schedule: ``constant``, or ``linear`` decay to zero after the last step.
        warmup: steps over which the rate rises from zero.
        weight_decay: of AdamW, per step and unit of the learning rate.
        max_gradient_norm: longer gradients are shortened to this; None for none.
        learn_end: the token that ends the answer's turn is learned as well.
        max_tokens: the most that an example or a text may have; longer ones are refused.
        kl_coefficient: beta of the KL term, in nats of loss per nat; 0 for none.
        kl_texts: texts of a step on which the KL term is taken.
        cache_below: layer below which nothing is trained, so that the residual stream that enters
            it is computed once; ``auto`` is the lowest layer with an adapter, null for none.
        cache_gib: largest cache held in memory; a larger one is a file in the scratch folder.
        record: whether A, B and their gradients are kept of every step; ``auto`` where they are
            few.
        compute_dtype: of the forward and backward passes; the loss is always float32.
        gradient_checkpointing: recompute activations instead of keeping them.
        checkpoint_every: steps between checkpoints, or ``auto``: as often as costs 5% of the time.
        keep_steps: steps whose weights are kept beside the last ones.
    """

    weights: Weights = "adapter"
    lora: LoraSettings = _PUBLISHED
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    schedule: Literal["constant", "linear"] = "linear"
    warmup: Annotated[int, Field(ge=0)] = 5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = 1.0
    learn_end: bool = True
    max_tokens: Annotated[int, Field(ge=2)] = 2048
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    kl_texts: Annotated[int, Field(ge=1)] = 4
    cache_below: Annotated[int, Field(ge=1)] | Literal["auto"] | None = "auto"
    cache_gib: Annotated[float, Field(ge=0)] = 2.0
    record: Literal["auto"] | bool = "auto"
    compute_dtype: ComputeDtype = "float32"
    gradient_checkpointing: bool = False
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    keep_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> SupervisedConfig:
        if self.lora.dropout > 0:
            raise ConfigError(
                "Supervised training drops no inputs of adapters",
                seen=f"lora.dropout {self.lora.dropout}",
                allowed="0",
                remedy="leave out lora.dropout",
            )
        if self.weights == "adapter":
            return self
        idle = [
            name
            for name, given in (
                ("lora", self.lora != _PUBLISHED),
                ("cache_below", isinstance(self.cache_below, int)),
                ("record", self.record is True),
            )
            if given
        ]
        if idle:
            raise ConfigError(
                "A setting of adapters means nothing where all weights are trained",
                seen=f"weights all, with {', '.join(idle)}",
                allowed="settings of the training alone",
                remedy=f"leave out {', '.join(idle)}, or use weights: adapter",
            )
        return self

    def steps(self, examples: int) -> int:
        """Optimiser steps of a training on so many examples."""
        return self.epochs * self.steps_per_epoch(examples)

    def steps_per_epoch(self, examples: int) -> int:
        """Optimiser steps of one pass over so many examples."""
        return -(-examples // self.batch)
