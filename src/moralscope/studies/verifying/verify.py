"""Is this run what it says it is? Files, completeness, numbers and claims, in this order.

Nothing is written into the run, and no model is asked: everything is recomputed from its tables.
"""

from __future__ import annotations

from pathlib import Path

from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.sealing import SEAL
from moralscope.studies.verifying.check import PARTS, Check, Verification
from moralscope.studies.verifying.completeness import completeness_checks
from moralscope.studies.verifying.deriving import derived_checks
from moralscope.studies.verifying.files import check_seal, file_checks
from moralscope.studies.verifying.judging import claim_checks
from moralscope.studies.verifying.numbers import number_checks
from moralscope.studies.verifying.opening import open_run
from moralscope.studies.verifying.series import series_checks


def verify_run(
    path: Path, *, against: str | None = None, progress: Progress = silent
) -> Verification:
    """Verify a run.

    Args:
        path: the run folder.
        against: a seal that was written down elsewhere, or its first 16 digits or more.
        progress: told of each part.

    Returns:
        Every check; ``passed`` where none failed. What cannot be verified (a stage that failed
        when the study was run, a table made by other software) is told and fails nothing.

    Raises:
        ConfigError: the folder is no run of a study, or ``against`` is no seal.
    """
    seal = None if against is None else check_seal(against)
    total = len(PARTS) + 1
    progress(ProgressEvent("verify", 0, total, "tables"))
    run, found = open_run(path)
    parts = (
        lambda: file_checks(run, seal),
        lambda: completeness_checks(run),
        lambda: [*number_checks(run), *derived_checks(run)],
        lambda: [*claim_checks(run), *(series_checks(run, verify_run) if run.series else ())],
    )
    checks: list[Check] = [*found]
    for number, (name, part) in enumerate(zip(PARTS, parts, strict=True), start=1):
        progress(ProgressEvent("verify", number, total, name))
        checks += part()
    progress(ProgressEvent("verify", total, total, "done"))
    made = (run.manifest or {}).get(SEAL)
    ordered = sorted(checks, key=lambda check: PARTS.index(check.part))
    return Verification(str(path), made if isinstance(made, str) else None, tuple(ordered))
