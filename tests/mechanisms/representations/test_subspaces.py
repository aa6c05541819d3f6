"""A planted direction is found, an arbitrary one is not, and all dimensions are everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from carried import LAYER, planted, readings
from worlds import Worlds

from moralscope.core.errors import EvidenceError
from moralscope.mechanisms.representations.exchanging import Speaking
from moralscope.mechanisms.representations.streams import streams_of
from moralscope.mechanisms.representations.subspaces import (
    Search,
    search_subspaces,
    split_blocks,
)
from moralscope.mechanisms.representations.tables import readings_of, subspace_tables

SEARCH = Search(dimensions=(1, 4), steps=60, rate=0.05)


def test_the_direction_that_carries_the_decision_is_found() -> None:
    agent, carrier = planted(32)
    given = readings(agent, carrier, carried=True)
    (found,) = search_subspaces(agent, given, [LAYER], np.random.default_rng(1), SEARCH)
    assert abs(float(found.bases[1][:, 0] @ carrier)) > 0.95
    _, table = subspace_tables("agent", given, [found])
    share = {
        (row["dimension"], row["control"], row["split"]): row["interchange_effect"]
        for row in table.iter_rows(named=True)
    }
    for k in SEARCH.dimensions:
        assert share[k, "none", "test"] > 0.9
        assert abs(share[k, "arbitrary", "test"]) < 0.3
        assert abs(share[k, "random", "test"]) < 0.3


def test_one_place_is_searched_for_several_arbitrary_sides() -> None:
    """The place where training alone leads by most; held-out effects have no say in it."""
    agent, carrier = planted(32)
    given = readings(agent, carrier, carried=True)
    search = Search(dimensions=(1, 4), steps=30, rate=0.05, arbitrary=4)
    found = search_subspaces(agent, given, [0, LAYER], np.random.default_rng(1), search)
    draws = {
        (one.layer, k): [
            d for size, control, d in one.effects if (size, control) == (k, "arbitrary")
        ]
        for one in found
        for k in search.dimensions
    }

    def share(layer: int, k: int, control: str) -> float:
        one = next(each for each in found if each.layer == layer)
        w, e = one.wanted[control, 0][one.train], one.effects[k, control, 0][one.train]
        return float((w @ e) / (w @ w))

    lead = {at: share(*at, "none") - share(*at, "arbitrary") for at in draws}
    best = max(lead, key=lambda at: lead[at])
    assert {at: len(own) for at, own in draws.items()} == {
        at: 4 if at == best else 1 for at in draws
    }
    one = next(each for each in found if each.layer == best[0])
    sides = [np.sign(one.wanted["arbitrary", d] * one.full) for d in range(4)]
    assert len({tuple(side.tolist()) for side in sides}) == 4
    for side in sides:
        assert abs(side[one.train].sum()) <= 2
        assert abs(side[~one.train].sum()) <= 2


def test_without_the_plant_there_is_nothing_to_exchange() -> None:
    agent, carrier = planted(16)
    given = readings(agent, carrier, carried=False)
    (found,) = search_subspaces(agent, given, [LAYER], np.random.default_rng(1), SEARCH)
    assert np.abs(found.full).max() < 1e-9
    effects, table = subspace_tables("agent", given, [found])
    assert table["interchange_effect"].null_count() == table.height
    assert set(effects["split"]) == {"train", "test"}


def test_all_dimensions_are_the_whole_exchange(worlds: Worlds) -> None:
    here = worlds("llama", n=8)
    run = here.runs["moral"]
    pairs = {i: (p.name, p.name) for i, p in enumerate(run.prompts)}
    scenarios = {p.name: p.name for p in run.prompts}
    given = readings_of("agents", streams_of(here.runs["game"]), pairs, scenarios)
    with here.roster.speaking("moral") as model:
        agent = Speaking(model, here.roster.anatomy("moral"), run)
        search = Search(dimensions=(32,), steps=1, random=1)
        found = search_subspaces(agent, given, [0, 2], np.random.default_rng(2), search)
    for one in found:
        for (_, control, _), values in one.effects.items():
            assert values == pytest.approx(one.full, abs=1e-9), control
    _, table = subspace_tables("moral", given, found)
    whole = table.filter(table["control"] != "arbitrary")
    assert whole["interchange_effect"].to_list() == pytest.approx([1.0] * whole.height, abs=1e-8)


def test_the_search_lowers_its_loss_and_leaves_the_agent_as_it_was(worlds: Worlds) -> None:
    here = worlds("llama", n=8)
    run = here.runs["moral"]
    pairs = {i: (p.name, p.name) for i, p in enumerate(run.prompts)}
    scenarios = {p.name: p.name for p in run.prompts}
    given = readings_of("agents", streams_of(here.runs["game"]), pairs, scenarios)
    with here.roster.speaking("moral") as model:
        agent = Speaking(model, here.roster.anatomy("moral"), run)
        before = {name: p.clone() for name, p in model.named_parameters()}
        missed: list[float] = []
        for steps in (0, 60):
            rng, search = np.random.default_rng(3), Search((2,), steps, 0.05, 1)
            (one,) = search_subspaces(agent, given, [1], rng, search)
            gap = (one.effects[2, "none", 0] - one.full)[one.train]
            missed.append(float(np.square(gap).sum()))
            basis = one.bases[2]
            assert (basis.T @ basis).numpy() == pytest.approx(np.eye(2), abs=1e-10)
        assert missed[1] < 0.5 * missed[0]
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name])
            assert parameter.grad is None


def test_a_share_and_its_interval_are_those_of_a_ratio() -> None:
    agent, carrier = planted(12)
    given = readings(agent, carrier, carried=True, seed=4)
    search = Search((2,), 2, 0.05, 3)
    (found,) = search_subspaces(agent, given, [LAYER], np.random.default_rng(1), search)
    _, table = subspace_tables("agent", given, [found])
    row = table.filter((table["control"] == "random") & (table["split"] == "test")).row(
        0, named=True
    )
    tested = ~found.train
    mean = np.mean([found.effects[2, "random", d] for d in range(3)], axis=0)[tested]
    wanted = found.full[tested]
    share = math.fsum(mean * wanted) / math.fsum(wanted * wanted)
    assert row["interchange_effect"] == pytest.approx(share, rel=1e-12)
    residual = wanted * (mean - share * wanted) / np.mean(wanted**2)
    error = residual.std(ddof=1) / math.sqrt(len(wanted))
    assert row["high"] - share == pytest.approx(2.5705818366147 * error, rel=1e-9)  # t, 5 degrees
    assert row["n"] == 6
    assert row["full_effect"] == pytest.approx(math.sqrt(np.mean(wanted**2)), rel=1e-12)


def test_halves_keep_blocks_together_and_signs_balanced() -> None:
    blocks = [f"b{i % 10}" for i in range(40)]
    train, turned = split_blocks(blocks, np.random.default_rng(0))
    for block in set(blocks):
        own = [i for i, name in enumerate(blocks) if name == block]
        assert len(set(train[own].tolist())) == 1
        assert len(set(turned[own].tolist())) == 1
    assert train.sum() == 20
    assert abs(int(turned[train].sum()) - 10) <= 4


def test_prompts_that_share_readings_share_a_block(worlds: Worlds) -> None:
    here = worlds("llama", n=6)
    own = streams_of(here.runs["game"])
    scenarios = {f"p{i}": f"s{i}" for i in range(6)}
    pairs = {0: ("p0", "p1"), 1: ("p1", "p0"), 2: ("p2", "p3"), 3: ("p3", "p4"), 5: ("p5", "p5")}
    found = readings_of("opponent_previous", own, pairs, scenarios)
    assert found.blocks == ("s0", "s0", "s2", "s2", "s5")
    assert found.source_prompts == ("p1", "p0", "p3", "p4", "p5")


def test_too_few_scenarios_are_refused() -> None:
    with pytest.raises(EvidenceError, match="Too few scenarios.*3 that share no reading"):
        split_blocks(["a", "b", "c"], np.random.default_rng(0))
