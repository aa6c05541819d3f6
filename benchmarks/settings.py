"""How much is measured? The full comparison, and a quick one that only shows that it works."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """Sizes of the comparisons.

    Attributes:
        repeats: counted turns of each job.
        long_repeats: the same of sweeps at all positions, which take minutes.
        sampled_heads, sampled_mlps: sites that are patched at the answer span by hooks and in
            other libraries as well.
        sampled_layers: attention layers, and as many MLPs, patched at all positions elsewhere.
        sampled_prompts: prompts over which these are spread.
        peers: whether other libraries are run.
        peer_limit_seconds: how long to wait for an answer of theirs.
        structured: structured prompts to score, train on and attribute, of 16.
        six_games: structured prompts of all six games to score, of 192.
        balanced: cluster prompts to score, of 40, which have less text in common.
        agents: agents with adapters whose sites are attributed; two at least.
        rank: of the adapters.
        rate_seconds: how long each matrix shape is timed.
    """

    repeats: int = 3
    long_repeats: int = 2
    sampled_heads: int = 9
    sampled_mlps: int = 3
    sampled_layers: int = 3
    sampled_prompts: int = 4
    peers: bool = True
    peer_limit_seconds: float = 600.0
    structured: int = 16
    six_games: int = 192
    balanced: int = 40
    agents: int = 5
    rank: int = 64
    rate_seconds: float = 1.0

    def as_json(self) -> dict[str, object]:
        """The settings as they stand in the results."""
        return asdict(self)


QUICK = Settings(
    repeats=1,
    long_repeats=1,
    sampled_heads=2,
    sampled_mlps=1,
    sampled_layers=1,
    sampled_prompts=2,
    peers=False,
    structured=4,
    six_games=6,
    balanced=2,
    agents=2,
    rank=64,
    rate_seconds=0.1,
)
"""Runs everything once on little; its ratios mean nothing."""
