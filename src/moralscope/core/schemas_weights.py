"""Schemas of what fine-tuning changed in the weights.

The form is described in ``core.schemas``.
"""

from __future__ import annotations

SCHEMAS: dict[str, tuple[str, str, str]] = {}
