"""What study do these words ask for? Agents by reference, put together into a study.

An agent is given as ``base``, a hub id, a folder with a model or an adapter, or ``NAME=`` any of
these. What a folder holds says what it is: ``adapter_config.json`` an adapter, ``config.json`` a
whole model. The base is what is named so; else what the adapters were trained on; else, where only
whole models are given, the first of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError
from moralscope.models.roster import CONFIG
from moralscope.studies.study import Study

BASE = "base"
_POLICY = "policy:"


@dataclass(frozen=True)
class _Reference:
    """An agent as it was named: its name, where it is, and what its files say it is."""

    name: str
    place: str
    is_adapter: bool
    trained_on: str | None


def compose_study(agents: Sequence[str], wanted: Mapping[str, object]) -> Study:
    """A study of some agents.

    Args:
        agents: references, as described above.
        wanted: ``base`` (model or None), ``prompts`` (files or None), ``methods``, ``pairs``,
            ``sites``, ``positions``, ``changes`` (words joined by commas, or None), ``write``,
            ``scenarios``, ``memory_gib``, ``dtype``, ``device``.

    Raises:
        ConfigError: an agent cannot be told what it is, two have one name, adapters were trained
            on different bases, or a setting is not one.
    """
    found = [_reference(text) for text in agents if text != BASE]
    model, others = _base_of(found, cast("str | None", wanted.get("base")))
    entries: dict[str, dict[str, object]] = {BASE: {}}
    for reference in others:
        if reference.name in entries:
            raise ConfigError(
                f"Two agents are called {reference.name!r}",
                seen=reference.place,
                allowed="each name once; base is the base model's",
                remedy="give one of them another name: NAME=PATH",
            )
        entries[reference.name] = {
            "adapter" if reference.is_adapter else "checkpoint": reference.place
        }
    files = [str(path) for path in cast("Sequence[Path] | None", wanted.get("prompts")) or ()]
    mechanisms: dict[str, object] = {
        "methods": _words(wanted, "methods"),
        "sites": _words(wanted, "sites"),
        "positions": _words(wanted, "positions"),
        "changes": _words(wanted, "changes"),
        "write": wanted["write"],
        "scenarios": wanted["scenarios"],
        "memory_mib": _mib(cast("float", wanted["memory_gib"])),
    }
    pairs = _words(wanted, "pairs")
    if pairs:
        mechanisms["pairs"] = [_pair(text) for text in pairs]
    settings: dict[str, object] = {
        "name": "explain",
        "model": model,
        "dtype": wanted["dtype"],
        "device": wanted["device"],
        "agents": entries,
        "prompts": {
            "files": files,
            "wordings": [],
            "scenarios": False,
            **({"games": [], "table_orders": []} if files else {"table_orders": ["original"]}),
        },
        "mechanisms": mechanisms,
    }
    return validate(Study, settings, "the command")


def _words(wanted: Mapping[str, object], key: str) -> list[str]:
    text = wanted.get(key)
    return [word.strip() for word in str(text).split(",") if word.strip()] if text else []


def _mib(gib: float) -> int:
    if not (math.isfinite(gib) and gib * 1024 >= 1):
        raise ConfigError(
            "This is not an amount of memory",
            seen=gib,
            allowed="GiB, at least 0.001",
            remedy="leave --memory out, or give what a patching pass may use",
        )
    return int(gib * 1024)


def _pair(text: str) -> list[str]:
    source, arrow, target = (part.strip() for part in text.partition(">"))
    if not (source and arrow and target):
        raise ConfigError(
            "This is not a pair of agents",
            seen=repr(text),
            allowed="SOURCE>TARGET, quoted for the shell, several joined by commas",
            remedy='write --pairs "base>tuned,tuned>base"',
        )
    return [source, target]


def _reference(text: str) -> _Reference:
    named, equals, place = text.partition("=")
    if not equals:
        named, place = "", text
    if place.startswith(_POLICY):
        raise ConfigError(
            "A scripted policy has nothing inside to explain",
            seen=text,
            allowed="models and adapters",
            remedy="leave it out, or measure its behaviour",
        )
    folder = Path(place).expanduser()
    nameless = not place or (equals and not named)
    if nameless or (not folder.is_dir() and _looks_local(place)):
        raise ConfigError(
            "There is no such agent",
            seen=text,
            allowed="base, a hub id, a folder with a model or an adapter, or NAME=one of these",
            remedy="check the path, which is looked up from the current folder",
        )
    config = folder / CONFIG
    # Dots and the like are common in names of models, and cannot stand in those of agents.
    name = named or re.sub(r"[^\w-]+", "-", folder.resolve().name)
    if config.is_file():
        return _Reference(name, place, is_adapter=True, trained_on=_trained_on(config))
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(
            "This folder holds neither a model nor an adapter",
            seen=place,
            allowed=f"a folder with config.json, or with {CONFIG}",
            remedy="give the folder that save_pretrained wrote",
        )
    # A hub id without files here is taken for a whole model.
    return _Reference(name, place, is_adapter=False, trained_on=None)


def _looks_local(place: str) -> bool:
    return place.startswith((".", "/", "~")) or place.count("/") > 1


def _trained_on(config: Path) -> str | None:
    try:
        settings: object = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the loader explains what is wrong with it
    if not isinstance(settings, dict):
        return None
    value = cast("dict[str, object]", settings).get("base_model_name_or_path")
    return value if isinstance(value, str) and value else None


def _base_of(found: Sequence[_Reference], asked: str | None) -> tuple[str, tuple[_Reference, ...]]:
    """The base model, and the agents beside it."""
    named = next((r for r in found if r.name == BASE), None)
    if named is not None and not named.is_adapter:
        if asked is not None:
            raise ConfigError(
                "The base is given twice",
                seen=f"base={named.place} and --base {asked}",
                allowed="one base",
                remedy="leave one of them out",
            )
        return named.place, tuple(r for r in found if r is not named)
    bases = list(dict.fromkeys(r.trained_on for r in found if r.trained_on is not None))
    if asked is not None:
        return asked, tuple(found)
    if len(bases) > 1:
        raise ConfigError(
            "The adapters were trained on different bases",
            seen=", ".join(bases),
            allowed="agents of one base",
            remedy="explain them one base at a time, or name the base with --base",
        )
    if bases:
        return bases[0], tuple(found)
    models = [r for r in found if not r.is_adapter]
    if models and len(models) == len(found):
        return models[0].place, tuple(r for r in found if r is not models[0])
    return "default", tuple(found)
