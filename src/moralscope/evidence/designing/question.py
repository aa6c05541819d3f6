"""What is a question that tables can be asked, and in which words is it answered?

A question has a unit of replication, a number of units, the smallest p that so many can give
(``floor``), and what that must lie below (``level``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.designs import RewardDesign, reward_designs
from moralscope.evidence.statistics.resampling import EXACT_UNITS, sign_flip_floor
from moralscope.evidence.units import Tables, inference_family


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the table ``design``; its columns are documented there."""

    question: str
    subject: str
    unit: str
    n: int
    floor: float | None
    level: float | None
    needed: int | None
    needed_for_power: int | None
    identified: bool
    sentence: str


@dataclass(frozen=True)
class Asked:
    """What every question is judged from.

    Attributes:
        tables: checked tables.
        alpha: family-wise level.
        draws: of the tests, where there are too many patterns to enumerate.
    """

    tables: Tables
    alpha: float
    draws: int

    def floor(self, units: int) -> float:
        """Smallest p of sign-flips over so many units, as they are tested."""
        draws = 0 if units <= EXACT_UNITS else self.draws
        return min(1.0, sign_flip_floor(units, draws))

    def placed(self, name: str) -> tuple[str, pl.DataFrame] | None:
        """Prompts of a table in the family that claims are made on; None where not known."""
        if "prompts" not in self.tables:
            return None
        prompts = self.tables["prompts"]
        used = self.tables[name].get_column("prompt").unique()
        family = inference_family(prompts, used)
        if family is None:
            return None
        here = (pl.col("family") == family) & pl.col("prompt").is_in(used.to_list())
        return family, prompts.filter(here)

    def designs(self) -> list[RewardDesign]:
        """Rewards with their seeds; none without the agents table."""
        return reward_designs(self.tables["agents"]) if "agents" in self.tables else []


def unknown(question: str, subject: str, unit: str, alpha: float, sentence: str) -> Question:
    """A question whose units are not known."""
    return Question(question, subject, unit, 0, None, alpha, None, None, False, sentence)


def reach(floor: float, level: float) -> str:
    """Whether the smallest p lies below the level, as the second half of a sentence."""
    if floor < level:
        return (
            f"the smallest p that they can give is {probability(floor)}, below {probability(level)}"
        )
    return f"no data can give a p below {probability(floor)}, and {probability(level)} is needed"


def remedy(n: int, needed: int, power: int | None, unit: str, what: str = "identify it") -> str:
    """What would do it, and what would find an effect of one standard deviation, as sentences.

    Args:
        n: units that there are.
        needed: units that would do.
        power: units for 80% power; None where that is not known.
        unit: their name; after a space what they are counted by (``seed per reward``).
        what: what so many would do.
    """
    name, _, per = unit.partition(" ")
    units = f"{name}s{' ' if per else ''}{per}"
    parts = [] if n >= needed else [f"{needed} {units} would {what}"]
    if power is not None:
        parts.append(
            f"an effect of one standard deviation over {name}s is found with 80% power from "
            f"{power} {units} on"
        )
    joined = "; ".join(parts)
    return f" {joined[0].upper()}{joined[1:]}." if joined else ""


def count(n: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def probability(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}"


def some(names: Sequence[str]) -> str:
    """The first four names."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
