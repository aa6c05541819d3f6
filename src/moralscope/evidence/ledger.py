"""What is a claim made of? Context, gates consulted, and the last step from finding to row.

A ``Finding`` holds the numbers of a claim and two sentences made from them: one that asserts
(used if the claim is supported) and one that only reports. ``claim_row`` derives the verdict and
adds the sentence that goes with it: why it is an artefact, what would identify it, how large an
effect would have been found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.streams import stream
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.units import Tables
from moralscope.evidence.verdicts import (
    ARTEFACT,
    EQUIVALENT,
    NOISE,
    NOT_IDENTIFIED,
    SUPPORTED,
    Standing,
    verdict,
)


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
    """

    text: str
    failed: tuple[str, ...]
    alive: bool | None


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
    return Consulted("; ".join(words) or "none applies", tuple(failed), alive)


def _bases(setting: Setting) -> set[str]:
    if not setting.has("agents"):
        return set()
    agents = setting.tables["agents"]
    return set(agents.filter(pl.col("kind") == "base").get_column("agent").to_list())


def noise_floor(setting: Setting, subjects: Sequence[str]) -> float:
    """Largest measured effect of a control that should have none, in nats; 0 if not measured."""
    if not setting.has("controls"):
        return 0.0
    rows = setting.tables["controls"].filter(pl.col("subject").is_in(list(subjects)))
    return float(np.abs(rows.get_column("value").to_numpy()).max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Finding:
    """The numbers of a claim, before the verdict.

    Attributes:
        id: stable identifier.
        found: the sentence if the claim is supported.
        observed: the sentence otherwise: the numbers without an assertion.
        estimate, interval, unit: in that unit.
        n: units of replication.
        test: name of the test and its null.
        query: how to recompute the estimate.
        consulted: the gates.
        p, p_adjusted, p_floor: None where nothing is tested.
        level: what the floor must lie below; alpha for max-T, alpha/m for Holm.
        noise: numerical noise floor of the estimate; None where the estimate has no noise.
        decided: the decision where there is no p (a count, a control judged elsewhere).
        equivalence_p, margin: of the two one-sided tests, corrected for all in the family; None
            where there is no margin.
        detectable: smallest effect found with 80% power, in the unit of the estimate.
        replicate: what the units of replication are.
        missing: why the design cannot identify the claim, and what would; None if it can.
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


def claim_row(setting: Setting, finding: Finding) -> dict[str, object]:
    """The row of the claims table: verdict, and the statement that goes with it."""
    reached = finding.p_floor is None or finding.p_floor < finding.level
    equivalent = None if finding.equivalence_p is None else finding.equivalence_p < setting.alpha
    p_adjusted = finding.p_adjusted
    rejects = finding.decided if p_adjusted is None else p_adjusted < setting.alpha
    standing = Standing(
        gate_failed=bool(finding.consulted.failed),
        identified=finding.missing is None and reached,
        rejects=rejects,
        above_noise=_above_noise(finding),
        alive=finding.consulted.alive,
        equivalent=equivalent,
    )
    decision = verdict(standing)
    low, high = finding.interval or (None, None)
    return {
        "id": finding.id,
        "statement": _statement(setting, finding, standing, decision),
        "estimate": finding.estimate,
        "low": low,
        "high": high,
        "unit": finding.unit,
        "n_units": finding.n,
        "test": finding.test,
        "p": finding.p,
        "p_adjusted": finding.p_adjusted,
        "p_floor": finding.p_floor,
        "gates": finding.consulted.text,
        "registered": False,
        "verdict": decision,
        "query": finding.query,
    }


def _above_noise(finding: Finding) -> bool:
    if finding.noise is None or finding.estimate is None:
        return finding.estimate is not None or finding.noise is None
    return abs(finding.estimate) > finding.noise


def _statement(setting: Setting, finding: Finding, standing: Standing, decision: str) -> str:
    reasons = {
        SUPPORTED: _caveat(finding, standing),
        EQUIVALENT: f"Equivalent to zero within a margin of {size(finding.margin)} nats "
        f"({probability(finding.equivalence_p)}, two one-sided tests, corrected).",
        NOISE: _not_found(setting, finding, standing),
        ARTEFACT: f"Artefact: {' '.join(finding.consulted.failed)}",
        NOT_IDENTIFIED: _not_identified(finding, standing),
    }
    lead = finding.found if decision == SUPPORTED else finding.observed
    return f"{lead} {reasons[decision]}".strip()


def _caveat(finding: Finding, standing: Standing) -> str:
    if standing.alive is None:
        return "Liveness could not be checked; the difference stands all the same."
    if standing.equivalent:
        return f"It is smaller than the margin of {size(finding.margin)} nats that would matter."
    return ""


def _not_found(setting: Setting, finding: Finding, standing: Standing) -> str:
    if standing.rejects and not standing.above_noise:
        return f"It does not exceed the numerical noise floor of {size(finding.noise)} nats."
    if finding.detectable is None:
        return "Not distinguishable from noise."
    unit = "in probability" if finding.unit == "probability" else finding.unit
    return (
        f"Not distinguishable from noise: with {finding.n} {finding.replicate} an effect of "
        f"{size(finding.detectable)} {unit} would be found with 80% power at the corrected "
        f"level of {setting.alpha:g}."
    )


def _not_identified(finding: Finding, standing: Standing) -> str:
    if finding.missing is not None:
        return f"Not identified by this design: {finding.missing}"
    if not standing.identified:
        return (
            f"Not identified by this design: with {finding.n} {finding.replicate} no data can give "
            f"a p below {size(finding.p_floor)}, and {size(finding.level)} is needed; add "
            f"{finding.replicate}."
        )
    return (
        "Not identified by this design: liveness could not be checked, and a dead agent looks the "
        "same; store a fingerprint when the agent is trained."
    )


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
