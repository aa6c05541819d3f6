"""What stands? Every claim that the tables can carry, with its verdict.

Tables in, claims out: behaviour (changes from base, label assignments, differences, reasonable
specifications, contrasts between situations, who decides alike, labels and kinds of text), rewards,
patching, attribution, and what the control *label, layout, order or move* found. Each claim states
its estimate with an interval, the unit of replication and its number, the test with its attainable
floor, the gates consulted, a verdict, and the query that recomputes the estimate.

Hypotheses that were named are tested as they were stated, and corrected among their own kind. All
other claims are exploratory: they are the ones that these tables suggest, and they are screened
over all of them (``judged``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.core.tables import from_rows
from moralscope.evidence.findings.attention import attention_findings
from moralscope.evidence.findings.attention_uses import attention_use_findings
from moralscope.evidence.findings.attribution import attribution_findings
from moralscope.evidence.findings.behaviour import behaviour_findings
from moralscope.evidence.findings.cascade import cascade_findings
from moralscope.evidence.findings.contrasts import contrast_claims
from moralscope.evidence.findings.course import course_findings
from moralscope.evidence.findings.depths import depth_findings
from moralscope.evidence.findings.label_sites import label_findings
from moralscope.evidence.findings.learned import learned_findings
from moralscope.evidence.findings.patching import patching_findings
from moralscope.evidence.findings.pathways import pathway_findings
from moralscope.evidence.findings.replicates import replicate_findings
from moralscope.evidence.findings.representations import representation_findings
from moralscope.evidence.findings.rewards import reward_findings
from moralscope.evidence.findings.robustness import robustness_findings
from moralscope.evidence.findings.similarity import similarity_findings
from moralscope.evidence.findings.specifications import specification_findings
from moralscope.evidence.findings.targeting import targeting_findings
from moralscope.evidence.findings.weights import weight_findings
from moralscope.evidence.findings.wired_rewards import wired_reward_findings
from moralscope.evidence.findings.wiring import wiring_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Named
from moralscope.evidence.hypotheses.judging import hypothesis_findings
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.ledger import Finding, GateResult, Setting
from moralscope.evidence.questions.selfish import selfish_findings
from moralscope.evidence.units import checked


def make_claims(
    tables: Mapping[str, pl.DataFrame],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    draws: int = 9_999,
    margin: float | None = None,
    hypotheses: Sequence[Named] = (),
) -> pl.DataFrame:
    """All claims that the tables present allow, as the ``claims`` table.

    Args:
        tables: result tables by name, any subset of the documented ones. The gates are judged
            from them; a ``gates`` table among them is used as it stands.
        alpha: family-wise level, between 0 and 1.
        seed: of the randomisation tests; equal seeds give equal claims.
        draws: random sign patterns or labellings where there are too many to enumerate.
        margin: equivalence margin for differences in log-odds, nats; by default 10% of the mean
            absolute log-odds of the base.
        hypotheses: what was named; each becomes a claim ``hypothesis:ID``.

    Raises:
        ConfigError: alpha, draws or the margin is out of range, or a hypothesis names what the
            tables do not have.
        TableError: a table does not follow its schema, or agents that are compared were measured
            on different prompts or sites.
    """
    setting = setting_of(tables, alpha=alpha, seed=seed, draws=draws, margin=margin)
    return judge_findings(setting, [*hypothesis_findings(setting, hypotheses), *find_all(setting)])


def setting_of(
    tables: Mapping[str, pl.DataFrame],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    draws: int = 9_999,
    margin: float | None = None,
) -> Setting:
    """What claims are made from: the checked tables and their gates. Arguments, errors as above."""
    check_levels(alpha, draws, margin)
    known = checked(tables)
    gates = known["gates"] if "gates" in known else judge_gates(known)
    results = {
        (row["gate"], row["subject"]): GateResult(row["passed"], row["advice"])
        for row in gates.iter_rows(named=True)
    }
    return Setting(known, results, alpha, seed, draws, margin)


FINDERS: Mapping[str, Callable[[Setting], Iterable[Finding]]] = {
    "behaviour": behaviour_findings,
    "specifications": specification_findings,
    "learned": learned_findings,
    "robustness": robustness_findings,
    "contrasts": contrast_claims,
    "similarity": similarity_findings,
    "rewards": reward_findings,
    "replicates": replicate_findings,
    "patching": patching_findings,
    "label": label_findings,
    "attribution": attribution_findings,
    "wiring": wiring_findings,
    "wired rewards": wired_reward_findings,
    "pathways": pathway_findings,
    "targeting": targeting_findings,
    "course": course_findings,
    "depth": depth_findings,
    "attention": attention_findings,
    "attention uses": attention_use_findings,
    "weights": weight_findings,
    "representations": representation_findings,
    "cascade": cascade_findings,
    "selfish sites": selfish_findings,
}
"""What is looked for, in the order of the claims."""


def find_all(setting: Setting) -> list[Finding]:
    """Every finding that the tables suggest, before any verdict."""
    return [finding for find in FINDERS.values() for finding in find(setting)]


def judge_findings(setting: Setting, findings: Sequence[Finding]) -> pl.DataFrame:
    """The ``claims`` table of all findings of a study, which must be handed over together.

    Findings may have been made from parts of the tables (one sweep at a time, where all do not fit
    into memory): a family is tested within its part, and here the claims are corrected for each
    other.
    """
    return from_rows("claims", claim_rows(setting, findings))


def check_levels(alpha: float, draws: int, margin: float | None) -> None:
    """Refuse a level, a number of draws or a margin that no test can be held to.

    Raises:
        ConfigError: alpha, draws or the margin is out of range.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(
            "The significance level is out of range",
            seen=alpha,
            allowed="a number between 0 and 1",
            remedy="use 0.05 unless there is a reason not to",
        )
    if 1.0 / (draws + 1) >= alpha:
        raise ConfigError(
            "Too few random draws for the significance level",
            seen=f"{draws} draws, level {alpha}",
            allowed=f"more than {1.0 / alpha - 1.0:.0f} draws",
            remedy=f"draw more often, or use a level above {1.0 / (draws + 1):.1g}",
        )
    if margin is not None and not margin > 0.0:
        raise ConfigError(
            "An equivalence margin must be positive",
            seen=margin,
            allowed="nats of log-odds, above zero",
            remedy="leave it out for 10% of the base's mean absolute log-odds",
        )
