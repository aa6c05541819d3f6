"""The schemas themselves: for each table what a row is, its key, and its columns.

A line reads ``name | kind | unit | meaning``; a kind that ends in ``?`` may be null. Kinds are
``text``, ``integer``, ``number`` and ``flag``. This file is data: ``core.tables`` reads it.
"""

from __future__ import annotations

from moralscope.core.schemas_behaviour import SCHEMAS as BEHAVIOUR
from moralscope.core.schemas_inside import SCHEMAS as INSIDE
from moralscope.core.schemas_outside import SCHEMAS as OUTSIDE

_JUDGED: dict[str, tuple[str, str, str]] = {
    "gates": (
        "a gate on a subject",
        "gate subject",
        """
        gate      | text    | name   | liveness, resolution, duplicates, completeness, ...
        subject   | text    | name   | agent, table or sweep that was checked
        measured  | number? | as named in advice | the measured figure
        threshold | number? | same   | what it was compared with
        passed    | flag?   | yes or no | null: not available
        advice    | text    | sentence | what it means and what to do
        """,
    ),
    "claims": (
        "a claim",
        "id",
        """
        id         | text     | name   | stable identifier
        statement  | text     | sentence | the finding in words, made from the numbers
        estimate   | number?  | unit   | point estimate
        low        | number?  | unit   | 95% interval
        high       | number?  | unit   | its upper end
        unit       | text     | name   | unit of the estimate
        n_units    | integer  | count  | units of replication
        test       | text     | name   | test and null
        p          | number?  | probability | raw p
        p_adjusted | number?  | probability | corrected for everything in its family
        p_floor    | number?  | probability | smallest p that this design can reach
        gates      | text     | list   | gates consulted and their result
        registered | flag     | yes or no | named before the run (confirmatory)
        verdict    | text     | one of | supported, equivalent, not distinguishable from noise, artefact, not identified by this design
        query      | text     | query  | how to recompute the estimate from the tables
        """,
    ),
}  # fmt: skip

SCHEMAS: dict[str, tuple[str, str, str]] = {**OUTSIDE, **BEHAVIOUR, **INSIDE, **_JUDGED}
"""Every table, in the order of a run: what agents are and did, how they behave, what is inside, what is
claimed."""
