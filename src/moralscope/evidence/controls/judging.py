"""What do the tests find where the truth is known? Every control that the tables allow.

Two kinds need nothing but the tables that claims are made from, so that they run on tables from
anywhere: *shuffled* labels, in which nothing may be found, and *planted* effects, which must be.
The others are read from tables that a study measures for them: the base against itself
(*numerical*), *random directions* and *planted writes* beside patches, *random sites* beside
circuits. A control that cannot be judged says so and is never counted as passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.controls.families import families
from moralscope.evidence.controls.numerical import judge_numerical
from moralscope.evidence.controls.patches import judge_patches
from moralscope.evidence.controls.planted import judge_planted
from moralscope.evidence.controls.result import Result
from moralscope.evidence.controls.shuffled import judge_shuffled
from moralscope.evidence.ledger import Setting
from moralscope.evidence.units import checked


def judge_controls(
    tables: Mapping[str, pl.DataFrame],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    draws: int = 9_999,
) -> pl.DataFrame:
    """The table ``control_results``.

    Args:
        tables: result tables by name, any subset of the documented ones.
        alpha: level of the tests that are controlled.
        seed: of the draws; equal seeds give equal results.
        draws: of the tests of the study; the controls use fewer where families are wide.

    Raises:
        TableError: a table does not follow its schema, or agents that are compared were measured
            on different prompts or sites.
    """
    setting = Setting(checked(tables), {}, alpha, seed, draws, None)
    return from_rows("control_results", [result.row() for result in _results(setting)])


def _results(setting: Setting) -> Iterator[Result]:
    yield from judge_numerical(setting)
    for family in families(setting):
        yield judge_shuffled(setting, family)
        yield judge_planted(setting, family)
    yield from judge_patches(setting)
