"""On the real small model: the other's last move passes through one direction of a late layer."""

from __future__ import annotations

import numpy as np
import pytest

from moralscope.core.agents import AgentSpec
from moralscope.games import balanced, clusters, counterfactual_pairs, with_sources
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.representations.exchanging import Speaking
from moralscope.mechanisms.representations.streams import streams_of
from moralscope.mechanisms.representations.subspaces import Search, search_subspaces
from moralscope.mechanisms.representations.tables import readings_of, subspace_tables
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster


@pytest.mark.slow
def test_the_last_move_of_the_other_is_one_direction(real_base: LoadedModel) -> None:
    roster = Roster(real_base)
    roster.add(AgentSpec(name="base", base="real"))
    every = balanced(clusters(("action1", "action2")))
    asked = every.where(lambda p: p.game in ("IPD", "ISH", "ICN"))
    pairs = counterfactual_pairs(asked, "opponent_previous")
    prompts = tuple(with_sources(asked, pairs))
    place = {prompt.name: index for index, prompt in enumerate(prompts)}
    scenarios = {prompt.name: prompt.scenario for prompt in prompts}
    wanted = {place[p.target.name]: (p.target.name, p.source.name) for p in pairs}
    with roster.speaking("base") as model:
        anatomy = roster.anatomy("base")
        run = run_clean("base", model, anatomy, encode_all(real_base.tokenizer, prompts))
        agent = Speaking(model, anatomy, run)
        given = readings_of("opponent_previous", streams_of(run), wanted, scenarios)
        rng, search = np.random.default_rng(0), Search((1,), 20, 0.02, 2)
        found = search_subspaces(agent, given, [22], rng, search)
    _, table = subspace_tables("base", given, found)
    share = {
        (row["control"], row["split"]): row["interchange_effect"]
        for row in table.iter_rows(named=True)
    }
    assert share["none", "test"] > 0.8
    assert share["arbitrary", "train"] > 0.3
    assert share["arbitrary", "test"] < 0.3
    assert abs(share["random", "test"]) < 0.1
