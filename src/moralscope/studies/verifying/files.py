"""Are these the files that were written? Hashes, the seal over them, nothing missing, nothing new.

    hash(file) = manifest.files[file]       seal = SHA-256(manifest without seal)

and the same for what reports added, by their own list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from moralscope.core.errors import ConfigError
from moralscope.core.hashing import sha256_file
from moralscope.core.sealing import (
    MADE_LATER,
    MANIFEST,
    REPORT_FILES,
    SEAL,
    canonical,
    seal_of,
    unlisted_files,
)
from moralscope.studies.verifying.check import FILES, Check, holds, table_file
from moralscope.studies.verifying.opening import STUDY, Opened

SHORTEST = 16
"""Fewest digits of a seal that was written down elsewhere."""


def check_seal(against: str) -> str:
    """A seal as somebody gives it, in small letters.

    Raises:
        ConfigError: it is not the beginning of one.
    """
    given = against.strip().lower()
    digits = all(letter in "0123456789abcdef" for letter in given)
    if not digits or not SHORTEST <= len(given) <= 64:
        raise ConfigError(
            "This is not a seal",
            seen=against,
            allowed=f"{SHORTEST} to 64 hexadecimal digits, the beginning of a seal",
            remedy="give the seal that was printed when the run ended",
        )
    return given


def file_checks(run: Opened, against: str | None = None) -> list[Check]:
    """Every file of a run, its manifest and the list of its report's files.

    Args:
        run: the run.
        against: the seal that its manifest should have, as ``check_seal`` returns it.
    """
    manifest, checks = _record(run.path, MANIFEST)
    seal = manifest.get(SEAL)
    if against is not None:
        same = isinstance(seal, str) and seal.startswith(against)
        what = "the seal is the one that was written down elsewhere"
        checks += holds(FILES, MANIFEST, what, same, f"{against} was given, here is {seal}")
    listed = _files_of(manifest)
    checks += _hashes(run.path, listed)
    checks += _repeated(run, listed)
    added: Mapping[str, object] = {}
    if any((run.path / name).exists() for name in (REPORT_FILES, *MADE_LATER)):
        record, more = _record(run.path, REPORT_FILES)
        added = _files_of(record)
        checks += [*more, *_hashes(run.path, added)]
        if record and manifest:
            same = record.get("manifest_sha256") == sha256_file(run.path / MANIFEST)
            what = "the report was made from this manifest"
            checks += holds(FILES, REPORT_FILES, what, same, "it was made from another one")
    if listed:  # an old manifest lists tables alone, and says so by having no seal
        checks += _unlisted(run.path, {**listed, **added})
    return checks


def _record(run: Path, name: str) -> tuple[Mapping[str, object], list[Check]]:
    """A list of files with its seal, and how that stands."""
    what = "the list of files is there, and is as it was sealed"
    again = "moralscope run STUDY" if name == MANIFEST else "moralscope report RUN"
    remedy = f"{again} writes it anew"

    def wrong(found: str) -> tuple[Mapping[str, object], list[Check]]:
        return {}, [Check(FILES, name, what, passed=False, found=found)]

    path = run / name
    if not path.is_file():
        return wrong(f"the file is missing; {remedy}")
    try:
        text = path.read_bytes().decode()
        value: object = json.loads(text)
    except ValueError as cause:
        return wrong(f"it is not JSON ({cause})")
    if not isinstance(value, dict):
        return wrong("it is not an object")
    record = cast("dict[str, object]", value)
    seal = record.get(SEAL)
    if seal is None:
        found = f"it has no seal, so that nothing says what it was; {remedy}"
    elif seal != seal_of(record):
        found = "its content does not give its seal: it was edited"
    elif text != canonical(record):
        found = "its content gives its seal, its bytes are not those that were written"
    else:
        return record, [Check(FILES, name, what, passed=True)]
    return record, [Check(FILES, name, what, passed=False, found=found)]


def _files_of(record: Mapping[str, object]) -> Mapping[str, object]:
    files = record.get("files")
    return cast("dict[str, object]", files) if isinstance(files, dict) else {}


def _hashes(run: Path, listed: Mapping[str, object]) -> Iterator[Check]:
    what = "the file has the bytes that were written"
    for name, digest in listed.items():
        path = run / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            yield Check(FILES, name, what, passed=False, found="it lies outside the run")
        elif not path.is_file():
            yield Check(FILES, name, what, passed=False, found="the file is missing")
        else:
            same = sha256_file(path) == digest
            yield from holds(FILES, name, what, same, "its bytes have changed")


def _repeated(run: Opened, listed: Mapping[str, object]) -> Iterator[Check]:
    """What the manifest says of single files beside its list."""
    manifest = run.manifest or {}
    study = run.path / STUDY
    if "study_sha256" in manifest and study.is_file():
        same = sha256_file(study) == manifest["study_sha256"]
        what = "the study is the one that was run"
        yield from holds(FILES, STUDY, what, same, "its bytes have changed")
    tables = manifest.get("tables")
    for name, told in cast("dict[str, object]", tables if isinstance(tables, dict) else {}).items():
        entry = cast("dict[str, object]", told) if isinstance(told, dict) else {}
        path = run.path / table_file(name)
        if not path.is_file():
            if table_file(name) not in listed:
                found = "the file is missing"
                yield Check(
                    FILES, table_file(name), "the table is there", passed=False, found=found
                )
            continue
        if table_file(name) not in listed:
            what = "the file has the bytes that were written"
            same = sha256_file(path) == entry.get("sha256")
            yield from holds(FILES, table_file(name), what, same, "its bytes have changed")
        if name in run.tables:
            rows, height = entry.get("rows"), run.tables[name].height
            what = "the table has as many rows as the manifest says"
            yield from holds(
                FILES, table_file(name), what, rows == height, f"{rows} in the manifest, {height}"
            )


def _unlisted(run: Path, listed: Mapping[str, object]) -> Iterator[Check]:
    """Files beside the listed ones: wrong where results lie, else only named."""
    ours = {"tables", "agents", *(name.partition("/")[0] for name in listed)}
    for name in unlisted_files(run, listed):
        folder, _, inside = name.partition("/")
        if (inside and folder in ours) or name in MADE_LATER or name == STUDY:
            found = "no list has it"
            yield Check(FILES, name, "the file belongs to the run", passed=False, found=found)
        else:
            found = "no list has it, and nothing is read from it"
            yield Check(FILES, name, "the file belongs to the run", passed=None, found=found)
