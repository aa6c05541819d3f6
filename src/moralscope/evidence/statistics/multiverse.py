"""Does it hold whichever way one reasonably analyses it? Agreement of specifications, with a null.

Each of M specifications (a metric, a position, a set of prompts, a way to aggregate) gives one
value per unit of replication. Reported is how many of them reject on their own at ``alpha`` in the
direction in which most do,

    A = max(number that reject above 0, number that reject below 0),

and ``p = share of sign patterns b with (A^b, S^b) >= (A, S)``, where a pattern flips the value of a
unit in all specifications together (specification curve: Simonsohn, Simmons and Nelson 2020, Nat.
Hum. Behav. 4:1208). Specifications share their data, so under the null they reject together or not
at all; one p for all of them is the family-wise correction. For the same reason they *all* reject
in up to ``alpha`` of the patterns, so the number alone gives no p far below alpha, however large
the effect is, and nothing would be left for a correction over agents. Equal numbers are therefore
ordered by strength, ``S = |mean over specifications of r|`` with ``r = mean / root mean square``,
which grows with t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moralscope.evidence.statistics.resampling import Array, bounded_t, finite, sign_flips

_TIE = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Multiverse:
    """How many specifications agree.

    Attributes:
        agree: specifications that reject in the direction of most.
        specifications: M, all of them.
        direction: +1 or -1, the sign of the effect in those; 0 where none rejects, or where as
            many reject on either side.
        p: of so many agreeing so strongly, or more, under the sign-flip null; 1 where none rejects.
        floor: the smallest p that this design can give.
    """

    agree: int
    specifications: int
    direction: int
    p: float
    floor: float


def multiverse(
    values: Array, rng: np.random.Generator, alpha: float = 0.05, draws: int = 9_999
) -> Multiverse:
    """How many of the specifications find the effect, and is that more than chance allows?

    Args:
        values: (G, M), one row per unit and one column per specification.
        rng: draws the sign patterns where there are more than 14 units.
        alpha: level at which a specification rejects, on its own sign-flip p.
        draws: how many patterns.

    Raises:
        TableError: a value is undefined.
    """
    y = finite(values, "specifications")
    flips = sign_flips(y.shape[0], rng, draws)
    signed = bounded_t(flips.signs, y)
    size = np.abs(signed)
    ordered = np.sort(size, axis=0)
    above = np.column_stack(
        [
            len(size) - np.searchsorted(ordered[:, at], size[:, at] * _TIE, side="left")
            for at in range(y.shape[1])
        ]
    )
    rejected = above / len(size) < alpha
    up = (rejected & (signed > 0.0)).sum(axis=1)
    down = (rejected & (signed < 0.0)).sum(axis=1)
    agree = np.maximum(up, down)
    strength = np.abs(signed.mean(axis=1))
    as_strong = strength >= strength[0] * _TIE
    as_much = (agree > agree[0]) | ((agree == agree[0]) & as_strong)
    return Multiverse(
        agree=int(agree[0]),
        specifications=y.shape[1],
        direction=int(np.sign(int(up[0]) - int(down[0]))),
        p=float(as_much.mean()) if agree[0] else 1.0,
        floor=flips.floor,
    )
