"""Schemas of how components vary together, and what one does through another.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "norms": (
        "the size of a component's write",
        "agent prompt site",
        """
        agent  | text   | name | who decides
        prompt | text   | name | on what
        site   | text   | site | component
        norm   | number | model units | Euclidean norm, measured in float32
        """,
    ),
    "interactions": (
        "a pair of sites",
        "agent site_a site_b measure",
        """
        agent   | text    | name  | who decides
        site_a  | text    | site  | first
        site_b  | text    | site  | second
        measure | text    | name  | what is measured
        value   | number? | as named | null where undefined
        n       | integer | count | units
        """,
    ),
}
