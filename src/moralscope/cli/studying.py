"""Run a study, or say what running it would take: the commands ``demo`` and ``run``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from moralscope.cli.drawing import draw_estimate, say
from moralscope.cli.progress import drawn
from moralscope.cli.reporting import write_report
from moralscope.cli.words import counted, duration
from moralscope.core.sealing import MANIFEST, SEAL
from moralscope.studies import Study, demo_study, estimate_study, read_study
from moralscope.studies.doctor import require_model_stack
from moralscope.studies.series import MEMBERS, Series, is_series, read_series, run_series

DONE, PARTIAL = 0, 3
"""Exit codes: everything is there; some stages failed and all else is there."""


def run_demo(out: Path, *, engine: str = "local", wait: bool = True) -> int:
    """The main job on the small default model.

    Args:
        out: the run directory.
        engine: where stages are computed.
        wait: wait for another run in the same directory.
    """
    require_model_stack()
    return _run(demo_study(), out, engine=engine, wait=wait)


def run_file(
    path: Path,
    out: Path | None,
    *,
    engine: str = "local",
    preset: str | None = None,
    changes: Sequence[str] = (),
    wait: bool = True,
    dry_run: bool = False,
) -> int:
    """A study from its file.

    Args:
        path: the study file.
        out: the run directory; ``runs/`` and the file's name by default.
        engine: where stages are computed.
        preset: supplies what the file leaves out, in place of the file's own preset.
        changes: keys of the file that are set anew, ``KEY=VALUE``.
        wait: wait for another run in the same directory.
        dry_run: draw the estimate and compute nothing.
    """
    chosen = () if preset is None else (f"preset={preset}",)
    folder = out or Path("runs") / path.stem
    if is_series(path):
        require_model_stack()
        wanted = read_series(path, (*chosen, *changes))
        return _run_members(*wanted, folder, engine=engine, wait=wait, dry_run=dry_run)
    study = read_study(path, (*chosen, *changes))
    require_model_stack()
    return run_composed(study, folder, engine=engine, wait=wait, dry_run=dry_run)


def run_composed(
    study: Study, folder: Path, *, engine: str = "local", wait: bool = True, dry_run: bool
) -> int:
    """A study in memory.

    Args:
        study: what to run.
        folder: the run directory.
        engine: where stages are computed.
        wait: wait for another run in the same directory.
        dry_run: draw the estimate and compute nothing.
    """
    if not dry_run:
        return _run(study, folder, engine=engine, wait=wait)
    from moralscope.studies.engines.kinds import engine_of, threads_set  # noqa: PLC0415

    console = Console()
    with threads_set(engine_of(engine)):
        draw_estimate(console, estimate_study(study, folder))
    say(console, f"The run would be in {folder}", "bold")
    return DONE


def _run_members(
    series: Series,
    studies: Mapping[str, Study],
    out: Path,
    *,
    engine: str,
    wait: bool,
    dry_run: bool,
) -> int:
    """Every member of a series, and what compares them."""
    if dry_run:
        for name, study in studies.items():
            say(Console(), f"Member {name}:", "bold")
            run_composed(study, out / MEMBERS / name, dry_run=True, engine=engine)
        return DONE

    def run_one(study: Study, folder: Path) -> bool:
        say(Console(), f"Member {folder.name}:", "bold")
        return _run(study, folder, engine=engine, wait=wait) == DONE

    failed = run_series(series, studies, out, run_one)
    for sentence in failed:
        say(Console(stderr=True), f"Failed: {sentence}", "bold red")
    say(Console(), f"Series: {out}", "bold")
    return write_report(out) or (PARTIAL if failed else DONE)


def _run(study: Study, out: Path, *, engine: str, wait: bool) -> int:
    from moralscope.studies.occupying import occupied  # noqa: PLC0415 -- needs the model stack
    from moralscope.studies.runner import require_engine, run_occupied  # noqa: PLC0415

    require_engine(engine)
    with contextlib.ExitStack() as stack:
        with drawn(Console(stderr=True)) as progress:
            stack.enter_context(occupied(out, wait=wait, progress=progress))
            summary = run_occupied(study, out, engine=engine, progress=progress)
        console = Console()
        reused = f"{summary.cached} of them cached" if summary.cached else "none of them cached"
        took = f"{counted(summary.stages, 'stage')}, {reused}, in {duration(summary.seconds)}"
        for notice in summary.notices:
            say(console, notice)
        seal = json.loads((summary.out / MANIFEST).read_text(encoding="utf-8"))[SEAL]
        say(console, f"Seal: {seal[:16]}, for moralscope verify --against")
        say(console, f"Run: {summary.out} ({took})")
        code = write_report(summary.out)
    return code or _tell_failed([(m.name, m.why, m.skipped) for m in summary.failed])


def _tell_failed(failed: Iterable[tuple[str, str, str | None]]) -> int:
    """Say which stages are missing and why; returns the exit code."""
    console = Console(stderr=True)
    missing = list(failed)
    for name, why, skipped in missing:
        if skipped is None:
            rest = [other for other, _, cause in missing if cause == name]
            after = f" Not tried without it: {', '.join(rest)}." if rest else ""
            say(console, f"Failed: {name}. {why}.{after}", "bold red")
    if missing:
        say(
            console,
            f"{counted(len(missing), 'stage')} missing, everything else is there; the same "
            "command tries again. See logs/failures.json.",
        )
    return PARTIAL if missing else DONE
