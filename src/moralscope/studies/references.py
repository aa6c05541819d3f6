"""Which agents do these words name? References put together into the agents of a study.

An agent is given as ``base``, a hub id, a folder with a model or an adapter, a scripted policy
(``policy:tit-for-tat``), or ``NAME=`` any of these. What a folder holds says what it is:
``adapter_config.json`` an adapter, ``config.json`` a whole model. The base is what is named so;
else what the adapters were trained on; else, where only whole models are given, the first of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from moralscope.core.errors import ConfigError
from moralscope.models.roster import CONFIG

BASE = "base"
_POLICY = "policy:"


@dataclass(frozen=True)
class _Reference:
    """An agent as it was named: its name, where it is, and what its files say it is."""

    name: str
    place: str
    kind: Literal["adapter", "checkpoint", "policy"]
    trained_on: str | None = None


def agents_named(
    agents: Sequence[str], base: str | None, *, scripted: bool
) -> tuple[str, dict[str, dict[str, object]]]:
    """The base model, and the entries of a study's agents, the base first.

    Args:
        agents: references, as described above.
        base: the base model where it is named apart.
        scripted: whether scripted policies may be among them.

    Raises:
        ConfigError: an agent cannot be told what it is, two have one name, or adapters were
            trained on different bases.
    """
    found = [_reference(text, scripted=scripted) for text in agents if text != BASE]
    model, others = _base_of(found, base)
    entries: dict[str, dict[str, object]] = {BASE: {}}
    for reference in others:
        if reference.name in entries:
            raise ConfigError(
                f"Two agents are called {reference.name!r}",
                seen=reference.place,
                allowed="each name once; base is the base model's",
                remedy="give one of them another name: NAME=PATH",
            )
        entries[reference.name] = {reference.kind: reference.place}
    return model, entries


def _reference(text: str, *, scripted: bool) -> _Reference:
    named, equals, place = text.partition("=")
    if not equals or _POLICY in named:  # settings of a policy have signs of equality too
        named, place = "", text
    if place.startswith(_POLICY):
        return _policy(named, place.removeprefix(_POLICY), text, scripted=scripted)
    folder = Path(place).expanduser()
    nameless = not place or (equals and not named)
    if nameless or (not folder.is_dir() and _looks_local(place)):
        raise _no_agent(text, "check the path, which is looked up from the current folder")
    config = folder / CONFIG
    # Dots and the like are common in names of models, and cannot stand in those of agents.
    name = named or re.sub(r"[^\w-]+", "-", folder.resolve().name)
    if config.is_file():
        return _Reference(name, place, "adapter", _trained_on(config))
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(
            "This folder holds neither a model nor an adapter",
            seen=place,
            allowed=f"a folder with config.json, or with {CONFIG}",
            remedy="give the folder that save_pretrained wrote",
        )
    # A hub id without files here is taken for a whole model.
    return _Reference(name, place, "checkpoint")


def _policy(named: str, expression: str, text: str, *, scripted: bool) -> _Reference:
    if not scripted:
        raise ConfigError(
            "A scripted policy has nothing inside to explain",
            seen=text,
            allowed="models and adapters",
            remedy="leave it out, or measure its behaviour",
        )
    if not expression.strip() or text.startswith("="):
        raise _no_agent(text, "write policy:STRATEGY, or NAME=policy:STRATEGY")
    name = named or re.sub(r"[^\w-]+", "-", expression).strip("-")
    return _Reference(name, expression, "policy")


def _no_agent(text: str, remedy: str) -> ConfigError:
    return ConfigError(
        "There is no such agent",
        seen=text,
        allowed="base, a hub id, a folder with a model or an adapter, or NAME=one of these",
        remedy=remedy,
    )


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
    if named is not None and named.kind == "checkpoint":
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
    models = [r for r in found if r.kind == "checkpoint"]
    if models and not any(r.kind == "adapter" for r in found):
        return models[0].place, tuple(r for r in found if r is not models[0])
    return "default", tuple(found)
