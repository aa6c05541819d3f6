"""What would it say about my model, right now? Load, ask, explain: in memory, without a study.

    agents = load("default", game="path/to/adapter")
    prompts = [ask("Keep or break the deal?", positive=" break", negative=" keep"), ...]
    found = explain(agents, prompts)

Names are resolved when they are used, so that asking needs no model stack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moralscope.explaining.agents import Agents, load
    from moralscope.explaining.asking import ask
    from moralscope.explaining.explanation import Explanation, Note
    from moralscope.explaining.running import METHODS, explain

_HOMES = {
    "Agents": "agents",
    "load": "agents",
    "ask": "asking",
    "METHODS": "running",
    "explain": "running",
    "Explanation": "explanation",
    "Note": "explanation",
}

_WITH_MODELS = {"agents", "running"}

__all__ = ["METHODS", "Agents", "Explanation", "Note", "ask", "explain", "load"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home in _WITH_MODELS:
        importlib.import_module("moralscope.models")  # says how to install what is missing
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
