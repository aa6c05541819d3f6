"""How do several processes train one agent? Each runs the model on its share of the rows.

Every process has the whole model and the whole batch. It runs the decoder forward and backward
only for its own rows (prompts or answers), receives what the others found for theirs as constants,
and so computes the whole loss. With rows divided into shares ``S_p`` and ``l_i`` what is read of
row i,

    dL/dtheta = sum_i dL/dl_i dl_i/dtheta = sum_p sum_{i in S_p} dL/dl_i dl_i/dtheta

so gradients that reach parameters through rows are added up over processes. A parameter that is
used after the rows have been put together (a value head) has its whole gradient in every process
already, and is left out of that sum.

accelerate starts the processes' common group (gloo between processors, nccl between GPUs); a
single process starts nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moralscope.models.libraries import optional_library

_collective: Any = torch.distributed


@dataclass(frozen=True, slots=True)
class Processes:
    """Who shares the work. Every method is called by all of them, in the same order.

    Attributes:
        rank: which of them this is, from 0.
        count: how many there are.
        device: where tensors must lie to be exchanged.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """The rows of ``total`` that are this process's: a block, sizes differing by at most 1."""
        return range(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def assemble(self, own: Tensor, own_rows: Sequence[int], total_rows: int) -> Tensor:
        """Put all rows together; this process's keep their gradient, the others' have none.

        Args:
            own: this process's rows, ``[len(own_rows), ...]``; of equal dtype and
                sizes, but for the first, in all processes, those without rows included.
            own_rows: where they belong; every row belongs to one process.
            total_rows: rows of all processes.

        Returns:
            ``[total_rows, ...]``, equal in all processes.

        Raises:
            ValueError: the rows of all processes are not each row once.
        """
        if self.count == 1 and list(own_rows) == list(range(total_rows)):
            return own
        index = torch.tensor(list(own_rows), dtype=torch.long, device=own.device)
        there = own.new_zeros(total_rows).index_add(0, index, own.new_ones(len(index)))
        if not bool((self._summed(there) == 1).all()):
            raise ValueError("every row must be the share of one process, and of one alone")
        empty = own.new_zeros(total_rows, *own.shape[1:])
        # Adding the zeros of other processes changes nothing but the sign of a zero.
        whole = self._summed(empty.index_copy(0, index, own.detach()))
        if torch.is_grad_enabled() and not len(index) and own.is_floating_point():
            return whole.requires_grad_()  # so that a loss has a backward here as well
        return whole.index_copy(0, index, own)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """All processes' rows, by rank, without gradient; each may have any number of them."""
        if self.count == 1:
            return rows.detach()
        counts = [0] * self.count
        counts[self.rank] = len(rows)
        counts = [int(n) for n in self.sum_floats(counts)]
        start = sum(counts[: self.rank])
        whole = rows.new_zeros(sum(counts), *rows.shape[1:])
        whole[start : start + len(rows)] = rows.detach()
        return self._summed(whole)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their sums over processes.

        One exchange for all parameters of a dtype. A parameter without a gradient counts as zero.
        """
        if self.count == 1:
            return
        groups: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            groups.setdefault(parameter.dtype, []).append(parameter)
        for members in groups.values():
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in members]
            flat: Any = self._summed(torch.cat([g.reshape(-1) for g in gradients]))
            pieces: Sequence[Tensor] = flat.split([p.numel() for p in members])
            for parameter, piece in zip(members, pieces, strict=True):
                parameter.grad = piece.view_as(parameter).clone()

    def sum_floats(self, values: Sequence[float]) -> list[float]:
        """Sums over processes, number by number, in float64."""
        if self.count == 1:
            return [float(v) for v in values]
        exchanged = torch.tensor(list(values), dtype=torch.float64)
        return [float(v) for v in self._summed(exchanged)]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.sum_floats([0.0])

    def _summed(self, tensor: Tensor) -> Tensor:
        """The sum over processes, equal to the last bit in all of them."""
        if self.count == 1:
            return tensor
        shared = tensor.detach().to(self.device, copy=True)
        _collective.all_reduce(shared)
        return shared.to(tensor.device)


ALONE = Processes()
"""One process, which exchanges nothing."""


@contextlib.contextmanager
def joined_processes(*, cpu: bool = False) -> Generator[Processes]:
    """The processes that a launcher started together, for the length of the block.

    ``accelerate launch`` and ``torchrun`` say in the environment who takes part. Without them, and
    for one process, nothing is started. Between processors only ``torchrun --nproc-per-node N``
    starts several: ``accelerate launch --cpu`` starts one. A program joins once.

    Args:
        cpu: run on the processor even where there are GPUs.

    Raises:
        DependencyError: there are several processes and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    state_of: Any = optional_library("accelerate", extra="models").PartialState
    forced = cpu or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    here = forced or not torch.cuda.is_available()
    state: Any = state_of(cpu=here)
    try:
        yield Processes(
            int(state.process_index), int(state.num_processes), "cpu" if here else str(state.device)
        )
    finally:
        state.destroy_process_group()
