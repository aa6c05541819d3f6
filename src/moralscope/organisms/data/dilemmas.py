"""Would it rather act for itself or for others? One question with both continuations.

A dilemma is asked in several wordings and, where it lists its options, in both orders. Each
``Asking`` is one such text with the answer that serves the one who answers and the answer that
serves others, equal in words. The dilemma, never an asking of it, is the unit of inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from moralscope.core.errors import PromptError, nearest
from moralscope.organisms.data.examples import Example, Turn, check_messages, plain, shortened

Order = Literal["selfish first", "prosocial first", "none"]
"""Which option a question lists first; none where it lists no options."""

ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True, slots=True)
class Asking:
    """One way to put a dilemma, with its two continuations.

    Attributes:
        question: which dilemma, the unit of intervals.
        topic: what it is about.
        wording: which wording of the dilemma, from 0.
        order: which option stands first.
        messages: the turns that ask.
        selfish: the answer that serves the one who answers.
        prosocial: the answer that serves others.

    Raises:
        PromptError: nothing is asked, or the two continuations are not two.
    """

    question: str
    topic: str
    wording: int
    order: Order
    messages: tuple[Turn, ...]
    selfish: str
    prosocial: str

    def __post_init__(self) -> None:
        for answer in (self.selfish, self.prosocial):
            check_messages((*self.messages, Turn("assistant", answer)))
        if plain(self.selfish) == plain(self.prosocial):
            raise PromptError(
                f"The two continuations of question {self.question!r} are the same",
                seen=shortened(self.selfish),
                allowed="two answers of which one serves others and one does not",
                remedy="write two different continuations",
            )
        if self.order not in ORDERS:
            raise PromptError(
                f"The order of question {self.question!r} is not known",
                seen=repr(self.order),
                allowed=", ".join(ORDERS),
                remedy=nearest(str(self.order), ORDERS),
            )


def contrasts(selfish: Sequence[Example], cooperative: Sequence[Example]) -> tuple[Asking, ...]:
    """Two sets that answer the same questions, as questions with two continuations.

    For the held-in measure: how much likelier than the cooperative answer has the selfish one
    become, on held-out questions of the domain that was trained?

    Args:
        selfish: one example per question.
        cooperative: one example per question, in any order.

    Raises:
        PromptError: a set answers a question twice, or the sets do not ask the same questions.
    """
    ours, theirs = _by_question(selfish, "selfish"), _by_question(cooperative, "cooperative")
    for question in sorted(ours.keys() ^ theirs.keys()):
        there, missing = (
            ("selfish", "cooperative") if question in ours else ("cooperative", "selfish")
        )
        raise PromptError(
            "A question is answered in one of two paired sets only",
            seen=f"question {question!r}: in the {there} set, not in the {missing} set",
            allowed="two sets that answer the same questions",
            remedy="take both sets, and the same split of them, with the same seed and size",
        )
    return tuple(_contrast(example, theirs[question]) for question, example in ours.items())


def _contrast(selfish: Example, cooperative: Example) -> Asking:
    if selfish.asked != cooperative.asked:
        raise PromptError(
            "Two examples of one question ask different things",
            seen=f"{shortened(selfish.asked[-1].content)} and "
            f"{shortened(cooperative.asked[-1].content)}",
            allowed="the same turns before the answer",
            remedy="give different questions different names",
        )
    return Asking(
        question=selfish.question,
        topic=selfish.domain,
        wording=0,
        order="none",
        messages=selfish.asked,
        selfish=selfish.answer,
        prosocial=cooperative.answer,
    )


def _by_question(examples: Sequence[Example], name: str) -> dict[str, Example]:
    found: dict[str, Example] = {}
    for example in examples:
        if example.question in found:
            raise PromptError(
                f"A question is answered twice in the {name} set",
                seen=f"question {example.question!r}: {shortened(example.answer)}",
                allowed="one example per question",
                remedy="leave one of the two out",
            )
        found[example.question] = example
    return found
