"""How does an agent play a game, and how far does that depend on how the game is put to it?

A *presentation* is one way of asking about the same state: a label assignment and the orders in
which the two options are named. The payoff table stands as it is written; what agents do once it is
rearranged is a control (``varying.generalisation``, ``learning``), and no part of a policy. Under
each presentation an agent is a memory-one policy with three answers,

    pi(s) = (P(C), P(D), P(neither)),   P(C) = P(negative option), P(D) = P(positive option),

and its policy in the game is the mean over presentations: an agent that is asked in a way drawn
afresh every round. Quantities of play (regret, payoffs, exploitability) are computed from that
mean; their interval is a t interval over the values of the single presentations, which says how
far the number hangs on the way of asking. It holds for ways of asking like these, and it is not
sampling error: there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from moralscope.behaviour.joining import STATE, join_prompts, with_state
from moralscope.behaviour.learning.transfer import swap_labels
from moralscope.core.errors import TableError
from moralscope.games import STATES

Array = NDArray[np.float64]
FAMILY = "structured"
"""The family in which every game is asked in full."""


@dataclass(frozen=True, eq=False)
class Presented:
    """An agent's memory-one policies in one game under one pair of labels.

    Attributes:
        agent, game: who, and in which game (a name that ``games.get_game`` knows).
        labels: the pair, ``action1/action2``; both of its assignments are among the presentations
            where both were asked, and the pair is written as the first of them.
        presentations: of each its label assignment and orders, ``action1/action2 o0a1``.
        answers: probabilities of C, D and neither, ``[presentations, 4, 3]``, states CC, CD, DC,
            DD (own last move first); each row sums to 1.
    """

    agent: str
    game: str
    labels: str
    presentations: tuple[str, ...]
    answers: Array

    def under(self, assignment: str) -> Array | None:
        """The policy under one label assignment, ``[4, 3]``; None if it was not asked under it."""
        chosen = [name.rpartition(" ")[0] == assignment for name in self.presentations]
        return self.answers[chosen].mean(axis=0) if any(chosen) else None

    @property
    def mean(self) -> Array:
        """The policy of an agent that is asked in a way drawn every round, ``[4, 3]``."""
        return self.answers.mean(axis=0)


def presented(prompts: pl.DataFrame, decisions: pl.DataFrame) -> Iterator[Presented]:
    """The policies of every agent in every game and under every pair of labels.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table.

    Yields:
        Agents, games and pairs in order of appearance.

    Raises:
        TableError: the tables break their schemas or do not belong together, or a presentation
            lacks a state that others have.
    """
    joined = with_state(join_prompts(prompts, decisions)).filter(
        pl.col("family") == FAMILY, pl.col("table_order").is_in(("original", "none"))
    )
    written: list[str] = joined.get_column("labels").unique(maintain_order=True).to_list()
    pair_of: dict[str, str] = {}
    for labels in written:
        pair_of[labels] = pair_of.get(swap_labels(labels), labels)
    cells = joined.with_columns(
        pair=pl.col("labels").replace_strict(pair_of, return_dtype=pl.String),
        state=pl.col(STATE[0]) + pl.col(STATE[1]),
        presentation=pl.format("{} o{}a{}", "labels", "option_order", "answer_order"),
    )
    means = cells.group_by(
        "agent", "game", "pair", "presentation", "state", maintain_order=True
    ).agg(pl.col("p_negative").mean(), pl.col("p_positive").mean())
    for (agent, game, pair), rows in means.group_by("agent", "game", "pair", maintain_order=True):
        names = tuple(rows.get_column("presentation").unique(maintain_order=True).to_list())
        yield Presented(str(agent), str(game), str(pair), names, _answers(rows, names))


def _answers(rows: pl.DataFrame, names: tuple[str, ...]) -> Array:
    found = {
        (presentation, state): (cooperate, defect)
        for presentation, state, cooperate, defect in rows.select(
            "presentation", "state", "p_negative", "p_positive"
        ).iter_rows()
    }
    answers = np.zeros((len(names), len(STATES), 3))
    for i, name in enumerate(names):
        for j, state in enumerate(STATES):
            if (name, state.name) not in found:
                raise TableError(
                    "A presentation of a game lacks a state",
                    seen=f"{name}: no decision after {state.name}",
                    allowed="decisions in all four states, CC, CD, DC and DD",
                    remedy="evaluate the agent on the whole structured set of the game",
                )
            answers[i, j, :2] = found[name, state.name]
    # Probabilities in float32 overshoot 1 by some 1e-7.
    answers[:, :, 2] = np.maximum(0.0, 1.0 - answers[:, :, :2].sum(axis=2))
    return answers / answers.sum(axis=2, keepdims=True)
