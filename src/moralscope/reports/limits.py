"""What cannot be said, and why? Limitations from the gates, the design and the verdicts.

Nothing here holds for every study alike: each limitation names the gate, the question, the claims
or the stage that it comes from, in this run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moralscope.evidence.designing.question import Question
from moralscope.reports.figure import listing
from moralscope.reports.findings import Finding, VerdictGroup
from moralscope.reports.judged import Gate
from moralscope.reports.numbers import plain
from moralscope.reports.run import FailedStage, Run
from moralscope.reports.words import counted

MOST_NAMED = 6
"""Claims or questions that a limitation names before it counts the rest."""


@dataclass(frozen=True)
class Limitation:
    """One thing that this run cannot say.

    Attributes:
        about: what it comes from: design, gates, noise, wording, stages, tables or scope.
        text: in plain words.
        claims: those that it keeps from being made, or that need it read with them.
    """

    about: str
    text: str
    claims: tuple[str, ...] = ()


def limitations_of(
    run: Run,
    groups: Sequence[VerdictGroup],
    gates: Sequence[Gate],
    design: Sequence[Question],
    failed: Sequence[FailedStage],
) -> tuple[Limitation, ...]:
    """The limitations of a run, those that keep most from being said first."""
    by_verdict = {group.words.slug: group.findings for group in groups}
    return (
        *_stages(failed),
        *_design(design, by_verdict.get("unidentified", ())),
        *_gates(gates, by_verdict.get("artefact", ())),
        *_noise(by_verdict.get("noise", ())),
        *_wordings(by_verdict.get("supported", ())),
        *_scope(run),
    )


def _stages(failed: Sequence[FailedStage]) -> Iterator[Limitation]:
    if failed:
        names = listing([stage.name for stage in failed], MOST_NAMED)
        yield Limitation(
            "stages",
            f"{counted(len(failed), 'stage')} did not finish ({names}), so whatever rests on "
            f"{'it' if len(failed) == 1 else 'them'} is not in this report.",
        )


def _design(design: Sequence[Question], claims: Sequence[Finding]) -> Iterator[Limitation]:
    open_ones = [row for row in design if not row.identified]
    for row in open_ones[:MOST_NAMED]:
        yield Limitation("design", row.sentence)
    if len(open_ones) > MOST_NAMED:
        yield Limitation(
            "design",
            f"{counted(len(open_ones) - MOST_NAMED, 'further question')} cannot be answered by "
            "this design either; the table design says what each would need.",
        )
    if claims:
        yield Limitation(
            "design",
            f"{counted(len(claims), 'claim')} cannot be settled whatever the data say, because "
            f"the unit that they speak about was not replicated enough "
            f"({_kinds(claims)}). Their estimates describe what was measured and no more.",
            tuple(f.id for f in claims),
        )


def _gates(gates: Sequence[Gate], claims: Sequence[Finding]) -> Iterator[Limitation]:
    failed = [gate for gate in gates if gate.passed is False]
    unknown = [gate for gate in gates if gate.passed is None]
    names = dict.fromkeys(gate.gate for gate in failed)
    for name in names:
        own = [gate for gate in failed if gate.gate == name]
        subjects = listing([gate.subject for gate in own], MOST_NAMED)
        yield Limitation("gates", f"The gate {name} failed for {subjects}. {own[0].advice}")
    if claims:
        yield Limitation(
            "gates",
            f"{counted(len(claims), 'claim')} {'is' if len(claims) == 1 else 'are'} explained by "
            f"a failed gate and must not be repeated as findings ({_kinds(claims)}).",
            tuple(f.id for f in claims),
        )
    if unknown:
        kinds = listing(list(dict.fromkeys(gate.gate for gate in unknown)), MOST_NAMED)
        yield Limitation(
            "gates",
            f"{counted(len(unknown), 'check')} could not be made, for want of what they read "
            f"({kinds}); what they guard was not checked.",
        )


def _noise(claims: Sequence[Finding]) -> Iterator[Limitation]:
    if not claims:
        return
    limits: dict[str, list[float]] = {}
    for finding in claims:
        if finding.detectable is not None:
            limits.setdefault(finding.unit, []).append(finding.detectable)
    sizes = listing(
        [f"{plain(min(v))} to {plain(max(v), unit)}" for unit, v in limits.items()], MOST_NAMED
    )
    yield Limitation(
        "noise",
        f"{counted(len(claims), 'claim')} cannot be told from noise, which is not evidence of no "
        "difference"
        + (f": effects below {sizes} would not have been found reliably." if sizes else "."),
        tuple(f.id for f in claims),
    )


def _wordings(claims: Sequence[Finding]) -> Iterator[Limitation]:
    split = [f for f in claims if "The wordings disagree" in f.statement]
    if split:
        yield Limitation(
            "wording",
            f"{counted(len(split), 'supported claim')} {'holds' if len(split) == 1 else 'hold'} "
            "on average over wordings that disagree among themselves, so another choice of "
            "wordings might turn the mean.",
            tuple(f.id for f in split),
        )


def _scope(run: Run) -> Iterator[Limitation]:
    bases = [agent.name for agent in run.agents if agent.kind == "base"]
    prompts = run.tables.get("prompts")
    if prompts is not None and not prompts.is_empty():
        scenarios = prompts.get_column("scenario").n_unique()
        games = prompts.get_column("game").unique(maintain_order=True).to_list()
        yield Limitation(
            "scope",
            f"What is supported holds for {counted(max(len(bases), 1), 'base model')} and for "
            f"situations like the {counted(scenarios, 'scenario')} asked "
            f"({listing(games, MOST_NAMED)}); other models, games and tasks were not measured.",
        )
    single = [
        reward
        for reward in dict.fromkeys(a.reward for a in run.agents if a.reward)
        if len({a.training_seed for a in run.agents if a.reward == reward}) == 1
    ]
    if single:
        yield Limitation(
            "scope",
            f"{'The reward' if len(single) == 1 else 'The rewards'} {listing(single)} "
            f"{'was' if len(single) == 1 else 'were'} trained with one seed: what is said of "
            "such an agent is said of that training run.",
        )


def _kinds(claims: Sequence[Finding]) -> str:
    kinds: dict[str, int] = {}
    for finding in claims:
        kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
    return listing([f"{n} of {kind}" for kind, n in kinds.items()], MOST_NAMED)
