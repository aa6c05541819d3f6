"""Units that exist, and units that would be needed."""

import polars as pl
import pytest
import synthetic

from moralscope.core.errors import TableError
from moralscope.evidence.designs import (
    base_of,
    reward_designs,
    seeds_to_compare,
    trained_agents,
    units_to_differ_from_zero,
)


@pytest.mark.parametrize(("alpha", "m", "needed"), [(0.05, 1, 5), (0.05, 6, 5), (0.05, 7, 6),
                                                    (0.01, 1, 5), (0.001, 1, 7)])  # fmt: skip
def test_seeds_needed_to_compare_rewards(alpha: float, m: int, needed: int) -> None:
    assert seeds_to_compare(alpha, m) == needed


@pytest.mark.parametrize(("m", "needed"), [(1, 6), (4, 8), (52, 12)])
def test_units_needed_for_a_sign_flip(m: int, needed: int) -> None:
    assert units_to_differ_from_zero(0.05, m) == needed


def test_designs_count_seeds() -> None:
    designs = reward_designs(synthetic.agents(5, ("game", "utilitarian")))
    assert [(d.reward, d.base, d.seeds) for d in designs] == [
        ("game", "base", 5),
        ("utilitarian", "base", 5),
    ]


def test_agents_of_unknown_seed_are_one_unit() -> None:
    who = synthetic.agents(5, ("game",)).with_columns(training_seed=pl.lit(None, pl.Int64))
    (design,) = reward_designs(who)
    assert design.seeds == 1
    assert len(design.agents[0]) == 5


def test_base_is_found_by_model() -> None:
    who = synthetic.agents()
    assert base_of(who, "game") == "base"
    assert trained_agents(who) == ["game", "deontological", "utilitarian", "hybrid"]
    assert base_of(who.filter(pl.col("kind") != "base"), "game") is None


def test_two_bases_of_one_model_are_refused() -> None:
    who = synthetic.agents()
    twin = who.head(1).with_columns(agent=pl.lit("base again"))
    with pytest.raises(TableError, match="'game' has more than one base agent"):
        base_of(pl.concat([who, twin]), "game")
