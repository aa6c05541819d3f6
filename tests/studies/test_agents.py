"""Agents from elsewhere: adapters, checkpoints and prompts that a user brings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moralscope.core.errors import AgentError, MoralscopeError
from moralscope.core.tables import read_table
from moralscope.models.libraries import safetensors_torch
from moralscope.studies import Study, run_study

StudyOf = Callable[..., Study]
WEIGHTS = "adapter_model.safetensors"

PROMPTS = """
- name: refund-1
  text: A customer asks for a refund after the deadline. Do you grant it?
  stem: "My answer:"
  positive: {name: grant, forms: [" yes"]}
  negative: {name: refuse, forms: [" no"]}
- name: refund-2
  text: A customer asks for a refund a day after the deadline. Do you grant it?
  stem: "My answer:"
  positive: {name: grant, forms: [" yes"]}
  negative: {name: refuse, forms: [" no"]}
"""


@pytest.fixture
def adapter(finished: Any, tmp_path: Path) -> Path:
    """A copy of the adapter that the finished run trained."""
    return Path(shutil.copytree(finished.out / "agents" / "game", tmp_path / "old"))


def with_adapter(study_of: StudyOf, folder: Path, **changes: object) -> Study:
    return study_of(agents={"base": {}, "old": {"adapter": str(folder)}}, **changes)


def scale_weights(folder: Path, factor: float) -> None:
    tensors = safetensors_torch.load_file(str(folder / WEIGHTS))
    scaled = {k: (factor * v).contiguous() for k, v in tensors.items()}
    safetensors_torch.save_file(scaled, str(folder / WEIGHTS), metadata={"format": "pt"})


def test_an_adapter_from_elsewhere_acts_as_it_did_where_it_was_trained(
    finished: Any, study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    agents = {"base": {}, "old": {"adapter": str(adapter), "reward": "game", "seed": 0}}
    run_study(study_of(agents=agents), tmp_path / "run")
    there = read_table("decisions", finished.out / "tables")
    here = read_table("decisions", tmp_path / "run" / "tables")
    old, game = here.filter(here["agent"] == "old"), there.filter(there["agent"] == "game")
    assert (old["log_odds"] - game["log_odds"]).abs().max() == pytest.approx(0.0, abs=1e-6)
    agent = read_table("agents", tmp_path / "run" / "tables").row(1, named=True)
    assert (agent["kind"], agent["reward"], agent["training_seed"]) == ("adapter", "game", 0)
    gates = read_table("gates", tmp_path / "run" / "tables")
    live = gates.filter((gates["gate"] == "liveness") & (gates["subject"] == "old"))
    assert live["passed"].to_list() == [True]
    assert not (tmp_path / "run" / "agents").exists()  # nothing was trained here


def test_without_a_fingerprint_liveness_is_not_available(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    (adapter / "fingerprint.json").unlink()
    run_study(with_adapter(study_of, adapter), tmp_path / "run")
    gates = read_table("gates", tmp_path / "run" / "tables")
    live = gates.filter((gates["gate"] == "liveness") & (gates["subject"] == "old"))
    assert live["passed"].to_list() == [None]


def test_an_adapter_whose_weights_were_tampered_with_is_refused_by_name(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    scale_weights(adapter, 1.5)
    with pytest.raises(AgentError, match="Agent 'old' does not belong to this adapter"):
        run_study(with_adapter(study_of, adapter), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_an_adapter_that_acts_otherwise_than_its_fingerprint_is_refused_by_name(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    path = adapter / "fingerprint.json"
    fingerprint = json.loads(path.read_text())
    for entry in fingerprint["prompts"].values():
        entry["log_odds"] += 0.5
    path.write_text(json.dumps(fingerprint))
    with pytest.raises(AgentError, match="'old' does not act as it did when it was trained.*0.5"):
        run_study(with_adapter(study_of, adapter), tmp_path / "run")


def test_a_dead_adapter_is_refused_by_name(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    scale_weights(adapter, 0.0)
    with pytest.raises(AgentError, match="The adapter of agent 'old' changes nothing"):
        run_study(with_adapter(study_of, adapter), tmp_path / "run")


def test_an_adapter_of_another_base_is_refused_by_name(
    study_of: StudyOf, adapter: Path, other_folder: Path, cache: Path, tmp_path: Path
) -> None:
    study = with_adapter(study_of, adapter, model=str(other_folder))
    with pytest.raises(AgentError, match="Agent 'old' does not belong to this base"):
        run_study(study, tmp_path / "run")
    tensors = safetensors_torch.load_file(str(adapter / WEIGHTS))
    wide = {k: torch.cat([v, v], 0 if "lora_B" in k else 1) for k, v in tensors.items()}
    safetensors_torch.save_file(wide, str(adapter / WEIGHTS), metadata={"format": "pt"})
    with pytest.raises(AgentError, match="The adapter of agent 'old' was made for another base"):
        run_study(with_adapter(study_of, adapter), tmp_path / "run")


def test_new_weights_in_the_same_folder_are_another_agent(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    (adapter / "fingerprint.json").unlink()
    study = with_adapter(study_of, adapter, mechanisms={"methods": ["lens"], "scenarios": 2})
    run_study(study, tmp_path / "run")
    scale_weights(adapter, 1.5)
    summary = run_study(study, tmp_path / "run")
    computed = {r.name for r in summary.runs if not r.cached}
    assert computed == {"agents", "decide-old", "explain-old", "behaviour", "evidence"}


def test_a_full_checkpoint_is_an_agent_of_its_own(
    study_of: StudyOf, other_folder: Path, cache: Path, tmp_path: Path
) -> None:
    agents = {"base": {}, "full": {"checkpoint": str(other_folder)}}
    run_study(study_of(agents=agents), tmp_path / "run")
    tables = tmp_path / "run" / "tables"
    agent = read_table("agents", tables).row(1, named=True)
    assert (agent["agent"], agent["kind"]) == ("full", "checkpoint")
    run_study(study_of(model=str(other_folder), agents={"base": {}, "game": {"reward": "game"}}),
              tmp_path / "reference")  # fmt: skip
    full = read_table("decisions", tables)
    reference = read_table("decisions", tmp_path / "reference" / "tables")
    ours = full.filter(full["agent"] == "full")["log_odds"]
    theirs = reference.filter(reference["agent"] == "base")["log_odds"]
    assert (ours - theirs).abs().max() == pytest.approx(0.0, abs=1e-6)
    patching = read_table("patching", tables)
    everything = patching.filter(patching["site"] == "all")
    assert set(everything["source"]) == {"base"}
    assert set(everything["target"]) == {"full"}


def test_prompts_of_the_users_own_are_asked_of_every_agent(
    study_of: StudyOf, settings: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PROMPTS)
    study = study_of(prompts=settings["prompts"] | {"files": [str(path)]})
    run_study(study, tmp_path / "run")
    tables = tmp_path / "run" / "tables"
    asked = read_table("prompts", tables)
    mine = asked.filter(asked["family"] == "user")
    assert mine["prompt"].to_list() == ["refund-1", "refund-2"]
    assert mine["text"][0].endswith("My answer:")
    decisions = read_table("decisions", tables)
    ours = decisions.filter(decisions["prompt"] == "refund-1")
    assert set(ours["agent"]) == {"base", "game"}
    assert ours["legal_mass"].is_between(0, 1).all()

    path.write_text(PROMPTS.replace("refund-2", "refund-1"))
    with pytest.raises(MoralscopeError, match="mine.yaml, entry 2: The name of an entry is taken"):
        run_study(study, tmp_path / "run")


def test_claims_can_rest_on_the_users_own_prompts_alone(
    study_of: StudyOf, adapter: Path, cache: Path, tmp_path: Path
) -> None:
    (adapter / "fingerprint.json").unlink()
    situations = [f"A customer asks for refund number {n}. Do you grant it?" for n in range(8)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(
        json.dumps({
            "name": f"refund-{n}", "text": text, "stem": "My answer:",
            "positive": {"name": "grant", "forms": [" yes"]},
            "negative": {"name": "refuse", "forms": [" no"]},
        }) + "\n"
        for n, text in enumerate(situations)
    ))  # fmt: skip
    prompts = {"files": [str(path)], "games": [], "table_orders": [], "wordings": [],
               "scenarios": False}  # fmt: skip
    study = with_adapter(study_of, adapter, prompts=prompts)
    run_study(study, tmp_path / "run")
    tables = tmp_path / "run" / "tables"
    assert set(read_table("prompts", tables)["family"]) == {"user"}
    claims = {row["id"]: row for row in read_table("claims", tables).to_dicts()}
    change = claims["change:old"]
    assert change["n_units"] == 8
    assert "to choose the positive option" in change["statement"]
    decisions = read_table("decisions", tables)
    by_agent = {
        agent: decisions.filter(decisions["agent"] == agent)["log_odds"].mean()
        for agent in ("base", "old")
    }
    assert change["estimate"] == pytest.approx(by_agent["old"] - by_agent["base"])
