"""Which gates could explain a number made from decisions? The same for every claim about them.

Log-odds that are rounding or undefined, scenarios that share a text, and, where it was judged,
sampled answers that refute the log-odds. Liveness is consulted with every claim anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

from moralscope.evidence.gates.agreement import GATE as AGREEMENT
from moralscope.evidence.gates.agreement import subject_of
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
        ("duplicates", "scenarios"),
        *(key for key in agreement if key in setting.gates),
    ]
