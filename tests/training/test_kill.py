"""Whatever ends a training wherever it is, it goes on to the very bytes of an undisturbed one.

Children of one warm process (``dying``) are killed at drawn points: while they read or play, in
the middle of a backward pass, of an optimiser step, of a file, of a line of the log, around
renames, syncs and removals, and at any time from outside. Some are killed again while they go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dying import FULL, STOPPED

from moralscope.core.tables import read_table
from moralscope.training.config import TrainingConfig

Configure = Callable[..., TrainingConfig]
STEPS, EVERY = 5, 2
LIVES = ("", 0, "")
KILLED = -signal.SIGKILL

TRAININGS: dict[str, dict[str, object]] = {
    "exact": {"visitation": "visitation", "labels": "same"},
    "ppo": {
        "preset": "fixed",
        "actions": "score",
        "stem": True,
        "labels": "same",
        "sampling": {"rounds": 2},
    },
    "generated": {
        "preset": "paper",
        "stem": True,
        "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1},
        "sampling": {"rounds": 3},
    },
}
POINTS = (
    "before reading", "after reading", "in backward", "in optimiser", "in file", "in log",
    "before rename", "after rename", "before sync", "after sync", "before removal",
    "before cleaning", "after cleaning",
)  # fmt: skip


@dataclass
class Nursery:
    """The warm process."""

    process: subprocess.Popen[str]

    def run(
        self,
        config: TrainingConfig,
        place: Path,
        fate: tuple[str, int, str] = LIVES,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Train in a child; how it ended, its visits, and the steps that it did."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        place.mkdir(exist_ok=True)
        steps = place / "steps"
        steps.write_text("")
        task = {"config": config.model_dump(mode="json"), "fate": fate, "seconds": seconds}
        task |= {name: str(place / name) for name in ("out", "work", "steps")}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        ended = json.loads(self.process.stdout.readline())
        return ended | {"steps": [int(line) for line in steps.read_text().split()]}


@pytest.fixture(scope="module")
def nursery(tiny_folder: Path) -> Iterator[Nursery]:
    """One process that has imported everything and loaded the model."""
    command = [sys.executable, str(Path(__file__).with_name("dying.py")), str(tiny_folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def result(out: Path) -> dict[str, object]:
    """Everything that a training leaves, but for the seconds that it took."""
    found: dict[str, object] = {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "training.parquet"
    }
    return found | {"training": read_table("training", out).drop("seconds").rows()}


@dataclass
class Undisturbed:
    """What a training comes to, how often it passes each point, and how long it takes."""

    config: TrainingConfig
    result: dict[str, object]
    visits: dict[str, int]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Undisturbed]:
    """Trainings that nobody interrupts, each done once."""
    done: dict[str, Undisturbed] = {}

    def get(name: str) -> Undisturbed:
        if name not in done:
            common: dict[str, object] = {
                "reward": "game",
                "steps": STEPS,
                "checkpoint_every": EVERY,
                "keep_steps": [1, 3, 5],
                "prompts_per_step": 4,
                "learning_rate": 0.02,
                "lora": {"rank": 4, "alpha": 8.0},
            }
            config = TrainingConfig.model_validate(common | TRAININGS[name])
            place = tmp_path_factory.mktemp(name)
            ended = nursery.run(config, place)
            assert ended["status"] == 0
            assert ended["steps"] == list(range(1, STEPS + 1))
            assert not (place / "work").exists()
            done[name] = Undisturbed(
                config, result(place / "out"), ended["visits"], ended["seconds"]
            )
        return done[name]

    return get


def checkpointed(work: Path) -> int:
    """Steps that the newest checkpoint holds."""
    return max((int(p.name[5:]) for p in work.glob("snapshots/step-*")), default=0)


def goes_on(nursery: Nursery, whole: Undisturbed, place: Path) -> None:
    """Nobody interrupts the rest, and it comes to the same bytes."""
    finishing = (place / "out").exists()  # what it needs may be on its way out already
    after = checkpointed(place / "work")
    ended = nursery.run(whole.config, place)
    assert ended["status"] == 0
    assert finishing or ended["steps"] == list(range(after + 1, STEPS + 1))
    assert result(place / "out") == whole.result
    assert not (place / "work").exists()


@pytest.mark.parametrize("name", TRAININGS)
def test_the_undisturbed_training_passes_every_point_and_moves(
    undisturbed: Callable[[str], Undisturbed], name: str
) -> None:
    whole = undisturbed(name)
    assert set(POINTS) <= set(whole.visits)
    files = {"adapter_model.safetensors", "training", "fingerprint.json", "training.json"}
    kept = {f"checkpoints/step-0000000{s}/adapter_model.safetensors" for s in (1, 3, 5)}
    assert files | kept <= set(whole.result)
    adapters = [v for k, v in whole.result.items() if k.endswith("adapter_model.safetensors")]
    assert len(set(map(str, adapters))) == 3 == len(adapters) - 1  # every step moves it


def drawn(name: str, point: str) -> np.random.Generator:
    """Random numbers of one test."""
    return np.random.default_rng([*name.encode(), *point.encode()])


KILLS = [(name, point) for name in ("exact", "ppo") for point in POINTS] + [
    ("generated", point)
    for point in ("before reading", "in optimiser", "in log", "after rename", "before removal")
]


@pytest.mark.parametrize(("name", "point"), KILLS)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    nursery: Nursery,
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
    name: str,
    point: str,
) -> None:
    whole, generator = undisturbed(name), drawn(name, point)
    visit = int(generator.integers(1, whole.visits[point] + 1))
    assert nursery.run(whole.config, tmp_path, (point, visit, "kill"))["status"] == KILLED
    if generator.random() < 0.3:  # again, on the way
        other = str(generator.choice(POINTS[:7]))
        nursery.run(whole.config, tmp_path, (other, int(generator.integers(1, 6)), "kill"))
    goes_on(nursery, whole, tmp_path)


@pytest.mark.parametrize("point", ["before cleaning", "before removal", "in file"])
def test_killed_while_it_finishes_it_loses_nothing(
    nursery: Nursery, undisturbed: Callable[[str], Undisturbed], tmp_path: Path, point: str
) -> None:
    whole = undisturbed("exact")
    last = whole.visits[point]
    assert nursery.run(whole.config, tmp_path, (point, last, "kill"))["status"] == KILLED
    assert (tmp_path / "out").exists()
    goes_on(nursery, whole, tmp_path)


@pytest.mark.parametrize("share", [0.35, 0.55, 0.7, 0.85])
def test_killed_from_outside_at_any_time_it_goes_on_to_the_same_bytes(
    nursery: Nursery, undisturbed: Callable[[str], Undisturbed], tmp_path: Path, share: float
) -> None:
    whole = undisturbed("ppo")
    nursery.run(whole.config, tmp_path, seconds=share * whole.seconds)
    goes_on(nursery, whole, tmp_path)


@pytest.mark.parametrize(
    "asked",
    [
        ("exact", "in backward", "SIGINT"),
        ("exact", "in log", "SIGTERM"),
        ("ppo", "after reading", "SIGTERM"),
        ("ppo", "before rename", "SIGINT"),
    ],
)
def test_asked_to_stop_it_saves_after_the_step_that_is_under_way(
    nursery: Nursery,
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
    asked: tuple[str, str, str],
) -> None:
    name, point, act = asked
    whole = undisturbed(name)
    seldom = whole.config.model_copy(update={"checkpoint_every": 1000})
    rarely = nursery.run(seldom, tmp_path / "rarely")["visits"]
    visit = max(2, rarely[point] // 3)
    ended = nursery.run(seldom, tmp_path, (point, visit, act))
    assert ended["status"] == STOPPED
    stopped = ended["steps"][-1]
    assert 0 < stopped < STEPS
    assert checkpointed(tmp_path / "work") == stopped  # no other reason to save than the signal
    assert not (tmp_path / "out").exists()
    goes_on(nursery, whole, tmp_path)


@pytest.mark.parametrize("name", ["exact", "ppo"])
@pytest.mark.parametrize("point", ["before reading", "in file"])
def test_a_disk_that_fills_up_ends_it_cleanly_and_it_goes_on_with_space(
    nursery: Nursery,
    undisturbed: Callable[[str], Undisturbed],
    tmp_path: Path,
    name: str,
    point: str,
) -> None:
    whole = undisturbed(name)
    visit = whole.visits[point] * 2 // 3
    assert nursery.run(whole.config, tmp_path, (point, visit, "full"))["status"] == FULL
    assert checkpointed(tmp_path / "work") > 0
    assert not list((tmp_path / "work").rglob(".partial-*"))
    goes_on(nursery, whole, tmp_path)
