"""Is this adapter still the one that was trained? Behavioural fingerprints, stored and compared.

When an agent is trained, its log-odds on a fixed set of prompts are stored beside its adapter
with hashes of everything they depend on. An adapter that is loaded later must reproduce them:
one that was merged into narrow weights, truncated, or attached to another base does not.
Without a fingerprint liveness is *not available*; it is never *passed*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moralscope.core.agents import Frozen
from moralscope.core.errors import AgentError
from moralscope.core.files import write_json
from moralscope.models.loading import LoadedModel, tokenizer_hashes
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import FloatArray

FILE = "fingerprint.json"

TOLERANCE: Mapping[str, float] = {
    "float64": 1e-6,
    "float32": 5e-3,
    "nf4": 5e-3,
    "float16": 0.1,
    "bfloat16": 0.5,
}
"""Largest difference in log-odds, in nats, that another machine's kernels may cause.

Quantised weights are other weights: an agent trained on one base and measured on the other does not
act as it did, and is refused.
"""


class FingerprintEntry(Frozen):
    """A prompt's text hash and the agent's log-odds on it."""

    sha256: str
    log_odds: float


class Fingerprint(Frozen):
    """What an agent decided when it was trained.

    Attributes:
        base, tokenizer, chat_template, adapter: SHA-256 of each.
        dtype: of the base weights while it was measured.
        prompts: entries by prompt name.
    """

    base: str
    tokenizer: str
    chat_template: str
    adapter: str
    dtype: str
    prompts: dict[str, FingerprintEntry]


@dataclass(frozen=True)
class FingerprintMatch:
    """Fingerprint and measurement side by side.

    Attributes:
        stored: stored log-odds for each prompt asked about; NaN where it has none.
        compared: number of prompts in common.
        largest: largest absolute difference in nats, None without prompts in common.
    """

    stored: FloatArray
    compared: int
    largest: float | None


def make_fingerprint(
    base: LoadedModel, adapter_sha256: str, prompts: Sequence[EncodedPrompt], log_odds: FloatArray
) -> Fingerprint:
    """Record an agent's log-odds on ``prompts``, measured as the adapter was trained."""
    hashes = tokenizer_hashes(base.tokenizer)
    return Fingerprint(
        base=base.source.sha256,
        tokenizer=hashes["tokenizer"],
        chat_template=hashes["chat_template"],
        adapter=adapter_sha256,
        dtype=base.dtype,
        prompts={
            prompt.name: FingerprintEntry(sha256=prompt.sha256, log_odds=float(value))
            for prompt, value in zip(prompts, log_odds, strict=True)
        },
    )


def write_fingerprint(folder: Path, fingerprint: Fingerprint) -> None:
    """Store a fingerprint in an adapter's folder."""
    write_json(folder / FILE, fingerprint.model_dump())


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint of an adapter folder; None where there is none.

    Raises:
        AgentError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Fingerprint.model_validate(json.loads(path.read_text()))
    except ValueError as cause:
        raise AgentError(
            "A fingerprint is damaged",
            seen=f"{path}: {str(cause).splitlines()[0]}",
            allowed="the file as training wrote it",
            remedy="copy the adapter folder again, or remove the file: liveness is then "
            "not available",
        ) from cause


def compare(
    name: str,
    fingerprint: Fingerprint,
    *,
    base: LoadedModel,
    adapter_sha256: str,
    prompts: Sequence[EncodedPrompt],
    log_odds: FloatArray,
) -> FingerprintMatch:
    """Compare an agent as loaded with its stored fingerprint.

    Prompts are matched by name and text hash, so that a reworded prompt is not compared.

    Raises:
        AgentError: base, tokenizer, chat template or adapter are not those of the fingerprint,
            or the log-odds differ by more than the dtype allows.
    """
    now = {
        "base": base.source.sha256,
        "adapter": adapter_sha256,
        **tokenizer_hashes(base.tokenizer),
    }
    for what, value in now.items():
        if getattr(fingerprint, what) != value:
            raise AgentError(
                f"Agent {name!r} does not belong to this {what.replace('_', ' ')}",
                seen=f"{what} {value[:12]}",
                allowed=f"{getattr(fingerprint, what)[:12]}, as stored when it was trained",
                remedy="load the agent on the base, tokenizer and weights it was trained with",
            )
    stored = np.full(len(prompts), np.nan)
    for row, prompt in enumerate(prompts):
        entry = fingerprint.prompts.get(prompt.name)
        if entry is not None and entry.sha256 == prompt.sha256:
            stored[row] = entry.log_odds
    known = ~np.isnan(stored)
    if not known.any():
        return FingerprintMatch(stored, 0, None)
    gaps = np.abs(stored - log_odds)[known]
    tolerance = max(TOLERANCE[fingerprint.dtype], TOLERANCE[base.dtype])
    if not gaps.max() <= tolerance:  # also true of NaN
        worst = [p.name for p, k in zip(prompts, known, strict=True) if k][int(gaps.argmax())]
        raise AgentError(
            f"Agent {name!r} does not act as it did when it was trained",
            seen=f"log-odds off by up to {gaps.max():.3g} nats on {int(known.sum())} prompts, "
            f"most on {worst!r}",
            allowed=f"at most {tolerance:g} nats for {fingerprint.dtype} against {base.dtype}",
            remedy="the adapter did not land or went dead: load it un-merged on its own base",
        )
    return FingerprintMatch(stored, int(known.sum()), float(gaps.max()))
