"""Which controls stand in the way of a claim? Their results as gates.

The gate ``control`` has the control and its subject for a subject, such as ``planted_write
base>game``. Where the test of a family finds something among shuffled labels, or a vector of known
effect does something else, no claim of that family or pair can stand. The other controls are shown
beside the findings and stand in no claim's way: numerical noise is a floor of sizes, a planted
effect that is missed says nothing against one that was found, and at a site that matters little any
change of its length does as much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.units import Tables

GATE = "control"

CHANGES = "changes from base"
"""The family of all agents' changes, as its controls are called."""


def judge_control_results(tables: Tables) -> Iterator[Gate]:
    """A gate for every control in the table ``control_results``."""
    if "control_results" not in tables:
        return
    for row in tables["control_results"].iter_rows(named=True):
        yield Gate(
            GATE,
            f"{row['control']} {row['subject']}",
            row["measured"],
            row["expected"],
            row["passed"],
            row["sentence"],
        )


def change_controls() -> list[tuple[str, str]]:
    """Gates that a claim about a change from base consults, where they were judged."""
    return [(GATE, f"shuffled {CHANGES}")]


def patching_controls(sweeps: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Gates that a claim about patches consults, where they were judged.

    Args:
        sweeps: (name, source, target) of each sweep.
    """
    found: dict[str, None] = {}
    for name, source, target in sweeps:
        found |= dict.fromkeys((f"planted_write {source}>{target}", f"shuffled patching {name}"))
    return [(GATE, subject) for subject in found]
