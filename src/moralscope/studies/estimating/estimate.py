"""What would a study take? Forwards, time and disk of every stage, before any is run.

Work is counted in tree nodes: one node through the model costs about ``2 * parameters``
floating-point operations, so

    seconds = nodes * 2 * parameters / (measured matrix rate * efficiency)

with backward passes counted as two forwards; sweeps of patches are planned as they will run
(``patching.plans``). The rate is measured here and now; the efficiency is what the package
reaches of it on the default model. Stages that the cache holds cost nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from moralscope.core.stage import StageCache, cache_folder
from moralscope.models.devices import is_here
from moralscope.models.rendering import encode_all
from moralscope.studies.estimating.controls import replica_work
from moralscope.studies.estimating.evaluation import questioning_work
from moralscope.studies.estimating.mechanisms import Running, mechanism_work
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of, shape_of
from moralscope.studies.plan import Plan, Task, make_plan
from moralscope.studies.steps.context import TRAIN
from moralscope.studies.study import Study, models_of, training_config
from moralscope.training.batches import draw_batch, make_cells, training_game, training_prompts

_EFFICIENCY = 0.5
_ELSEWHERE = 2e13
"""Float32 operations a second of a device that this machine lacks: a data-centre GPU's."""

_BACKWARD = 3.0
_NARROW_SPEEDUP = 1.5


@dataclass(frozen=True)
class StageEstimate:
    """What one stage would take; nothing where the cache holds it.

    Attributes:
        name: the stage.
        cached: whether it is finished already.
        forwards: packed forward passes, passes of patched rows included.
        seconds: estimated wall time.
        disk_bytes: estimated size of its outputs.
    """

    name: str
    cached: bool
    forwards: int
    seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a study would take.

    Attributes:
        stages: each of them.
        assumed: where times rest on a rate that was not measured here: the device, and the
            operations a second that it is taken for.
    """

    stages: tuple[StageEstimate, ...]
    assumed: tuple[str, float] | None = None

    @property
    def forwards(self) -> int:
        """Packed forward passes of all stages that are not cached."""
        return sum(s.forwards for s in self.stages)

    @property
    def seconds(self) -> float:
        """Wall time of all stages that are not cached."""
        return sum(s.seconds for s in self.stages)

    @property
    def disk_bytes(self) -> int:
        """Size of everything that would be written."""
        return sum(s.disk_bytes for s in self.stages)


def estimate_study(study: Study, out: Path) -> Estimate:
    """Estimate a study without running it.

    Args:
        study: what would be run.
        out: where; the size of a run does not depend on it.

    Raises:
        MoralscopeError: as ``run_study`` would, for anything wrong with the study itself. A device
            that only another machine has is not wrong: times then rest on an assumed rate.
    """
    del out
    plan = make_plan(study, elsewhere=True)
    work = _works(plan, StageCache(cache_folder()))
    if not any(work.values()):
        return Estimate(tuple(StageEstimate(n, True, 0, 0.0, 0) for n in work))
    measured = _matrix_rate(study.device) if is_here(study.device) else None
    rate = (measured or _ELSEWHERE) * _EFFICIENCY
    return Estimate(
        tuple(
            StageEstimate(name, True, 0, 0.0, 0)
            if w is None
            else StageEstimate(name, False, w.forwards, w.operations / rate, w.disk_bytes)
            for name, w in work.items()
        ),
        None if measured else (study.device, _ELSEWHERE),
    )


def work_shares(plan: Plan, cache: StageCache) -> dict[str, float]:
    """Each stage's share of the work that is left; they sum to 1, or are 0 if all is cached."""
    operations = {name: w.operations if w else 0.0 for name, w in _works(plan, cache).items()}
    total = sum(operations.values()) or 1.0
    return {name: value / total for name, value in operations.items()}


def bytes_left(plan: Plan, cache: StageCache) -> int:
    """What the stages that the cache does not hold would write, in bytes."""
    return sum(work.disk_bytes for work in _works(plan, cache).values() if work)


def _works(plan: Plan, cache: StageCache) -> dict[str, Work | None]:
    """The work of each stage; None for what the cache holds."""
    left = {task.stage.name for task in plan if cache.record(task.stage) is None}
    shape = shape_of(plan.study, plan.source) if left else None
    running: Running = set()  # clean runs in memory, for later stages to share
    works: dict[str, Work | None] = {}
    for task in plan:
        name = task.stage.name
        if shape is None or name not in left:
            works[name] = None
        else:
            works[name] = _work_of(task, plan.study, shape, running)
    return works


def _matrix_rate(device: str) -> float:
    """Floating-point operations a second of a float32 matrix product on this machine."""
    a = torch.ones(1024, 576, device=device)
    b = torch.ones(576, 1536, device=device)
    best = 0.0
    for _ in range(20):  # the first rounds wake the threads; the best one counts
        started = time.perf_counter()
        products = [a @ b for _ in range(4)]
        float(products[-1][0, 0].item())  # waits for the device
        best = max(best, 4 * 2 * a.numel() * b.shape[1] / (time.perf_counter() - started))
    return best


def _work_of(task: Task, study: Study, shape: Shape, running: Running) -> Work:
    name = task.stage.name
    if name.startswith(TRAIN):
        return _training_work(name.removeprefix(TRAIN), study, shape)
    if name.startswith("decide-") and name.removeprefix("decide-") in models_of(study):
        packs, nodes = nodes_of(shape.encoded, study.max_nodes)
        return Work(packs, shape.operations(nodes), len(shape.encoded) * BYTES_PER_ROW * 2)
    found = (
        mechanism_work(name, study, shape, running)
        or questioning_work(name, study, shape)
        or replica_work(name, study, shape)
    )
    if found is not None:
        return found
    return Work(0, 0.0, len(shape.encoded) * 200)


def _training_work(name: str, study: Study, shape: Shape) -> Work:
    config = training_config(study, name)
    if config is None:
        return Work()
    prompts = tuple(training_prompts(config))
    encoded = encode_all(shape.tokenizer, prompts)
    cells = make_cells(config, prompts, training_game(config))
    batch = tuple(encoded[i] for i in draw_batch(config, cells, 1))
    packs, nodes = nodes_of(batch, study.max_nodes)
    once = nodes_of(encoded, study.max_nodes)
    fingerprint = nodes_of((*encoded, *shape.fingerprinted), study.max_nodes)
    cost = _BACKWARD / (_NARROW_SPEEDUP if config.compute_dtype == "bfloat16" else 1.0)
    return Work(
        forwards=config.steps * packs + once[0] + fingerprint[0],
        operations=shape.operations(config.steps * nodes * cost + once[1] + fingerprint[1]),
        # Factors A and B of every linear layer, in float32, in the cache and in the run.
        disk_bytes=2 * 4 * config.lora.rank * shape.linear_sides,
    )
