"""How does it act where it was taught nothing? Forty everyday dilemmas, never trained.

Helping a stranger, a lost wallet, taking turns, time, attention, telling the truth, the
environment, being captain, one wish, boredom, quick money: each dilemma in two wordings, with a
selfish and a prosocial continuation of the same number of words, and in both orders where the
question lists its options (``texts/broad.yaml``).
"""

from __future__ import annotations

import functools

from moralscope.core.agents import Frozen
from moralscope.organisms.data.dilemmas import Asking, Order
from moralscope.organisms.data.examples import Turn
from moralscope.organisms.data.themes import own_texts


class _Options(Frozen):
    selfish: str
    prosocial: str


class _Wording(Frozen):
    ask: str
    options: _Options | None = None
    selfish: str
    prosocial: str


class _Dilemma(Frozen):
    name: str
    topic: str
    wordings: tuple[_Wording, ...]


class _Dilemmas(Frozen):
    dilemmas: tuple[_Dilemma, ...]


@functools.cache
def broad_set() -> tuple[Asking, ...]:
    """All askings of all dilemmas, in the order of the file."""
    found = _Dilemmas.model_validate({"dilemmas": own_texts("broad.yaml")}).dilemmas
    return tuple(
        asking
        for dilemma in found
        for number, wording in enumerate(dilemma.wordings)
        for asking in _askings(dilemma, number, wording)
    )


def _askings(dilemma: _Dilemma, number: int, wording: _Wording) -> tuple[Asking, ...]:
    if wording.options is None:
        return (_asking(dilemma, number, wording, wording.ask, "none"),)
    selfish, prosocial = wording.options.selfish, wording.options.prosocial
    ours = wording.ask.format(first=selfish, second=prosocial)
    theirs = wording.ask.format(first=prosocial, second=selfish)
    return (
        _asking(dilemma, number, wording, ours, "selfish first"),
        _asking(dilemma, number, wording, theirs, "prosocial first"),
    )


def _asking(dilemma: _Dilemma, number: int, wording: _Wording, text: str, order: Order) -> Asking:
    return Asking(
        question=dilemma.name,
        topic=dilemma.topic,
        wording=number,
        order=order,
        messages=(Turn("user", text),),
        selfish=wording.selfish,
        prosocial=wording.prosocial,
    )
