"""What are agents asked? The key ``prompts`` of the study file."""

from __future__ import annotations

from typing import Literal

from moralscope.core.agents import Frozen
from moralscope.games import CLUSTER_GAMES, HELD_OUT, MIRRORED
from moralscope.games.asking.wording import MIRROR_SUFFIX

_MIRRORS = tuple(name for name in MIRRORED if name.removesuffix(MIRROR_SUFFIX) in HELD_OUT)


class PromptChoice(Frozen):
    """Which prompts agents are measured on, beside the clusters that inference rests on.

    Attributes:
        words: the two action labels.
        table_orders: orders of the structured text's payoff table.
        wordings: other texts of the IPD, and mirrors of them.
        scenarios: whether to ask the five situations.
        games: games of the clusters, which claims rest on; with none, they rest on ``files``.
        files: prompt files of the user's own.
    """

    words: tuple[str, str] = ("action1", "action2")
    table_orders: tuple[Literal["original", "rows", "columns", "both"], ...] = ("original", "rows")
    wordings: tuple[str, ...] = (*HELD_OUT, *_MIRRORS)
    scenarios: bool = True
    games: tuple[str, ...] = CLUSTER_GAMES
    files: tuple[str, ...] = ()
