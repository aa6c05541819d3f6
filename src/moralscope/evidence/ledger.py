"""What is a claim made of? Its context, the gates consulted, and the numbers before a verdict.

A ``Finding`` holds the numbers of a claim and two sentences made from them: one that asserts
(used if the claim is supported) and one that only reports. ``judged`` derives the verdicts, once
all findings are there, and adds to each the sentence that goes with its verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from moralscope.core.streams import stream
from moralscope.evidence.gates.replicas import behaviour_noise, rounding_noise
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.units import Tables


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate as the ledger needs it."""

    passed: bool | None
    advice: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that claims are made from.

    Attributes:
        tables: the checked tables.
        gates: results by (gate, subject).
        alpha: family-wise level.
        seed, draws: of the randomisation tests.
        margin: equivalence margin in nats for behaviour; None for 10% of the base's log-odds.
    """

    tables: Tables
    gates: Mapping[tuple[str, str], GateResult]
    alpha: float
    seed: int
    draws: int
    margin: float | None

    def rng(self, *address: str) -> np.random.Generator:
        """The random stream of one family of tests, the same whatever else is tested."""
        return stream(self.seed, "claims", *address)

    def has(self, *names: str) -> bool:
        """Whether all these tables are present and not empty."""
        return all(name in self.tables and self.tables[name].height > 0 for name in names)


@dataclass(frozen=True, slots=True)
class Consulted:
    """The gates behind a claim.

    Attributes:
        text: each gate and its result, for the ``gates`` column.
        failed: for each failed one, its name and advice.
        alive: liveness of all agents concerned; None if it is not available for one of them.
        subjects: everything that was checked.
    """

    text: str
    failed: tuple[str, ...]
    alive: bool | None
    subjects: tuple[str, ...] = ()


def consult(
    setting: Setting,
    agents: Iterable[str],
    gates: Iterable[tuple[str, str]] = (),
    shown: Iterable[tuple[str, str]] = (),
) -> Consulted:
    """Look up the liveness of the trained agents among ``agents``, and further gates.

    A gate that was not judged reads "not available"; it does not block a claim, except liveness,
    whose absence the verdict takes into account.

    Args:
        setting: holds the gates.
        agents: whose liveness counts; base agents have none.
        gates: (gate, subject) that make the claim an artefact when they fail.
        shown: (gate, subject) that concern some sites only: listed, and judged by site elsewhere.
    """
    bases = _bases(setting)
    wanted = [("liveness", agent) for agent in dict.fromkeys(agents) if agent not in bases]
    alive: bool | None = True
    words: list[str] = []
    failed: list[str] = []
    blocking = [*wanted, *gates]
    for gate, subject in [*blocking, *shown]:
        result = setting.gates.get((gate, subject), GateResult(None, "Not available."))
        said = {True: "passed", False: "failed", None: "not available"}[result.passed]
        words.append(f"{gate} ({subject}): {said}")
        if result.passed is False and (gate, subject) in blocking:
            failed.append(f"{gate} ({subject}): {result.advice}")
        if gate == "liveness" and result.passed is not True and alive is not False:
            alive = result.passed
    subjects = tuple(dict.fromkeys(subject for _, subject in [*blocking, *shown]))
    return Consulted("; ".join(words) or "none applies", tuple(failed), alive, subjects)


def _bases(setting: Setting) -> set[str]:
    if not setting.has("agents"):
        return set()
    agents = setting.tables["agents"]
    return set(agents.filter(pl.col("kind") == "base").get_column("agent").to_list())


def noise_floor(setting: Setting, subjects: Sequence[str], *, patched: bool = False) -> float:
    """Largest measured effect of a control that should have none, in nats.

    Where none was measured it is what the rounding of the log-odds leaves open.

    Args:
        setting: holds the tables.
        subjects: agents and pairs (SOURCE>TARGET) whose controls count.
        patched: whether the numbers are effects of patches, whose two sides go through one kernel;
            other log-odds may differ by as much as another kernel makes of them, or rounding.
    """
    kernel = (
        0.0
        if patched
        else max(behaviour_noise(setting.tables), rounding_noise(setting.tables, subjects))
    )
    if not setting.has("controls"):
        return kernel
    rows = setting.tables["controls"].filter(pl.col("subject").is_in(list(subjects)))
    return max(kernel, float(np.abs(rows.get_column("value").to_numpy()).max(initial=0.0)))


CONFIRMED: Final = "confirmed"
CONTRADICTED: Final = "contradicted"
OPEN: Final = "open"

REGISTERED: Final = "registered"
PUBLISHED: Final = "published"
LATE: Final = "late"


@dataclass(frozen=True, slots=True)
class Stated:
    """What makes a finding the answer to a hypothesis that somebody named.

    Attributes:
        outcome: what the numbers say of it, before any p is looked at: ``confirmed`` (they agree
            with it as it is stated: sign, count, figure), ``contradicted`` (they say the opposite)
            or ``open`` (neither).
        against: one plain sentence: why it does not hold as stated; empty where it does.
        equivalence: whether it says that something lies within a margin, so that the decisive p
            is ``equivalence_p``.
        kind: ``registered`` (named before anything was measured), ``published`` (a statement of
            others that is re-tested) or ``late`` (named when the tables were there already, and
            therefore exploratory). What is known of it is added after the numbers were found.
    """

    outcome: str
    against: str = ""
    equivalence: bool = False
    kind: str = LATE


@dataclass(frozen=True, slots=True)
class Finding:
    """The numbers of a claim, before the verdict.

    Attributes:
        id: stable identifier; of a hypothesis ``hypothesis:ID``.
        found: the sentence if the claim is supported.
        observed: the sentence otherwise: the numbers without an assertion.
        estimate, interval, unit: in that unit.
        n: units of replication.
        test: name of the test and its null.
        query: how to recompute the estimate (``findings.queries`` tells its form).
        consulted: the gates.
        p, p_adjusted, p_floor: None where nothing is tested.
        level: what the floor must lie below; alpha for max-T, alpha/m for Holm.
        noise: numerical noise floor of the estimate; None where the estimate has no noise.
        decided: the decision where there is no p (a count, a control judged elsewhere).
        equivalence_p, margin: of the two one-sided tests, corrected for all in the family; None
            where there is no margin.
        detectable: smallest effect found with 80% power, in the unit of the estimate.
        missing: why the design cannot identify the claim, and what would; None if it can.
        replicate: what the units of replication are.
        tests: hypotheses in the family that ``p_adjusted`` is corrected for; None where nothing
            is tested.
        family: what that family is, as it stands after "among": ``5 agents``.
        against: one plain sentence: why the claim does not hold although its test rejects; empty
            where nothing in the numbers speaks against it.
        hypothesis: what was named, where the finding answers a hypothesis. Its ``p_adjusted`` (or
            ``equivalence_p``) is then that of this one statement; Holm's correction over its kind
            comes when all findings are there.
        reliability: of the profile of which the claim singles out a part, in [0, 1]; None where
            it singles out nothing.
    """

    id: str
    found: str
    observed: str
    estimate: float | None
    interval: Interval | None
    unit: str
    n: int
    test: str
    query: str
    consulted: Consulted
    p: float | None = None
    p_adjusted: float | None = None
    p_floor: float | None = None
    level: float = 0.05
    noise: float | None = None
    decided: bool = False
    equivalence_p: float | None = None
    margin: float | None = None
    detectable: float | None = None
    missing: str | None = None
    replicate: str = "scenarios"
    tests: int | None = None
    family: str = ""
    against: str = ""
    hypothesis: Stated | None = None
    reliability: float | None = None

    @property
    def exploratory(self) -> bool:
        """Whether the tables suggested it: neither registered nor a published statement."""
        return self.hypothesis is None or self.hypothesis.kind == LATE


def size(value: float | None) -> str:
    """A magnitude with three significant digits."""
    return "unknown" if value is None else f"{value:.3g}"


def signed(value: float) -> str:
    """A number with its sign and three significant digits."""
    return f"{value:+.3g}"


def probability(p: float | None) -> str:
    """``p = .012`` in the usual notation."""
    if p is None:
        return "p not available"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def between(interval: Interval | None) -> str:
    """``95% interval 0.1 to 0.3``."""
    if interval is None:
        return "interval undefined"
    return f"95% interval {size(interval[0])} to {size(interval[1])}"
