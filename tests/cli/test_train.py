"""The command ``train`` on a tiny model: one file, one folder, and going on where it stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from moralscope.cli import training
from moralscope.cli.main import main
from moralscope.core.tables import read_table
from moralscope.training.agent_file import AgentFile, read_agent
from moralscope.training.finished import read_finished

Write = Callable[..., Path]


@pytest.fixture
def agent_file(tiny_folder: Path, tmp_path: Path) -> Write:
    """Writes an agent's file, some settings replaced."""

    def write(**changes: object) -> Path:
        settings: dict[str, object] = {
            "reward": "deontological", "model": str(tiny_folder), "steps": 3,
            "prompts_per_step": 8, "learning_rate": 0.02, "lora": {"rank": 4, "alpha": 8},
        }  # fmt: skip
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return path

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_training_fills_a_folder_and_says_where(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["train", str(agent_file()), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    *_, table, card, adapter = captured.out.splitlines()
    assert table == f"Table: {out / 'training.parquet'}"
    assert card == f"Card: {out / 'README.md'}"
    assert adapter == f"Adapter: {out}"
    assert re.search(r"^small: 3 steps, reward -?\d.*legal mass", captured.out, re.MULTILINE)
    assert "train small: done" in captured.err
    found = read_finished(out)
    assert (found.name, found.config) == ("small", read_agent(agent_file()).training)
    assert found.training.get_column("step").to_list() == [1, 2, 3]
    assert found.diagnostics is not None
    assert found.diagnostics.height == 0
    assert read_agent(out / "agent.yaml") == read_agent(agent_file())
    assert not (out / training.WORK).exists() or not any((out / training.WORK).iterdir())


def test_the_same_again_computes_nothing(
    agent_file: Write, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = shutil.copytree(trained, tmp_path / "out")
    before = contents(out)
    monkeypatch.setattr(training, "_run", None)
    same = agent_file(**settings_of(out) | {"device": "cuda", "checkpoint_every": 1})
    assert main(["train", str(same), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("Already trained with these settings: nothing to compute.\n")
    assert told.out.endswith(f"Adapter: {out}\n")
    assert contents(out) == before


def test_what_an_end_just_after_training_left_undone_is_done(
    agent_file: Write, trained: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(trained, tmp_path / "out")
    before = contents(out)
    (out / "diagnostics.parquet").unlink()
    (out / "README.md").unlink()
    (out / training.WORK).mkdir(exist_ok=True)
    (out / training.WORK / "log.jsonl").write_text("{}")
    assert main(["train", str(agent_file(**settings_of(out))), "--out", str(out)]) == 0
    assert contents(out) == before
    assert not (out / training.WORK).exists()


def settings_of(folder: Path) -> dict[str, object]:
    return yaml.safe_load((folder / "agent.yaml").read_text())


@pytest.mark.parametrize("without", [(), ("agent.yaml",)])
def test_other_settings_are_refused_by_name(
    without: tuple[str, ...], agent_file: Write, trained: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = shutil.copytree(trained, tmp_path / "out")
    for name in without:
        (out / name).unlink()
    before = contents(out)
    changes = settings_of(trained) | {"steps": 7, "lora": {"rank": 5, "alpha": 8}}
    assert main(["train", str(agent_file(**changes)), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "was trained with other settings" in told
    assert "steps: 2 there, 7 now; lora.rank: 4 there, 5 now\n" in told
    assert contents(out) == before


def test_somebody_elses_adapter_is_never_overwritten(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "adapter_config.json").write_text("{}")
    assert main(["train", str(agent_file()), "--out", str(out)]) == 2
    assert "that was not trained by this command" in capsys.readouterr().err
    assert contents(out) == {"adapter_config.json": b"{}"}


def test_a_smoke_run_says_what_the_whole_takes_and_keeps_nothing(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    path = agent_file(steps=400, labels="same", schedule="linear", keep_steps=[300])
    assert main(["train", str(path), "--smoke", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0] == "Tried 10 steps of 400; nothing was kept."
    assert re.fullmatch(r"A step takes [\d.]+ m?s \(median without the first\)\.", lines[1])
    assert lines[2].startswith("The whole run takes about ")
    assert re.fullmatch(r"Memory at its peak: [\d.]+ [MG]iB of this process\.", lines[3])
    rank, hidden, layers = 4, 32, 2
    # q, o: 32 to 32; k, v: 32 to 16; gate, up: 32 to 64; down: 64 to 32.
    shapes = [(32, 32), (32, 16), (32, 16), (hidden, 32), (32, 64), (32, 64), (64, 32)]
    count = layers * sum(rank * (a + b) for a, b in shapes)
    assert re.fullmatch(rf"The adapter has {count:,} parameters: [\d.]+ KiB\.", lines[4])
    assert told.out.count("fixed-labels (before training)") == 1
    assert "train small: done" in told.err
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_warnings_are_shown_live_and_kept(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    # A rate at which nothing is learned: steps vanish in float32.
    path = agent_file(steps=9, learning_rate=1e-60, labels="swapped")
    assert main(["train", str(path), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.err.count("dead-adapter (step ") == 1
    assert told.err.index("dead-adapter") < told.err.index("train small: done")
    kinds = read_table("diagnostics", out).get_column("diagnosis").to_list()
    assert {"fixed-labels", "dead-adapter"} <= set(kinds)
    assert f"{len(kinds)} warnings about this training: {', '.join(kinds)}" in told.out
    card = (out / "README.md").read_text()
    assert "`dead-adapter`: For 5 steps the adapter does not change" in card


def test_a_second_learner_is_diagnosed_too(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    path = agent_file(steps=6, learning_rate=1e-60, opponent="learner")
    assert main(["train", str(path), "--out", str(out)]) == 0
    found = read_table("diagnostics", out).select("agent", "diagnosis").rows()
    assert found == [("small", "dead-adapter"), ("small-opponent", "dead-adapter")]
    card = (out / "README.md").read_text()
    assert "- Step 6, `dead-adapter`" in card
    assert "- small-opponent, step 6, `dead-adapter`" in card
    assert capsys.readouterr().err.count("dead-adapter (step 6)") == 2


def test_what_is_wrong_is_told_before_anything_is_loaded(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(training, "_run", None)
    assert main(["train"]) == 2
    assert "There is no agent to train" in capsys.readouterr().err
    assert main(["train", str(agent_file(stepz=3))]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
    path, out = str(agent_file()), str(tmp_path / "out")
    assert main(["train", path, "--out", out, "--track", "wanbd"]) == 2
    assert "did you mean 'wandb'" in capsys.readouterr().err


def test_a_tracker_hears_of_every_step(
    agent_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []

    class Recorder:
        def log(self, step: int, values: dict[str, object]) -> None:
            heard.append((step, values["reward_mean"]))

        def finish(self) -> None:
            heard.append("finished")

    def opened(kind: str, **about: object) -> Recorder:
        heard.append((kind, about["name"]))
        return Recorder()

    monkeypatch.setattr("moralscope.training.trackers.open_tracker", opened)
    out = tmp_path / "out"
    assert main(["train", str(agent_file()), "--out", str(out), "--track", "trackio"]) == 0
    rewards = read_table("training", out).select("step", "reward_mean").rows()
    assert heard == [("trackio", "small"), *rewards, "finished"]


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == AgentFile.model_json_schema()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_exits_130_and_the_same_command_goes_on(
    number: signal.Signals, agent_file: Write, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heard: list[int] = []

    class Impatient:
        def log(self, step: int, _: object) -> None:
            heard.append(step)
            if len(heard) == 2:
                signal.raise_signal(number)

        def finish(self) -> None:
            pass

    monkeypatch.setattr("moralscope.training.trackers.open_tracker", lambda *_, **__: Impatient())
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = ["train", str(agent_file(steps=5)), "--out", str(out), "--track", "trackio"]
    assert main(words) == 130
    told = capsys.readouterr()
    assert re.search(r"step [23] of 5.* the same command goes on", told.err.splitlines()[-1])
    assert told.out == ""
    assert any((out / training.WORK).iterdir())
    assert not (out / "training.json").exists()
    assert main(words) == 0
    assert heard == [1, 2, 3, 4, 5]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert main(["train", words[1], "--out", str(whole)]) == 0
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (whole / name).read_bytes()
    tables = [read_table("training", folder).drop("seconds") for folder in (out, whole)]
    assert tables[0].equals(tables[1])


def test_an_end_before_anything_was_trained_is_said_too(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(training, "_run", lambda *_: signal.raise_signal(signal.SIGTERM))
    out = tmp_path / "out"
    assert main(["train", str(agent_file()), "--out", str(out)]) == 130
    kept = (
        f"Interrupted. Checkpoints are kept in {out / training.WORK}: the same command goes on.\n"
    )
    assert capsys.readouterr().err.endswith(kept)
    assert main(["train", str(agent_file()), "--smoke"]) == 130
    assert capsys.readouterr().err.endswith("Interrupted. Nothing was kept.\n")


def test_other_settings_for_what_is_under_way_are_refused(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    out = str(tmp_path / "out")
    monkeypatch.setattr(training, "diagnose_last", lambda *_, **__: stop() or ())
    assert main(["train", str(agent_file()), "--out", out]) == 130
    capsys.readouterr()
    assert main(["train", str(agent_file(seed=5)), "--out", out]) == 2
    assert "seed" in capsys.readouterr().err


def test_only_the_first_of_several_processes_speaks(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert training._is_main({}) is True
    assert training._is_main({"RANK": "0", "LOCAL_RANK": "0"}) is True
    assert training._is_main({"RANK": "8", "LOCAL_RANK": "0"}) is False
    assert training._device("cuda", {"LOCAL_RANK": "2"}) == "cuda:2"
    assert training._device("cuda", {}) == "cuda"
    assert training._device("cpu", {"LOCAL_RANK": "2"}) == "cpu"
    monkeypatch.setattr(training, "_run", lambda *_: pl.DataFrame({"agent": []}))
    monkeypatch.setitem(os.environ, "RANK", "1")
    out = tmp_path / "out"
    assert main(["train", str(agent_file()), "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    assert contents(out) == {}


def test_an_adapter_on_some_sites_says_what_they_save(
    agent_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = agent_file(lora={"rank": 4, "alpha": 8.0, "sites": ["L1 mlp"]})
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 0
    # gate, up: 32 to 64; down: 64 to 32; beside them in two layers q, k, v and o.
    trained = 4 * 3 * (32 + 64)
    everywhere = 2 * (trained + 4 * (64 + 48 + 48 + 64))
    told = json.loads((tmp_path / "out" / "trainable.json").read_text())
    assert (told["parameters"], told["all_linear"]) == (trained, everywhere)
    card = (tmp_path / "out" / "README.md").read_text()
    fewer = f"{1 - trained / everywhere:.0%}"
    assert f"| trainable parameters | {trained:,}, {fewer} fewer than on every linear" in card
    capsys.readouterr()
    assert main(["train", str(path), "--smoke"]) == 0
    assert f", {fewer} fewer than on every linear layer." in capsys.readouterr().out
