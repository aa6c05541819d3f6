"""How is attention measured and altered? Settings of ``attention``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moralscope.core.agents import Frozen


class AttentionChoice(Frozen):
    """How attention is measured and altered.

    Attributes:
        heads: of which heads the weight on every token is kept: so many of each agent, those whose
            attention moved most from the base's, or the heads that are named (``L8.h3``).
        edits: whether attention to each category is masked and amplified.
        amplify: what weights are multiplied by, before all sum to 1 again, where it is amplified;
            null for masks alone.
        draws: sets of random tokens that each mask is compared with.
        layers: the layers at which attention is altered, from 0; all unless given.
    """

    heads: Annotated[int, Field(ge=0, le=1000)] | tuple[str, ...] = 4
    edits: bool = True
    amplify: Annotated[float, Field(gt=1, le=1e6)] | None = 4.0
    draws: Annotated[int, Field(ge=0, le=1000)] = 4
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
