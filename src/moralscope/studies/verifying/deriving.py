"""Do the tables that are made from other tables come out the same? Behaviour, computed once more.

Policies, cooperation, the controls of *label, layout, order or move* and what evaluations make of
decisions are functions of other tables and of the study. They are computed again and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.behaviour.learning.learned import learned_table
from moralscope.behaviour.learning.training_sets import TrainedOn
from moralscope.behaviour.learning.transfer import transfer_table
from moralscope.behaviour.learning.transfer_states import transfer_states_table
from moralscope.behaviour.policies import cooperation_table, policy_table
from moralscope.behaviour.speaking.agreement import agreement_table
from moralscope.behaviour.varying.contrasts import contrasts_table
from moralscope.behaviour.varying.generalisation import generalisation_table
from moralscope.behaviour.varying.nearest import nearest_table
from moralscope.behaviour.varying.robustness import robustness_table
from moralscope.behaviour.varying.similarity import similarity_table
from moralscope.behaviour.varying.variance import variance_table
from moralscope.core.comparing import compare_tables
from moralscope.core.errors import MoralscopeError
from moralscope.studies.study import Study
from moralscope.studies.verifying.check import NUMBERS, Check, table_file
from moralscope.studies.verifying.opening import Opened

AGREES = 1e-9
"""Relative to the larger of 1 and the number."""

Tables = Mapping[str, pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Derived:
    """A table that follows from others.

    Attributes:
        table: its name.
        needs: what it is made from.
        make: makes it again.
    """

    table: str
    needs: tuple[str, ...]
    make: Callable[[Tables, Study], pl.DataFrame]


def derived_checks(run: Opened) -> Iterator[Check]:
    """Every derived table that is there, compared with itself made again."""
    study = run.study
    if study is None:
        return
    for derived in DERIVED:
        if derived.table not in run.tables:
            continue
        lacking = [name for name in derived.needs if name not in run.tables]
        what = f"it follows from {' and '.join(derived.needs)}"
        if lacking:
            found = f"the table {lacking[0]} is not there, or is damaged"
            yield Check(NUMBERS, table_file(derived.table), what, passed=None, found=found)
            continue
        yield remade(run, derived.table, what, lambda d=derived: d.make(run.tables, study))


def remade(
    run: Opened, name: str, what: str, make: Callable[[], pl.DataFrame], part: str = NUMBERS
) -> Check:
    """A table of a run, compared with itself made again.

    Other software may count otherwise, and nobody could tell that from an edit; so where the run
    was made by another version, a difference is told and fails nothing. The hashes still do.
    """
    subject = table_file(name)
    try:
        anew = make()
    except MoralscopeError as error:
        found = f"it cannot be made from these tables: {error.problem}: {error.seen}"
        wrong = False if run.same_software else None
        return Check(part, subject, what, wrong, found.partition("\n")[0])
    difference = compare_tables(name, run.tables[name], anew, tolerance=AGREES)
    if difference.equal:
        return Check(part, subject, what, passed=True)
    found = f"{difference.sentence()} (stored, and made again)"
    if run.same_software:
        return Check(part, subject, what, passed=False, found=found)
    made = (run.manifest or {}).get("moralscope", "unknown")
    found = f"made by other software (moralscope {made}); here {found}"
    return Check(part, subject, what, passed=None, found=found)


def _trained_on(tables: Tables) -> dict[str, TrainedOn]:
    def words(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    return {
        row["agent"]: TrainedOn(
            families=words(row["families"]),
            templates=words(row["templates"]),
            labels=words(row["labels"]),
            table_orders=words(row["table_orders"]),
            games=words(row["games"]),
            known=row["known"],
        )
        for row in tables["trained_on"].iter_rows(named=True)
    }


def _transfer(tables: Tables, study: Study) -> pl.DataFrame:
    del study
    told = (tables["prompts"], tables["decisions"], tables["agents"])
    return transfer_table(*told, _trained_on(tables))


def _transfer_states(tables: Tables, study: Study) -> pl.DataFrame:
    del study
    told = (tables["prompts"], tables["decisions"], tables["agents"])
    return transfer_states_table(*told, _trained_on(tables))


def _robustness(tables: Tables, study: Study) -> pl.DataFrame:
    labels = "/".join(study.prompts.words)
    return robustness_table(tables["prompts"], tables["decisions"], labels=labels)


def _variance(tables: Tables, study: Study) -> pl.DataFrame:
    decisions = tables["decisions"]
    holes = decisions.filter(pl.col("p_positive_given_legal").is_null()).get_column("agent")
    whole = decisions.filter(~pl.col("agent").is_in(holes.unique().to_list()))
    return variance_table(tables["prompts"], whole, labels="/".join(study.prompts.words))


def _similarity(tables: Tables, study: Study) -> pl.DataFrame:
    margin = study.evaluation.margin
    return similarity_table(tables["prompts"], tables["decisions"], margin=margin)


_ASKED = ("prompts", "decisions")
DERIVED = (
    Derived("policy", _ASKED, lambda t, _: policy_table(t["prompts"], t["decisions"])),
    Derived("cooperation", _ASKED, lambda t, _: cooperation_table(t["prompts"], t["decisions"])),
    Derived("transfer", (*_ASKED, "agents", "trained_on"), _transfer),
    Derived("transfer_states", (*_ASKED, "agents", "trained_on"), _transfer_states),
    Derived(
        "learned", ("transfer", "transfer_states"),
        lambda t, _: learned_table(t["transfer"], t["transfer_states"]),
    ),
    Derived(
        "generalisation", (*_ASKED, "agents"),
        lambda t, _: generalisation_table(t["prompts"], t["decisions"], t["agents"]),
    ),
    Derived(
        "contrasts", (*_ASKED, "agents"),
        lambda t, _: contrasts_table(t["prompts"], t["decisions"], t["agents"]),
    ),
    Derived("nearest", _ASKED, lambda t, _: nearest_table(t["prompts"], t["decisions"])),
    Derived("robustness", _ASKED, _robustness),
    Derived("variance", _ASKED, _variance),
    Derived("similarity", _ASKED, _similarity),
    Derived(
        "metric_agreement", (*_ASKED, "answers"),
        lambda t, _: agreement_table(t["prompts"], t["decisions"], t["answers"]),
    ),
)  # fmt: skip
"""What is made again, each table after those that it needs."""
