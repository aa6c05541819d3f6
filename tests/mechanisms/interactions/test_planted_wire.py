"""A wire planted between two MLPs: correlated, found as the pathway, and carried when patched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import planted_wire
import polars as pl
import pytest
import tiny

from moralscope.core.site import Edge, parse_site
from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims, setting_of
from moralscope.evidence.wired import compare_all
from moralscope.evidence.wired_tables import (
    changes_table,
    choose_pathways,
    networks_table,
    pathways_table,
)
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.interactions.writes import writes_of, writes_tables
from moralscope.mechanisms.paths.tables import patch_paths
from moralscope.models.anatomy import dissect

PROMPTS = tiny.token_prompts(100, length=16)


@dataclass(frozen=True)
class Found:
    """What a study of two agents finds."""

    tables: dict[str, pl.DataFrame]
    claims: dict[str, dict[str, object]]


def studied(*, planted: bool) -> Found:
    """The whole analysis: writes, networks, pathways, claims; agents called one and other."""
    models = {
        "one": planted_wire.wired(planted=planted),
        "other": planted_wire.wired(planted=False),
    }
    runs, parts = {}, []
    for name, model in models.items():
        anatomy = dissect(model)
        runs[name] = run_clean(name, model, anatomy, PROMPTS)
        parts.append(writes_tables(writes_of(anatomy, runs[name])))
    prompts = from_rows("prompts", [
        {"prompt": p.name, "game": "IPD", "scenario": f"s{i // 2}", "family": "clusters",
         "template": "w", "labels": "a/b", "option_order": 0, "answer_order": 0,
         "table_order": "none", "stem": "", "system": "", "chat_template": False,
         "own_previous": None, "opponent_previous": None, "text": p.name, "sha256": p.name,
         "positive": "b", "negative": "a"}
        for i, p in enumerate(PROMPTS)
    ])  # fmt: skip
    named = {"comparison": "asked", "kind": "named", "tested": True}
    tables = {
        "prompts": prompts,
        "norms": pl.concat(norms for norms, _ in parts),
        "comparisons": from_rows("comparisons", [{**named, "agent_a": "one", "agent_b": "other"}]),
    }
    setting = setting_of(tables, draws=999)
    found = compare_all(setting)
    tables["interaction_networks"] = networks_table(setting, found, 0.3)
    tables["interaction_changes"] = changes_table(setting, found)
    chosen = choose_pathways(tables["interaction_changes"], np.random.default_rng(0), count=8)
    edges = [
        Edge(parse_site(a), parse_site(b))
        for a, b in chosen.select("sender", "receiver").iter_rows()
    ]
    patched = [
        patch_paths(models[b], dissect(models[b]), runs[a], runs[b], edges)
        for a, b in (("one", "other"), ("other", "one"))
    ]
    tables["pathways"] = pathways_table(chosen, pl.concat(patched), prompts)
    claims = make_claims(tables, draws=999)
    return Found(tables, {str(row["id"]): row for row in claims.to_dicts()})


@pytest.fixture(scope="module")
def planted() -> Found:
    return studied(planted=True)


@pytest.fixture(scope="module")
def bare() -> Found:
    return studied(planted=False)


def test_the_wire_is_the_pathway_that_changes_most_and_survives(planted: Found) -> None:
    changes = planted.tables["interaction_changes"].sort(
        pl.col("difference").abs(), descending=True
    )
    first = changes.row(0, named=True)
    assert (first["site_a"], first["site_b"]) == (planted_wire.WRITER, planted_wire.READER)
    assert first["correlation_a"] > 0.7
    assert abs(first["correlation_b"]) < 0.3
    assert first["survives"]
    # Whatever else survives has lost what it shared with one end of the wire.
    ends = {planted_wire.WRITER, planted_wire.READER}
    for row in changes.filter("survives").to_dicts():
        assert {row["site_a"], row["site_b"]} & ends
    claim = planted.claims["wiring:one:other"]
    assert claim["verdict"] == "supported"
    assert "L0.mlp with L2.mlp" in str(claim["statement"])


def test_the_wire_carries_more_than_any_other_pathway(planted: Found) -> None:
    pathways = planted.tables["pathways"].with_columns(
        size=(pl.col("effect_a_to_b").abs() + pl.col("effect_b_to_a").abs()) / 2
    )
    ranked = pathways.sort("size", descending=True)
    assert ranked.row(0, named=True)["sender"] == planted_wire.WRITER
    assert ranked.row(0, named=True)["receiver"] == planted_wire.READER
    assert ranked["size"][0] > 5 * ranked["size"][1]


def test_without_the_wire_nothing_is_claimed(bare: Found) -> None:
    """Two agents with the same weights: every difference is exactly zero."""
    assert bare.tables["interaction_changes"]["difference"].abs().max() == 0.0
    assert not bare.tables["interaction_changes"]["survives"].any()
    assert bare.tables["pathways"]["effect_a_to_b"].abs().max() < 1e-9
    assert "supported" not in {claim["verdict"] for claim in bare.claims.values()}
    assert bare.claims["wiring:one:other"]["p_adjusted"] == 1.0
