"""Write the report of a run: page, twin, claims and figures.

1. Read the run. 2. Assemble what the report says and draw its figures. 3. Render page and twin,
all in memory. 4. Write: figures as one folder, then ``claims.json``, ``report.json`` and last
``report.html``, each whole or not at all. Whatever fails in steps 1 to 3 leaves an earlier
report untouched.
"""

from __future__ import annotations

from pathlib import Path

from moralscope.core.files import (
    atomic_folder,
    remove_leftovers,
    write_bytes,
    write_json,
    write_text,
)
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.sealing import seal_report
from moralscope.reports.content import Content, Drawn, assemble
from moralscope.reports.page import render_page
from moralscope.reports.run import read_run
from moralscope.reports.twin import twin


def build_report(run: Path, progress: Progress = silent) -> Path:
    """Make the report of a run directory.

    Args:
        run: a folder with ``tables/``, and, where the run has them, ``manifest.json``,
            ``study.yaml`` and ``agents/``. What is missing is named in the report.
        progress: told of each figure.

    Returns:
        The path of ``report.html``. Beside it: ``report.json``, ``claims.json`` and
        ``figures/NAME.json|svg|png|pdf``, and ``report-files.json`` with the hashes of all that
        was written. The same run gives the same bytes.

    Raises:
        ConfigError: the folder is not a run, or its manifest is not one.
        TableError: a table is damaged or does not follow its schema.
        OutputError: the folder cannot be written.
    """
    content = assemble(read_run(run), progress)
    total = len(content.figures) + 1
    progress(ProgressEvent("report", total - 1, total, "page"))
    page, machine = render_page(content), twin(content)
    _write_figures(run / "figures", content)
    if "claims" in content.run.tables:
        write_json(run / "claims.json", content.run.tables["claims"].to_dicts())
    write_json(run / "report.json", machine)
    report = run / "report.html"
    write_text(report, page)
    remove_leftovers(run)
    seal_report(run)
    progress(ProgressEvent("report", total, total, report.name))
    return report


def _write_figures(folder: Path, content: Content) -> None:
    with atomic_folder(folder) as fresh:
        for entry in content.figures:
            if isinstance(entry, Drawn):
                name, picture = entry.figure.name, entry.picture
                write_text(fresh / f"{name}.json", picture.spec)
                write_text(fresh / f"{name}.svg", picture.svg)
                write_bytes(fresh / f"{name}.png", picture.png)
                write_bytes(fresh / f"{name}.pdf", picture.pdf)
