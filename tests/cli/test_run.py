"""The command ``run`` from study file to page, and one clear error for each way to get it wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moralscope.cli.main import main
from moralscope.core.progress import ProgressEvent
from moralscope.models.libraries import safetensors_torch
from moralscope.studies import runner

StudyFile = Callable[..., Path]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a refused command says: one error in four lines on stderr, nothing on stdout."""
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err[said.err.index("Error: ") :].splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["Error", "seen", "allowed", "next"]
    assert "Traceback" not in said.err
    return " | ".join(lines)


def files_in(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def test_a_run_says_what_it_did_and_where_the_page_is(
    capsys: pytest.CaptureFixture[str], study_file: StudyFile, tmp_path: Path
) -> None:
    study, out = study_file(), tmp_path / "run"
    assert main(["run", str(study), "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("To compute: 14 stages, ")
    assert said[-1] == f"The run would be in {out}"
    assert not out.exists()

    assert main(["run", str(study), "--out", str(out)]) == 0
    said = capsys.readouterr()
    seal_line, run_line, _, page_line = said.out.splitlines()[-4:]
    seal = json.loads((out / "manifest.json").read_text())["seal"]
    assert seal_line == f"Seal: {seal[:16]}, for moralscope verify --against"
    assert run_line.startswith(f"Run: {out} (14 stages, none of them cached, in ")
    assert page_line == f"Report: {out / 'report.html'}"
    assert (out / "report.html").is_file()
    assert "train game" in said.err

    assert main(["run", str(study), "--out", str(out)]) == 0
    assert "(14 stages, 14 of them cached, in " in capsys.readouterr().out
    assert main(["run", str(study), "--out", str(out), "--dry-run"]) == 0
    assert "Everything is cached" in capsys.readouterr().out


def test_the_run_is_named_after_the_file_unless_told(
    capsys: pytest.CaptureFixture[str],
    study_file: StudyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(study_file()), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The run would be in runs/small"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agnets": {}}, "There is no key 'agnets' in small.yaml"),
        ({"training": {"stesp": 2}}, "did you mean 'steps'"),
        ({"model": "no/such-model"}, "The model 'no/such-model' was not found"),
        ({"prompts": {"games": ["IDP"]}}, "did you mean 'IPD'"),
    ],
)
def test_bad_studies_are_one_clear_error(
    capsys: pytest.CaptureFixture[str],
    study_file: StudyFile,
    tmp_path: Path,
    changes: dict[str, object],
    said: str,
) -> None:
    study, out = study_file(**changes), tmp_path / "run"
    assert said in refused(capsys, "run", study, "--out", out, "--dry-run")
    assert not out.exists()
    assert said in refused(capsys, "run", study, "--out", out)
    assert files_in(out) == []


def test_a_folder_that_is_not_a_model_is_refused(
    capsys: pytest.CaptureFixture[str], study_file: StudyFile, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    study = study_file(model=str(tmp_path / "notes"))
    said = refused(capsys, "run", study, "--out", tmp_path / "run")
    assert "is not a model" in said
    assert "config.json" in said
    assert files_in(tmp_path / "run") == []


def test_an_adapter_for_another_base_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], study_file: StudyFile, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert main(["run", str(study_file()), "--out", str(out)]) == 0
    capsys.readouterr()
    adapter = Path(shutil.copytree(out / "agents" / "game", tmp_path / "old"))
    weights = adapter / "adapter_model.safetensors"
    cut = {k: v[:, :-1].contiguous() for k, v in safetensors_torch.load_file(str(weights)).items()}
    safetensors_torch.save_file(cut, str(weights), metadata={"format": "pt"})
    study = study_file(agents={"base": {}, "old": {"adapter": str(adapter)}})
    said = refused(capsys, "run", study, "--out", tmp_path / "second")
    assert "The adapter of agent 'old' was made for another base" in said
    assert files_in(tmp_path / "second") == []


def test_a_folder_that_cannot_be_written_is_refused_at_once(
    capsys: pytest.CaptureFixture[str],
    study_file: StudyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*args: object, **named: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(runner, "run_occupied", work)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    said = refused(capsys, "run", study_file(), "--out", blocked / "run")
    assert "A result cannot be written" in said
    assert str(blocked) in said
    assert blocked.read_text() == "in the way"


def test_an_unknown_engine_is_refused(
    capsys: pytest.CaptureFixture[str], study_file: StudyFile, tmp_path: Path
) -> None:
    said = refused(capsys, "run", study_file(), "--out", tmp_path / "run", "--engine", "cloud")
    assert "There is no such engine" in said


def test_an_interrupted_run_says_so_and_goes_on(
    capsys: pytest.CaptureFixture[str],
    study_file: StudyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, out = study_file(), tmp_path / "run"
    really = runner.run_occupied

    def interrupted(*args: object, progress: Callable[[ProgressEvent], None], **named: object):
        def watch(event: ProgressEvent) -> None:
            progress(event)
            if event.task == "decide game":
                raise KeyboardInterrupt

        return really(*args, progress=watch, **named)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_occupied", interrupted)
        assert main(["run", str(study), "--out", str(out)]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(
        "Interrupted. Finished stages are kept: the same command goes on from there.\n"
    )
    assert files_in(out) == []
    assert main(["run", str(study), "--out", str(out)]) == 0
    assert "6 of them cached" in capsys.readouterr().out
    manifest = json.loads((out / "manifest.json").read_text())
    assert [s["name"] for s in manifest["stages"] if s["cached"]] == [
        "prompts", "replicate-base", "train-game", "agents", "comparisons", "decide-base",
    ]  # fmt: skip
