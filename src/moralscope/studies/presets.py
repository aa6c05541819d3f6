"""How large is a study meant to be? Presets that supply what a study file leaves out.

``small``   a laptop: the small default model, and the defaults of every key
``paper``   the model and the sizes of the published study, on a GPU: google/gemma-2-2b-it, adapters
            of rank 64, and with its six pairs of agents more than the 21,060 patches (15 prompts,
            26 layers of 8 heads and an MLP, 6 pairs) that were made there

What the file says wins over the preset, and what the command says (``--set KEY=VALUE``) over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

from pydantic import BaseModel

from moralscope.core.documents import parse_yaml
from moralscope.core.errors import ConfigError

_PAPER: dict[str, object] = {
    "model": "google/gemma-2-2b-it",
    "dtype": "float32",
    "device": "cuda",
    "max_nodes": 8192,
    "training": {
        "steps": 200,
        "prompts_per_step": 16,
        "compute_dtype": "bfloat16",
        "lora": {"rank": 64, "alpha": 32.0},
    },
    "mechanisms": {"scenarios": 20, "memory_mib": 16384},
}

PRESETS: Mapping[str, Mapping[str, object]] = MappingProxyType({"small": {}, "paper": _PAPER})
"""The presets by name."""


def with_preset(settings: Mapping[str, object]) -> Mapping[str, object]:
    """Settings of a study with what its preset supplies.

    Args:
        settings: keys as in the file; an unknown preset is left for the study to refuse.
    """
    chosen = PRESETS.get(str(settings.get("preset", "small")), {})
    return _under(settings, chosen)


def _under(given: Mapping[str, object], supplied: Mapping[str, object]) -> dict[str, object]:
    """What is given, and below it, key by key, what is supplied."""
    found = dict(given)
    for key, value in supplied.items():
        own = _mapping(found.get(key))
        if key not in found:
            found[key] = value
        elif own is not None and isinstance(value, Mapping):
            found[key] = _under(own, cast("Mapping[str, object]", value))
    return found


def _mapping(value: object) -> Mapping[str, object] | None:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else None


def with_changes(settings: Mapping[str, object], changes: Sequence[str]) -> dict[str, object]:
    """Settings with some of their keys set anew.

    Args:
        settings: keys as in the file.
        changes: ``KEY=VALUE``, with dots between nested keys and values as in YAML:
            ``training.lora.rank=8``, ``mechanisms.methods=[lens]``.

    Raises:
        ConfigError: a change is not of this form, or leads through something that has no keys.
    """
    found = dict(settings)
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not all(key.split(".")):
            raise ConfigError(
                "A setting cannot be changed in this way",
                seen=change,
                allowed="KEY=VALUE, with dots between nested keys, such as training.steps=10",
                remedy="write the key, =, and the value without spaces between",
            )
        found = _changed(found, key.split("."), parse_yaml(text, f"--set {key}"), change)
    return found


def _changed(
    settings: Mapping[str, object], keys: Sequence[str], value: object, change: str
) -> dict[str, object]:
    first, *rest = keys
    if not rest:
        return {**settings, first: value}
    below = settings.get(first)
    if below is not None and not isinstance(below, Mapping):
        raise ConfigError(
            f"The key {first!r} has no keys below it",
            seen=f"--set {change}, where {first} is {below!r}",
            allowed="dots between a key and those below it",
            remedy=f"set {first} itself",
        )
    inner = cast("Mapping[str, object]", below or {})
    return {**settings, first: _changed(inner, rest, value, change)}
