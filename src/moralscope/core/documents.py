"""What did the user write? YAML and JSONL read strictly, and validation errors in plain words.

A key given twice is refused (YAML's own loader silently keeps the last), a misspelt key is
answered with the nearest right one, and every message names the file and the place in it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moralscope.core.errors import ConfigError, MoralscopeError, nearest

Model = TypeVar("Model", bound=BaseModel)


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; raises ConfigError for a repeated key."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise repeated_key(key.value, f"line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def repeated_key(
    key: object, seen: str, raising: type[MoralscopeError] = ConfigError
) -> MoralscopeError:
    """The refusal of a key that is given twice."""
    return raising(
        f"The key {key!r} is given twice",
        seen=seen,
        allowed="each key once",
        remedy="remove one of the two",
    )


def read_document(path: Path, raising: type[MoralscopeError] = ConfigError) -> str:
    """The text of a file in UTF-8.

    Raises:
        MoralscopeError: of the class ``raising``; the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise raising(
            "The file cannot be read",
            seen=f"{path} ({cause})",
            allowed="a readable text file in UTF-8",
            remedy="check the path, the permissions and the encoding",
        ) from cause


def parse_yaml(text: str, where: str, raising: type[MoralscopeError] = ConfigError) -> object:
    """The value that a YAML text holds.

    Args:
        text: the text.
        where: the file it came from, for messages.
        raising: the class of refusals.

    Raises:
        MoralscopeError: of the class ``raising``; the text is not YAML or repeats a key.
    """
    try:
        return yaml.load(text, UniqueKeyLoader)  # noqa: S506 - a safe loader
    except MoralscopeError as cause:
        raise raising(
            cause.problem,
            seen=f"{where}, {cause.seen}",
            allowed=cause.allowed,
            remedy=cause.remedy,
        ) from cause
    except (yaml.YAMLError, ValueError, RecursionError) as cause:  # ValueError: an impossible date
        raise raising(
            "The file is not valid YAML",
            seen=f"{where}: {' '.join(str(cause).split())}",
            allowed="YAML: keys, colons, values",
            remedy="correct the line that is named",
        ) from cause


def parse_lines(
    text: str,
    where: str,
    raising: type[MoralscopeError] = ConfigError,
    *,
    remedy: str = "correct the line",
) -> list[tuple[str, object]]:
    """The values of a JSONL text, each with its line in words; blank lines hold none.

    Args:
        text: the text.
        where: the file it came from, for messages.
        raising: the class of refusals.
        remedy: what to do about a line that is not JSON.

    Raises:
        MoralscopeError: of the class ``raising``; a line is not JSON or repeats a key.
    """
    entries: list[tuple[str, object]] = []
    # Not splitlines: JSON strings may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        try:
            raw: object = json.loads(line, object_pairs_hook=_unique_keys)
        except MoralscopeError as cause:
            raise repeated_key(cause.seen, place, raising) from cause
        except (ValueError, RecursionError) as cause:
            raise raising(
                "A line is not valid JSON",
                seen=f"{place}: {cause}",
                allowed="one JSON object per line",
                remedy=remedy,
            ) from cause
        entries.append((f"line {number}", raw))
    return entries


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise repeated_key(key, key)
        found[key] = value
    return found


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, repeats a key or holds no mapping.
    """
    raw = parse_yaml(read_document(path), str(path))
    if not isinstance(raw, dict):
        raise ConfigError(
            "The file does not hold keys and values",
            seen=f"{path}: {type(raw).__name__}",
            allowed="a YAML mapping",
            remedy="write one key: value pair a line",
        )
    return cast("dict[str, object]", raw)


def validate(
    model: type[Model], raw: object, where: str, raising: type[MoralscopeError] = ConfigError
) -> Model:
    """A value of ``model`` from parsed YAML or JSON.

    Args:
        model: the configuration's type.
        raw: what was parsed.
        where: the file or key it came from, for messages.
        raising: the class of refusals.

    Raises:
        MoralscopeError: the first thing that is wrong, with the place and the nearest right key;
            of the class ``raising``, or what a validator of the model raised.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as cause:
        errors = cause.errors()
        # A misspelt key explains the one that is missing, not the other way round.
        misspelt = [error for error in errors if error["type"] == "extra_forbidden"]
        raise _refusal(model, [*misspelt, *errors][0], where, raising) from cause


def _refusal(
    model: type[BaseModel], error: ErrorDetails, where: str, raising: type[MoralscopeError]
) -> MoralscopeError:
    raised: object = error.get("ctx", {}).get("error")
    if isinstance(raised, MoralscopeError):
        return raised  # a validator of ours, which has explained itself already
    place = ".".join(str(part) for part in error["loc"])
    known = _keys_at(model, error["loc"][:-1])
    if not place:
        return raising(
            f"There are no keys and values in {where}",
            seen=f"{error['input']!r} ({type(error['input']).__name__})",
            allowed=", ".join(model.model_fields),
            remedy="write one key: value pair a line",
        )
    if error["type"] == "extra_forbidden":
        return raising(
            f"There is no key {place!r} in {where}",
            seen=error["loc"][-1],
            allowed=", ".join(known),
            remedy=nearest(str(error["loc"][-1]), known),
        )
    if error["type"] == "missing":
        return raising(
            f"The key {place!r} is missing in {where}",
            seen="nothing",
            allowed=", ".join(known),
            remedy=f"add {place!r}",
        )
    unquoted = error["type"] == "string_type" and isinstance(error["input"], bool | int | float)
    return raising(
        f"The value of {place!r} in {where} cannot be used",
        seen=repr(error["input"]),
        allowed=error["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
        remedy="put quotes around words such as yes, no and numbers that are meant as text"
        if unquoted
        else "correct the value",
    )


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that may stand at a place: field names of the model found there."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is not None and part in current.model_fields:
            current = _model_in(current.model_fields[str(part)].annotation)
    return list(current.model_fields) if current is not None else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The first model inside an annotation such as ``dict[str, Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def flattened(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as one mapping with dotted keys; lists stay whole."""
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flattened(cast("Mapping[str, object]", value), f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
