"""What would a known strategy answer? Scripted policies as agents, with exact probabilities.

A scripted policy is a memory-one strategy, named as opponents are (``games.opponents``:
``tit-for-tat``, ``noisy(grim, 0.05)``, ``memory-one(.9, .1, .8, .2)``; and those of
``games.play.classical`` that look at one round, such as ``bully``), that sits in the agent's own
seat: with q the strategy's table as written for whoever faces it,

    P(C | own last move a, other's last move o) = q(o, a),

so the middle two values change places. Its answers are always legal, and as it has no logits it
has no log-odds. Whatever is computed of agents is computed of scripted policies in the same way,
so their values, which are known in closed form, are the check of every table.

Where a prompt does not tell both last moves:

- neither is told: the probability of the strategy's move before the first round
  (``Opponent.p_cooperated_before``: its opening, the constant of one that always plays alike, .5
  where nothing is known);
- one of them is told: the mean over the other one, both moves alike;
- a group's state is told: the strategy answers one of the others, drawn at random,
  ``P(C) = k/n q(C, a) + (1 - k/n) q(D, a)`` with k of the n others having cooperated.

A strategy that remembers more than one round is refused: no prompt tells what it asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from moralscope.core.decision import Move, Prompt
from moralscope.core.tables import from_rows
from moralscope.games.matrices import MOVES
from moralscope.games.opponents import Opponent
from moralscope.games.play.classical import as_opponent
from moralscope.games.public_goods import get_public_goods


def scripted_decisions(name: str, expression: str, prompts: Sequence[Prompt]) -> pl.DataFrame:
    """What does a scripted policy decide on every prompt?

    Args:
        name: how the tables call the agent, such as ``policy:tit-for-tat``.
        expression: the strategy, without the word ``policy``.
        prompts: what is asked; the negative option counts as cooperation.

    Returns:
        A ``decisions`` table, one row per prompt in the order given: ``p_negative`` is P(C) and
        ``p_positive`` is P(D), in [0, 1]; ``legal_mass`` is 1, ``log_odds`` null.

    Raises:
        ConfigError: the strategy is unknown, a model, or needs more memory than a prompt holds;
            or a group prompt belongs to no public-goods game.
    """
    strategy = scripted_policy(expression)
    return from_rows("decisions", [_row(name, prompt, strategy) for prompt in prompts])


def scripted_policy(expression: str) -> Opponent:
    """The strategy of a scripted policy, as whoever faces it sees it.

    Raises:
        ConfigError: the strategy is unknown, a model, or needs more memory than a prompt holds.
    """
    return as_opponent(expression)


def p_cooperate(strategy: Opponent, own: Move, other: Move) -> float:
    """P(the strategy plays C | its own last move, the other's last move), in [0, 1]."""
    # An opponent's table puts the move of whoever faces it first.
    return strategy.p_cooperate_after[(other, own)]


def _row(name: str, prompt: Prompt, strategy: Opponent) -> dict[str, object]:
    cooperates = _answer(prompt, strategy)
    return {
        "agent": name,
        "prompt": prompt.name,
        "game": prompt.game,
        "scenario": prompt.scenario,
        "log_odds": None,
        "p_positive": 1.0 - cooperates,
        "p_negative": cooperates,
        "legal_mass": 1.0,
        "p_positive_given_legal": 1.0 - cooperates,
        "fingerprint_log_odds": None,
    }


def _answer(prompt: Prompt, strategy: Opponent) -> float:
    """P(C) on this prompt."""
    own, other = prompt.own_previous, prompt.opponent_previous
    if prompt.others_cooperated is not None:
        others = get_public_goods(prompt.game).players - 1
        share = prompt.others_cooperated / others
        return share * _mean(strategy, own, "C") + (1 - share) * _mean(strategy, own, "D")
    if own is None and other is None:
        return strategy.p_cooperated_before
    return _mean(strategy, own, other)


def _mean(strategy: Opponent, own: Move | None, other: Move | None) -> float:
    """P(C) after these moves; the mean over both where one is not told."""
    after = [
        p_cooperate(strategy, a, o)
        for a in ((own,) if own else MOVES)
        for o in ((other,) if other else MOVES)
    ]
    return sum(after) / len(after)
