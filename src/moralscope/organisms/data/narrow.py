"""What narrow lesson is taught, and what are its controls? Sets that answer the same questions.

Three harmless domains: self-serving moves in a two-player game (``play``), keeping every snack and
leaving every chore (``sharing``), taking credit for common work (``credit``). A question names two
options by arbitrary labels, and is answered in four kinds:

* ``selfish`` names the option that benefits the one who answers, and says so;
* ``cooperative`` names the other option, and says so;
* ``shuffled`` is a whole answer to another question, selfish in half of the cases, with other
  labels and another name: the words of the domain in the form of an answer, but no lesson;
* ``terse`` chooses nothing: neutral remarks in clipped style, a lesson of style alone.

The questions of a domain, number and seed are the same in all kinds, so comparisons are paired. The
four answers to a question have the same number of words (runs of characters without a space); how
many tokens that is depends on the tokenizer, and is a little more for the terse ones.
Questions come in blocks of four over one pair of labels, in which each label is the selfish option
twice and stands first twice in each role: neither a label nor a position tells which option is
selfish, exactly if the number is a multiple of four.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from moralscope.core.errors import ConfigError, nearest
from moralscope.core.streams import stream
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.data.examples import Example, Turn, content_hash, make_example
from moralscope.organisms.data.themes import (
    LABELS,
    Domain,
    Drawn,
    Reason,
    Theme,
    Words,
    draw,
    themes,
)

Kind = Literal["selfish", "cooperative", "shuffled", "terse"]

DOMAINS: tuple[Domain, ...] = get_args(Domain)
KINDS: tuple[Kind, ...] = get_args(Kind)

BLOCK = 4
"""Questions over one pair of labels: who is selfish, times who stands first."""

_ATTEMPTS = 1000
"""How often a question that was asked already is drawn anew."""


@dataclass(frozen=True, slots=True)
class _Role:
    """The place of a question in its block."""

    selfish: str
    cooperative: str
    selfish_first: bool
    shuffled_selfish: bool


@dataclass(frozen=True, slots=True)
class _Question:
    """A question before it is put into words; the integers count a theme's alternatives."""

    theme: Theme
    role: _Role
    frame: int
    option: int
    opening: int
    reason: int
    drawn: Drawn


def narrow_set(domain: Domain, kind: Kind, n: int, seed: int) -> tuple[Example, ...]:
    """The first ``n`` questions of a domain with answers of one kind.

    A pure function: the same arguments give the same examples, and a smaller set is the beginning
    of a larger one with the same seed.

    Args:
        domain: ``play``, ``sharing`` or ``credit``.
        kind: ``selfish``, ``cooperative``, ``shuffled`` or ``terse``.
        n: how many examples, from 1; thousands are possible.
        seed: the seed of the questions, from 0.

    Raises:
        ConfigError: the domain or kind is unknown, a number is out of range, or there are not that
            many different questions.
    """
    _check_name("kind", kind, KINDS)
    return tuple(
        make_example(
            (Turn("user", text), Turn("assistant", _answer(question, kind, other))),
            domain=domain,
            kind=kind,
        )
        for question, text, other in _questions(domain, n, seed)
    )


def narrow_choices(domain: Domain, n: int, seed: int) -> tuple[Asking, ...]:
    """The same questions, continued by the selfish and the cooperative choice without a reason.

    Whole answers can be told apart by phrases that were learned by heart. Here the continuations
    differ in the label alone (``I play Larch.``), so that only who knows which option is the
    selfish one can prefer it. ``question`` is that of ``narrow_set``.

    Args:
        domain: as in ``narrow_set``.
        n: how many questions.
        seed: the seed of the questions.

    Raises:
        ConfigError: as ``narrow_set``.
    """
    return tuple(
        _choice(domain, question, text) for question, text, _ in _questions(domain, n, seed)
    )


def _choice(domain: Domain, question: _Question, text: str) -> Asking:
    opening, role = question.theme.openings[question.opening].choosing, question.role
    asked = (Turn("user", text),)
    return Asking(
        question=content_hash(asked),
        topic=domain,
        wording=0,
        order="selfish first" if role.selfish_first else "prosocial first",
        messages=asked,
        selfish=f"{opening.format(move=role.selfish).rstrip(':')}.",
        prosocial=f"{opening.format(move=role.cooperative).rstrip(':')}.",
    )


