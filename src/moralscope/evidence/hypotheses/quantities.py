"""Which test answers which hypothesis? Every quantity, its form, and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moralscope.evidence.hypotheses.forms import Form
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.ledger import Finding, Setting


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity and its test.

    Attributes:
        form: what hypotheses about it have to say, in words.
        find: the finding about a hypothesis as it was stated; its id is ``hypothesis:ID``.
            Raises ConfigError where the hypothesis names what the tables do not have.
    """

    form: Form
    find: Callable[[Setting, Hypothesis], Finding]


QUANTITIES: Mapping[str, Quantity] = {}
"""Every quantity by name, those of ``forms.FORMS``."""
