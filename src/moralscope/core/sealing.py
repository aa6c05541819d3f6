"""Is this the run that was written? Hashes of its files, and one seal over all of them.

    files   path inside the run -> SHA-256 of its bytes
    seal    SHA-256 of the manifest, files included, without the seal itself

The manifest lists what a run computed, ``report-files.json`` the pages, figures and exports that
were made from it later; each has its seal. Whoever edits a file has to edit its hash, and then the
seal. That finds accidents and careless edits. It does not find somebody who seals again: only a
seal that was written down elsewhere (in a paper, in a message) does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from moralscope.core.files import write_json
from moralscope.core.hashing import sha256_file, sha256_value

MANIFEST = "manifest.json"
REPORT_FILES = "report-files.json"
"""The hashes of what was made from a run: pages, figures, exports."""

SEAL = "seal"
MADE_LATER = ("report.html", "report.json", "report", "figures", "exports", "methods.md",
              "references.bib", "limitations.md")  # fmt: skip
"""What reports write into a run, at its root."""

UNSEALED = ("explained",)
"""What may be added to a run at any time: claims that were walked through."""

MEMBERS = "members"
"""Where a series keeps its members, runs with seals of their own; it lists their manifests."""


def seal_of(record: Mapping[str, object]) -> str:
    """SHA-256 over a record in canonical form, its seal left out."""
    return sha256_value({key: value for key, value in record.items() if key != SEAL})


def sealed(record: Mapping[str, object]) -> dict[str, object]:
    """The record with its seal."""
    return {**record, SEAL: seal_of(record)}


def canonical(record: object) -> str:
    """The text that a record has on disk, to the last byte."""
    return json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"


def result_files(run: Path) -> dict[str, str]:
    """SHA-256 of every file that a run computed, by its path inside the run.

    Args:
        run: the run folder. Its manifest, hidden files, what reports add and explained claims are
            left out.
    """
    others = {MANIFEST, REPORT_FILES, *MADE_LATER, *UNSEALED}
    return {name: sha256_file(run / name) for name in _names(run) if _root(name) not in others}


def report_files(run: Path) -> dict[str, str]:
    """SHA-256 of every file that reports have added to a run, by its path inside the run."""
    return {name: sha256_file(run / name) for name in _names(run) if _root(name) in MADE_LATER}


def sealed_manifest(manifest: Mapping[str, object], run: Path) -> dict[str, object]:
    """The manifest with the hashes of the run's files and its seal, to be written last."""
    return sealed({**manifest, "files": result_files(run)})


def seal_report(run: Path) -> None:
    """Write ``report-files.json``, to be called when everything else of a report is written.

    Args:
        run: the run folder, with its manifest where it has one.

    Raises:
        OutputError: it cannot be written.
    """
    manifest = run / MANIFEST
    made_from = sha256_file(manifest) if manifest.is_file() else None
    write_json(
        run / REPORT_FILES, sealed({"manifest_sha256": made_from, "files": report_files(run)})
    )


def unlisted_files(run: Path, listed: Mapping[str, object]) -> tuple[str, ...]:
    """Files of a run that are in none of its lists, hidden ones and explained claims left out."""
    free = {MANIFEST, REPORT_FILES, *UNSEALED}
    return tuple(n for n in _names(run) if n not in listed and _root(n) not in free)


def _names(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        parts = path.relative_to(run).parts
        hidden = any(part.startswith(".") for part in parts)
        within = parts[0] == MEMBERS and len(parts) > 2 and parts[2:] != (MANIFEST,)
        if path.is_file() and not hidden and not within:
            yield "/".join(parts)


def _root(name: str) -> str:
    return name.partition("/")[0]
