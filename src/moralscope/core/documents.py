"""What did the user write? YAML files read strictly, and validation errors in plain words.

A key given twice is refused (YAML's own loader silently keeps the last), a misspelt key is
answered with the nearest right one, and every message names the file and the place in it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
                    raise ConfigError(
                        f"The key {key.value!r} is given twice",
                        seen=f"line {key.start_mark.line + 1}",
                        allowed="each key once",
                        remedy="remove one of the two",
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, repeats a key or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(
            "The file cannot be read",
            seen=f"{path} ({cause})",
            allowed="a readable YAML file in UTF-8",
            remedy="check the path and the permissions",
        ) from cause
    try:
        raw: object = yaml.load(text, UniqueKeyLoader)  # noqa: S506 - a safe loader
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as cause:  # ValueError: an impossible date
        raise ConfigError(
            "The file is not valid YAML",
            seen=f"{path}: {' '.join(str(cause).split())}",
            allowed="YAML: keys, colons, values",
            remedy="correct the line that is named",
        ) from cause
    if not isinstance(raw, dict):
        raise ConfigError(
            "The file does not hold keys and values",
            seen=f"{path}: {type(raw).__name__}",
            allowed="a YAML mapping",
            remedy="write one key: value pair a line",
        )
    return cast("dict[str, object]", raw)


def validate(model: type[Model], raw: object, where: str) -> Model:
    """A value of ``model`` from parsed YAML or JSON.

    Args:
        model: the configuration's type.
        raw: what was parsed.
        where: the file or key it came from, for messages.

    Raises:
        ConfigError: the first thing that is wrong, with the place and the nearest right key.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as cause:
        raise _refusal(model, cause.errors()[0], where) from cause


def _refusal(model: type[BaseModel], error: ErrorDetails, where: str) -> MoralscopeError:
    raised: object = error.get("ctx", {}).get("error")
    if isinstance(raised, MoralscopeError):
        return raised  # a validator of ours, which has explained itself already
    place = ".".join(str(part) for part in error["loc"]) or "the whole"
    known = _keys_at(model, error["loc"][:-1])
    if error["type"] == "extra_forbidden":
        return ConfigError(
            f"There is no key {place!r} in {where}",
            seen=error["loc"][-1],
            allowed=", ".join(known),
            remedy=nearest(str(error["loc"][-1]), known),
        )
    if error["type"] == "missing":
        return ConfigError(
            f"The key {place!r} is missing in {where}",
            seen="nothing",
            allowed=", ".join(known),
            remedy=f"add {place!r}",
        )
    return ConfigError(
        f"The value of {place!r} in {where} cannot be used",
        seen=repr(error["input"]),
        allowed=error["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
        remedy="correct the value",
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
