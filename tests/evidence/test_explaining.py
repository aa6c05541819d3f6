"""From a claim to its units and rows, recomputed by hand from the tables."""

from __future__ import annotations

from pathlib import Path

import inner_planted
import numpy as np
import polars as pl
import pytest
import synthetic
from polars.testing import assert_frame_equal

from moralscope.core.errors import EvidenceError
from moralscope.core.tables import conform
from moralscope.evidence.claims import judge_findings, make_claims, setting_of
from moralscope.evidence.explaining import (
    explain_claim,
    folder_name,
    gates_shown,
    layers_of,
    write_rows,
)
from moralscope.evidence.findings.wiring import wiring_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.forms import FORMS
from moralscope.evidence.hypotheses.grammar import Hypothesis, not_registered
from moralscope.evidence.hypotheses.judging import hypothesis_findings

Study = tuple[dict[str, pl.DataFrame], pl.DataFrame, pl.DataFrame]


@pytest.fixture(scope="module")
def study(sound: synthetic.Tables) -> Study:
    tables = {name: conform(name, frame) for name, frame in sound.items()}
    return tables, make_claims(tables, draws=199), judge_gates(tables)


def test_units_and_rows_of_a_change_are_those_of_the_tables(study: Study) -> None:
    tables, claims, gates = study
    found = explain_claim(tables, claims, gates, "change:game", shown=3)
    decided = {
        agent: tables["decisions"].filter(pl.col("agent") == agent) for agent in ("game", "base")
    }
    by_prompt = dict(
        zip(
            decided["game"].get_column("prompt"),
            decided["game"].get_column("log_odds").to_numpy()
            - decided["base"].get_column("log_odds").to_numpy(),
            strict=True,
        )
    )
    scenario = dict(tables["prompts"].select("prompt", "scenario").iter_rows())
    expected: dict[str, list[float]] = {}
    for prompt, change in by_prompt.items():
        expected.setdefault(scenario[prompt], []).append(change)
    units = dict(found.units.select("unit", "value").iter_rows())
    assert units == pytest.approx({name: np.mean(v) for name, v in expected.items()}, abs=1e-12)
    rows = found.rows.collect()
    assert dict(rows.select("prompt", "value").iter_rows()) == pytest.approx(by_prompt, abs=1e-12)
    assert (found.n_rows, found.first.height) == (80, 3)
    assert found.first.equals(rows.sort(rows.columns).head(3))
    assert found.recomputed == pytest.approx(np.mean(list(units.values())), abs=1e-12)
    assert found.agrees


def test_gates_are_told_with_what_they_measured(study: Study) -> None:
    tables, claims, gates = study
    found = explain_claim(tables, claims, gates, "patching:game>utilitarian")
    told = {(gate.gate, gate.subject): gate for gate in found.gates}
    assert len(found.gates) == str(found.claim["gates"]).count("; ") + 1
    of_game = told["liveness", "game"]
    (judged,) = gates.filter(gate="liveness", subject="game").iter_rows(named=True)
    assert (of_game.measured, of_game.threshold) == (judged["measured"], judged["threshold"])
    assert (of_game.result, of_game.advice) == ("passed", judged["advice"])
    assert ("noise floor", "write-all game>utilitarian") in told


def test_subjects_may_hold_signs_and_gates_may_be_missing() -> None:
    text = "liveness (odd (1): passed; x): failed; position (patching a>b): not available"
    told = gates_shown(text, pl.DataFrame(schema=["gate", "subject"]))
    assert [(g.gate, g.subject, g.result) for g in told] == [
        ("liveness", "odd (1): passed; x", "failed"),
        ("position", "patching a>b", "not available"),
    ]
    assert told[0].measured is None
    assert told[0].advice == "It was not judged."
    assert gates_shown("none applies", pl.DataFrame(schema=["gate", "subject"])) == ()


