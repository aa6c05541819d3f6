"""Which tests are in use? Every one that claims rest on, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moralscope.core.errors import ConfigError, nearest
from moralscope.evidence.calibrating.cells import Procedure
from moralscope.evidence.calibrating.correlations import CORRELATIONS
from moralscope.evidence.calibrating.intervals import INTERVALS
from moralscope.evidence.calibrating.one_sample import ONE_SAMPLE
from moralscope.evidence.calibrating.profiles import PROFILES
from moralscope.evidence.calibrating.similarity import SIMILARITY
from moralscope.evidence.calibrating.two_groups import TWO_GROUPS
from moralscope.evidence.calibrating.whole_studies import WHOLE_STUDIES

_ALL = (
    *ONE_SAMPLE,
    *TWO_GROUPS,
    *CORRELATIONS,
    *PROFILES,
    *SIMILARITY,
    *INTERVALS,
    *WHOLE_STUDIES,
)

PROCEDURES: Mapping[str, Procedure] = {procedure.name: procedure for procedure in _ALL}
"""Every test in use, by name."""


def chosen(names: Sequence[str] | None) -> list[Procedure]:
    """The procedures of these names, each once; all of them without names.

    Raises:
        ConfigError: there is no test of a name, or no name is given.
    """
    if names is None:
        return list(PROCEDURES.values())
    if not names:
        raise ConfigError(
            "No test was named",
            seen="an empty list",
            allowed=", ".join(PROCEDURES),
            remedy="name one or more, or leave the choice out for all",
        )
    for name in names:
        if name not in PROCEDURES:
            raise ConfigError(
                "There is no test of this name",
                seen=name,
                allowed=", ".join(PROCEDURES),
                remedy=nearest(name, PROCEDURES),
            )
    return [PROCEDURES[name] for name in dict.fromkeys(names)]
