"""Which patches stand for all of a sweep? Some sites, even over depth, on some of the prompts.

One forward a patch takes hours for a whole sweep, and each takes about the same time, whatever the
site: a sample says how long, and whether the numbers agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moralscope.core.site import Site
from moralscope.core.streams import stream


@dataclass(frozen=True)
class Sampled:
    """One cell of a sweep, by index.

    Attributes:
        site: index of the site.
        prompt: index of the prompt.
    """

    site: int
    prompt: int


def spread_sites(sites: Sequence[Site], wanted: Mapping[str, int]) -> tuple[int, ...]:
    """Indices of some sites of each kind: one drawn from each of equal ranges of depth.

    Args:
        sites: what is swept.
        wanted: how many of each kind.
    """
    rng = stream(0, "benchmark", "sites")
    chosen: list[int] = []
    for kind, count in wanted.items():
        found = sorted(
            (i for i, site in enumerate(sites) if site.kind == kind), key=sites.__getitem__
        )
        edges = _edges(len(found), count)
        chosen += [found[int(rng.integers(low, high))] for low, high in itertools.pairwise(edges)]
    return tuple(sorted(chosen))


def spread_cells(
    sites: Sequence[Site], wanted: Mapping[str, int], prompts: Sequence[int]
) -> tuple[Sampled, ...]:
    """Some sites of each kind, each on one of some prompts in turn."""
    chosen = spread_sites(sites, wanted)
    return tuple(Sampled(s, prompts[at % len(prompts)]) for at, s in enumerate(chosen))


def spread(total: int, wanted: int) -> tuple[int, ...]:
    """At most ``wanted`` indices below ``total``, taken evenly."""
    count = max(1, min(total, wanted))
    return tuple(at * total // count for at in range(count))


def _edges(total: int, wanted: int) -> list[int]:
    return [*spread(total, wanted), total]
