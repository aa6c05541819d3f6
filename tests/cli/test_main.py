"""The command as a user meets it: help, exit codes, errors without tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moralscope import __version__
from moralscope.cli import examining
from moralscope.cli.main import main
from moralscope.core.tables import from_rows, write_table

MODEL_STACK = ("torch", "transformers", "peft", "safetensors", "accelerate", "tokenizers")
WITHOUT_MODELS = (
    f"import sys; sys.modules.update(dict.fromkeys({MODEL_STACK!r}));"
    "from moralscope.cli.main import main; code = main(sys.argv[1:]);"
)


def moralscope(*words: str, setup: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; with ``setup``, Python code in its place."""
    start = ["-m", "moralscope.cli"] if setup is None else ["-c", setup]
    return subprocess.run(
        [sys.executable, *start, *words], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["demo", "-h"],
        ["explain", "-h"],
        ["train", "-h"],
        ["push", "-h"],
        [],
    ],
)
def test_help_never_imports_the_model_stack(words: list[str]) -> None:
    report = (
        "import sys; from moralscope.cli.main import main; code = main(sys.argv[1:]);"
        f"heavy = {{*{MODEL_STACK!r}, 'polars', 'scipy', 'altair'}} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = moralscope(*words, setup=report)
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert "Usage: moralscope" in done.stdout


def test_help_names_every_command_in_the_order_of_use() -> None:
    help_text = moralscope("--help").stdout
    places = [
        help_text.index(f"│ {name} ")
        for name in ("demo", "run", "explain", "train", "push", "report", "doctor")
    ]
    assert places == sorted(places)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    captured = capsys.readouterr()
    assert 'Did you mean "run"' in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [(["run"], "STUDY"), (["run", "a.yaml", "--dry-ru"], "--dry-run"), (["report"], "RUN")],
)
def test_wrong_arguments_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_not_a_run_is_one_clear_error(tmp_path: Path) -> None:
    done = moralscope("report", str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    heading, *fields = done.stderr.splitlines()
    assert heading.startswith("Error: ")
    assert [line.split(":")[0].strip() for line in fields] == ["seen", "allowed", "next"]
    assert str(tmp_path) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_report_counts_verdicts_and_ends_with_the_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    claims = [
        {
            "id": f"c{index}",
            "statement": "A change",
            "estimate": 1.0,
            "low": 0.5,
            "high": 1.5,
            "unit": "nats",
            "n_units": 20,
            "test": "sign-flip",
            "p": 0.01,
            "p_adjusted": 0.02,
            "p_floor": 0.001,
            "gates": "liveness passed",
            "registered": True,
            "verdict": verdict,
            "query": "SELECT 1",
        }
        for index, verdict in enumerate(["supported", "artefact", "supported"])
    ]
    write_table("claims", from_rows("claims", claims), tmp_path / "tables")
    assert main(["report", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    page = tmp_path / "report.html"
    assert captured.out.splitlines() == [
        "3 claims: 2 supported, 1 artefact.",
        f"Report: {page}",
    ]
    assert page.is_file()
    assert "report: done" in captured.err


def test_doctor_ends_with_where_results_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path))
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[-2] == "This machine can run studies."
    assert lines[-1] == f"Finished stages are kept in {tmp_path}"


def test_doctor_exits_1_where_something_is_lacking(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = examining.examine()[0].__class__("torch", "not installed", ok=False)
    monkeypatch.setattr(examining, "examine", lambda: (lacking,))
    assert main(["doctor"]) == 1
    assert "Needed before a study can run: torch." in capsys.readouterr().out


def test_doctor_works_without_the_model_stack() -> None:
    done = moralscope("doctor", setup=WITHOUT_MODELS + "sys.exit(code)")
    assert done.stderr == ""
    assert "unknown without torch" in done.stdout
    assert done.returncode in (0, 1)


def test_explain_without_the_model_stack_says_how_to_install_it(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = moralscope("explain", "base", "--out", out, setup=WITHOUT_MODELS + "sys.exit(code)")
    assert done.returncode == 2
    assert 'pip install "moralscope[models]"' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> tuple[object, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr(examining, "examine", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == (
        "Interrupted. Finished stages are kept: the same command goes on from there.\n"
    )


@pytest.mark.parametrize("set_by_user", [None, "3"])
def test_tests_multiply_in_one_thread_unless_told_otherwise(
    set_by_user: str | None, tmp_path: Path
) -> None:
    """Known before numpy is imported, which reads it once."""
    said = {} if set_by_user is None else {"OPENBLAS_NUM_THREADS": set_by_user}
    others = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    program = (
        "import os, sys\n"
        "class Told:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            print(os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "sys.meta_path.insert(0, Told())\n"
        "from moralscope.cli.main import main\n"
        f"main(['audit', {str(tmp_path / 'nowhere')!r}, '--out', {str(tmp_path / 'out')!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=others | said,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.split()[0] == (set_by_user or "1")
