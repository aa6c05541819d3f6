"""How much is measured? The full comparison, and a quick one that only shows that it works."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """Sizes of the comparisons.

    Attributes:
        repeats: counted turns of each job.
        sampled_heads, sampled_mlps: sites that are patched by hooks as well.
        structured: structured prompts to score, train on and attribute, of 16.
        balanced: cluster prompts to score, of 40, which have less text in common.
        rank: of the adapters.
        rate_seconds: how long each matrix shape is timed.
    """

    repeats: int = 3
    sampled_heads: int = 9
    sampled_mlps: int = 3
    structured: int = 16
    balanced: int = 40
    rank: int = 64
    rate_seconds: float = 1.0

    def as_json(self) -> dict[str, object]:
        """The settings as they stand in the results."""
        return asdict(self)


QUICK = Settings(
    repeats=1,
    sampled_heads=2,
    sampled_mlps=1,
    structured=4,
    balanced=2,
    rank=64,
    rate_seconds=0.1,
)
"""Runs everything once on little; its ratios mean nothing."""