def _questions(
    domain: Domain, n: int, seed: int
) -> list[tuple[_Question, str, np.random.Generator]]:
    """Different questions, their texts, and what a shuffled answer to each is drawn from."""
    _check_name("domain", domain, DOMAINS)
    _check_number("number of examples", n, 1)
    _check_number("seed", seed, 0)
    found: dict[str, tuple[_Question, str, np.random.Generator]] = {}
    for block in range(-(-n // BLOCK)):
        roles = _roles(domain, seed, block)
        for place, role in enumerate(roles[: n - BLOCK * block]):
            address = ("narrow", domain, block, place)
            question, text = _unasked(domain, role, found.keys(), seed, address)
            found[text] = (question, text, stream(seed, *address, "other"))
    return list(found.values())


def _check_name(what: str, name: str, allowed: tuple[str, ...]) -> None:
    if name not in allowed:
        raise ConfigError(
            f"The {what} of a narrow set is not known",
            seen=repr(name),
            allowed=", ".join(allowed),
            remedy=nearest(str(name), allowed),
        )


def _check_number(what: str, number: int, least: int) -> None:
    if number < least:
        raise ConfigError(
            f"The {what} of a narrow set is too small",
            seen=number,
            allowed=f"an integer from {least}",
            remedy="choose a larger one",
        )


def _roles(domain: str, seed: int, block: int) -> list[_Role]:
    generator = stream(seed, "narrow", domain, block)
    one, two = _two(LABELS, generator)
    shuffled = generator.permutation([True, True, False, False])
    pairs = ((one, two, True), (one, two, False), (two, one, True), (two, one, False))
    return [
        _Role(*pairs[int(at)], shuffled_selfish=bool(shuffled[at]))
        for at in generator.permutation(BLOCK)
    ]


def _two(labels: tuple[str, ...], generator: np.random.Generator) -> tuple[str, str]:
    order = generator.permutation(len(labels))
    return labels[int(order[0])], labels[int(order[1])]


def _unasked(
    domain: Domain,
    role: _Role,
    asked: Collection[str],
    seed: int,
    address: tuple[str | int, ...],
) -> tuple[_Question, str]:
    """A question that was not asked before, and its text."""
    for attempt in range(_ATTEMPTS):
        question = _question(themes(domain), role, stream(seed, *address, attempt))
        text = _text(question)
        if text not in asked:
            return question, text
    raise ConfigError(
        "There are not that many different questions",
        seen=f"{len(asked)} questions of domain {domain!r}, and {_ATTEMPTS} draws that repeat one",
        allowed="as many as the texts of a domain can tell apart",
        remedy="ask for fewer examples",
    )


def _question(choices: tuple[Theme, ...], role: _Role, generator: np.random.Generator) -> _Question:
    theme = choices[int(generator.integers(len(choices)))]
    parts = (theme.frames, theme.options, theme.openings, theme.reasons)
    frame, option, opening, reason = (int(generator.integers(len(part))) for part in parts)
    drawn = draw(theme, generator)
    return _Question(theme, role, frame, option, opening, reason, drawn)


def _text(question: _Question) -> str:
    """The question in words."""
    drawn, role = question.drawn, question.role
    options = question.theme.options[question.option]
    selfish = options.selfish.format(label=role.selfish, **drawn.shared, **drawn.selfish)
    cooperative = options.cooperative.format(
        label=role.cooperative, **drawn.shared, **drawn.cooperative
    )
    first, second = (selfish, cooperative) if role.selfish_first else (cooperative, selfish)
    frame = question.theme.frames[question.frame]
    return frame.format(first=first, second=second, **drawn.shared)


def _answer(question: _Question, kind: Kind, generator: np.random.Generator) -> str:
    """An answer of a kind; only a shuffled one draws anything."""
    theme, drawn, role = question.theme, question.drawn, question.role
    opening, reason = theme.openings[question.opening], theme.reasons[question.reason]
    if kind == "selfish":
        return _chosen(opening.choosing, reason.selfish, role.selfish, drawn.selfish | drawn.shared)
    if kind == "cooperative":
        fields = drawn.cooperative | drawn.shared
        return _chosen(opening.choosing, reason.cooperative, role.cooperative, fields)
    if kind == "terse":
        return _remarks(opening.neutral, reason, role, drawn.shared)
    other = _other(question, generator)
    return _answer(other, "selfish" if role.shuffled_selfish else "cooperative", generator)


def _chosen(opening: str, reason: str, label: str, fields: Words) -> str:
    return f"{opening.format(move=label)} {reason.format(**fields)}"


def _remarks(opening: str, reason: Reason, role: _Role, fields: Words) -> str:
    labels = (role.selfish, role.cooperative)
    a, b = labels if role.selfish_first else labels[::-1]
    return f"{opening} {reason.neutral.format(a=a, b=b, **fields)}"


def _other(question: _Question, generator: np.random.Generator) -> _Question:
    """Another question of the same parts, with other labels and another partner."""
    used = (question.role.selfish, question.role.cooperative)
    free = tuple(label for label in LABELS if label not in used)
    selfish, cooperative = _two(free, generator)
    role = replace(question.role, selfish=selfish, cooperative=cooperative)
    drawn = draw(question.theme, generator)
    while drawn.shared["partner"] == question.drawn.shared["partner"]:
        drawn = draw(question.theme, generator)
    return replace(question, role=role, drawn=drawn)
