"""How does a task enter a plan? With everything that its result depends on, resolved."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moralscope.core.hashing import sha256_file
from moralscope.core.stage import Stage
from moralscope.models.loading import ModelSource, locate_model
from moralscope.models.roster import WEIGHTS, find_adapter
from moralscope.studies.steps.context import TRAIN, Step
from moralscope.studies.study import Study

_LIBRARIES = ("torch", "transformers", "peft", "numpy", "polars", "scipy")

Inputs = Mapping[str, object]
"""JSON-like values that determine a result."""


@dataclass(frozen=True)
class Task:
    """A stage and the function that computes it."""

    stage: Stage
    step: Step


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found}


def threads() -> int:
    """Threads that the model libraries compute with."""
    limit = os.environ.get("OMP_NUM_THREADS")
    return int(limit) if limit and limit.isdigit() else len(os.sched_getaffinity(0))


class Planner:
    """Adds tasks one by one, resolving what each depends on.

    Attributes:
        study: what is planned.
        source: the base model's files.
        tasks: those added so far, by name, in order.
        compute: inputs of every stage that asks a model.
    """

    def __init__(self, study: Study, source: ModelSource) -> None:
        self.study = study
        self.source = source
        self.tasks: dict[str, Task] = {}
        self.common: dict[str, object] = {"versions": versions()}
        self.compute: dict[str, object] = {
            "model": source.sha256,
            "dtype": study.dtype,
            "device": study.device,
            "threads": threads(),
            "machine": platform.machine(),
            "max_nodes": study.max_nodes,
        }

    def add(
        self,
        name: str,
        what: tuple[str, str],
        inputs: Mapping[str, object],
        needs: Sequence[str],
        step: Step,
    ) -> str:
        """Add one task, ``what`` being its package and kind of work; returns its name."""
        keys = {need: self.tasks[need].stage.key for need in needs}
        glue = sha256_file(Path(inspect.getfile(step)))  # only what computes this very stage
        stage = Stage(name, *what, {**self.common, "glue": glue, **inputs}, keys)
        self.tasks[name] = Task(stage, step)
        return name

    def agent_inputs(self, name: str) -> dict[str, object]:
        """What identifies an agent: its entry and, where it is loaded, the hash of its weights."""
        entry = self.study.agents[name]
        weights: str | None = None
        if entry.adapter is not None:
            weights = sha256_file(find_adapter(name, entry.adapter) / WEIGHTS)
        elif entry.checkpoint is not None:
            weights = locate_model(entry.checkpoint).sha256
        return {"agent": name, "entry": entry.model_dump(mode="json"), "weights": weights}

    def trained(self, *names: str) -> list[str]:
        """The training stages that make these agents, as far as they are trained here."""
        made = [(self.study.agents[name].derived, name) for name in names]
        whole = [name if d is None or d.step is None else d.of for d, name in made]
        return [stage for name in dict.fromkeys(whole) if (stage := f"{TRAIN}{name}") in self.tasks]
