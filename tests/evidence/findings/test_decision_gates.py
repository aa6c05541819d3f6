"""A gate that fails on an agent's decisions reaches every claim that is made from them."""

from functools import cache

import numpy as np
import planted
import polars as pl
import pytest
import synthetic

from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.judging import judge_gates


@cache
def _study() -> synthetic.Tables:
    return {name: synthetic.build()[name] for name in
            ("agents", "prompts", "decisions", "learned", "transfer")}  # fmt: skip


@cache
def _seeds() -> synthetic.Tables:
    asked, who = synthetic.prompts(), synthetic.agents(7, ("game", "utilitarian"))
    rng = np.random.default_rng(8)
    rows = synthetic.decisions(who, asked, rng, {"game": 1.0, "utilitarian": 0.5})
    game = pl.col("agent").replace("game-0", "game")
    return {
        "agents": who.with_columns(game),
        "prompts": asked,
        "decisions": rows.with_columns(game),
    }


@cache
def _situations() -> synthetic.Tables:
    asked = planted.prompts()
    lean = {"base": lambda _f, _c: 0.2, "game": lambda _f, c: 1.5 if c == "CC" else -1.0}
    agents = planted.agents("game")
    return {"agents": agents, "prompts": asked, "decisions": planted.decisions(asked, lean)}


def _failing(tables: synthetic.Tables, gate: str, subject: str) -> dict[str, str]:
    """Claim to verdict once one gate has failed."""
    gates = judge_gates(tables)
    at = (pl.col("gate") == gate) & (pl.col("subject") == subject)
    failed = gates.filter(at) if gates.filter(at).height else gates.head(1)
    failed = failed.with_columns(
        gate=pl.lit(gate), subject=pl.lit(subject), passed=pl.lit(value=False)
    )
    with_gates = {**tables, "gates": pl.concat([gates.filter(~at), failed])}
    claims = make_claims(with_gates, draws=199)
    return dict(claims.select("id", "verdict").iter_rows())


@pytest.mark.parametrize(
    ("gate", "subject"),
    [
        ("resolution", "game"),
        ("undefined values", "game"),
        ("duplicates", "scenarios"),
        ("metric agreement", "game structured strict"),
    ],
)
def test_a_failed_gate_on_decisions_reaches_every_claim_made_from_them(
    gate: str, subject: str
) -> None:
    named = {
        "changes": (_study(), ("change:game", "difference:game:hybrid", "labels:game")),
        "likeness": (_study(), ("alike:base:game", "alike:all", "learned:game")),
        "rewards": (_seeds(), ("reward:game", "rewards:game:utilitarian")),
        "contrasts": (
            _situations(),
            (
                "contrast:wordings.IPD:cooperation:game",
                "contrast-change:wordings.IPD:cooperation:game",
                "label:game",
            ),
        ),
    }
    for what, (tables, ids) in named.items():
        verdicts = _failing(tables, gate, subject)
        assert {verdicts[name] for name in ids} == {"artefact"}, (what, verdicts)
        if subject != "scenarios" and what == "changes":
            assert verdicts["change:utilitarian"] == "supported"
