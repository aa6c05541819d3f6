"""The verbs that take finished results: audit, claims, calibrate, report, verify, diff.

As in ``cli.main``, what a command needs is imported when it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def _multiply_in_one_thread() -> None:
    """Before numpy is imported: tests multiply thousands of small matrices.

    Sharing each of them among threads takes several times as long on a machine that is busy. What
    the user set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def audit(
    tables: Annotated[
        Path, Parameter(help="A folder of result tables from any tool, CSV or Parquet.")
    ],
    /,
    *,
    settings: Annotated[
        Path | None, Parameter(help="Roles and hypotheses; TABLES/audit.yaml unless given.")
    ] = None,
    alpha: Annotated[float, Parameter(help="Level of every corrected test.")] = 0.05,
    seed: Annotated[int, Parameter(help="Of the randomisation tests.")] = 0,
    out: Annotated[
        Path | None, Parameter(help="Where the results go; runs/audit-NAME by default.")
    ] = None,
) -> int:
    """Say which claims of existing result tables stand: gates, corrected tests, verdicts."""
    _multiply_in_one_thread()
    from moralscope.cli.auditing import audit_tables  # noqa: PLC0415

    return audit_tables(tables, settings, out, alpha=alpha, seed=seed)


def claims(
    run: Annotated[Path, Parameter(help="The folder of a finished run or audit.")],
    /,
    *,
    explain: Annotated[
        str | None, Parameter(help="Walk from this claim down to the rows it rests on.")
    ] = None,
    verdict: Annotated[str | None, Parameter(help="List only claims with this verdict.")] = None,
) -> int:
    """List the claims of a run with their verdicts, or explain one of them."""
    from moralscope.cli.claiming import show_claims  # noqa: PLC0415

    return show_claims(run, explain=explain, verdict=verdict)


def calibrate(
    *,
    runs: Annotated[
        int | None, Parameter(help="Simulated studies per condition; 2000 by default.")
    ] = None,
    tests: Annotated[
        str | None, Parameter(help="Which tests, joined by commas; all by default.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of everything that is simulated.")] = 0,
    out: Annotated[Path, Parameter(help="Where the results go.")] = Path("runs/calibration"),
) -> int:
    """Print error rates, coverage and power of every test in use, by simulation."""
    _multiply_in_one_thread()
    from moralscope.cli.calibrating import calibrate_tests  # noqa: PLC0415

    return calibrate_tests(out, runs=runs, tests=tests, seed=seed)


def report(
    run: Annotated[Path, Parameter(help="The folder of a finished run.")],
    /,
    *,
    exports: Annotated[
        bool, Parameter(help="Whether every table is written as CSV into exports/ too.")
    ] = True,
) -> int:
    """Write the report of a run again from its tables."""
    from moralscope.cli.reporting import write_report  # noqa: PLC0415

    return write_report(run, exports=exports)


def verify(
    run: Annotated[Path, Parameter(help="The folder of a finished run.")],
    /,
    *,
    against: Annotated[
        str | None,
        Parameter(help="The run's seal as it was written down elsewhere, or how it begins."),
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder outside the run for verify.json; none by default.")
    ] = None,
) -> int:
    """Recompute hashes, completeness, numbers and claims of a run; fail on any tampering."""
    _multiply_in_one_thread()
    from moralscope.cli.verifying import show_verification  # noqa: PLC0415

    return show_verification(run, against=against, out=out)


def diff(
    first: Annotated[Path, Parameter(help="The folder of a finished run or audit.")],
    second: Annotated[Path, Parameter(help="Another, such as a newer one of the same study.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Folder for a page and its JSON; none by default.")
    ] = None,
) -> int:
    """Say what differs between two runs: settings, claims, every row of every table."""
    from moralscope.cli.differing import show_difference  # noqa: PLC0415

    return show_difference(first, second, out=out)


VERBS: tuple[Callable[..., int], ...] = (audit, claims, calibrate, report, verify, diff)
"""In the order of the help."""
