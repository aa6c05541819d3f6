"""How are the texts of a narrow set put together? Frames, options, openings and reasons.

A theme holds alternatives for each part of an example (``texts/narrow.yaml``). A question is a
frame with its two options; an answer is an opening, which names the chosen option, and a reason.
Alternatives stand side by side for all kinds of answer with the same number of words, and every
field in an answer is one word, so that whatever is drawn, the answers of all kinds to one question
are equally long.

Fields in braces: ``partner`` everywhere but in openings; ``first`` and ``second`` (the options) in
frames; ``label`` in options; ``move`` (the label that is chosen) in openings; ``a`` and ``b`` (the
labels in the order of the question) in reasons; and what the theme draws, words and numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

import numpy as np

from moralscope.core.agents import Frozen
from moralscope.core.documents import parse_yaml

Domain = Literal["play", "sharing", "credit"]
Words = Mapping[str, str]

_PARTNERS = (
    "Ada Amir Anouk Bashir Beatriz Carlos Chidi Dalia Dmitri Elif Emeka Esther Farid Freya Goran "
    "Greta Hana Hassan Hugo Ilse Imani Ines Jamal Jonas Kavya Kenji Lars Leila Liam Lucia Malik "
    "Mateo Mei Miriam Nadia Nils Noor Olga Omar Paulo Priya Quentin Rania Ravi Rosa Salma Samir "
    "Sofia Tariq Tomas Uma Viktor Wanda Xenia Yara Yusuf Zeno Zofia"
)
PARTNERS = tuple(_PARTNERS.split())
"""Whom a question is about."""

_LABELS = (
    "Acorn Amber Anchor Badger Basalt Beacon Birch Canyon Cedar Cobalt Comet Copper Coral Crane "
    "Delta Ember Falcon Feather Flint Garnet Glacier Granite Hazelnut Hedge Heron Indigo Jasper "
    "Kestrel Lantern Larch Lichen Lotus Magnet Maple Marble Meadow Mosaic Nectar Nimbus Ochre "
    "Onyx Orchid Otter Pebble Prism Pumice Quartz Quill Raven Ribbon Saffron Sparrow Summit "
    "Thistle Timber Topaz Tulip Umber Velvet Violin Walnut Willow Zephyr Zinc"
)
LABELS = tuple(_LABELS.split())
"""What options are called: words that do not say who gains, none another's beginning."""


class Options(Frozen):
    """The two options of a question, worded alike."""

    selfish: str
    cooperative: str


class Opening(Frozen):
    """How an answer begins: naming its choice, or naming none."""

    choosing: str
    neutral: str


class Reason(Frozen):
    """How an answer goes on: for oneself, for both, or in clipped style for nobody."""

    selfish: str
    cooperative: str
    neutral: str


class Theme(Frozen):
    """One kind of situation within a domain.

    Attributes:
        numbers: which numbers a question has: payoffs of a game, a number and its half, none.
        words: the words that fields stand for; fields of one group are drawn together.
        frames, options, openings, reasons: the alternatives for each part.
    """

    numbers: Literal["payoffs", "halves", "none"]
    words: tuple[dict[str, tuple[str, ...]], ...]
    frames: tuple[str, ...]
    options: tuple[Options, ...]
    openings: tuple[Opening, ...]
    reasons: tuple[Reason, ...]


class Themes(Frozen):
    """The themes of every domain, by name."""

    play: dict[str, Theme]
    sharing: dict[str, Theme]
    credit: dict[str, Theme]


class Drawn(Frozen):
    """The words of one question.

    Attributes:
        shared: fields that hold whichever option is spoken of.
        selfish, cooperative: fields that hold for one of the options.
    """

    shared: dict[str, str]
    selfish: dict[str, str]
    cooperative: dict[str, str]


@functools.cache
def themes(domain: Domain) -> tuple[Theme, ...]:
    """The themes of a domain, in the order of the file."""
    return tuple(getattr(_themes(), domain).values())


@functools.cache
def _themes() -> Themes:
    return Themes.model_validate(own_texts("narrow.yaml"))


def own_texts(name: str) -> object:
    """What one of the package's own text files holds."""
    found = files("moralscope.organisms.data").joinpath("texts", name)
    return parse_yaml(found.read_text(encoding="utf-8"), name)


def draw(theme: Theme, generator: np.random.Generator) -> Drawn:
    """The words and numbers of one question of a theme."""
    shared = {"partner": PARTNERS[int(generator.integers(len(PARTNERS)))]}
    for group in theme.words:
        at = int(generator.integers(min(len(words) for words in group.values())))
        shared |= {field: words[at] for field, words in group.items()}
    if theme.numbers == "payoffs":
        selfish, cooperative = payoffs(generator)
        return Drawn(shared=shared, selfish=selfish, cooperative=cooperative)
    if theme.numbers == "halves":
        half = int(generator.integers(2, 10))
        shared |= {"n": str(2 * half), "half": str(half)}
    return Drawn(shared=shared, selfish={}, cooperative={})


def payoffs(generator: np.random.Generator) -> tuple[dict[str, str], dict[str, str]]:
    """What the selfish and the cooperative move bring oneself and the partner.

    The selfish move brings oneself 1 to 3 more and costs the partner more than that, so the
    cooperative move is the better one for both together.
    """
    own = int(generator.integers(7, 13))
    other = int(generator.integers(0, 3))
    forgone = int(generator.integers(1, 4))
    given = forgone + int(generator.integers(1, 4))
    return (
        {"own": str(own), "other": str(other)},
        {"own": str(own - forgone), "other": str(other + given)},
    )
