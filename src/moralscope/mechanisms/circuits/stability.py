"""Is it the same circuit in other words? Overlap and transfer of circuits across wordings.

A circuit ``C_w`` is found in each wording w on its own. Over ordered pairs of different wordings,

    overlap  = mean of |C_a & C_b| / |C_a | C_b|        (Jaccard)
    transfer = mean of the share of the effect that C_a reaches in wording b

Both are compared with random sets of the same sizes and kinds (``circuits.curves.draw_alike``), one
for each wording in every draw: with T the statistic and B draws,

    p = (1 + #{T_draw >= T}) / (B + 1)

one-sided, for the hypothesis that the circuits of different wordings have no more in common than
chance. A small p says that wordings share sites, not that they share all of them: read the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.tables import from_rows
from moralscope.mechanisms.circuits.curves import draw_alike
from moralscope.mechanisms.circuits.effects import (
    TIE,
    FloatArray,
    Goal,
    SetEffects,
    SiteSet,
    score,
)
from moralscope.mechanisms.circuits.search import Circuit, Search, forward_backward

DRAWS = 999
"""Random sets for the overlap, which cost nothing."""

TRANSFER_DRAWS = 39
"""Random sets for the transfer, each of which is patched in every other wording."""


@dataclass(frozen=True, eq=False)
class Stability:
    """What circuits of different wordings have in common.

    Attributes:
        circuits: of each wording.
        overlap: Jaccard index of each pair, ``(wordings, wordings)``.
        transfer: share that the row's circuit reaches in the column's wording, likewise.
        random_overlap: the same of random sets, ``(draws, wordings, wordings)``.
        random_transfer: ``(transfer draws, wordings, wordings)``; its diagonal is not measured
            and NaN.
        overlap_p, transfer_p: of the means over different wordings, one-sided.
    """

    circuits: Mapping[str, Circuit]
    overlap: FloatArray
    transfer: FloatArray
    random_overlap: FloatArray
    random_transfer: FloatArray
    overlap_p: float
    transfer_p: float

    @property
    def mean_overlap(self) -> float:
        """Mean Jaccard index over pairs of different wordings."""
        return float(_between(self.overlap))

    @property
    def mean_transfer(self) -> float:
        """Mean share that a circuit reaches in another wording."""
        return float(_between(self.transfer))


def stability(
    wordings: Mapping[str, SetEffects],
    generator: np.random.Generator,
    goal: Goal | None = None,
    *,
    search: Search = forward_backward,
    draws: int = DRAWS,
    transfer_draws: int = TRANSFER_DRAWS,
) -> Stability:
    """Find a circuit in every wording and compare them.

    Args:
        wordings: effects of sets in each wording, over the same candidates; see
            ``pairs_by_wording``.
        generator: of the random sets.
        goal: what each circuit must reach; 0.8 of the full swap unless given.
        search: how each is found.
        draws: random sets for the overlap.
        transfer_draws: random sets for the transfer.

    Raises:
        EvidenceError: there are fewer than two wordings, or their candidates differ.
        ConfigError: there is no draw.
    """
    goal = Goal() if goal is None else goal
    _check(wordings, draws, transfer_draws)
    circuits = {name: search(effects, goal) for name, effects in wordings.items()}
    names, candidates = list(wordings), next(iter(wordings.values())).candidates
    drawn = [
        [frozenset(draw_alike(circuits[name].sites, candidates, generator)) for name in names]
        for _ in range(max(draws, transfer_draws))
    ]
    own = [circuits[name].members for name in names]
    overlap, transfer = _overlap(own), _transfer(wordings, [own])[0]
    random_overlap = np.stack([_overlap(sets) for sets in drawn[:draws]])
    random_transfer = _transfer(wordings, drawn[:transfer_draws])
    random_transfer[:, range(len(names)), range(len(names))] = np.nan
    return Stability(
        circuits, overlap, transfer, random_overlap, random_transfer,
        _p(overlap, random_overlap), _p(transfer, random_transfer),
    )  # fmt: skip


def _check(wordings: Mapping[str, SetEffects], draws: int, transfer_draws: int) -> None:
    if min(draws, transfer_draws) < 1:
        raise ConfigError(
            "Circuits of wordings are compared with random sets",
            seen=f"{draws} and {transfer_draws} draws",
            allowed="1 or more of each",
            remedy=f"give draws={DRAWS}, transfer_draws={TRANSFER_DRAWS}",
        )
    if len(wordings) < 2:
        raise EvidenceError(
            "Stability across wordings needs more than one wording",
            seen=", ".join(wordings) or "none",
            allowed="two wordings or more, each with its own prompts",
            remedy="add prompts in another wording",
        )
    if len({frozenset(effects.candidates) for effects in wordings.values()}) > 1:
        raise EvidenceError(
            "Circuits of wordings are chosen from different sites",
            seen=", ".join(f"{len(e.candidates)} in {name!r}" for name, e in wordings.items()),
            allowed="the same candidates in every wording",
            remedy="give the same candidates to every set_effects",
        )


def _overlap(sets: Sequence[SiteSet]) -> FloatArray:
    return np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])


def _transfer(wordings: Mapping[str, SetEffects], drawn: Sequence[Sequence[SiteSet]]) -> FloatArray:
    """Share that each set reaches in each wording, ``(draws, sets, wordings)``."""
    flat = [sites for sets in drawn for sites in sets]
    columns = [score(effects, flat).share for effects in wordings.values()]
    return np.stack(columns, -1).reshape(len(drawn), len(wordings), len(wordings))


def _between(square: FloatArray) -> FloatArray:
    """Mean over different wordings of the last two axes."""
    off = ~np.eye(square.shape[-1], dtype=np.bool_)
    return square[..., off].mean(-1)


def _p(observed: FloatArray, random: FloatArray) -> float:
    hits = int((_between(random) >= _between(observed) - TIE).sum())
    return (1 + hits) / (len(random) + 1)


def pairs_by_wording(
    names: Sequence[str], wording_of: Mapping[str, str]
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Prompts of each wording, each with itself, as ``pairs`` for ``set_effects``.

    Args:
        names: of the prompts, in the order of the clean runs.
        wording_of: the wording of every prompt.

    Raises:
        EvidenceError: a prompt has no wording.
    """
    missing = [name for name in names if name not in wording_of]
    if missing:
        raise EvidenceError(
            f"The prompt {missing[0]!r} has no wording",
            seen=f"wordings of {len(wording_of)} prompts",
            allowed="a wording for every prompt",
            remedy="take template from the table prompts",
        )
    found: dict[str, list[tuple[int, int]]] = {}
    for index, name in enumerate(names):
        found.setdefault(wording_of[name], []).append((index, index))
    return {wording: tuple(pairs) for wording, pairs in found.items()}


def stability_table(wordings: Mapping[str, SetEffects], found: Stability) -> pl.DataFrame:
    """The table ``circuits.stability``: every ordered pair of different wordings.

    Args:
        wordings: what was compared.
        found: the comparison.
    """
    names = list(wordings)
    subject = wordings[names[0]].subject.columns()
    return from_rows(
        "circuit_stability",
        [
            {
                **subject,
                "wording_a": a,
                "wording_b": b,
                "overlap": float(found.overlap[i, j]),
                "overlap_random": float(found.random_overlap[:, i, j].mean()),
                "overlap_p": found.overlap_p,
                "transfer": float(found.transfer[i, j]),
                "transfer_random": float(found.random_transfer[:, i, j].mean()),
                "transfer_p": found.transfer_p,
            }
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i != j
        ],
    )
