"""Is this the same thing? Content hashes of texts, files, values and source code."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("games", "evidence"),
    ("models",),
    ("training",),
    ("behaviour", "mechanisms"),
    ("organisms", "modularity"),
    ("studies",),
    ("reports",),
    ("explaining",),
    ("cli",),
)
"""The layers of the package, lowest first; each imports only from those before it."""


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_value(value: object) -> str:
    """SHA-256 of a JSON-like value, independent of the order of its keys.

    Raises:
        TypeError: the value holds something that JSON cannot express; a hash of a ``repr`` would
            change between runs, so there is no fallback.
        ValueError: it holds NaN or infinity.
    """
    return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False))


def sha256_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 over files: their paths relative to ``root`` and their bytes, sorted by path."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


@functools.cache
def code_version(package: str) -> str:
    """Hash of the source of a package, templates included, and of every layer to its left.

    A stage's results depend on its own package and on what that may import, and on nothing
    else: editing a report does not retrain an agent.

    Raises:
        ValueError: the package is not one of ``LAYERS``.
    """
    names: list[str] = []
    for layer in LAYERS:
        if package in layer:
            names.append(package)
            break
        names.extend(layer)
    else:
        raise ValueError(f"{package!r} is not a package of moralscope")
    found = (path for name in names for path in (_PACKAGE / name).rglob("*"))
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return sha256_files(files, _PACKAGE)
