"""What was read, what was judged, and what was not? A row for every file and every question.

Nothing is left out silently: a file that is no table, a column that is not used, a name that was
read as another, a question that these tables cannot answer, each stands here, with what is missing
and where it usually comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.auditing.judging import Judged
from moralscope.evidence.auditing.layouts import NOT_RECORDED, layout_of, needs_of
from moralscope.evidence.auditing.normalising import Normalised
from moralscope.evidence.auditing.parts import IN_PARTS, WHOLE
from moralscope.evidence.claims import FINDERS

Row = dict[str, object]

_NOT = "not available: "


@dataclass(frozen=True, slots=True)
class Question:
    """A kind of claim, and what it takes.

    Attributes:
        name: its name.
        finders: whose claims answer it, names in ``claims.FINDERS`` or tables judged in parts.
        tables: all of them are needed.
        base: whether it needs to know the base.
        scenarios: whether it needs to know the scenarios.
        unless: what else has to be there where all that is and there are no claims.
    """

    name: str
    finders: tuple[str, ...]
    tables: tuple[str, ...]
    base: bool = False
    scenarios: bool = True
    unless: str = "agents, prompts or sites to compare"


QUESTIONS = (
    Question("changes and differences in behaviour", ("behaviour",), ("decisions",), base=True,
             unless="a trained agent beside the base"),
    Question("whether reasonable specifications agree", ("specifications",), ("decisions",),
             base=True, unless="a trained agent beside the base"),
    Question("what was learned: label, layout, order or move", ("learned",), ("learned",),
             scenarios=False),
    Question("robustness across wordings", ("robustness",), ("decisions",), base=True,
             unless="several families of prompts or label assignments"),
    Question("contrasts between situations", ("contrasts",), ("decisions",),
             unless="the players' last moves (own_previous, opponent_previous) in the prompts"),
    Question("who decides alike", ("similarity",), ("decisions",),
             unless="two agents or more of which each is a base or trained from one"),
    Question("rewards", ("rewards",), ("decisions",), base=True,
             unless="the reward and training_seed of each agent"),
    Question("whether rewards differ more than training seeds", ("replicates",), ("decisions",),
             base=True, unless="two rewards or more, with the training_seed of each agent"),
    Question("patches between agents", ("patching",), ("patching",),
             unless="sites patched within the same prompt"),
    Question("whether sites belong to a label or to a move", ("label",), ("patching",),
             unless="every scenario with the labels both ways round"),
    Question("changes of attribution", ("attribution",), ("attribution",), base=True,
             unless="the base's attribution on the same prompts"),
    Question("how far apart agents lie at every level", ("cascade",), ("comparisons",),
             scenarios=False, unless="agents, and tables of what they do or compute"),
    Question("whether sites that push towards an option are suppressed", ("selfish sites",),
             ("comparisons", "attribution"), base=True, unless="agents with a moral reward"),
    Question("how sites are wired", ("wiring",), ("norms",),
             unless="two agents on the same prompts"),
    Question("whether rewards wire agents differently", ("wired rewards",), ("norms",),
             unless="two rewards with several training seeds each"),
    Question("whether changed pathways carry effects", ("pathways",), ("pathways",),
             scenarios=False, unless="pathways that were patched, random ones among them"),
    Question("where agents look", ("attention",), ("attention",),
             unless="two agents on the same prompts"),
    Question("what agents use of what they look at", ("attention uses",), ("attention_edits",),
             unless="a category masked, and as many other tokens"),
    Question("what changed in the weights", ("weights",), ("update_norms",), scenarios=False,
             unless="updates of two agents or more"),
    Question("how alike changes of representations are", ("representations",),
             ("representation_pairs",), scenarios=False, unless="two trained agents of one base"),
    Question("which parts must be trained", ("targeting",), ("targeting",), scenarios=False,
             unless="parts chosen by an analysis, and others drawn at random"),
    Question("when training changes what", ("course",), ("course", "checkpoints"),
             scenarios=False, unless="several trainings"),
    Question("at which depth training acts in several models", ("depth",), ("depths",),
             scenarios=False, unless="two models"),
)  # fmt: skip
"""Every kind of claim that an audit looks for."""


def coverage_table(known: Normalised, judged: Judged) -> pl.DataFrame:
    """The ``coverage`` table of an audit."""
    rows = [
        *_files(known),
        *_readings(known),
        _row("base", "", known.has_base, known.agents_basis),
        *_without_base(known),
        _row("scenarios", "", known.prompts.prompts is not None, known.prompts.basis),
        *_questions(known, judged),
        *_failed(judged),
        *_tables_left(known),
    ]
    return from_rows("coverage", rows)


def _row(question: str, subject: str, ran: bool, sentence: str) -> Row:
    said = sentence[:1].upper() + sentence[1:]
    said = said if said.endswith(".") else f"{said}."
    return {"question": question, "subject": subject, "ran": ran, "sentence": said}


def _files(known: Normalised) -> Iterator[Row]:
    for file in known.files:
        sentence = f"read as the table {file.table} ({file.why})" if file.table else file.why
        yield _row("file", file.name, bool(file.table), sentence)


def _readings(known: Normalised) -> Iterator[Row]:
    for table, notes in known.notes.items():
        rows = f"{known.rows.get(table, 0):,} rows"
        yield _row("reading", table, True, "; ".join([rows, *notes]))


def _without_base(known: Normalised) -> Iterator[Row]:
    """Trained agents of which nobody says from which of several bases they were trained."""
    if not known.has_base:
        return
    agents = known.scan("agents").select("agent", "base", "kind").collect()
    bases = agents.filter(pl.col("kind") == "base").get_column("agent").to_list()
    lacking = agents.filter((pl.col("base") == NOT_RECORDED) & (pl.col("kind") != "policy"))
    for name in lacking.get_column("agent"):
        yield _row(
            "base", name, False,
            f"{_NOT}nothing says from which of {', '.join(bases)} it was trained, so no change of "
            "it is known; write agents: {NAME: {base: BASE}} into audit.yaml",
        )  # fmt: skip


def _questions(known: Normalised, judged: Judged) -> Iterator[Row]:
    for question in QUESTIONS:
        found = sum(judged.found.get(name, 0) for name in question.finders)
        if found:
            yield _row(question.name, "", True, f"{found} {'claim' if found == 1 else 'claims'}")
            continue
        reasons = [judged.failed.get(("claims", name)) for name in question.finders]
        why = next((reason for reason in reasons if reason), None)
        yield _row(question.name, "", False, _NOT + (why or _lacking(known, question)))
    if judged.found.get("replicates") and known.rows.get("attribution", 0) > WHOLE:
        yield _row(
            "whether rewards differ more than training seeds", "attribution", False,
            f"not available: {known.rows['attribution']:,} rows, {WHOLE:,} are judged at once; "
            "give the attribution of fewer agents or prompts in a folder of their own",
        )  # fmt: skip
    if not known.baselines:
        yield _row(
            "flips", "patching", False,
            "not available: the patches have no baseline; add baseline_log_odds, or decisions of "
            "the target agents on the same prompts",
        )  # fmt: skip


def _lacking(known: Normalised, question: Question) -> str:
    for table in question.tables:
        if table not in known.tables:
            needs = needs_of(table)
            return f"it needs the table {table} ({needs}), which comes from {_source(table)}"
        if table not in IN_PARTS and known.rows[table] > WHOLE:
            return f"the table {table} has {known.rows[table]:,} rows, {WHOLE:,} are judged"
    if question.scenarios and known.prompts.prompts is None:
        return known.prompts.basis.removeprefix(_NOT)
    if question.base and not known.has_base:
        return known.agents_basis.removeprefix(_NOT)
    return f"it needs {question.unless}"


def _failed(judged: Judged) -> Iterator[Row]:
    """What could not be judged, but for the questions that say so themselves."""
    for (what, subject), why in judged.failed.items():
        if what != "claims" or subject not in FINDERS:
            yield _row(what, subject, False, _NOT + why)


def _source(table: str) -> str:
    return layout_of(table).source


def _tables_left(known: Normalised) -> Iterator[Row]:
    for table in known.tables:
        if table not in IN_PARTS and known.rows[table] > WHOLE:
            yield _row(
                "judging", table, False,
                f"not available: {known.rows[table]:,} rows, and at most {WHOLE:,} are judged at "
                "once; give the agents of a comparison in a folder of their own",
            )  # fmt: skip
