"""Trackers, the real ones, writing to this machine; what they wrote is read without them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError, DependencyError
from moralscope.training.trackers import TRACKERS, numbers, open_tracker

ROWS = [
    {"agent": "one", "training_seed": 4, "step": 1, "reward_mean": 1.5, "kl": 0.0, "loss": None},
    {"agent": "one", "training_seed": 4, "step": 2, "reward_mean": 2.25, "kl": float("nan")},
]


def test_only_finite_numbers_are_kept():
    assert numbers(ROWS[0]) == {"reward_mean": 1.5, "kl": 0.0}
    assert numbers(ROWS[1]) == {"reward_mean": 2.25}


# Trackers start threads and children and set global state: each test has a process of its own.
CHILD = """
import json, sys
from pathlib import Path
from moralscope.training.trackers import open_tracker
kind, folder, rows = sys.argv[1], Path(sys.argv[2]), json.load(sys.stdin)
tracker = open_tracker(kind, name="one", settings={"reward": "game"}, folder=folder)
for row in rows:
    tracker.log(row["step"], row)
tracker.finish()
"""


def tracked(kind: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO", "HTTP"))}
    here = {"HOME": str(folder), "TRACKIO_DIR": str(folder / "trackio"), "NETRC": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, kind, str(folder)], input=json.dumps(ROWS),
        capture_output=True, text=True, check=False, timeout=120, env=kept | here | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_wandb_is_offline_for_whoever_is_not_logged_in(tmp_path: Path):
    done = tracked("wandb", tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    (run,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    written = run.read_bytes()
    # The log holds each figure as text of JSON under its column's name.
    for expected in (b"reward_mean", b"1.5", b"2.25", b"game", b"moralscope"):
        assert expected in written
    assert b"training_seed" not in written


def test_wandb_obeys_its_own_variable(tmp_path: Path):
    tracked("wandb", tmp_path, WANDB_MODE="disabled")
    assert not list((tmp_path / "wandb").glob("*run-*"))


def test_trackio_writes_to_its_folder(tmp_path: Path):
    done = tracked("trackio", tmp_path)
    assert done.stderr == ""
    with sqlite3.connect(tmp_path / "trackio" / "moralscope.db") as database:
        found = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step")
        rows = [(name, step, json.loads(metrics)) for name, step, metrics in found]
    database.close()
    assert rows == [
        ("one", 1, {"reward_mean": 1.5, "kl": 0.0}),
        ("one", 2, {"reward_mean": 2.25}),
    ]


def test_trackers_are_imported_when_asked_for():
    code = "import sys, moralscope.training.trackers; print({'wandb', 'trackio'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


@pytest.mark.parametrize("kind", TRACKERS)
def test_one_that_is_not_installed_says_how_to_install_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(DependencyError, match=rf'pip install "moralscope\[{kind}\]"'):
        open_tracker(kind, name="one", settings={}, folder=tmp_path)


def test_a_misspelt_tracker_names_the_nearest(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        open_tracker("wanbd", name="one", settings={}, folder=tmp_path)
