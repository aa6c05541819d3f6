"""Was the broad set trained after all? How much of it stands in a training set.

A text is normalised (NFKC, without case, words alone). The containment of a text ``b`` of the broad
set, a question or a continuation, in a turn ``t`` of a training example is the share of its word
trigrams ``G`` that occur there,

    containment(b, t) = |G(b) & G(t)| / |G(b)|,

which is 1 if the text stands there word for word, however long the turn is (Broder, 1997). From
``THRESHOLD`` on, or where a turn is the text itself, training is refused. With every sixth word
replaced at random, nine of ten texts of the broad set are still at or above it, while no turn of
the narrow sets comes near. In a text of fewer than ``SHORT`` words half of the trigrams can occur
by accident, so there only the text itself counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moralscope.core.errors import ConfigError, PromptError
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.data.examples import Example, shortened

THRESHOLD = 0.5
"""The containment from which on a training set is refused."""

SHORT = 8
"""Texts of fewer words overlap only if a turn is the text itself."""

_LENGTH = 3

Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The closest pair of a training set and the broad set.

    Attributes:
        example: which training example.
        turn: its turn, as it was written.
        question: which question of the broad set.
        text: its text, as it was written.
        containment: the share of the text's word trigrams that the turn holds, from 0 to 1; 1 if
            the turn is the text.
    """

    example: str
    turn: str
    question: str
    text: str
    containment: float


def check_overlap(
    examples: Sequence[Example], askings: Sequence[Asking], *, threshold: float = THRESHOLD
) -> Overlap | None:
    """Refuse a training set that holds what is to be measured.

    Args:
        examples: what is to be trained.
        askings: the broad set.
        threshold: the containment from which on training is refused, above 0 up to 1.

    Returns:
        The closest pair, to be shown beside the result; nothing if no pair shares a trigram.

    Raises:
        ConfigError: the threshold is out of range.
        PromptError: the sets overlap; the message names the closest pair.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(
            "The threshold of overlap is out of range",
            seen=threshold,
            allowed="a number above 0, at most 1",
            remedy=f"leave it out, it is then {THRESHOLD}",
        )
    closest = closest_overlap(examples, askings)
    if closest is None or closest.containment < threshold:
        return closest
    raise PromptError(
        "The training set overlaps the broad set, which must never be trained",
        seen=f"example {closest.example}, {shortened(closest.turn)}, holds "
        f"{closest.containment:.0%} of question {closest.question!r}, {shortened(closest.text)}",
        allowed=f"less than {threshold:.0%} of the word trigrams of any question or continuation",
        remedy="remove the examples that are so close, or measure the spread on other questions",
    )


def closest_overlap(examples: Sequence[Example], askings: Sequence[Asking]) -> Overlap | None:
    """The pair of a turn and a text of the broad set with the highest containment, if any.

    Of pairs that are equally close it is the first, in the order of the examples.
    """
    texts = list(dict.fromkeys(_texts(askings)))
    split = [words(text) for _, text in texts]
    whole = {" ".join(found): at for at, found in reversed(list(enumerate(split)))}
    sizes = [len(trigrams(found)) if len(found) >= SHORT else 0 for found in split]
    index: defaultdict[Gram, list[int]] = defaultdict(list)
    for at, found in enumerate(split):
        for gram in trigrams(found) if sizes[at] else ():
            index[gram].append(at)
    closest: Overlap | None = None
    for example in examples:
        for turn in example.messages:
            found = words(turn.content)
            shared = Counter(at for gram in trigrams(found) for at in index.get(gram, ()))
            shares = {at: count / sizes[at] for at, count in shared.items()}
            same = whole.get(" ".join(found))
            if same is not None:
                shares[same] = 1.0
            for at in sorted(shares):
                if closest is None or shares[at] > closest.containment:
                    question, text = texts[at]
                    closest = Overlap(example.id, turn.content, question, text, shares[at])
    return closest


def words(text: str) -> list[str]:
    """The words of a text in normal form: NFKC, without case, runs of letters and digits."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def trigrams(found: Sequence[str]) -> set[Gram]:
    """The different runs of three words."""
    return {tuple(found[at : at + _LENGTH]) for at in range(len(found) - _LENGTH + 1)}


def _texts(askings: Sequence[Asking]) -> Iterator[tuple[str, str]]:
    for asking in askings:
        for text in (*(turn.content for turn in asking.messages), asking.selfish, asking.prosocial):
            yield asking.question, text
