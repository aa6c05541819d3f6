"""What does the folder of a trained agent hold? Read back, with nothing of the model stack.

A folder is finished when it holds everything in ``NEEDED``; the table ``training`` is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from moralscope.core.documents import validate
from moralscope.core.errors import AgentError
from moralscope.core.tables import read_table
from moralscope.training.config import TrainingConfig

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
SETTINGS, FINGERPRINT, AGENT = "training.json", "fingerprint.json", "agent.yaml"
TRAINABLE = "trainable.json"
NEEDED = (ADAPTER, ADAPTER_CONFIG, FINGERPRINT, SETTINGS, "training.parquet")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """How large an adapter is.

    Attributes:
        parameters: numbers that were trained.
        bytes: of the file that holds them.
    """

    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FinishedAgent:
    """A trained agent as its folder tells it.

    Attributes:
        folder: where it lies.
        name: what its tables call it.
        config: what it was trained with.
        base: the base model as PEFT will look for it, an id or a folder.
        size: of the adapter.
        fingerprint: ``fingerprint.json``: hashes, dtype, and log-odds of prompts by name.
        training: its rows of the table ``training``.
        diagnostics: the table ``diagnostics``; None where there is none.
        trainable: parameters that were trained and what their sites save, see
            ``targets.TrainableCount``; None where it was not kept.
    """

    folder: Path
    name: str
    config: TrainingConfig
    base: str
    size: AdapterSize
    fingerprint: Mapping[str, Any]
    training: pl.DataFrame
    diagnostics: pl.DataFrame | None
    trainable: Mapping[str, Any] | None = None


def missing_files(folder: Path) -> tuple[str, ...]:
    """What a folder lacks of a finished agent; nothing if it is one."""
    return tuple(name for name in NEEDED if not (folder / name).is_file())


def read_finished(folder: Path) -> FinishedAgent:
    """A trained agent's folder.

    Raises:
        AgentError: it is not one, or a file in it is damaged.
        TableError: a table in it does not follow its schema.
    """
    if lacking := missing_files(folder):
        raise AgentError(
            "This is not the folder of a finished agent",
            seen=f"{folder}, without {', '.join(lacking)}",
            allowed=f"a folder with {', '.join(NEEDED)}",
            remedy="train the agent to its end with moralscope train, or correct the path",
        )
    adapter = _json(folder / ADAPTER_CONFIG)
    table = read_table("training", folder)
    diagnosed = (folder / "diagnostics.parquet").is_file()
    name = str(table.get_column("agent")[0])
    return FinishedAgent(
        folder=folder,
        name=name,
        config=read_settings(folder),
        base=str(adapter.get("base_model_name_or_path", "")),
        size=adapter_size(folder),
        fingerprint=_json(folder / FINGERPRINT),
        training=table.filter(pl.col("agent") == name).sort("step"),
        diagnostics=read_table("diagnostics", folder) if diagnosed else None,
        trainable=_json(folder / TRAINABLE) if (folder / TRAINABLE).is_file() else None,
    )


def read_settings(folder: Path) -> TrainingConfig:
    """What the agent in a folder was trained with.

    Raises:
        AgentError: the file is not there or damaged.
    """
    place = folder / SETTINGS
    return validate(TrainingConfig, _json(place), str(place), AgentError)


def adapter_size(folder: Path) -> AdapterSize:
    """How many parameters an adapter has, from the header of its file.

    Raises:
        AgentError: the file is damaged.
    """
    path = folder / ADAPTER

    def count() -> AdapterSize:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return AdapterSize(sum(prod(shape) for shape in shapes), path.stat().st_size)

    return _intact(path, count)


def _json(path: Path) -> dict[str, Any]:
    return _intact(path, lambda: dict(json.loads(path.read_text(encoding="utf-8"))))


def _intact(path: Path, read: Callable[[], Value]) -> Value:
    try:
        return read()
    except (OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as cause:
        raise AgentError(
            "A file of a trained agent is damaged",
            seen=f"{path} ({type(cause).__name__})",
            allowed="the file as training wrote it",
            remedy="copy the folder again, or train the agent again",
        ) from cause
