"""Schemas of where agents look: attention by category and by token, and what it is used for.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {
    "attention": (
        "attention mass of a head on a category",
        "agent prompt layer head category",
        """
        agent    | text    | name  | who decides
        prompt   | text    | name  | on what
        layer    | integer | count | layer
        head     | integer | count | head
        category | text    | name  | span category
        mass     | number  | share | of the head's attention from the last prompt token
        """,
    ),
}
