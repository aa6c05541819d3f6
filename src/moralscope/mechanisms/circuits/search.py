"""Which few sites carry the difference? The smallest set that reaches a share, or flips.

A circuit is a set S of sites whose joint patch reaches a goal: ``share(S) >= 0.8`` of the full
swap's effect, or a match with it, or the decision flipped on a stated share of prompts
(``circuits.effects``). Three searches, none of which assumes that effects add up:

    forward     S := S + argmax_s value(S + s), from nothing, until S reaches the goal
    backward    S := S - the least needed sites, from a set that reaches it, while it still does
    exhaustive  all sets by size, until one reaches it; only for few candidates

Equal values are told apart by share and then by depth. Only a search through all sets of all
candidates finds *the* smallest; ``Circuit.minimal`` says whether one was made. After backward
elimination no single site can be left out, which is less. Greedy search over patches: Conmy et
al. 2023 (ACDC), Wang et al. 2023, with the joint effect in place of single edges.

*Redundancy* is how many disjoint circuits there are: each is found, its sites are withdrawn from
the candidates, and the search is repeated until what remains does not suffice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.circuits.effects import Goal, Scores, SetEffects, SiteSet, score

Method = Literal["forward", "backward", "forward_backward", "exhaustive"]

MOST_SETS = 2**12
"""Sets that an exhaustive search may go through."""

MOST_DISJOINT = 8
"""Disjoint circuits after which the search for more stops, unless told otherwise."""


@dataclass(frozen=True)
class Circuit:
    """A set of sites and what it reaches.

    Attributes:
        method: how it was found.
        goal: what was asked for.
        sites: most important first: as they were added, or by what leaving each out costs.
        share: of the full swap's effect.
        flipped: share of the prompts flipped by the full swap that it flips; None where the full
            swap flips none.
        reached: whether it reaches the goal; if not, it is the best that the search came by.
        minimal: whether every smaller set of candidates was tried.
        n_candidates: sites to choose from.
        top_k: of which only so many with the largest single effects were used; None: all.
        n_sets: sets that were evaluated.
    """

    method: Method
    goal: Goal
    sites: tuple[Site, ...]
    share: float
    flipped: float | None
    reached: bool
    minimal: bool
    n_candidates: int
    top_k: int | None
    n_sets: int

    @property
    def members(self) -> SiteSet:
        """The sites without their order."""
        return frozenset(self.sites)


Search = Callable[[SetEffects, Goal], Circuit]


def forward(
    effects: SetEffects,
    goal: Goal | None = None,
    *,
    top_k: int | None = None,
    max_sites: int | None = None,
) -> Circuit:
    """Greedy forward selection.

    With n candidates and a circuit of k it evaluates about ``n k`` sets, and ``n (n + 1) / 2`` if
    the goal cannot be reached: limit one or the other when n is large.

    Args:
        effects: what sets do.
        goal: when to stop; 0.8 of the full swap unless given.
        top_k: keep only so many candidates, those with the largest single effects on the goal.
            Sites that do nothing alone, but much together, are then missed.
        max_sites: give up at this size.

    Raises:
        ConfigError: a limit is below 1.
        EvidenceError: as ``circuits.effects.score``.
    """
    goal = Goal() if goal is None else goal
    _check_limits(top_k=top_k, max_sites=max_sites)
    pool = sorted(effects.candidates)
    chosen, path, n_sets = _climb(
        effects, goal, pool, top_k=top_k, most=len(pool) if max_sites is None else max_sites
    )
    # Where the goal is out of reach, the way may have led past its highest point.
    size = max(range(len(path)), key=lambda at: path[at].rank(0))
    return _circuit(
        "forward", effects, goal, chosen[: size + 1], path[size], top_k=top_k, n_sets=n_sets
    )


def _climb(
    effects: SetEffects,
    goal: Goal,
    pool: Sequence[Site],
    *,
    most: int,
    top_k: int | None = None,
    stop: bool = True,
) -> tuple[list[Site], list[Scores], int]:
    """Add the best site until the goal is reached, or to the end.

    Returns:
        Sites in order, the score with each of them, and how many sets were evaluated.
    """
    pool, chosen, path, n_sets = list(pool), list[Site](), list[Scores](), 0
    while True:
        scores = score(effects, [frozenset((*chosen, site)) for site in pool], goal)
        n_sets += len(pool)
        order = scores.order()
        best = order[0]
        kept = sorted(order[:top_k]) if not chosen else range(len(pool))
        chosen.append(pool[best])
        path.append(scores.one(best))
        pool = [pool[index] for index in kept if index != best]
        if (stop and scores.reached[best]) or len(chosen) >= most or not pool:
            return chosen, path, n_sets


def backward(
    effects: SetEffects, goal: Goal | None = None, *, start: Circuit | None = None
) -> Circuit:
    """Backward elimination, from all candidates or from a circuit.

    Each step measures every set that lacks one site, orders the sites by what leaving them out
    costs, and leaves out as many from the cheap end as still leave a set that reaches the goal:
    where effects add up this is the same as one at a time, at a fraction of the cost. In the end
    no single site can be left out.

    Args:
        effects: what sets do.
        goal: what must still be reached; that of ``start``, or 0.8 of the full swap.
        start: where to begin; all candidates unless given.

    Raises:
        EvidenceError: as ``circuits.effects.score``.
    """
    if goal is None:
        goal = Goal() if start is None else start.goal
    method: Method = "backward" if start is None else "forward_backward"
    kept = sorted(effects.candidates) if start is None else list(start.sites)
    before, top_k = (0, None) if start is None else (start.n_sets, start.top_k)
    whole = score(effects, [frozenset(kept)], goal)
    n_sets = before + 1
    while whole.reached[0] and len(kept) > 1:
        without = score(effects, [frozenset(kept) - {site} for site in kept], goal)
        n_sets += len(kept)
        order = without.order()
        free = int(without.reached.sum())
        if not free:
            # What costs most to leave out comes first.
            kept = [kept[index] for index in reversed(order)]
            break
        drop, whole = 1, without.one(order[0])
        more = range(2, min(free, len(kept) - 1) + 1)
        if more:
            nested = [frozenset(kept[i] for i in order[size:]) for size in more]
            scores = score(effects, nested, goal)
            n_sets += len(nested)
            fits = [index for index, reached in enumerate(scores.reached) if reached]
            if fits:
                drop, whole = more[fits[-1]], scores.one(fits[-1])
        kept = [site for index, site in enumerate(kept) if index not in order[:drop]]
    return _circuit(method, effects, goal, kept, whole, top_k=top_k, n_sets=n_sets)


def forward_backward(
    effects: SetEffects,
    goal: Goal | None = None,
    *,
    top_k: int | None = None,
    max_sites: int | None = None,
) -> Circuit:
    """Forward selection, and backward elimination from what it finds; arguments as ``forward``."""
    return backward(effects, start=forward(effects, goal, top_k=top_k, max_sites=max_sites))


def exhaustive(
    effects: SetEffects, goal: Goal | None = None, *, top_k: int | None = None
) -> Circuit:
    """The smallest set, by trying all of them; among those of one size the best.

    Args:
        effects: what sets do.
        goal: what must be reached; 0.8 of the full swap unless given.
        top_k: keep only so many candidates, those with the largest single effects on the goal;
            what is found is then the smallest of their sets only, and not called minimal.

    Raises:
        ConfigError: there are more than 4096 sets, or the limit is below 1.
        EvidenceError: as ``circuits.effects.score``.
    """
    goal = Goal() if goal is None else goal
    _check_limits(top_k=top_k)
    pool = sorted(effects.candidates)
    limited = top_k is not None and top_k < len(pool)
    size = min(len(pool), len(pool) if top_k is None else top_k)
    if 2**size > MOST_SETS:
        raise ConfigError(
            "There are too many sets to try them all",
            seen=f"{size} candidates, {2**size} sets",
            allowed=f"up to {MOST_SETS} sets, {MOST_SETS.bit_length() - 1} candidates",
            remedy="name fewer candidates, give top_k=12, or search forward and backward",
        )
    n_sets = 0
    if limited:
        n_sets = len(pool)
        singles = score(effects, [frozenset((site,)) for site in pool], goal)
        pool = [pool[index] for index in sorted(singles.order()[:top_k])]
    best: tuple[Scores, tuple[Site, ...]] | None = None
    for count in range(1, len(pool) + 1):
        groups = list(itertools.combinations(pool, count))
        scores = score(effects, [frozenset(group) for group in groups], goal)
        n_sets += len(groups)
        first = scores.order()[0]
        here = scores.one(first)
        if best is None or here.rank(0) > best[0].rank(0):
            best = here, groups[first]
        if here.reached[0]:
            break
    if best is None:
        raise RuntimeError("there is always a set of one site")
    ordered, _, more = _climb(effects, goal, best[1], most=len(best[1]), stop=False)
    found = _circuit(
        "exhaustive", effects, goal, ordered, best[0],
        top_k=top_k if limited else None, n_sets=n_sets + more,
    )  # fmt: skip
    return replace(found, minimal=found.reached and not limited)


def _check_limits(**limits: int | None) -> None:
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise ConfigError(
                "A search needs room for one site",
                seen=f"{name}={limit}",
                allowed="1 or more, or None for no limit",
                remedy=f"give {name}=1 or leave it out",
            )


def _circuit(
    method: Method,
    effects: SetEffects,
    goal: Goal,
    sites: Sequence[Site],
    scores: Scores,
    *,
    top_k: int | None,
    n_sets: int,
) -> Circuit:
    flipped = None if scores.flipped is None else float(scores.flipped[0])
    return Circuit(
        method=method,
        goal=goal,
        sites=tuple(sites),
        share=float(scores.share[0]),
        flipped=flipped,
        reached=bool(scores.reached[0]),
        minimal=False,
        n_candidates=len(effects.candidates),
        top_k=top_k,
        n_sets=n_sets,
    )


@dataclass(frozen=True)
class Redundancy:
    """How many disjoint sets suffice, each on its own.

    Attributes:
        circuits: those that reach the goal, in the order found; no two share a site.
        left: the best of what remained, which does not reach it; None where no candidate remained
            or the search was stopped.
        capped: whether the search was stopped at its cap, so that there may be more.
    """

    circuits: tuple[Circuit, ...]
    left: Circuit | None
    capped: bool


def disjoint(
    effects: SetEffects,
    goal: Goal | None = None,
    *,
    search: Search = forward_backward,
    cap: int = MOST_DISJOINT,
) -> Redundancy:
    """Circuits without a common site: find one, withdraw its sites, search again.

    A greedy packing: there may be more disjoint sets than it finds, never fewer.

    Args:
        effects: what sets do.
        goal: what each must reach; 0.8 of the full swap unless given.
        search: how; the last search fails and so costs most, so give one with limits
            (``functools.partial(forward_backward, top_k=30)``) when there are many candidates.
        cap: stop after so many.

    Raises:
        ConfigError: the cap is below 1, or as ``search``.
        EvidenceError: as ``circuits.effects.score``.
    """
    goal = Goal() if goal is None else goal
    _check_limits(cap=cap)
    found: list[Circuit] = []
    pool: tuple[Site, ...] = tuple(sorted(effects.candidates))
    while pool and len(found) < cap:
        circuit = search(replace(effects, candidates=pool), goal)
        if not circuit.reached:
            return Redundancy(tuple(found), circuit, capped=False)
        found.append(circuit)
        pool = tuple(site for site in pool if site not in circuit.members)
    return Redundancy(tuple(found), None, capped=bool(pool))


def circuits_table(effects: SetEffects, circuits: Mapping[str, Circuit]) -> pl.DataFrame:
    """The table ``circuits``.

    Args:
        effects: what they were found in.
        circuits: by a name that tells them apart, such as ``forward`` or ``disjoint-2``.
    """
    return from_rows(
        "circuits",
        [
            {
                **effects.subject.columns(),
                "circuit": name,
                "method": circuit.method,
                "goal": circuit.goal.kind,
                "threshold": circuit.goal.threshold,
                "sites": "+".join(map(str, circuit.sites)),
                "n_sites": len(circuit.sites),
                "share": circuit.share,
                "flipped": circuit.flipped,
                "reached": circuit.reached,
                "minimal": circuit.minimal,
                "n_candidates": circuit.n_candidates,
                "top_k": circuit.top_k,
                "n_sets": circuit.n_sets,
                "n_prompts": len(effects.baseline),
            }
            for name, circuit in circuits.items()
        ],
    )
