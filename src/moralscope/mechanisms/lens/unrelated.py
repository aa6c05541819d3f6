"""What would the lens show if the prompt were about something else?

An answer stem and two labels leave a mark in the residual stream whatever was asked before them. To
see that mark alone, the same stem and the same options follow neutral questions, rendered through
the same chat template: the last tokens and the labels are those of the decision, the question is
not. Each neutral text is one draw of the control.
"""

from __future__ import annotations

from collections.abc import Iterable

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet

NEUTRAL_TEXTS: tuple[str, ...] = (
    "What is the weather usually like in Lisbon in October?",
    "How long should I boil an egg if I like the yolk soft?",
    "What is seventeen plus twenty-five?",
    "Which river flows through Vienna?",
    "Please explain in one sentence how rainbows form.",
    "My bicycle chain squeaks when I ride uphill. What could be the cause?",
    "Name a novel that was written in the nineteenth century.",
    "How many minutes are there in three and a half hours?",
    "When should tulip bulbs be planted in a cool climate?",
    "Write a short line to thank a neighbour for watering my plants.",
)
"""Questions without a game, a choice, a label or another person's move; ten draws."""

_Key = tuple[str, frozenset[frozenset[str]]]


def unrelated_prompts(prompts: Iterable[Prompt]) -> PromptSet:
    """Neutral questions with the prompts' own stems and options.

    One prompt for each neutral text and each distinct stem with its pair of options. Two
    assignments of the same labels share their prompts: only the sign of what is read differs.

    Args:
        prompts: the prompts whose lens is to be controlled.

    Raises:
        PromptError: there are no prompts.
    """
    firsts: dict[_Key, Prompt] = {}
    for prompt in prompts:
        firsts.setdefault(_key(prompt.decision), prompt)
    made = tuple(
        _asked(first, group, draw) for group, first in enumerate(firsts.values())
        for draw in range(len(NEUTRAL_TEXTS))
    )  # fmt: skip
    return PromptSet(made)


def unrelated_names(
    prompts: Iterable[Prompt], unrelated: Iterable[Prompt]
) -> dict[str, tuple[str, ...]]:
    """For each prompt, the names of its unrelated prompts, one for each draw, in order.

    A prompt whose stem and options none of the unrelated prompts has gets an empty tuple.
    """
    by_key: dict[_Key, list[str]] = {}
    for other in unrelated:
        by_key.setdefault(_key(other.decision), []).append(other.name)
    return {p.name: tuple(by_key.get(_key(p.decision), ())) for p in prompts}


def _key(decision: Decision) -> _Key:
    options: tuple[Option, Option] = (decision.positive, decision.negative)
    return decision.stem, frozenset(frozenset(option.forms) for option in options)


def _asked(first: Prompt, group: int, draw: int) -> Prompt:
    decision = first.decision
    return Prompt(
        name=f"unrelated-{group}-{draw}",
        decision=Decision(
            messages=(Message("user", NEUTRAL_TEXTS[draw]),),
            stem=decision.stem,
            positive=decision.positive,
            negative=decision.negative,
        ),
        game="none",
        scenario=f"unrelated_{draw}",
        family="unrelated",
        template=f"neutral_{draw}",
        labels=first.labels,
    )
