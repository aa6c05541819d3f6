"""Named random streams: every draw has an address, so order of work never changes a result."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *address: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the address alone.

    ``stream(7, "minibatch", 12)`` gives the same numbers in any process, whatever was drawn
    before, so an interrupted run resumes without stored generator state.
    """
    digest = hashlib.sha256("/".join(map(str, address)).encode()).digest()
    words = np.frombuffer(digest, dtype=np.uint32).tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def integer_seed(seed: int, *address: str | int) -> int:
    """A 63-bit integer seed with the same property, for generators that are not numpy's."""
    return int(stream(seed, *address).integers(0, 2**63 - 1))