def test_lazy_scans_give_the_same(study: Study, tmp_path: Path) -> None:
    tables, claims, gates = study
    for name, frame in tables.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    scans = {name: pl.scan_parquet(tmp_path / f"{name}.parquet") for name in tables}
    for name in ("effect:game<>utilitarian", "attribution:game", "flips:game>utilitarian"):
        eager = explain_claim(tables, claims, gates, name)
        lazy = explain_claim(scans, claims, gates, name)
        # Means are added up in another order where rows are streamed.
        assert_frame_equal(lazy.units, eager.units, rel_tol=1e-12)
        assert_frame_equal(lazy.first, eager.first, rel_tol=1e-12)
        assert lazy.agrees
        write_rows(lazy, tmp_path / "rows.parquet")
        assert pl.read_parquet(tmp_path / "rows.parquet").height == eager.n_rows


PAIR = ["game", "utilitarian"]
NAMED: tuple[dict[str, object], ...] = (
    {"quantity": "change", "agents": ["game"], "direction": "above"},
    {"quantity": "difference", "agents": PAIR, "margin": 1.0},
    {"quantity": "reward_change", "rewards": ["game"], "direction": "above"},
    {"quantity": "reward_difference", "rewards": PAIR, "direction": "above"},
    {"quantity": "contrast", "agents": ["game"], "contrast": "guilt_effect", "direction": "below"},
    {"quantity": "patch_effect", "agents": PAIR, "sites": ["L1.mlp", "L0.h1"],
     "direction": "below"},
    {"quantity": "symmetric_effect", "agents": PAIR, "sites": ["L1.mlp"], "direction": "below"},
    {"quantity": "asymmetry", "agents": PAIR, "sites": ["L1.mlp"], "direction": "zero"},
    {"quantity": "attribution_change", "agents": ["game"], "sites": ["L1.mlp"],
     "direction": "below"},
    {"quantity": "flips", "agents": PAIR, "direction": "above"},
    {"quantity": "learned", "agents": ["game"], "learned": "move"},
    {"quantity": "pathway_difference", "agents": PAIR, "sites": ["L0.h0", "L0.h1"],
     "tables": ["norms"], "published": 0.5},
    {"quantity": "significant_count", "agents": PAIR, "tables": ["patching"], "published": 3},
    {"quantity": "similarity", "agents": PAIR, "tables": ["decisions"], "published": 0.9},
    {"quantity": "asymmetry_share", "agents": PAIR, "published": 0.78},
    {"quantity": "zero_flips", "agents": PAIR, "published": 0},
    {"quantity": "analyses_correlation", "agents": PAIR, "tables": ["attribution", "patching"],
     "published": 0.9},
)  # fmt: skip


def test_hypotheses_and_wiring_lead_to_their_rows_as_well(study: Study) -> None:
    tables = {**study[0], "norms": conform("norms", inner_planted.tables()["norms"])}
    said = [Hypothesis.model_validate({"id": str(n["quantity"]), **n}) for n in NAMED]
    assert {n.quantity for n in said} == set(FORMS) - {"levels_apart"}  # no seeds here
    gates = judge_gates(tables)
    setting = setting_of({**tables, "gates": gates}, draws=199)
    findings = [
        *hypothesis_findings(setting, not_registered(said, "by construction")),
        *wiring_findings(setting),
    ]
    claims = judge_findings(setting, findings)
    assert claims.height > len(said)
    for name in claims.get_column("id"):
        found = explain_claim(tables, claims, gates, name)
        assert found.agrees, (name, found.recomputed, found.claim["estimate"])
        assert found.n_rows > 0, name
        assert found.claim["reason"], name


def test_tables_that_changed_are_noticed(study: Study) -> None:
    tables, claims, gates = study
    moved = synthetic.set_values(
        tables, "decisions", pl.col("agent") == "game", log_odds=pl.col("log_odds") + 1e-6
    )
    found = explain_claim(moved, claims, gates, "change:game")
    assert not found.agrees
    assert found.recomputed == pytest.approx(float(str(found.claim["estimate"])) + 1e-6, abs=1e-9)


