"""Which controls does a study run beside its findings? The key ``controls`` of the study file.

A *negative* control is something in which nothing may be found: the untrained base under another
attention kernel, or with its weights rounded to another dtype; random directions as long as a
patch. A *positive* control must be found: a vector whose effect is known from an ordinary forward.
They are measured by ``studies.steps.controls`` and judged by ``evidence.controls``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from moralscope.core.agents import Frozen

REPLICA_PROMPTS = 80
"""Most prompts on which the base is measured once more; spread over all scenarios."""


class ControlChoice(Frozen):
    """Controls that are measured with a study.

    Attributes:
        kernel: measure the base once more under another attention kernel.
        dtype: measure it once more with its weights rounded to another dtype.
        random_directions: of each patched pair, random directions a site; 0 for none.
        planted: of each patched pair, write a vector whose effect is known.
        prompts: on how many prompts pairs are controlled, spread over scenarios.
    """

    kernel: bool = True
    dtype: bool = True
    random_directions: Annotated[int, Field(ge=0, le=100)] = 2
    planted: bool = True
    prompts: Annotated[int, Field(ge=1)] = 20

    @property
    def of_base(self) -> bool:
        """Whether the base is measured once more."""
        return self.kernel or self.dtype

    @property
    def of_patches(self) -> bool:
        """Whether patched pairs are controlled."""
        return self.planted or self.random_directions > 0


def spread(scenarios: Sequence[str], most: int) -> tuple[int, ...]:
    """Which of a list of prompts to take: at most so many, from as many scenarios as can be.

    Scenarios are taken evenly from their order of appearance; within a scenario prompts are taken
    at even distances, beginning one later in each next scenario, so that wordings, orders and
    labels change from one to the next.

    Args:
        scenarios: of each prompt.
        most: how many to take, at least one.

    Returns:
        Indices, ascending.
    """
    groups: dict[str, list[int]] = {}
    for index, scenario in enumerate(scenarios):
        groups.setdefault(scenario, []).append(index)
    members: list[list[int]] = list(groups.values())
    if len(members) > most:
        picked = np.linspace(0, len(members) - 1, most).round().astype(int)
        members = [members[i] for i in picked]
    each = max(1, most // max(1, len(members)))
    chosen: set[int] = set()
    for turn, group in enumerate(members):
        count = min(each, len(group))
        chosen |= {group[(step * len(group) // count + turn) % len(group)] for step in range(count)}
    return tuple(sorted(chosen))
