"""Sites that carry a word, and sites that carry a move."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from moralscope.core.tables import conform, from_rows
from moralscope.evidence.claims import make_claims

SCENARIOS, WORDINGS = 12, 2
SITES = ("L0.mlp", "L0.h0", "L1.mlp", "L1.h0", "L2.mlp")
WAYS = ("left/right", "right/left")


def tables(
    move: dict[str, float], label: dict[str, float], seed: int = 0
) -> dict[str, pl.DataFrame]:
    """Patches in which sites have these parts, under both assignments in every scenario."""
    rng = np.random.default_rng(seed)
    prompts: list[dict[str, object]] = []
    patches: list[dict[str, object]] = []
    for g, w in itertools.product(range(SCENARIOS), range(WORDINGS)):
        way = (g + w) % 2  # confounded with the wording within a scenario, not over them
        prompts.append(
            {"prompt": f"p{g}-{w}", "game": "IPD", "scenario": f"s{g}", "family": "clusters",
             "template": f"t{w}", "labels": WAYS[way], "option_order": 0, "answer_order": 0,
             "table_order": "none", "stem": "", "system": "", "chat_template": True,
             "own_previous": None, "opponent_previous": None, "others_cooperated": None,
             "text": f"{g} {w}", "sha256": f"{g}-{w}", "positive": "a", "negative": "b"}
        )  # fmt: skip
        for site in SITES:
            sign = 1.0 if way == 0 else -1.0
            mean = move.get(site, 0.0) + sign * label.get(site, 0.0)
            effect = mean + float(rng.normal(0, 0.1))
            patches.append(
                {"source": "base", "target": "kind", "prompt": f"p{g}-{w}",
                 "source_prompt": f"p{g}-{w}", "site": site, "layer": 0, "kind": "mlp",
                 "head": None, "positions": "answer_span", "write": "write",
                 "baseline_log_odds": 0.0, "patched_log_odds": effect, "effect": effect,
                 "margin": 0.1, "flipped": False, "first_patched": 2, "first_scored": 3}
            )  # fmt: skip
    return {
        "prompts": from_rows("prompts", prompts),
        "patching": conform("patching", from_rows("patching", patches)),
    }


def claim(found: dict[str, pl.DataFrame]) -> dict[str, object]:
    rows = {row["id"]: row for row in make_claims(found).iter_rows(named=True)}
    row = rows["label:base>kind"]
    again = pl.SQLContext(found).execute(str(row["query"])).collect()["estimate"][0]
    assert again == pytest.approx(row["estimate"], abs=1e-9)
    return row


def test_a_site_of_a_word_is_told_from_one_of_a_move() -> None:
    row = claim(tables(move={"L1.mlp": 1.0}, label={"L0.h0": 0.8}))
    assert row["p"] == pytest.approx(2 / 2**SCENARIOS)
    assert row["estimate"] == pytest.approx(0.8, abs=0.1)
    assert "clearest is L0.h0" in str(row["statement"])
    assert "towards 'right' where positive" in str(row["statement"])
    assert "1 of 5 distinct sites" in str(row["statement"])


def test_sites_of_a_move_alone_are_none_of_a_word() -> None:
    row = claim(tables(move={"L1.mlp": 1.0, "L0.mlp": -0.6}, label={}))
    assert row["verdict"] != "supported"
    assert float(str(row["p_adjusted"])) > 0.05


def test_one_assignment_alone_says_nothing_of_labels() -> None:
    found = tables(move={"L1.mlp": 1.0}, label={})
    one = found["prompts"].with_columns(labels=pl.lit(WAYS[0]))
    claims = make_claims({**found, "prompts": one})
    assert not claims.get_column("id").str.starts_with("label:").any()
