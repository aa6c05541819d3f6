"""Where does a sample stand in a study? Prompts written into samples of Inspect AI, and read back.

The messages of a prompt are a sample's input and its name is the sample's id. Everything else,
its options included, is the sample's metadata, so that a log says by itself what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from moralscope.core.decision import Decision, Message, Move, Option, Prompt
from moralscope.core.errors import TableError

_MESSAGES = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


class Words(BaseModel):
    """An option in a sample's metadata."""

    model_config = ConfigDict(frozen=True)

    name: str
    forms: tuple[str, ...]


class Place(BaseModel):
    """A prompt's place in a study and its options: the metadata of a sample.

    Attributes:
        state: the own and the other's last move (``CD``), ``_`` for one that is not told; in a
            public-goods game the own and how many others contributed (``C2``); ``none`` where
            nothing is told.
        positive, negative: the options; the rest is as in ``Prompt``.
    """

    model_config = ConfigDict(frozen=True)

    game: str
    scenario: str
    family: str
    template: str
    labels: str
    option_order: int
    answer_order: int
    table_order: str
    own_previous: Move | None
    opponent_previous: Move | None
    others_cooperated: int | None
    counterfactual_of: str | None
    change: str | None
    state: str
    positive: Words
    negative: Words


def sample_of(prompt: Prompt) -> Sample:
    """The sample that asks a prompt. Its target is what cooperating is called; none is right."""
    told = prompt.decision
    return Sample(
        input=[_MESSAGES[m.role](content=m.content) for m in told.messages],
        target=told.negative.canonical,
        id=prompt.name,
        metadata=_place_of(prompt).model_dump(mode="json"),
    )


def prompt_of(name: str, asked: str | Sequence[ChatMessage], metadata: dict[str, Any]) -> Prompt:
    """The prompt that a sample asks.

    Args:
        name: the sample's id.
        asked: its input.
        metadata: its metadata.

    Raises:
        TableError: the metadata are not those of this task.
    """
    place = place_of(name, metadata)
    told = place.model_dump(exclude={"state", "positive", "negative"})
    messages = (Message("user", asked),) if isinstance(asked, str) else tuple(map(_message, asked))
    return Prompt(name=name, decision=_decision(messages, place), **told)


def options_of(name: str, metadata: dict[str, Any]) -> Decision:
    """The options of a sample, with its name in place of the text: all that reading answers needs.

    Raises:
        TableError: the metadata are not those of this task.
    """
    return _decision((Message("user", name),), place_of(name, metadata))


def place_of(name: str, metadata: dict[str, Any]) -> Place:
    """A sample's metadata, checked.

    Raises:
        TableError: they are not those of this task.
    """
    try:
        return Place.model_validate(metadata)
    except ValidationError as cause:
        first = cause.errors()[0]
        raise TableError(
            "A sample of a log is not one of the package's decisions",
            seen=f"{name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            allowed="logs of the task moralscope/decisions",
            remedy="give the log of: inspect eval moralscope/decisions",
        ) from cause


def _place_of(prompt: Prompt) -> Place:
    positive, negative = (
        Words(name=option.name, forms=option.forms)
        for option in (prompt.decision.positive, prompt.decision.negative)
    )
    return Place(
        game=prompt.game,
        scenario=prompt.scenario,
        family=prompt.family,
        template=prompt.template,
        labels=prompt.labels,
        option_order=prompt.option_order,
        answer_order=prompt.answer_order,
        table_order=prompt.table_order,
        own_previous=prompt.own_previous,
        opponent_previous=prompt.opponent_previous,
        others_cooperated=prompt.others_cooperated,
        counterfactual_of=prompt.counterfactual_of,
        change=prompt.change,
        state=_state(prompt),
        positive=positive,
        negative=negative,
    )


def _state(prompt: Prompt) -> str:
    own, other = prompt.own_previous or "_", prompt.opponent_previous or "_"
    if prompt.others_cooperated is not None:
        return f"{own}{prompt.others_cooperated}"
    return "none" if own == other == "_" else own + other


def _decision(messages: tuple[Message, ...], place: Place) -> Decision:
    positive, negative = (Option(o.name, o.forms) for o in (place.positive, place.negative))
    return Decision(messages=messages, stem="", positive=positive, negative=negative)


def _message(message: ChatMessage) -> Message:
    role: Literal["system", "user", "assistant"]
    role = "user" if message.role == "tool" else message.role
    return Message(role, message.text)
