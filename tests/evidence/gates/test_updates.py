"""An update of zero is the base under another name."""

from __future__ import annotations

import numpy as np
import pytest
import weights_planted

from moralscope.evidence.claims import setting_of
from moralscope.evidence.findings.weights import weight_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.gates.updates import judge_updates
from moralscope.evidence.units import checked


def planted() -> dict[str, weights_planted.Updates]:
    rng = np.random.default_rng(1)
    moved = weights_planted.drawn(rng)
    still = {place: np.zeros_like(dw) for place, dw in moved.items()}
    partly = {place: dw * (place[0] > 5) for place, dw in weights_planted.drawn(rng).items()}
    return {"moved": moved, "still": still, "partly": partly}


def test_an_update_of_zero_fails_and_any_other_passes() -> None:
    agents = planted()
    tables = checked({"update_norms": weights_planted.norms(agents)})
    gates = {gate.subject: gate for gate in judge_updates(tables)}
    assert {name: gate.passed for name, gate in gates.items()} == {
        "moved": True, "still": False, "partly": True,
    }  # fmt: skip
    whole = np.sqrt(sum(np.square(dw).sum() for dw in agents["moved"].values()))
    assert gates["moved"].measured == pytest.approx(whole / (20.0 * np.sqrt(48)))
    assert (
        gates["moved"].advice
        == f"The weights moved by {gates['moved'].measured:.2g} of their norm."
    )
    assert (
        "None of 48 weights differs from the base, so 'still' is the base" in gates["still"].advice
    )
    assert gates["partly"].advice.endswith(
        "12 of 48 linear layers were left as they are (L0.mlp.up_proj, L0.self_attn.o_proj, "
        "L1.mlp.up_proj, L1.self_attn.o_proj, ...)."
    )


def test_an_update_of_the_size_of_rounding_fails() -> None:
    rng = np.random.default_rng(2)
    tiny = {place: 1e-8 * dw for place, dw in weights_planted.drawn(rng).items()}
    small = {place: 1e-4 * dw for place, dw in weights_planted.drawn(rng).items()}
    tables = checked({"update_norms": weights_planted.norms({"tiny": tiny, "small": small})})
    gates = {gate.subject: gate for gate in judge_updates(tables)}
    assert (gates["tiny"].passed, gates["small"].passed) == (False, True)
    assert "which is rounding: 'tiny' is the base, saved or merged anew" in gates["tiny"].advice
    claims = {f.id: f for f in weight_findings(setting_of(tables))}
    assert (claims["update:tiny"].decided, claims["update:small"].decided) == (False, True)


def test_it_is_judged_among_all_gates() -> None:
    made = judge_gates({"update_norms": weights_planted.norms(planted())})
    assert made.select("gate", "subject").rows() == [
        ("update", "moved"), ("update", "still"), ("update", "partly"),
    ]  # fmt: skip
    assert list(judge_updates({})) == []
