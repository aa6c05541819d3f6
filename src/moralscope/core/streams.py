"""Named random streams: every draw has an address, so order of work never changes a result."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(seed: int, *address: str | int) -> np.random.Generator:
    """A generator that depends on the seed and the address alone.

    ``stream(7, "minibatch", 12)`` gives the same numbers in any process, whatever was drawn
    before, so an interrupted run resumes without stored generator state. Addresses that differ,
    be it only in where one part ends and the next begins, give unrelated streams.

    Raises:
        ValueError: the seed is negative.
    """
    parts = [part if isinstance(part, str) else int(part) for part in address]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def integer_seed(seed: int, *address: str | int) -> int:
    """A 63-bit integer seed with the same property, for generators that are not numpy's."""
    return int(stream(seed, *address).integers(0, 2**63 - 1))
