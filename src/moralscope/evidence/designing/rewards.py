"""Can claims about rewards be tested? Their unit is the training seed, and it has to be repeated.

    reward            training seeds       floor 2/2^S            level alpha / rewards
    pair of rewards   seeds per reward     floor 2/C(2S, S)       level alpha / pairs
    seeds             seeds per reward     floor of relabelling   level alpha / measures

Agents whose seed is not recorded count as one: nothing says that they are independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import polars as pl

from moralscope.evidence.designing.question import (
    Asked,
    Question,
    count,
    probability,
    reach,
    remedy,
    some,
    unknown,
)
from moralscope.evidence.designs import (
    MIN_SEEDS,
    RewardDesign,
    seeds_to_compare,
    trained_agents,
    units_to_differ_from_zero,
)
from moralscope.evidence.replicated import replicated, seeds_to_replicate
from moralscope.evidence.statistics.power import seeds_for_power, units_for_power
from moralscope.evidence.statistics.replicates import MIN_SEEDS as MIN_REPLICATES
from moralscope.evidence.statistics.replicates import replicate_floor
from moralscope.evidence.statistics.resampling import permutation_floor


def rewards(asked: Asked) -> Iterator[Question]:
    """Each reward against the base; and trained agents that no such claim can use."""
    designs = asked.designs()
    level = asked.alpha / max(1, len(designs))
    needed = max(MIN_SEEDS, units_to_differ_from_zero(asked.alpha, max(1, len(designs))))
    power = max(needed, units_for_power(1.0, level))
    for design in designs:
        n = design.seeds
        floor = asked.floor(n)
        what = (
            f"Claims about the {design.reward} reward are replicated over training seeds, of which "
            f"there {'is' if n == 1 else 'are'} {n}{_unrecorded(asked, design)}"
        )
        rest = (
            f": {reach(floor, level)}."
            if n >= needed
            else f": {'it' if n == 1 else 'they'} cannot carry one, whatever these checkpoints do."
        )
        yield Question(
            "reward", _named(design, designs), "training seed", n, floor, level, needed, power,
            n >= needed, f"{what}{rest}{remedy(n, needed, power, 'seed')}",
        )  # fmt: skip
    if "agents" in asked.tables:
        yield from _rewards_without(asked, designs)


def _rewards_without(asked: Asked, designs: Sequence[RewardDesign]) -> Iterator[Question]:
    """Trained agents that no claim about a reward can use, and why."""
    agents = asked.tables["agents"]
    trained = agents.filter(pl.col("agent").is_in(trained_agents(agents)))
    unnamed = trained.filter(pl.col("reward").is_null()).get_column("agent").to_list()
    if unnamed:
        yield unknown(
            "reward", "not recorded", "training seed", asked.alpha,
            f"The reward of {count(len(unnamed), 'trained agent')} ({some(unnamed)}) is not "
            "recorded, so no claim about a reward can use them; add the columns reward and "
            "training_seed to the table agents.",
        )  # fmt: skip
    used = {name for design in designs for names in design.agents for name in names}
    alone = trained.filter(pl.col("reward").is_not_null() & ~pl.col("agent").is_in(sorted(used)))
    for (reward,), rows in alone.group_by("reward", maintain_order=True):
        names = rows.get_column("agent").to_list()
        yield unknown(
            "reward", f"{reward} without base", "training seed", asked.alpha,
            f"{some(names)}, trained with the {reward} reward, cannot be compared with a base: "
            "none of the same model is in the table agents; measure it on the same prompts.",
        )  # fmt: skip


def _unrecorded(asked: Asked, design: RewardDesign) -> str:
    agents = asked.tables["agents"]
    own = agents.filter(pl.col("agent").is_in([n for names in design.agents for n in names]))
    nulls = own.get_column("training_seed").null_count()
    if not nulls:
        return ""
    return (
        f" (the training_seed of {count(nulls, 'agent')} is not recorded, so "
        f"{'it counts' if nulls == 1 else 'together they count'} as one)"
    )


def pairs(asked: Asked) -> Iterator[Question]:
    """Each reward against every other on the same base."""
    designs = asked.designs()
    compared = [(a, b) for a, b in itertools.combinations(designs, 2) if a.base == b.base]
    level = asked.alpha / max(1, len(compared))
    needed = seeds_to_compare(asked.alpha, max(1, len(compared)))
    power = max(needed, seeds_for_power(1.0, level)) if compared else needed
    for a, b in compared:
        n = min(a.seeds, b.seeds)
        floor = permutation_floor(a.seeds, b.seeds)
        identified = n >= MIN_SEEDS and floor < level
        each = f"{n} each" if a.seeds == b.seeds else f"{a.seeds} and {b.seeds}"
        rest = (
            reach(floor, level)
            if n >= MIN_SEEDS
            else f"permuting the rewards over them gives no p below {probability(floor)}, "
            f"and {MIN_SEEDS} each or more are asked for"
        )
        yield Question(
            "pair of rewards", f"{_named(a, designs)} against {_named(b, designs)}",
            "training seed", n, floor, level, needed, power, identified,
            f"Whether the {a.reward} and {b.reward} rewards differ is replicated over training "
            f"seeds, {each}: {rest}.{remedy(n, needed, power, 'seed per reward')}",
        )  # fmt: skip


def seeds(asked: Asked) -> Iterator[Question]:
    """Whether agents of different rewards lie further apart than seeds of one reward."""
    # Decisions, attributions and norms of all bases are one family, corrected together.
    level = asked.alpha / max(1, len(replicated(asked.tables)))
    for base in dict.fromkeys(design.base for design in asked.designs()):
        sizes = [design.seeds for design in asked.designs() if design.base == base]
        if len(sizes) < 2:
            continue
        n, floor = min(sizes), replicate_floor(sizes)
        needed = seeds_to_replicate(len(sizes), level)
        identified = n >= MIN_REPLICATES and floor < level
        rest = (
            reach(floor, level)
            if n >= MIN_REPLICATES
            else f"{MIN_REPLICATES} or more are asked for"
        )
        yield Question(
            "seeds", base, "training seed", n, floor, level, needed, None, identified,
            f"Whether {len(sizes)} rewards move agents further apart than training seeds do is "
            f"tested by relabelling seeds, {n} of each reward or more: {rest}."
            f"{remedy(n, needed, None, 'seed per reward')}",
        )  # fmt: skip


def _named(design: RewardDesign, designs: Sequence[RewardDesign]) -> str:
    """The reward, with its base where there are several."""
    several = len({other.base for other in designs}) > 1
    return f"{design.reward} ({design.base})" if several else design.reward
