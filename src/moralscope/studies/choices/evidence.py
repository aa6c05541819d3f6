"""How are claims tested? The key ``evidence`` of the study file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moralscope.core.agents import Frozen


class EvidenceChoice(Frozen):
    """How claims are tested.

    Attributes:
        alpha: level of every corrected test, family-wise.
        draws: draws of a randomisation test that is too large to be counted out.
    """

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    draws: Annotated[int, Field(ge=99)] = 9999
