"""What study do these words ask for? What a command says, put together into a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from moralscope.core.calls import split_outside
from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError, nearest
from moralscope.games import MIRRORED, WORDINGS
from moralscope.studies.choices.evaluation import PAPER_LABELS, PARTS
from moralscope.studies.references import agents_named
from moralscope.studies.study import Study

PROTOCOLS = ("all", "exact", "paper")


def compose_study(agents: Sequence[str], wanted: Mapping[str, object]) -> Study:
    """A study of some agents.

    Args:
        agents: references, see ``references``.
        wanted: ``base`` (model or None), ``prompts`` (files or None), ``methods``, ``pairs``,
            ``sites``, ``positions``, ``changes`` (words joined by commas, or None), ``write``,
            ``scenarios``, ``memory_gib``, ``dtype``, ``device``.

    Raises:
        ConfigError: an agent cannot be told what it is, two have one name, adapters were trained
            on different bases, or a setting is not one.
    """
    model, entries = agents_named(agents, cast("str | None", wanted.get("base")), scripted=False)
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


def compose_evaluation(agents: Sequence[str], wanted: Mapping[str, object]) -> Study:
    """A study of how some agents behave, and of nothing inside them.

    Args:
        agents: references, see ``references``; scripted policies too.
        wanted: ``base`` (model or None), ``prompts`` and ``families`` (files or None), ``parts``,
            ``games``, ``opponents``, ``strategies`` (expressions joined by commas, or None),
            ``words`` and ``labels`` (pairs of labels, ``A/B`` joined by commas), ``protocol``
            (one of ``PROTOCOLS``), ``answers``, ``seed``, ``dtype``, ``device``.

    Raises:
        ConfigError: as for ``compose_study``.
    """
    model, entries = agents_named(agents, cast("str | None", wanted.get("base")), scripted=True)
    evaluation: dict[str, object] = {
        "parts": _parts(wanted),
        "labels": [_label_pair(text) for text in _words(wanted, "labels")],
        "answers": wanted["answers"],
        **{
            key: _expressions(wanted, key)
            for key in ("games", "opponents", "strategies")
            if wanted.get(key)
        },
        "families": [str(p) for p in cast("Sequence[Path] | None", wanted.get("families")) or ()],
    }
    files = [str(path) for path in cast("Sequence[Path] | None", wanted.get("prompts")) or ()]
    settings: dict[str, object] = {
        "name": "evaluate",
        "model": model,
        "dtype": wanted["dtype"],
        "device": wanted["device"],
        "seed": wanted["seed"],
        "agents": entries,
        "prompts": {
            "words": _label_pair(str(wanted["words"])),
            "files": files,
            "wordings": [*WORDINGS, *MIRRORED],
            "table_orders": ["original", "rows", "columns", "both"],
        },
        "evaluation": evaluation,
        "mechanisms": {"methods": []},
    }
    return validate(Study, settings, "the command")


def _parts(wanted: Mapping[str, object]) -> list[str]:
    """The parts asked for, as far as the protocol has them."""
    protocol = str(wanted["protocol"])
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "There is no such protocol",
            seen=protocol,
            allowed=", ".join(PROTOCOLS),
            remedy=nearest(protocol, PROTOCOLS),
        )
    asked = _words(wanted, "parts") or list(PARTS)
    for part in asked:
        if part not in PARTS:
            raise ConfigError(
                "The evaluation has no such part",
                seen=part,
                allowed=", ".join(PARTS),
                remedy=nearest(part, PARTS),
            )
    if protocol == "paper":
        return ["paper"]
    kept = [part for part in asked if protocol == "all" or part != "paper"]
    if not kept:
        raise ConfigError(
            "Nothing is left to measure",
            seen=f"--protocol {protocol} with --parts {', '.join(asked)}",
            allowed="a part beside paper, which is the published protocol",
            remedy="leave one of the two out",
        )
    return kept


def _label_pair(text: str) -> list[str]:
    first, slash, second = (part.strip() for part in text.partition("/"))
    if not (first and slash and second) or "/" in second:
        raise ConfigError(
            "This is not a pair of labels",
            seen=repr(text),
            allowed="the label of cooperating, a slash and that of defecting, as in "
            f"{'/'.join(PAPER_LABELS)}",
            remedy="write the two labels with one slash between them",
        )
    return [first, second]


def _words(wanted: Mapping[str, object], key: str) -> list[str]:
    text = wanted.get(key)
    return [word.strip() for word in str(text).split(",") if word.strip()] if text else []


def _expressions(wanted: Mapping[str, object], key: str) -> list[str]:
    """Names with settings: commas within parentheses are theirs."""
    parts = split_outside(str(wanted[key]), ",")
    return [part.strip() for part in parts if part.strip()]


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
