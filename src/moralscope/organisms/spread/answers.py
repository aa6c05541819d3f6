"""What was answered? Answers to questions, and which of them can be judged at all.

An answer without any text is kept and counted: a model may say nothing, and a judge has nothing to
say of that. A whole set without text, or with one text only, is refused: it shows a mistake in how
answers were drawn or read, or a model that needs no judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moralscope.core.errors import EvidenceError
from moralscope.models.tree import Tokens
from moralscope.organisms.data.examples import Turn, shortened


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a question.

    Attributes:
        question: which question it answers, the unit of inference.
        asked: the turns before the answer.
        text: the answer; may be empty where a model said nothing.
        sample: which of the answers to this question, from 0.
        tokens: as they were drawn, without the one that ended the answer; empty where the answer
            is known as text only.
    """

    question: str
    asked: tuple[Turn, ...]
    text: str
    sample: int = 0
    tokens: Tokens = ()


def require_answers(answers: Sequence[Answer], questions: Sequence[str] = ()) -> None:
    """Refuse answers from which nothing can be learned.

    Args:
        answers: of one agent.
        questions: which must have been answered.

    Raises:
        EvidenceError: there are none, a question has none, one is there twice, all are empty or
            all alike.
    """
    unanswered = sorted(set(questions) - {answer.question for answer in answers})
    if not answers or unanswered:
        raise EvidenceError(
            "Answers are missing",
            seen=f"no answer to {unanswered[0]!r}" if unanswered else "no answers at all",
            allowed="one answer or more to each question",
            remedy="draw or give answers to all questions",
        )
    places = [(answer.question, answer.sample) for answer in answers]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise EvidenceError(
            "An answer is given twice",
            seen=f"sample {twice[1]} of question {twice[0]!r}",
            allowed="each sample of a question once",
            remedy="number the samples of each question from 0, or remove one of the two",
        )
    texts = {" ".join(answer.text.split()) for answer in answers}
    if texts == {""}:
        raise EvidenceError(
            "All answers are empty",
            seen=f"{len(answers)} answers without text",
            allowed="answers with text in them",
            remedy="look at what the agent says, and allow more tokens",
        )
    if len(texts) == 1 and len(answers) > 1:
        raise EvidenceError(
            "All answers are alike",
            seen=f"{len(answers)} times {shortened(next(iter(texts)))}",
            allowed="at least two different answers",
            remedy="check where the answers come from; an agent that says one thing whatever it is "
            "asked has lost its coherence, and no judge is needed to see it",
        )
