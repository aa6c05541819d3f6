"""What must a manifest say, so that the run can be verified? What was planned and named.

The names of all planned stages tell later whether one is missing; the hypotheses, with how each
stood when the run began, let every claim be made again; the hash of the source says whether the
same software makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moralscope.core.hashing import code_version

if TYPE_CHECKING:
    from moralscope.studies.plan import Plan

PACKAGE = "studies"
"""The highest package that a run is computed by."""

JUDGED = "evidence"
"""The stage that makes the claims."""


def planned(plan: Plan) -> dict[str, object]:
    """The fields of a manifest that verification needs: ``planned``, ``hypotheses``, ``code``."""
    stages = [task.stage for task in plan]
    named = next((stage.inputs.get("hypotheses") for stage in stages if stage.name == JUDGED), ())
    return {
        "planned": [stage.name for stage in stages],
        "hypotheses": named or [],
        "code": code_version(PACKAGE),
    }
