"""Which letters of an answer did each of its tokens write?

A table keeps an answer as text, and its tokens each decoded alone. Most often the tokens joined
are the text. Where they are not, there is a reason, and each token is still given its letters:

- a letter was cut between tokens (each decodes to the replacement character): they share what
  stands between their neighbours, with the product of their probabilities;
- a tokenizer drops the space before a token that it decodes alone: the space goes to that token;
- a token such as the end of the turn is no text: it has no letters, and is told apart.

Texts that tokens do not cover by these rules are refused, not guessed at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer.

    Attributes:
        text: the letters that it wrote, or what it decodes to where it wrote none.
        probability: that the agent gave it, in [0, 1]; of several that share a letter, together.
        written: whether its text is part of the answer.
    """

    text: str
    probability: float
    written: bool = True


def placed(
    text: str, start: int, pieces: Sequence[str], probabilities: Sequence[float]
) -> tuple[Token, ...] | None:
    """The tokens of an answer with their letters.

    Args:
        text: the answer, with what was put in the agent's mouth before it.
        start: where in ``text`` the answer begins.
        pieces: its tokens, each decoded alone.
        probabilities: theirs, as many.

    Returns:
        Tokens whose written texts joined are ``text[start:]``, or None where they do not cover it.
    """
    tokens: list[Token] = []
    shared: list[tuple[str, float]] = []
    first, at = 0, start
    for piece, probability in zip(pieces, probabilities, strict=True):
        end = _end(text, at, piece)
        if shared and piece and _BROKEN not in piece:
            found = _after_shared(text, at, piece, [cut for cut, _ in shared])
            if found > at:
                tokens.insert(first, _together(text[at:found], shared))
                shared, at, end = [], found, found + len(piece)
        if end is not None and not shared:
            tokens.append(Token(text[at:end], probability))
            at = end
        elif _BROKEN in piece:
            first = first if shared else len(tokens)
            shared.append((piece, probability))
        else:
            tokens.append(Token(piece, probability, written=False))
    if shared:
        tokens.insert(first, _together(text[at:], shared))
        at = len(text)
    return tuple(tokens) if at == len(text) else None


def _after_shared(text: str, at: int, piece: str, shared: Sequence[str]) -> int:
    """Where a piece stands after tokens that share letters from ``at`` on, or -1.

    They wrote their whole letters and at least one that was cut, and no more than they decode to.
    """
    whole = sum(len(cut) - cut.count(_BROKEN) for cut in shared)
    most = sum(len(cut) for cut in shared)
    return text.find(piece, at + whole + 1, at + most + len(piece))


def _together(text: str, shared: Sequence[tuple[str, float]]) -> Token:
    return Token(text, math.prod(probability for _, probability in shared))


def _end(text: str, at: int, piece: str) -> int | None:
    """Where a token's letters end if they begin here, a space before them allowed; else None."""
    if not piece:
        return None
    if text.startswith(piece, at):
        return at + len(piece)
    spaced = f" {piece}"
    return at + len(spaced) if text.startswith(spaced, at) else None
