"""Which gates could explain a number made from decisions? The same for every claim about them.

Log-odds that are rounding or undefined, scenarios that share a text, and, where it was judged,
sampled answers that refute the log-odds. Claims about a level of the cascade consult what could
explain a number of that level. Liveness is consulted with every claim anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

from moralscope.evidence.gates.agreement import GATE as AGREEMENT
from moralscope.evidence.gates.agreement import subject_of
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.gates.sites import SITE_GATES
from moralscope.evidence.ledger import Setting

Key = tuple[str, str]


def decision_gates(setting: Setting, agents: Iterable[str]) -> list[Key]:
    """(gate, subject) of every gate that stands in the way of a claim about some agents' decisions.

    Args:
        setting: holds the gates; agreement counts only where it was judged.
        agents: whose decisions the number is made from.
    """
    named = list(dict.fromkeys(agents))
    agreement = [(AGREEMENT, subject_of(agent, "structured", "strict")) for agent in named]
    return [
        *(("resolution", agent) for agent in named),
        *(("undefined values", agent) for agent in named),
        (DUPLICATES, "scenarios"),
        *(key for key in agreement if key in setting.gates),
    ]


def level_gates(setting: Setting, level: str, agents: Iterable[str]) -> tuple[list[Key], list[Key]]:
    """Gates in the way of a claim about a level, and those that concern some of its sites only.

    Args:
        setting: holds the gates.
        level: behaviour, attribution and so on, as the table ``cascade`` names them.
        agents: whom the claim is about.
    """
    named = list(dict.fromkeys(agents))
    gates: list[Key] = []
    shown: list[Key] = []
    if level == "behaviour":
        gates += decision_gates(setting, named)
    elif level != "weights":
        gates.append((DUPLICATES, "scenarios"))
    if level == "attribution":
        gates += [("completeness", agent) for agent in named]
    if level in ("attribution", "wiring"):
        table = "attribution" if level == "attribution" else "norms"
        shown = [(gate, f"{table} {agent}") for agent in named for gate in SITE_GATES]
    if level == "attention":
        shown = [("dead channel", agent) for agent in named]
    return gates, shown
