"""How does a hosted model decide? The package's decisions as a task of Inspect AI, and back.

Inspect AI (https://inspect.aisi.org.uk) asks models behind an interface: most providers, and
servers of one's own. ``decisions`` is a task of it,

    inspect eval moralscope/decisions --model PROVIDER/MODEL

and ``decisions_from_log`` turns the log that it leaves into the package's own tables. Inspect AI is
an extra of the package and nothing else in the package imports it.
"""

import importlib

from moralscope.core.errors import DependencyError

try:
    importlib.import_module("inspect_ai")
except ModuleNotFoundError as cause:
    raise DependencyError(
        "Inspect AI is not installed",
        seen=f"no module named {cause.name!r}",
        allowed="inspect-ai, for decisions of hosted models",
        remedy='run: pip install "moralscope[inspect]"',
    ) from cause

from moralscope.behaviour.inspecting.asking import PROMPT_SETS, prompts_without_stem
from moralscope.behaviour.inspecting.reading import LogTables, decisions_from_log
from moralscope.behaviour.inspecting.task import decisions, reading_scorer

__all__ = [
    "PROMPT_SETS",
    "LogTables",
    "decisions",
    "decisions_from_log",
    "prompts_without_stem",
    "reading_scorer",
]
