"""Which sub-layers are chosen: by hand, at random as many of each kind, and by depth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.site import Site, parse_site
from moralscope.mechanisms.targeting.choosing import (
    alike,
    attribution_scores,
    band,
    highest,
    patching_scores,
    pathway_scores,
)


def names(sites: tuple[Site, ...]) -> list[str]:
    return [str(site) for site in sites]


def test_heads_are_summed_before_their_size_is_taken() -> None:
    rows = [
        ("L0.h0", "p", 3.0), ("L0.h0", "q", 1.0), ("L0.h1", "p", -2.5), ("L0.h1", "q", -1.5),
        ("L0.mlp", "p", -1.0), ("L0.mlp", "q", -2.0), ("all", "p", 9.0), ("embed", "p", 9.0),
    ]  # fmt: skip
    table = pl.DataFrame(
        [
            {"source": s, "target": "base", "positions": "answer_span", "site": site,
             "prompt": prompt, "effect": effect * (1.0 if s == "kind" else 100.0)}
            for s in ("kind", "other")
            for site, prompt, effect in rows
        ]
    )  # fmt: skip
    found = patching_scores(table, "kind", "base")
    assert {str(k): v for k, v in found.items()} == {"L0.attn": 0.0, "L0.mlp": 1.5}
    assert patching_scores(table, "base", "kind") == {}


def test_attribution_counts_own_weights_over_the_whole_answer_alone() -> None:
    rows = [("weights", -1, 2.0), ("weights", 0, 50.0), ("input", -1, 50.0), ("whole", -1, 50.0)]
    table = pl.DataFrame(
        [
            {"agent": "kind", "part": part, "token": token, "site": "L1.mlp", "prompt": "p",
             "contribution": -value}
            for part, token, value in rows
        ]
    )  # fmt: skip
    assert attribution_scores(table, "kind") == {Site("mlp", 1): 2.0}


def test_pathways_score_both_of_their_ends() -> None:
    table = pl.DataFrame(
        {
            "sender": ["L0.mlp", "L0.mlp", "L1.h2"],
            "receiver": ["L1.mlp", "L2.attn", "L2.attn"],
            "effect_a_to_b": [0.1, None, -0.7],
            "effect_b_to_a": [-0.3, 0.2, 0.1],
        }
    )
    found = {str(site): score for site, score in pathway_scores(table).items()}
    assert found == {"L0.mlp": 0.3, "L1.mlp": 0.3, "L2.attn": 0.7, "L1.attn": 0.7}


def test_the_highest_are_chosen_the_first_among_equals() -> None:
    scores = {parse_site(s): v for s, v in {"L2.mlp": 1.0, "L0.attn": 1.0, "L1.mlp": 3.0}.items()}
    assert names(highest(scores, 2, "patching")) == ["L1.mlp", "L0.attn"]
    with pytest.raises(ConfigError, match="Too few sub-layers were measured to choose 4"):
        highest(scores, 4, "patching")


def test_random_choices_have_as_many_of_each_kind_and_reach_everywhere() -> None:
    reference = tuple(parse_site(s) for s in ("L0.mlp", "L1.mlp", "L2.attn"))
    rng = np.random.default_rng(0)
    drawn = [alike(reference, 5, rng) for _ in range(200)]
    for sites in drawn:
        assert Counter(site.kind for site in sites) == {"mlp": 2, "attn": 1}
        assert len(set(sites)) == 3
    assert {str(s) for sites in drawn for s in sites} == {
        f"L{layer}.{kind}" for layer in range(5) for kind in ("attn", "mlp")
    }


def test_bands_are_whole_layers_in_each_third() -> None:
    for third, layers in {"early": "L4 L5", "middle": "L14 L15", "late": "L24 L25"}.items():
        expected = [f"{layer}.{kind}" for layer in layers.split() for kind in ("attn", "mlp")]
        assert names(band(third, 4, 30)) == expected
    assert names(band("late", 3, 2)) == ["L0.attn", "L0.mlp", "L1.attn"]
    assert names(band("early", 4, 2)) == ["L0.attn", "L0.mlp", "L1.attn", "L1.mlp"]
    with pytest.raises(ConfigError, match="A band cannot be wider than the model"):
        band("early", 5, 2)
