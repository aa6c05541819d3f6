"""Which agent is meant? A name, a base model, and what makes it differ from that base."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from moralscope.core.errors import ConfigError

AgentKind = Literal["base", "adapter", "checkpoint", "policy"]


class Frozen(BaseModel):
    """Base of every configuration value: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentSpec(Frozen):
    """An agent by reference.

    Attributes:
        name: how tables call it.
        base: the base model's id or folder.
        adapter: PEFT adapter folder or hub id, put un-merged on the base.
        checkpoint: full fine-tuned model; excludes ``adapter``.
        reward, opponent, training_seed: what is known of its training.
    """

    name: str
    base: str
    adapter: str | None = None
    checkpoint: str | None = None
    reward: str | None = None
    opponent: str | None = None
    training_seed: int | None = None

    @model_validator(mode="after")
    def _one_source(self) -> AgentSpec:
        if self.adapter is not None and self.checkpoint is not None:
            raise ConfigError(
                f"Agent {self.name!r} names both an adapter and a checkpoint",
                seen=f"adapter {self.adapter}, checkpoint {self.checkpoint}",
                allowed="one of them, or neither for the base itself",
                remedy="remove one of the two keys",
            )
        return self

    @property
    def kind(self) -> AgentKind:
        """Base, adapter or checkpoint."""
        if self.adapter is not None:
            return "adapter"
        return "base" if self.checkpoint is None else "checkpoint"
