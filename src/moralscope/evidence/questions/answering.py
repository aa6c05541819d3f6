"""What do the claims say to the research questions? The table ``questions``.

RQ1 rests on the claims ``question:RQ1:...`` (``selfish``), RQ2 on ``cascade:...`` of two moral
rewards, RQ3 on ``targeting:...`` and ``kept:...``. At a level about which a hypothesis was
registered (quantity ``levels_apart``), RQ2 rests on its claim instead: it was named before anything
was measured, and is corrected among the registered ones. Nothing is computed here: every sentence
follows from the verdicts of claims by fixed rules, and names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.findings.cascade import IN, claim_id
from moralscope.evidence.hypotheses.grammar import Named
from moralscope.evidence.hypotheses.stating import claim_of
from moralscope.evidence.questions.answer import (
    Answer,
    Claim,
    confidence_of,
    listed,
    not_asked,
    reasons,
    verdict_of,
)
from moralscope.evidence.questions.selfish import NOT_MORAL, PREFIX, STRATEGIC
from moralscope.evidence.synthesis.comparing import Question, questions_of
from moralscope.evidence.synthesis.levels import LEVELS, TABLES
from moralscope.evidence.units import Tables
from moralscope.evidence.verdicts import ARTEFACT, EQUIVALENT, NOISE, NOT_IDENTIFIED, SUPPORTED

Claims = Mapping[str, Claim]


def answer_questions(tables: Tables, named: Sequence[Named] = ()) -> pl.DataFrame:
    """The three research questions, answered as far as the claims go.

    Args:
        tables: result tables with ``claims``; without it every question is not identified.
        named: hypotheses, those that were not registered among them.
    """
    claims: dict[str, Claim] = {}
    if "claims" in tables:
        claims = {str(row["id"]): row for row in tables["claims"].iter_rows(named=True)}
    answers = (suppressed(claims), different(tables, claims, named), needed(claims))
    return from_rows("questions", [answer.row() for answer in answers])


def suppressed(claims: Claims) -> Answer:
    """RQ1: are sites that push the base towards defecting suppressed in moral agents?"""
    own = [claim for name, claim in claims.items() if name.startswith(PREFIX)]
    if not own:
        return not_asked(
            "RQ1",
            "Not identified: no agent with a moral reward was attributed beside its base.",
            "Attribution of agents with a moral reward and of their base, on 10 scenarios or more.",
        )
    said = _suppressed(own)
    # The question is about fine-tuning, so the base decides; other agents put it in perspective.
    with_base = [claim for claim in own if STRATEGIC not in _parts_of(claim)[1:]]
    verdict = verdict_of(with_base)
    falls = any(claim["verdict"] == SUPPORTED and _number(claim) < 0 for claim in with_base)
    rises = any(claim["verdict"] == SUPPORTED and _number(claim) > 0 for claim in with_base)
    # A reward of which it was asked and not shown is no reward of which it could not be told.
    all_fall = all(c["verdict"] in (SUPPORTED, NOT_IDENTIFIED) for c in with_base)
    start = {
        (True, False): "Yes, where it could be told." if all_fall else "In some of them.",
        (False, True): "No, the opposite where anything could be told.",
        (True, True): "In part.",
    }.get((falls, rises), "That is not shown.")
    about = "This is said of these agents; it is not known of other seeds of their rewards."
    if verdict in (ARTEFACT, NOT_IDENTIFIED):
        about = ""
    return Answer(
        question="RQ1",
        answer=" ".join([start, *said, *([about] if about else [])]),
        verdict=verdict,
        confidence=confidence_of(with_base, verdict),
        evidence=tuple(str(claim["id"]) for claim in own),
        missing=reasons(own, NOT_IDENTIFIED),
    )


def _parts_of(claim: Claim) -> list[str]:
    """The reward that a claim is about, and whom it is compared with."""
    return str(claim["id"]).removeprefix(PREFIX).split(":")


def _suppressed(own: Sequence[Claim]) -> list[str]:
    """What each claim says; those that say the same are put together."""
    words = {
        NOISE: "no loss beyond that of matched sites was told apart from noise",
        ARTEFACT: "a failed check explains the figures",
        NOT_IDENTIFIED: "the design does not tell",
        EQUIVALENT: "they change as matched sites do",
    }
    said: list[str] = []
    others: dict[tuple[str, bool], list[str]] = {}
    for claim in own:
        reward, *than = _parts_of(claim)
        if claim["verdict"] == SUPPORTED:
            how = "lose more" if _number(claim) < 0 else "gain more"
            said.append(
                f"In {reward} agents{_against(STRATEGIC in than)} sites that push the base towards "
                f"defecting {how} than matched sites do ({_number(claim):+.2g} nats per site)."
            )
        else:
            key = words[str(claim["verdict"])], STRATEGIC in than
            others.setdefault(key, []).append(reward)
    for (phrase, against), rewards in others.items():
        said.append(f"In {listed(rewards)} agents{_against(against)} {phrase}.")
    return said


def _against(game: bool) -> str:
    return f", against agents of the reward {STRATEGIC}," if game else ""


def different(tables: Tables, claims: Claims, named: Sequence[Named] = ()) -> Answer:
    """RQ2: do agents of two moral rewards differ inside by more than seeds do?"""
    asked = [
        question
        for question in questions_of(tables)
        if question.rewards is not None and not set(NOT_MORAL) & set(question.rewards)
    ]
    found = [(question, own) for question in asked if (own := _of_levels(question, claims, named))]
    if not found:
        return not_asked(
            "RQ2",
            "Not identified: no two moral rewards were compared.",
            "A comparison of two moral rewards with five training seeds of each, named in the "
            "study file.",
        )
    inner = [claim for _, own in found for level, claim in own.items() if level != "behaviour"]
    used = [claim for _, own in found for claim in own.values()]
    verdict = verdict_of(inner)
    absent = [level for level in LEVELS if any(level not in own for _, own in found)]
    unmeasured = ""
    if absent:
        places = listed([f"{level} (table {TABLES[level]})" for level in absent])
        unmeasured = f" Not measured for all of these agents: {places}."
    return Answer(
        question="RQ2",
        answer=" ".join(sentence for one in found for sentence in _differ(*one)),
        verdict=verdict,
        confidence=confidence_of(inner, verdict),
        evidence=tuple(str(claim["id"]) for claim in used),
        missing=f"{reasons(used, NOT_IDENTIFIED)}{unmeasured}".strip(),
    )


def _of_levels(question: Question, claims: Claims, named: Sequence[Named]) -> dict[str, Claim]:
    """The claim that a level rests on: of the first hypothesis registered about it, else found."""
    registered: dict[str, str] = {}
    for one in named:
        said = one.hypothesis
        about = said.level is not None and set(said.rewards) == set(question.rewards or ())
        if about and one.registered and one.asked:
            registered.setdefault(str(said.level), claim_of(said))
    found: dict[str, Claim] = {}
    for level in LEVELS:
        name = registered.get(level, claim_id(question, level))
        if name in claims:
            found[level] = claims[name]
    return found


def _differ(question: Question, own: Mapping[str, Claim]) -> Iterator[str]:
    """Sentences about one comparison, level by level."""
    at = {
        verdict: [level for level, claim in own.items() if claim["verdict"] == verdict]
        for verdict in (SUPPORTED, EQUIVALENT, NOISE, ARTEFACT, NOT_IDENTIFIED)
    }
    who = f"{question.between.capitalize()} agents"
    if at[SUPPORTED]:
        places = listed([f"{level} ({IN[level]})" for level in at[SUPPORTED]])
        yield f"{who} lie further apart than training seeds of one reward in {places}."
        if at[SUPPORTED] == ["behaviour"]:
            yield "They behave differently, and at no level inside was a difference shown."
    elif at[EQUIVALENT] or at[NOISE]:
        yield f"{who} were not told apart from training seeds of one reward at any level."
    else:
        yield f"Whether {question.between} agents differ by more than training seeds is not known."
    if at[EQUIVALENT]:
        yield (
            "They differ from seeds by less than a tenth of what fine-tuning does in "
            f"{listed(at[EQUIVALENT])}."
        )
    if at[NOISE] and at[SUPPORTED]:
        yield f"No difference was told apart from noise in {listed(at[NOISE])}."
    if at[ARTEFACT]:
        yield f"A failed check explains the figures of {listed(at[ARTEFACT])}."
    if at[NOT_IDENTIFIED] and len(at[NOT_IDENTIFIED]) < len(own):
        yield f"Not identified by this design: {listed(at[NOT_IDENTIFIED])}."


def needed(claims: Claims) -> Answer:
    """RQ3: do chosen parts keep more behaviour than as many at random, and do they keep all?"""
    chosen = [claim for name, claim in claims.items() if name.startswith("targeting:")]
    kept = [claim for name, claim in claims.items() if name.startswith("kept:")]
    if not chosen and not kept:
        return not_asked(
            "RQ3",
            "Not identified: no agent was trained in parts.",
            "Agents of which only some parts are trained: moralscope run examples/targeted.yaml.",
        )
    better = [claim for claim in chosen if claim["verdict"] == SUPPORTED and _number(claim) > 0]
    worse = [claim for claim in chosen if claim["verdict"] == SUPPORTED and _number(claim) < 0]
    whole = [claim for claim in kept if claim["verdict"] == EQUIVALENT]
    sentences = [
        f"More behaviour than with as many parts drawn at random is kept by {_parts(better)}."
        if better
        else "No choice of parts was shown to keep more behaviour than as many drawn at random."
    ]
    if worse:
        sentences.append(f"Less than at random is kept by {_parts(worse)}.")
    if whole:
        sentences.append(f"All of it, within a tenth, is kept by {_parts(whole)}.")
    elif kept:
        sentences.append("No choice of parts was shown to keep all of it within a tenth.")
    verdict = verdict_of(chosen or kept)
    return Answer(
        question="RQ3",
        answer=" ".join(sentences),
        verdict=verdict,
        confidence=confidence_of(chosen or kept, verdict),
        evidence=tuple(str(claim["id"]) for claim in (*chosen, *kept)),
        missing=reasons([*chosen, *kept], NOT_IDENTIFIED),
    )


def _parts(claims: Sequence[Claim]) -> str:
    """``4 sub-layers chosen by patching``, for each claim."""
    found: list[str] = []
    for claim in claims:
        _, strategy, budget, *_ = [*str(claim["id"]).split(":"), ""]
        found.append(f"{budget} sub-layers chosen by {strategy}")
    return listed(found)


def _number(claim: Claim) -> float:
    value = claim["estimate"]
    return value if isinstance(value, float) else 0.0
