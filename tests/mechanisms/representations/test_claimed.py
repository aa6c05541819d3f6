"""From a tiny model to a claim: a planted direction is claimed, and without it nothing is."""

from __future__ import annotations

import numpy as np
import polars as pl
from carried import LAYER, planted, readings

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.mechanisms.representations.subspaces import Search, search_subspaces
from moralscope.mechanisms.representations.tables import subspace_tables

SEARCH = Search(dimensions=(1, 4), steps=60, rate=0.05)


def claimed(*, carried: bool) -> dict[str, object]:
    agent, carrier = planted(32)
    given = readings(agent, carrier, carried=carried)
    found = search_subspaces(agent, given, [0, LAYER], np.random.default_rng(1), SEARCH)
    effects, _ = subspace_tables("agent", given, found)
    prompts = from_rows(
        "prompts",
        [
            {"prompt": name, "game": "user", "scenario": unit, "family": "own", "template": "own",
             "labels": "a/b", "option_order": 0, "answer_order": 0, "table_order": "none",
             "stem": "", "system": "", "chat_template": True, "text": name, "sha256": name,
             "positive": "a", "negative": "b"}
            for name, unit in zip(given.prompts, given.units, strict=True)
        ],
    )  # fmt: skip
    claims = make_claims({"prompts": prompts, "subspace_effects": effects}, draws=999)
    return claims.filter(pl.col("id") == "subspace:agents:other:agent").row(0, named=True)


def test_a_planted_direction_is_claimed_where_it_is() -> None:
    claim = claimed(carried=True)
    assert claim["verdict"] == "supported"
    assert "after layer 1, " in str(claim["statement"])
    assert float(str(claim["estimate"])) > 0.6


def test_without_the_plant_nothing_is_claimed() -> None:
    assert claimed(carried=False)["verdict"] != "supported"
