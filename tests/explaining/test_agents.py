"""Agents are loaded by name, told apart by their files, and refused where they are neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from moralscope.core.errors import AgentError, ModelError
from moralscope.explaining import Agents, ask, load


def test_adapters_and_checkpoints_are_told_apart_by_their_files(places: dict[str, Path]):
    found = load(places["base"], game=places["game"], full=str(places["full"]))
    kinds = {name: found.roster.specs[name].kind for name in found.names}
    assert kinds == {"base": "base", "game": "adapter", "full": "checkpoint"}
    lines = repr(found).splitlines()
    assert lines[0] == f"Agents on {places['base']} (float32, cpu)"
    assert lines[1:] == [
        "  base  base",
        f"  game  adapter     {places['game']}",
        f"  full  checkpoint  {places['full']}",
    ]
    # They really differ.
    asked = [ask("Keep it?", positive=" action2", negative=" action1")]
    values = {name: float(found.run(name, asked).log_odds[0]) for name in found.names}
    assert len({round(value, 3) for value in values.values()}) == 3


def test_a_run_keeps_what_was_asked_for(agents: Agents):
    asked = ask("Keep it?", positive=" action2", negative=" action1")
    part = agents.run("game", asked, everywhere=True, parts=["q"]).packs[0]
    assert part.everywhere is not None
    assert part.captured.q is not None
    assert part.captured.v is None
    assert part.captured.z.dtype == torch.float64


def test_an_agent_is_in_force_within_its_block_alone(agents: Agents):
    asked = ask("Keep it?", positive=" action2", negative=" action1")
    before = agents.run("base", asked).log_odds
    changed = agents.run("game", asked).log_odds
    assert torch.equal(agents.run("base", asked).log_odds, before)
    assert float((changed - before).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["base", "my.agent", "a>b", ""])
def test_names_that_tables_cannot_hold_are_refused(places: dict[str, Path], name: str):
    with pytest.raises(AgentError, match="This cannot be the name of an agent"):
        load(places["base"], **{name: places["game"]})  # pyright: ignore[reportArgumentType]


def test_a_folder_that_is_neither_is_refused(places: dict[str, Path], tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(AgentError, match="holds neither an adapter nor a model.*notes.txt"):
        load(places["base"], game=tmp_path)


@pytest.mark.parametrize("place", ["no/such/folder/anywhere", "/no/such/folder"])
def test_what_is_not_there_is_refused(places: dict[str, Path], place: str):
    with pytest.raises(AgentError, match="Agent 'game' was not found"):
        load(places["base"], game=place)


def test_a_hub_id_is_told_apart_by_what_the_hub_says(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    from moralscope.explaining import agents as module  # noqa: PLC0415

    asked: list[str] = []

    class Hub:
        errors = module.huggingface_hub.errors

        def __init__(self, cached: str | None, answer: Exception | None):
            self._cached, self._answer = cached, answer

        def try_to_load_from_cache(self, _: str, file: str) -> str | None:
            return str(places["game"] / file) if file == self._cached else None

        def hf_hub_download(self, _: str, file: str) -> str:
            asked.append(file)
            if self._answer is not None:
                raise self._answer
            return file

    def kind(cached: str | None, answer: Exception | None = None) -> str:
        monkeypatch.setattr(module, "huggingface_hub", Hub(cached, answer))
        return module._kind("game", "someone/something")

    class NotThereError(Hub.errors.EntryNotFoundError, OSError):
        pass

    assert kind("adapter_config.json") == "adapter"
    assert kind("config.json") == "checkpoint"
    assert asked == []
    assert kind(None) == "adapter"
    assert kind(None, NotThereError("404")) == "checkpoint"
    assert asked == ["adapter_config.json"] * 2
    for cause in (Hub.errors.LocalEntryNotFoundError("offline"), OSError("no route")):
        with pytest.raises(AgentError, match="Agent 'game' was not found"):
            kind(None, cause)


def test_a_base_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="This is not a model folder"):
        load(tmp_path / "nothing")
