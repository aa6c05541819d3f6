"""What an agent decides: a prompt, two named options, and where in the prompt things stand.

A ``Decision`` is everything needed to ask a model one question with two answers. ``positive``
and ``negative`` fix the sign of every number derived from it:
``log_odds = log P(positive) - log P(negative)``. Games bind positive = defect and
negative = cooperate. A ``Prompt`` is a decision with its place in a study (which game, scenario,
wording, labels, orders); a ``PromptSet`` refuses duplicates when it is built, because cloned
prompts are the commonest way to inflate a sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from moralscope.core.errors import PromptError

Role = Literal["system", "user", "assistant"]
Move = Literal["C", "D"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the chat that precedes the answer."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Option:
    """One of the two answers.

    Attributes:
        name: what the option means (``defect``), never shown to the model.
        forms: the surface forms that count as this answer, the canonical one first. Each is the
            text that directly follows the prompt and its answer stem, so a leading space, where
            the language needs one, is part of the form.
    """

    name: str
    forms: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.forms or any(not form for form in self.forms):
            raise PromptError(
                f"Option {self.name!r} has an empty surface form",
                seen=self.forms,
                allowed="one or more non-empty strings",
                remedy="write the text that the agent would answer with",
            )
        if len(set(self.forms)) != len(self.forms):
            raise PromptError(
                f"Option {self.name!r} lists the same surface form twice",
                seen=self.forms,
                allowed="distinct forms, each counted once in the option's probability",
                remedy="remove the repeated form",
            )

    @property
    def canonical(self) -> str:
        """The form that attribution targets."""
        return self.forms[0]


@dataclass(frozen=True, slots=True)
class Span:
    """Where in the prompt something stands, in characters.

    Attributes:
        category: what stands there (``labels``, ``payoffs``, ``opponent_previous``,
            ``own_previous``, ``goal``); in a game of more than two players
            ``opponent_previous`` is how many of the others cooperated.
        message: index of the chat message.
        start, end: half-open character range within that message's content.
    """

    category: str
    message: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A prompt and two named options.

    Attributes:
        messages: the chat, first turn first.
        stem: the beginning of the answer, put in the agent's mouth ("I choose action"); empty
            for none. It follows the chat template's generation prompt directly.
        positive, negative: the two options; every signed number points towards ``positive``.
        spans: named character ranges of the messages.
        chat_template: whether the messages are put into the model's chat template; if not, their
            contents follow one another, one a line.
    """

    messages: tuple[Message, ...]
    stem: str
    positive: Option
    negative: Option
    spans: tuple[Span, ...] = ()
    chat_template: bool = True

    def __post_init__(self) -> None:
        if not self.messages:
            raise PromptError(
                "A decision has no messages",
                seen="()",
                allowed="one chat message or more",
                remedy="give the text that the agent is asked",
            )
        shared = set(self.positive.forms) & set(self.negative.forms)
        if shared or self.positive.name == self.negative.name:
            raise PromptError(
                "The two options are identical",
                seen=sorted(shared) or self.positive.name,
                allowed="two options with different names and no surface form in common",
                remedy="give each option its own name and wording",
            )
        for span in self.spans:
            inside = 0 <= span.message < len(self.messages)
            if not inside or not (
                0 <= span.start < span.end <= len(self.messages[span.message].content)
            ):
                raise PromptError(
                    f"Span {span.category!r} lies outside its message",
                    seen=f"message {span.message}, characters {span.start} to {span.end}",
                    allowed="a non-empty range within one message's content",
                    remedy="recompute the span from the final text",
                )

    @property
    def question(self) -> object:
        """What an agent is asked, hashable: text and answers, whichever of them is positive."""
        answers = frozenset(frozenset(option.forms) for option in (self.positive, self.negative))
        return self.messages, self.stem, self.chat_template, answers


@dataclass(frozen=True, slots=True)
class Prompt:
    """A decision and its place in a study.

    Attributes:
        name: unique within a set; the ``prompt`` column of every table.
        decision: what is asked.
        game: the game (``IPD``), or ``user`` for prompts of the user's own.
        scenario: the unit of replication (cluster) that inference uses.
        family: ``structured``, ``wordings``, ``scenarios``, ``clusters``, ``framings``,
            ``public-goods``, one of ``games.FAMILIES`` or the user's own.
        template: the wording, a fixed effect.
        labels: the two action words, ``negative/positive`` (``action1/action2``: cooperate is
            called action1); a swapped assignment reads ``action2/action1``.
        option_order, answer_order: 0 if the alphabetically first label is named first in the
            opening (resp. in the answer instruction), 1 if second.
        table_order: order of payoff rows and columns: ``original``, ``rows``, ``columns``,
            ``both`` exchanged, or ``none`` where the text has no table.
        own_previous, opponent_previous: the one-step memory, where there is one.
        others_cooperated: how many of the others cooperated in the round before, in a game of
            more than two players.
        counterfactual_of: the name of the prompt of which this one is a changed version, where
            the user says so.
        change: what was changed, in the user's words.
    """

    name: str
    decision: Decision
    game: str
    scenario: str
    family: str
    template: str
    labels: str
    option_order: int = 0
    answer_order: int = 0
    table_order: str = "none"
    own_previous: Move | None = None
    opponent_previous: Move | None = None
    others_cooperated: int | None = None
    counterfactual_of: str | None = None
    change: str | None = None


@dataclass(frozen=True, slots=True)
class PromptSet:
    """An ordered set of prompts without duplicates.

    Raises:
        PromptError: two prompts share a name, or ask the same text with the same options.
    """

    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError(
                "A prompt set is empty",
                seen="0 prompts",
                allowed="one prompt or more",
                remedy="check the filter or the file that the prompts come from",
            )
        _refuse_repeats("name", Counter(p.name for p in self.prompts))
        texts: dict[object, str] = {}
        for p in self.prompts:
            key = p.decision.question
            if key in texts:
                raise PromptError(
                    f"Prompts {texts[key]!r} and {p.name!r} have the same text",
                    seen=p.decision.messages[-1].content[:80],
                    allowed="each text once: a clone adds rows but no evidence",
                    remedy="remove one of them or word it differently",
                )
            texts[key] = p.name

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    def where(self, keep: Callable[[Prompt], bool]) -> PromptSet:
        """The prompts for which ``keep`` holds, in order."""
        return PromptSet(tuple(p for p in self.prompts if keep(p)))

    def __add__(self, other: PromptSet) -> PromptSet:
        return PromptSet(self.prompts + other.prompts)


def _refuse_repeats(what: str, counts: Counter[str]) -> None:
    repeated = sorted(k for k, n in counts.items() if n > 1)
    if repeated:
        raise PromptError(
            f"Two prompts share a {what}",
            seen=repeated[0],
            allowed=f"each {what} once in a set",
            remedy="rename or remove one of them",
        )
