"""The schemas themselves: for each table what a row is, its key, and its columns.

A line reads ``name | kind | unit | meaning``; a kind that ends in ``?`` may be null. Kinds are
``text``, ``integer``, ``number`` and ``flag``. This file is data: ``core.tables`` reads it.
"""

from __future__ import annotations

from moralscope.core.schemas_attention import SCHEMAS as ATTENTION
from moralscope.core.schemas_behaviour import SCHEMAS as BEHAVIOUR
from moralscope.core.schemas_compared import SCHEMAS as COMPARED
from moralscope.core.schemas_course import SCHEMAS as COURSE
from moralscope.core.schemas_inside import SCHEMAS as INSIDE
from moralscope.core.schemas_judged import SCHEMAS as JUDGED
from moralscope.core.schemas_outside import SCHEMAS as OUTSIDE
from moralscope.core.schemas_representations import SCHEMAS as REPRESENTATIONS
from moralscope.core.schemas_weights import SCHEMAS as WEIGHTS
from moralscope.core.schemas_wiring import SCHEMAS as WIRING

SCHEMAS: dict[str, tuple[str, str, str]] = {
    **OUTSIDE,
    **BEHAVIOUR,
    **INSIDE,
    **ATTENTION,
    **WIRING,
    **WEIGHTS,
    **REPRESENTATIONS,
    **COURSE,
    **COMPARED,
    **JUDGED,
}
"""Every table, in the order of a run: what agents are and did, how they behave, what is inside, what is
claimed."""
