"""Which test answers which hypothesis? Every quantity, its form, and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moralscope.evidence.hypotheses import direct, direct_sites
from moralscope.evidence.hypotheses.direct_levels import levels_apart
from moralscope.evidence.hypotheses.forms import FORMS, Form
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.published_analyses import analyses_correlation
from moralscope.evidence.hypotheses.published_counts import significant_count
from moralscope.evidence.hypotheses.published_directions import asymmetry_share, zero_flips
from moralscope.evidence.hypotheses.published_similarity import similarity
from moralscope.evidence.hypotheses.published_wiring import pathway_difference
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


_FOUND: Mapping[str, Callable[[Setting, Hypothesis], Finding]] = {
    "change": direct.change,
    "difference": direct.difference,
    "reward_change": direct.reward_change,
    "reward_difference": direct.reward_difference,
    "contrast": direct.contrast,
    "learned": direct.learned,
    "levels_apart": levels_apart,
    "patch_effect": direct_sites.patch_effect,
    "symmetric_effect": direct_sites.symmetric_effect,
    "asymmetry": direct_sites.asymmetry,
    "attribution_change": direct_sites.attribution_change,
    "flips": direct_sites.flips,
    "pathway_difference": pathway_difference,
    "significant_count": significant_count,
    "similarity": similarity,
    "asymmetry_share": asymmetry_share,
    "zero_flips": zero_flips,
    "analyses_correlation": analyses_correlation,
}

QUANTITIES: Mapping[str, Quantity] = {
    name: Quantity(form, _FOUND[name]) for name, form in FORMS.items()
}
"""Every quantity by name, those of ``forms.FORMS``."""
