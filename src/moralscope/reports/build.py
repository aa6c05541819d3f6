"""Write the report of a run: pages, twin, claims, figures and exports.

1. Read the run. 2. Assemble what the report says and draw its figures. 3. Render pages and twin,
all in memory. 4. Write: figures and exports as one folder each, then the pages behind the first
one as a folder, ``claims.json``, ``report.json`` and ``report.html``, each whole or not at all,
and last the hashes of all of them. Whatever fails in steps 1 to 3 leaves an earlier report
untouched.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
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
from moralscope.reports.export import INDEX, index_of
from moralscope.reports.exports import planned, write_exports
from moralscope.reports.methods_files import methods_files
from moralscope.reports.page import render_pages
from moralscope.reports.pages import FOLDER
from moralscope.reports.run import read_run
from moralscope.reports.twin import twin

FRONT = "report.html"


def build_report(run: Path, progress: Progress = silent, *, exports: bool = True) -> Path:
    """Make the report of a run directory.

    Args:
        run: a folder with ``tables/``, and, where the run has them, ``manifest.json``,
            ``study.yaml`` and ``agents/``. What is missing is named in the report.
        progress: told of each figure.
        exports: whether tables are written as CSV too; without, an earlier ``exports/`` stays as
            it is and the report does not link to it.

    Returns:
        The path of ``report.html``. Beside it: ``report/`` with a page per analysis,
        ``methods.md``, ``limitations.md`` and ``references.bib``, ``report.json``,
        ``claims.json``, ``figures/NAME.json|svg|png|pdf``, ``exports/`` and
        ``report-files.json`` with the hash of each. The same run gives the same bytes.

    Raises:
        ConfigError: the folder is not a run, or its manifest is not one.
        TableError: a table is damaged or does not follow its schema.
        OutputError: the folder cannot be written.
    """
    content = assemble(read_run(run), progress)
    if exports:
        content = dataclasses.replace(content, exports=planned(content.run))
    total = len(content.figures) + 1
    progress(ProgressEvent("report", total - 1, total, "pages"))
    pages, machine = render_pages(content), twin(content)
    _write_figures(run / "figures", content)
    if exports:
        with atomic_folder(run / "exports") as fresh:
            write_exports(content.run, fresh)
    _write_pages(run / FOLDER, {**pages, **_files(content)})
    if "claims" in content.run.tables:
        write_json(run / "claims.json", content.run.tables["claims"].to_dicts())
    write_json(run / "report.json", machine)
    report = run / FRONT
    write_text(report, pages[FRONT])
    remove_leftovers(run)
    seal_report(run)
    progress(ProgressEvent("report", total, total, report.name))
    return report


def _files(content: Content) -> dict[str, str]:
    return {f"{FOLDER}/{name}": text for name, text in methods_files(content).items()}


def _write_pages(folder: Path, texts: Mapping[str, str]) -> None:
    with atomic_folder(folder) as fresh:
        for path, text in texts.items():
            if path.startswith(f"{FOLDER}/"):
                write_text(fresh / path.removeprefix(f"{FOLDER}/"), text)


def _write_figures(folder: Path, content: Content) -> None:
    hashes: dict[str, dict[str, str]] = {}
    with atomic_folder(folder) as fresh:
        for entry in content.figures:
            if isinstance(entry, Drawn):
                name = entry.figure.name
                files = entry.picture.files()
                for ending, data in files.items():
                    write_bytes(fresh / f"{name}.{ending}", data)
                hashes[name] = {e: hashlib.sha256(d).hexdigest() for e, d in files.items()}
        write_text(fresh / INDEX, index_of(hashes))
