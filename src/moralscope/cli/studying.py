"""Run a study, or say what running it would take: the commands ``demo`` and ``run``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from moralscope.cli.drawing import draw_estimate, say
from moralscope.cli.progress import drawn
from moralscope.cli.reporting import write_report
from moralscope.cli.words import counted, duration
from moralscope.core.files import require_writable
from moralscope.studies import Study, demo_study, estimate_study, read_study, run_study
from moralscope.studies.doctor import require_model_stack


def run_demo(out: Path) -> int:
    """The main job on the small default model.

    Args:
        out: the run directory.
    """
    require_model_stack()
    return _run(demo_study(), out, engine="local")


def run_file(path: Path, out: Path | None, *, engine: str, dry_run: bool) -> int:
    """A study from its file.

    Args:
        path: the study file.
        out: the run directory; ``runs/`` and the file's name by default.
        engine: where stages are computed.
        dry_run: draw the estimate and compute nothing.
    """
    study = read_study(path)
    require_model_stack()
    return run_composed(study, out or Path("runs") / path.stem, engine=engine, dry_run=dry_run)


def run_composed(study: Study, folder: Path, *, engine: str = "local", dry_run: bool) -> int:
    """A study in memory.

    Args:
        study: what to run.
        folder: the run directory.
        engine: where stages are computed.
        dry_run: draw the estimate and compute nothing.
    """
    if not dry_run:
        return _run(study, folder, engine=engine)
    console = Console()
    draw_estimate(console, estimate_study(study, folder))
    say(console, f"The run would be in {folder}", "bold")
    return 0


def _run(study: Study, out: Path, *, engine: str) -> int:
    require_writable(out)
    with drawn(Console(stderr=True)) as progress:
        summary = run_study(study, out, engine=engine, progress=progress)
    console = Console()
    reused = f"{summary.cached} of them cached" if summary.cached else "none of them cached"
    took = f"{counted(summary.stages, 'stage')}, {reused}, in {duration(summary.seconds)}"
    say(console, f"Run: {summary.out} ({took})")
    return write_report(summary.out)
