"""How are representations compared, probed and searched? Settings of ``representations``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moralscope.core.agents import Frozen


class RepresentationChoice(Frozen):
    """How representations are compared, probed and searched.

    Attributes:
        depths: layers at which directions are probed, spread over the model, the last among them.
        framing: a neutral and a moral frame of one text (``games.asking.framing``) that probes
            tell apart; none where a study asks about none of the package's games.
        changes: what two prompts differ in whose streams are exchanged.
        searched: layers at which subspaces are searched, in the later part of the model, where
            what decides has reached the token that is read.
        dimensions: of the subspaces.
        steps: of each search.
        arbitrary: searches for arbitrary sides at the place that is judged, beside the one for the
            true sides; what they reach says how far luck goes. Fewer than 3 judge nothing.
        random_directions: beside each direction whose effect is measured.
    """

    depths: Annotated[int, Field(ge=1, le=200)] = 8
    framing: tuple[str, str] | None = ("system:assistant", "system:ethicist")
    changes: tuple[Literal["opponent_previous", "own_previous"], ...] = ("opponent_previous",)
    searched: Annotated[int, Field(ge=1, le=200)] = 4
    dimensions: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(min_length=1)] = (
        1,
        4,
    )
    steps: Annotated[int, Field(ge=1, le=2_000)] = 30
    arbitrary: Annotated[int, Field(ge=1, le=200)] = 8
    random_directions: Annotated[int, Field(ge=1, le=999)] = 19
