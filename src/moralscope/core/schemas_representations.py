"""Schemas of what agents represent: similarity of changes, directions, subspaces.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {}
