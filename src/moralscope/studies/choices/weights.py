"""How are weight updates described and compared? Settings of ``weights``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moralscope.core.agents import Frozen


class WeightChoice(Frozen):
    """How weight updates are described and compared.

    Attributes:
        spectrum: singular values of each linear layer that are kept, the largest.
        tops: sizes of the leading subspaces of two updates that are compared; claims rest on the
            largest.
    """

    spectrum: Annotated[int, Field(ge=1, le=10_000)] = 64
    tops: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1)] = (1, 4)
