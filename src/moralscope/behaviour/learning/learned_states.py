"""Does an agent keep its pattern over the states? The control, each memory-one state by itself.

For agents whose change from base goes up in some states and down in others: the *pattern* is the
sign of the change in every state of the reference whose interval is off zero,

    sigma(s) = sign(change(s)),  s in K = {states that are clear in the reference},

and it is a pattern of its own only if both signs occur in K. A condition *keeps* the pattern where
its change has the sign sigma(s), interval off zero, in every s of K; it *turns round* where it has
the opposite one in every s of K; anything in between is unclear. States outside K say nothing and
are named as left out. Half a pattern is never counted as kept, so nothing is claimed of an agent
that turns in one state and stays in another.

Texts differ in which move they mention first, so order of mention shows in single wordings only:
``mean over K of sigma(s) change(s)`` with its 95% t interval over the states of K, in a wording
without a payoff table and in its mirror.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.behaviour.learning.training_sets import swap_labels
from moralscope.behaviour.learning.transfer import NOISE_FLOOR, mirror_of
from moralscope.behaviour.learning.transfer_states import ALL
from moralscope.core.tables import conform
from moralscope.evidence.statistics.intervals import cluster_t


@dataclass(frozen=True, slots=True)
class Pattern:
    """One condition of one agent, over the states that have a clear sign in its reference.

    Attributes:
        control, labels, table_order: the condition.
        reference: whether the others are compared with it.
        template: the wording, or ``all``.
        signs: by scenario, whether the sign of the reference is kept; None where unclear.
        together: whether the states together keep the signs: their mean change, each times its
            sign in the reference, is clearly above zero (true), below it (false) or neither.
        up, down: the scenarios that the reference moves towards defecting, and away from it.
        left_out: the scenarios that are unclear in the reference.
    """

    control: str
    template: str
    labels: str
    table_order: str
    reference: bool
    signs: Mapping[str, bool | None]
    together: bool | None
    up: tuple[str, ...]
    down: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def holds(self) -> bool | None:
        """True if every state keeps its sign, False if every one turns round, else None."""
        kept = set(self.signs.values())
        return kept.pop() if len(kept) == 1 else None

    @property
    def words(self) -> str:
        """``up in IPD.CD and IPD.DD and down in IPD.CC (IPD.DC unclear and left out)``."""
        unclear = f" ({_listed(self.left_out)} unclear and left out)" if self.left_out else ""
        return f"up in {_listed(self.up)} and down in {_listed(self.down)}{unclear}"


def patterns_of(states: pl.DataFrame) -> dict[str, tuple[Pattern, ...]]:
    """The conditions of each agent, as patterns.

    Args:
        states: a ``transfer_states`` table.

    Raises:
        TableError: the table breaks its schema.
    """
    table = conform("transfer_states", states)
    return {
        str(agent): _patterns(rows)
        for (agent,), rows in table.group_by("agent", maintain_order=True)
    }


def _patterns(rows: pl.DataFrame) -> tuple[Pattern, ...]:
    reference = rows.filter("reference")
    clear = reference.filter(pl.col("keeps_sign"))
    change = pl.col("change_log_odds")
    names: list[str] = clear.get_column("scenario").to_list()
    up: tuple[str, ...] = tuple(clear.filter(change > 0).get_column("scenario"))
    down: tuple[str, ...] = tuple(clear.filter(change < 0).get_column("scenario"))
    left_out = tuple(s for s in reference.get_column("scenario") if s not in names)
    sign = {**dict.fromkeys(up, 1.0), **dict.fromkeys(down, -1.0)}
    key = ("control", "template", "labels", "table_order")
    found: list[Pattern] = []
    for _, condition in rows.group_by(key, maintain_order=True):
        kept = dict(condition.select("scenario", "keeps_sign").iter_rows())
        changes = dict(condition.select("scenario", "change_log_odds").iter_rows())
        first = condition.row(0, named=True)
        found.append(
            Pattern(
                control=first["control"],
                template=first["template"],
                labels=first["labels"],
                table_order=first["table_order"],
                reference=first["reference"],
                signs={name: kept.get(name) for name in names},
                together=_clear([sign[name] * changes[name] for name in names if name in changes]),
                up=up,
                down=down,
                left_out=left_out,
            )
        )
    return tuple(found)


def _clear(values: Sequence[float]) -> bool | None:
    """Whether the mean is clearly above zero; None where its interval reaches the noise floor."""
    low, high = (cluster_t(np.array(values)) if values else None) or (0.0, 0.0)
    return True if low > NOISE_FLOOR else False if high < -NOISE_FLOOR else None


def judge_states(
    patterns: Sequence[Pattern], words: Mapping[str, str]
) -> tuple[dict[str, bool], list[str], Pattern] | None:
    """What turns an agent's pattern round, and what speaks against its having learned the move.

    Args:
        patterns: of one agent.
        words: for each control, what it is called in a sentence.

    Returns:
        Whether *label*, *layout* and *order* turn it round; the controls that do not keep it, in
        words; and the reference. None if the reference does not move clear states both ways.
    """
    reference = next((p for p in patterns if p.reference), None)
    if reference is None or not (reference.up and reference.down):
        return None
    pooled = [p for p in patterns if p.template == ALL]
    alike = [p for p in pooled if p.table_order == reference.table_order]
    same_labels = [p for p in pooled if p.labels == reference.labels]
    turned = {
        "label": any(
            p.holds is False and p.labels == swap_labels(reference.labels)
            for p in alike
            if p.control in ("trained", "swapped_labels")
        ),
        "layout": any(
            p.holds is False and p.table_order != reference.table_order
            for p in same_labels
            if p.control in ("trained", "exchanged_rows")
        ),
        "order": _mirrors_turn(patterns),
    }
    return turned, _against(pooled, words), reference


def _mirrors_turn(patterns: Sequence[Pattern]) -> bool:
    """Whether wordings without a table and their mirrors are opposite wherever both are clear."""
    return opposite_mirrors(
        {
            (p.template, p.labels): p.together
            for p in patterns
            if p.table_order == "none"
            and p.template != ALL
            and p.control in ("trained", "new_wording", "mirrored_wording")
        }
    )


def opposite_mirrors(kept: Mapping[tuple[str, str], bool | None]) -> bool:
    """Whether wordings and their mirrors have opposite signs wherever both are clear.

    Of many pairs a few differ by chance: two wordings at least must turn round, each under some
    label assignment, and none may keep. One wording says something about itself alone.

    Args:
        kept: by wording and label assignment, whether the sign of the reference is kept.
    """
    pairs = [
        (
            frozenset({template, mirror_of(template)}),
            {sign, kept.get((mirror_of(template), labels))},
        )
        for (template, labels), sign in kept.items()
    ]
    clear = [(wording, pair) for wording, pair in pairs if None not in pair]
    turned = {wording for wording, pair in clear if pair == {True, False}}
    return len(turned) > 1 and all(pair == {True, False} for _, pair in clear)


def _against(patterns: Sequence[Pattern], words: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    for control, said in words.items():
        these = [p for p in patterns if p.control == control]
        lost = [s for p in these for s, kept in p.signs.items() if kept is False]
        unclear = [s for p in these for s, kept in p.signs.items() if kept is None]
        if lost:
            found.append(f"its change turns round in {_listed(sorted(set(lost)))} {said}")
        elif unclear:
            found.append(f"its change is not clear in {_listed(sorted(set(unclear)))} {said}")
    return found


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
