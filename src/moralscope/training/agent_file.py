"""Which agent shall be trained? A YAML file in which only the reward is needed.

The shortest is ``reward: deontological``. It holds the keys of ``TrainingConfig`` beside five of
its own: what the agent is called, and which base model it is trained on and how that is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from moralscope.core.decision import Prompt
from moralscope.core.documents import flattened, read_yaml, validate
from moralscope.core.errors import ConfigError
from moralscope.games import HELD_OUT, wordings
from moralscope.training.batches import training_prompts
from moralscope.training.config import TrainingConfig

OWN_KEYS = ("name", "model", "dtype", "device", "max_nodes")
"""Keys that an agent file has and a training has not."""


class AgentFile(TrainingConfig):
    """One agent to train: every setting of a training, and where it happens.

    Attributes:
        name: what tables call it; the file's name unless given.
        model: the base, ``default``, a hub id or a folder.
        dtype: how the base's weights are held; ``nf4`` is 4 bits.
        device: a torch device.
        max_nodes: tokens of the largest packed forward; lower it to use less memory.
    """

    name: str = "agent"
    model: str = "default"
    dtype: Literal["float32", "bfloat16", "nf4"] = "float32"
    device: str = "cpu"
    max_nodes: Annotated[int, Field(ge=1)] = 2048

    @model_validator(mode="after")
    def _nameable(self) -> AgentFile:
        if not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                "This cannot be the name of an agent",
                seen=repr(self.name),
                allowed="letters, digits, dashes and underscores",
                remedy="give another name in the agent file",
            )
        return self

    @property
    def training(self) -> TrainingConfig:
        """The training alone."""
        return TrainingConfig.model_validate(self.model_dump(exclude=set(OWN_KEYS)))


def read_agent(path: Path) -> AgentFile:
    """An agent file, every default filled in.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; a misspelt key is
            answered with the nearest right one.
    """
    return validate(AgentFile, {"name": path.stem} | read_yaml(path), path.name)


def agent_yaml(agent: AgentFile) -> str:
    """The agent file with every setting written out; reading it gives the same agent."""
    return yaml.safe_dump(agent.model_dump(mode="json"), sort_keys=False)


def differing(
    before: Mapping[str, object], now: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Settings that differ: dotted key to the value before and now; an absent one is None."""
    old, new = flattened(before), flattened(now)
    return {
        key: (old.get(key), new.get(key))
        for key in (*old, *(k for k in new if k not in old))
        if old.get(key) != new.get(key)
    }


def held_back_prompts(config: TrainingConfig) -> tuple[Prompt, ...]:
    """Prompts that the training does not use: the other labels, and wordings held back.

    An agent is fingerprinted on them too, so that its card can say what carries over. Wordings are
    those of the IPD, so that for other games only the other labels are left.
    """
    trained = {prompt.name for prompt in training_prompts(config)}
    found = list(training_prompts(config.model_copy(update={"labels": "both"})))
    others = tuple(name for name in HELD_OUT if name not in config.wordings)
    if others and config.game == "IPD":
        found += wordings(config.words, names=others)
    return tuple(prompt for prompt in found if prompt.name not in trained)
