"""How are stages computed on a Ray cluster? One actor for each GPU, or for some cores.

Ray is an extra (``moralscope[ray]``). The machines of a cluster must share the cache folder and
have the same versions installed; a worker that would compute something else refuses to.

Moritz et al. 2018, "Ray: a distributed framework for emerging AI applications", arXiv 1712.05889.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from moralscope.core.errors import ConfigError, DependencyError
from moralscope.core.progress import silent
from moralscope.studies.engines.assignments import Answer, Assignment, Died, WorkOrder
from moralscope.studies.engines.kinds import cores
from moralscope.studies.engines.placement import on_any_gpu
from moralscope.studies.engines.scheduling import Worker
from moralscope.studies.engines.wire import answer_in, assignment_in, line_of, order_in
from moralscope.studies.engines.working import Computer

INSTALL = 'pip install "moralscope[ray]"'
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
}
"""No reports to others, and nothing of GPUs changed where an actor asks for none."""


class Actor:
    """A worker on the cluster; values go to and fro as lines.

    Args:
        order: the work order.
        number: of the worker.
    """

    def __init__(self, order: str, number: int) -> None:
        self._computer = Computer(order_in(order), number)

    def answer(self, assignment: str) -> str:
        """Compute what is assigned, and say how it went."""
        return line_of(self._computer.answer(assignment_in(assignment), silent))


def ray_workers(
    resources: Mapping[str, float], device: str, threads: int, most: int
) -> tuple[Worker, ...]:
    """The workers that a cluster has room for.

    Args:
        resources: of the cluster, as Ray tells them (``CPU``, ``GPU``).
        device: of the study: ``cuda`` needs a GPU for each worker, and one more has none, for what
            is computed from tables.
        threads: of each worker.
        most: how many could have something to do at once.

    Raises:
        ConfigError: there is room for none.
    """
    room = int(resources.get("CPU", 0)) // threads
    if on_any_gpu(device):
        with_gpu = min(int(resources.get("GPU", 0)), most, room)
        if with_gpu:
            numbers = range(1, with_gpu + 1)
            tables = (Worker(with_gpu + 1, tables_only=True),) if room > with_gpu else ()
            return (*(Worker(number) for number in numbers), *tables)
    elif room:
        return tuple(Worker(number) for number in range(1, min(room, most) + 1))
    raise ConfigError(
        "The Ray cluster has no room for a worker",
        seen=f"{int(resources.get('CPU', 0))} cores and {int(resources.get('GPU', 0))} GPUs",
        allowed=f"{threads} cores for each worker"
        + (", and a GPU" if on_any_gpu(device) else "")
        + "; OMP_NUM_THREADS says how many cores",
        remedy="add machines to the cluster, or set OMP_NUM_THREADS to fewer",
    )


class OnRay:
    """The pool of the actors of a cluster.

    Args:
        ray: the library.
        order: of the run.
        workers: those that there is room for.
        options: what an actor with a device asks Ray for, and one that has tables alone.
    """

    def __init__(
        self,
        ray: Any,
        order: WorkOrder,
        workers: Sequence[Worker],
        options: Mapping[bool, Mapping[str, object]],
    ) -> None:
        self.workers = workers
        self._ray, self._order, self._options = ray, order, options
        self._kind: Any = ray.remote(Actor)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, Worker] = {}
        for worker in workers:
            self.replace(worker)

    def replace(self, worker: Worker) -> None:
        """Start a worker, again if it was there before."""
        options = self._options[worker.tables_only]
        order = line_of(self._order)
        self._actors[worker.number] = self._kind.options(**options).remote(order, worker.number)

    def give(self, worker: Worker, assignment: Assignment) -> None:
        """Let an idle worker compute a stage."""
        future = self._actors[worker.number].answer.remote(line_of(assignment))
        self._pending[future] = worker

    def hear(self) -> Sequence[Answer]:
        """Wait until there is something to hear of a worker."""
        finished, _ = self._ray.wait(list(self._pending), num_returns=1)
        return [self._answer_of(future) for future in finished]

    def close(self) -> None:
        """End all workers at once; what they have finished is in the cache."""
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _answer_of(self, future: Any) -> Answer:
        worker = self._pending.pop(future)
        try:
            return answer_in(self._ray.get(future))
        except self._ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[0]
            return Died(worker.number, worker.busy, f"{type(error).__name__}: {why}")


@contextlib.contextmanager
def on_ray(
    order: WorkOrder, *, address: str, device: str, threads: int, most: int
) -> Generator[OnRay]:
    """The actors of a cluster, for the length of the block.

    Args:
        order: of the run.
        address: of a cluster that is running; one of this machine is started without.
        device: of the study.
        threads: of each worker.
        most: how many workers could have something to do at once.

    Raises:
        DependencyError: Ray is not installed.
        ConfigError: the cluster is not there, or has no room.
    """
    ray = require_ray()
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address)
    try:
        workers = ray_workers(ray.cluster_resources(), device, threads, most)
        common: dict[str, object] = {"num_cpus": threads, "max_restarts": 0, "max_task_retries": 0}
        gpus = {"num_gpus": 1} if on_any_gpu(device) else {}
        pool = OnRay(ray, order, workers, {False: {**common, **gpus}, True: common})
        try:
            yield pool
        finally:
            pool.close()
    finally:
        if mine:
            ray.shutdown()


def require_ray() -> Any:
    """The library.

    Raises:
        DependencyError: it is not installed.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    try:
        return importlib.import_module("ray")
    except ImportError as cause:
        raise DependencyError(
            "The engine ray needs Ray, which is not installed",
            seen=str(cause),
            allowed="moralscope with its extra 'ray'",
            remedy=INSTALL,
        ) from cause


def _connect(ray: Any, address: str) -> None:
    quiet: dict[str, object] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(include_dashboard=False, num_cpus=cores(), **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as cause:
        raise ConfigError(
            "The Ray cluster cannot be reached",
            seen=f"{address or 'one of this machine'} ({str(cause).strip().splitlines()[0]})",
            allowed="HOST:PORT of a cluster's head, auto, or ray://HOST:PORT",
            remedy="start it with: ray start --head, or leave the address out to start one here",
        ) from cause
