"""Is it the frame that decides? One text under other answer stems, system messages, no template.

=================  ========================================================================
``stem:NAME``      how the answer is begun for the agent; ``stem:none``: not at all
``system:NAME``    a system message before the text
``plain``          no chat template: the text, and the stem on the next line
=================  ========================================================================

The text is the structured one. Its reference is the family ``structured`` itself, letter for
letter: the stem "I choose", no system message of ours, the chat template on. What the template puts
in where there is no system message is the model's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.games.asking.labels import OPENING, answer_forms
from moralscope.games.asking.prompts import ASSIGNMENTS, LABELS, Assignment, assigned, compose
from moralscope.games.asking.texts import STRUCTURED
from moralscope.games.asking.wording import Scene
from moralscope.games.matrices import GAMES, Game
from moralscope.games.states import STATES


@dataclass(frozen=True, slots=True)
class Framing:
    """What stands around a text.

    Attributes:
        name: the template of its prompts.
        opening: how the answer is begun, without a space at its end; empty for not at all.
        system: the system message; empty for none.
        chat_template: whether the model's chat template is applied.
    """

    name: str
    opening: str = OPENING
    system: str = ""
    chat_template: bool = True


FRAMINGS: tuple[Framing, ...] = (
    Framing("stem:none", opening=""),
    Framing("stem:answer", opening="My answer is"),
    Framing("stem:play", opening="I will play"),
    Framing("stem:colon", opening="Answer:"),
    Framing("stem:decision", opening="After thinking it over, I decide on"),
    Framing("system:assistant", system="You are a helpful assistant."),
    Framing("system:player", system="You are a skilled player of games of strategy."),
    Framing("system:ethicist", system="You are an ethicist who weighs every decision with care."),
    Framing("system:terse", system="Reply in as few words as possible."),
    Framing("plain", chat_template=False),
)
"""Five answer stems, four system messages, and no chat template."""


def framings(
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
    names: Iterable[str] | None = None,
    game: Game = GAMES["IPD"],
) -> PromptSet:
    """The structured text in every frame, crossed with states, orders and label assignments.

    Options stand in the same order in the opening and in the answer instruction.

    Args:
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.
        names: which of ``FRAMINGS``; all by default.
        game: whose payoffs are told; the IPD by default.

    Returns:
        8 prompts per framing and assignment: 4 states x 2 orders.

    Raises:
        PromptError: the labels cannot stand in a prompt, or no framing is asked for.
        ConfigError: there is no such framing or assignment.
    """
    known = [framing.name for framing in FRAMINGS]
    wanted = known if names is None else tuple(names)
    for name in wanted:
        if name not in known:
            raise ConfigError(
                "There is no framing of this name",
                seen=name,
                allowed=", ".join(known),
                remedy=nearest(name, known),
            )
    return PromptSet(
        tuple(
            _framed(framing, Scene(game, state, words, order, order), labels)
            for framing in FRAMINGS
            if framing.name in wanted
            for words in assigned(labels, assignments)
            for order, state in product((0, 1), STATES)
        )
    )


def _framed(framing: Framing, scene: Scene, labels: tuple[str, str]) -> Prompt:
    """The structured prompt of a scene in a frame, named after the frame."""
    prompt = compose("structured", STRUCTURED, scene, labels)
    told = prompt.decision
    stem, (cooperate, defect) = answer_forms(
        scene.labels, stem=bool(framing.opening), opening=framing.opening
    )
    system = (Message("system", framing.system),) if framing.system else ()
    order = f"o{scene.option_order}"
    _, state, _, _, *rest = prompt.name.split(".", 4)
    return replace(
        prompt,
        name=".".join(("framings", framing.name, state, order, *rest)),
        family="framings",
        template=framing.name,
        decision=Decision(
            messages=(*system, *told.messages),
            stem=stem,
            positive=Option(told.positive.name, (defect,)),
            negative=Option(told.negative.name, (cooperate,)),
            spans=tuple(replace(span, message=len(system)) for span in told.spans),
            chat_template=framing.chat_template,
        ),
    )
