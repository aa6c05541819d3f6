"""How much of a long list goes on the page? A fair share for each group, within a bound.

A page that holds everything is slow to open, and nobody scrolls through two thousand prompts. So
groups (families of prompts, agents) take turns, each putting its next entry on the page while the
bound lasts; what is left out is counted and its table named.
"""

from __future__ import annotations

from collections.abc import Sequence


def fair_shares(costs: Sequence[Sequence[int]], bound: int) -> list[int]:
    """How many entries of each group fit.

    Args:
        costs: of the entries of each group in the order in which they would be shown, such as
            characters, at least 0.
        bound: on the sum of costs.

    Returns:
        For each group how many of its first entries are shown: all where everything fits, at
        least one of each group that has any, even beyond the bound. A group ends with its first
        entry that does not fit.
    """
    shown = [0] * len(costs)
    spent = 0
    turn = [group for group, entries in enumerate(costs) if entries]
    while turn:
        further: list[int] = []
        for group in turn:
            cost = costs[group][shown[group]]
            if shown[group] and spent + cost > bound:
                continue
            spent += cost
            shown[group] += 1
            if shown[group] < len(costs[group]):
                further.append(group)
        turn = further
    return shown
