"""Is a series of runs what it says it is? What compares its members, and each member by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from moralscope.core.documents import read_yaml
from moralscope.core.errors import MoralscopeError
from moralscope.core.sealing import MEMBERS
from moralscope.evidence.claims import make_claims
from moralscope.studies.verifying.check import CLAIMS, WHOLE, Check, Verification
from moralscope.studies.verifying.deriving import remade
from moralscope.studies.verifying.opening import STUDY, Opened


def series_checks(run: Opened, verify: Callable[[Path], Verification]) -> Iterator[Check]:
    """The claims of a series, and everything about its members.

    Args:
        run: the series.
        verify: verifies one member.
    """
    yield from _claims(run)
    for name in map(str, run.listed("members")):
        subject = f"{MEMBERS}/{name}"
        if name in run.failed:
            what = "the member was run"
            yield Check(WHOLE, subject, what, passed=None, found=run.failed[name])
            continue
        try:
            found = verify(run.path / MEMBERS / name)
        except MoralscopeError as error:
            yield Check(WHOLE, subject, "the member is a run", passed=False, found=error.problem)
            continue
        for check in found.checks:
            yield replace(check, subject=f"{subject}/{check.subject}")


def _claims(run: Opened) -> Iterator[Check]:
    if "claims" not in run.tables or run.damaged:
        return
    try:
        settings = read_yaml(run.path / STUDY)
    except MoralscopeError as error:
        what = "the series file can be read"
        yield Check(CLAIMS, STUDY, what, passed=False, found=error.problem)
        return
    tables = {name: table for name, table in run.tables.items() if name != "claims"}
    alpha, seed = float(str(settings.get("alpha", 0.05))), int(str(settings.get("seed", 0)))
    what = "it follows from the tables"
    yield remade(run, "claims", what, lambda: make_claims(tables, alpha=alpha, seed=seed), CLAIMS)
