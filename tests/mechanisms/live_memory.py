"""How much memory do tensors hold at once? Counted storage by storage, as they come and go."""

from __future__ import annotations

import tracemalloc
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Count the bytes of storages that were made inside the block; ``peak`` includes NumPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.most = 0
        self.peak = 0
        self._known: set[int] = set()

    def __enter__(self) -> Any:
        tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.peak = self.most + tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        entered = {x.untyped_storage()._cdata for x in given} - self._known
        output = func(*args, **(kwargs or {}))
        for made in tree_leaves(output):
            if isinstance(made, torch.Tensor):
                self._count(made.untyped_storage(), entered)
        return output

    def _count(self, storage: Any, entered: set[int]) -> None:
        key = storage._cdata
        if key in self._known or key in entered:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
