"""How are component interactions measured and followed up? Settings of ``interactions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moralscope.core.agents import Frozen


class InteractionChoice(Frozen):
    """How component interactions are measured and followed up.

    Attributes:
        difference: smallest difference of two correlations worth finding, in Fisher z; so many
            prompts are asked as tell it apart with 80% power, or all that there are.
        level: what the table of correlations holds beside sub-layers (attention and MLP of each
            layer): nothing (``layer``), or heads and MLPs as well (``head``).
        pathways: how many pathways of each comparison and measure are patched, and how many
            random ones beside them; 0 for none. Thirty together show a rank correlation of .67
            between changes and effects with 80% power after correction over twenty tests.
        traced: kinds of comparison whose pathways are patched.
    """

    difference: Annotated[float, Field(gt=0, le=3)] = 0.3
    level: Literal["layer", "head"] = "layer"
    pathways: Annotated[int, Field(ge=0, le=200)] = 15
    traced: tuple[Literal["named", "base", "replicate"], ...] = ("named", "base")
