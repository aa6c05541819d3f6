"""Schemas of which agents a study compares, how far apart they are, and what that answers.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "comparisons": (
        "a pair of agents that a study compares",
        "comparison agent_a agent_b",
        """
        comparison | text | name   | the study's name for it; base and seeds are the package's own
        kind       | text | one of | named (the study's question), base (a base and an agent: the positive control) or replicate (same reward, other training seed: the noise floor)
        agent_a    | text | name   | one of the pair; of kind base the base
        agent_b    | text | name   | the other
        tested     | flag | yes or no | whether claims are made about this pair by itself; the others are distances that tests over seeds rest on
        """,
    ),
}
