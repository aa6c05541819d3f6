"""What does an agent hold where its options part? Residual streams at one token, at every depth.

The options of a prompt share their first tokens, and part after one of them. What the model
computes at that token is what its decision is read from, so the stream there is compared between
agents, probed and exchanged. With options of a single token it is the last token of the prompt.
Depths are the embedding and the stream after every layer, ``(1 + layers, width)``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moralscope.core.errors import AgentError
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.segments import paths_of, where
from moralscope.models.libraries import safetensors_torch

Array = NDArray[np.float64]

_open: Any = safe_open

STREAMS = "streams.safetensors"


@dataclass(frozen=True, eq=False)
class Streams:
    """An agent's streams on some prompts.

    Attributes:
        agent: whose.
        prompts: their names.
        values: ``(prompts, depths, width)``, float64.
        resolution: rounding step of the format they were computed in, relative.
    """

    agent: str
    prompts: tuple[str, ...]
    values: Array
    resolution: float

    @property
    def layers(self) -> range:
        """The layer that each depth follows, -1 for the embedding."""
        return range(-1, self.values.shape[1] - 1)

    def of(self, prompts: Sequence[str]) -> Streams:
        """The streams on some of the prompts, in the order given.

        Raises:
            AgentError: one of them was not asked.
        """
        place = {name: index for index, name in enumerate(self.prompts)}
        for name in prompts:
            if name not in place:
                raise AgentError(
                    f"{self.agent!r} has no stream on a prompt",
                    seen=name,
                    allowed=f"the {len(place)} prompts that it was run on",
                    remedy="run the agents that are compared on the same prompts",
                )
        rows = [place[name] for name in prompts]
        return Streams(self.agent, tuple(prompts), self.values[rows], self.resolution)


def branch_of(run: CleanRun, member: int) -> int:
    """How many answer tokens the canonical forms of a prompt's two options share."""
    prompt = run.prompts[member]
    forms = zip(prompt.positive[0], prompt.negative[0], strict=False)
    return next(step for step, (one, other) in enumerate(forms) if one != other)


def decision_node(run: CleanRun, member: int) -> int:
    """The packed node of the last token that the two options of a prompt share."""
    path = paths_of(run, member)[0]
    return int(path[len(run.prompts[member].tokens) - 1 + branch_of(run, member)])


def read_stream(run: CleanRun, member: int) -> Tensor:
    """The stream of one prompt where its options part, ``(1 + layers, width)``."""
    pack, _ = where(run, member)
    part = run.packs[pack]
    row = int(np.searchsorted(part.pack.keep, decision_node(run, member)))
    found = part.captured
    return torch.cat([found.resid_pre[:, row], found.resid_final[row, None]])


def streams_of(run: CleanRun) -> Streams:
    """The streams of an agent on all prompts of its clean run."""
    found = torch.stack([read_stream(run, member) for member in range(len(run.prompts))])
    return Streams(
        run.agent,
        tuple(prompt.name for prompt in run.prompts),
        found.double().cpu().numpy(),
        torch.finfo(found.dtype).eps,
    )


def joined(parts: Sequence[Streams]) -> Streams:
    """Streams of one agent on several sets of prompts, one after the other."""
    return Streams(
        parts[0].agent,
        tuple(prompt for part in parts for prompt in part.prompts),
        np.concatenate([part.values for part in parts]),
        max(part.resolution for part in parts),
    )


def save_streams(streams: Streams, folder: Path) -> Path:
    """Write ``folder/streams.safetensors``: the tensor ``streams``, and whose and on what."""
    path = folder / STREAMS
    narrow = streams.resolution > torch.finfo(torch.float64).eps
    values = torch.as_tensor(streams.values, dtype=torch.float32 if narrow else torch.float64)
    told = {"agent": streams.agent, "prompts": json.dumps(streams.prompts)}
    safetensors_torch.save_file({"streams": values.contiguous()}, str(path), metadata=told)
    return path


def read_streams(folder: Path) -> Streams:
    """Read what ``save_streams`` wrote.

    Raises:
        AgentError: the file is missing or is none of this kind.
    """
    path = folder / STREAMS
    try:
        with _open(str(path), framework="pt") as opened:
            told: dict[str, str] = opened.metadata() or {}
            values: Tensor = opened.get_tensor("streams")
        agent, prompts = told["agent"], tuple(json.loads(told["prompts"]))
    except (SafetensorError, OSError, KeyError, ValueError) as cause:
        raise AgentError(
            "The streams of an agent cannot be read",
            seen=f"{path} ({cause})",
            allowed="a file that save_streams wrote",
            remedy="run the stage that writes it again",
        ) from cause
    return Streams(agent, prompts, values.double().numpy(), torch.finfo(values.dtype).eps)
