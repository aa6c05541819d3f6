"""Schemas of the course of training, of training parts only, and of the same study elsewhere.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {}