def test_a_claim_without_an_estimate_agrees_with_none(study: Study) -> None:
    tables, _, _ = study
    dead = synthetic.set_values(
        tables, "attribution", pl.col("agent") == "game", contribution=pl.lit(0.0)
    )
    gates = judge_gates(dead)
    found = explain_claim(dead, make_claims(dead, draws=199), gates, "attribution:game")
    assert (found.recomputed, found.agrees) == (None, True)
    assert "attribution game" in found.first.get_column("unit").to_list()


def test_the_design_of_its_unit_is_told(study: Study) -> None:
    tables, claims, gates = study
    rows = [
        {"question": q, "subject": "", "unit": u, "n": 20, "floor": None, "level": None,
         "needed": None, "needed_for_power": None, "identified": True, "sentence": f"About {u}."}
        for q, u in (("checkpoints", "scenario"), ("reward", "training seed"))
    ]  # fmt: skip
    design = pl.DataFrame(rows, infer_schema_length=None)
    found = explain_claim({**tables, "design": design}, claims, gates, "change:game")
    assert found.design.get_column("sentence").to_list() == ["About scenario."]


def test_of_families_of_sites_only_its_own_is_told(study: Study) -> None:
    tables, claims, gates = study
    rows = [
        {"question": "sites", "subject": subject, "unit": "scenario", "n": 20, "floor": None,
         "level": None, "needed": None, "needed_for_power": None, "identified": True,
         "sentence": f"About {subject}."}
        for subject in ("patching game>utilitarian", "attribution game")
    ]  # fmt: skip
    told = {**tables, "design": pl.DataFrame(rows, infer_schema_length=None)}
    swept = explain_claim(told, claims, gates, "patching:game>utilitarian")
    assert swept.design.get_column("subject").to_list() == ["patching game>utilitarian"]
    assert explain_claim(told, claims, gates, "change:game").design.is_empty()


def test_a_misspelt_claim_names_the_nearest(study: Study) -> None:
    tables, claims, gates = study
    with pytest.raises(EvidenceError, match="no claim of this name") as error:
        explain_claim(tables, claims, gates, "change:gmae")
    assert error.value.remedy == "did you mean 'change:game'"
    with pytest.raises(EvidenceError, match="run the study or the audit again"):
        explain_claim(tables, claims.clear(), gates, "change:game")


def test_a_missing_table_is_named(study: Study) -> None:
    tables, claims, gates = study
    part = {name: frame for name, frame in tables.items() if name != "decisions"}
    with pytest.raises(EvidenceError, match="cannot be read from these tables") as error:
        explain_claim(part, claims, gates, "change:game")
    assert "decisions" in str(error.value.seen)


def test_a_query_is_cut_at_its_last_select_whatever_names_hold() -> None:
    rows = "SELECT 'it''s ) SELECT (' AS unit, 1.0 AS value"
    means = "SELECT unit, AVG(value) AS value FROM evidence_rows GROUP BY unit"
    last = "SELECT AVG(v) AS estimate FROM (SELECT value AS v FROM unit_means)"
    query = f"WITH evidence_rows AS ({rows}), unit_means AS ({means}) {last}"
    layers = layers_of(query)
    assert layers.last == last
    context = pl.SQLContext({})
    assert context.execute(layers.rows, eager=True).rows() == [("it's ) SELECT (", 1.0)]
    assert context.execute(layers.units, eager=True).rows() == [("it's ) SELECT (", 1.0)]
    with pytest.raises(EvidenceError, match="no parts to walk through"):
        layers_of("SELECT AVG(m) AS estimate FROM (SELECT 1.0 AS m)")


def test_names_of_folders_are_safe_and_differ() -> None:
    ids = ["effect:a<>b", "effect:a<b>", "Effect:a<>b", "hypothesis:../../etc", "x" * 300, "."]
    names = [folder_name(each) for each in ids]
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert len(name) < 80
        assert name.strip(".") == name
        assert not set(name) & set('/\\:*?"<>| \0')
