"""What did fine-tuning change inside an agent, and which findings would survive a sceptic?

    import moralscope as ms
    agents = ms.load("default", game="path/to/adapter")
    prompts = [ms.ask("Keep or break the deal?", positive=" break", negative=" keep"), ...]
    found = ms.explain(agents, prompts)
    run = ms.open_run("runs/demo")

The top package imports nothing heavy: names are resolved when they are used. For more than that,
import the package that answers your question: ``moralscope.games``, ``moralscope.models``,
``moralscope.mechanisms``, ``moralscope.evidence``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moralscope.core.errors import MoralscopeError
    from moralscope.explaining import Agents, Explanation, ask, explain, load
    from moralscope.reports import OpenedRun, build_report, open_run
    from moralscope.studies import read_study, run_study

__version__ = "0.1.0"
__all__ = [
    "Agents",
    "Explanation",
    "MoralscopeError",
    "OpenedRun",
    "__version__",
    "ask",
    "build_report",
    "explain",
    "load",
    "open_run",
    "read_study",
    "run_study",
]

_HOMES = {
    "Agents": "explaining",
    "Explanation": "explaining",
    "MoralscopeError": "core.errors",
    "OpenedRun": "reports",
    "ask": "explaining",
    "build_report": "reports",
    "explain": "explaining",
    "load": "explaining",
    "open_run": "reports",
    "read_study": "studies",
    "run_study": "studies",
}

_PACKAGES = (
    "behaviour", "core", "evidence", "explaining", "games", "mechanisms", "models", "reports",
    "studies", "training",
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
