"""Plans whose stages write one small file, or fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from moralscope.core.stage import Stage
from moralscope.models.loading import ModelSource
from moralscope.studies import Study
from moralscope.studies.plan import Plan, Task
from moralscope.studies.steps.context import Context, Step

AGENTS: dict[str, object] = {"base": {}, "a": {"reward": "game"}, "b": {"reward": "utilitarian"}}
GATHERS = {"agents": "enrol", "behaviour": "behave", "evidence": "judge"}


def writing(name: str, log: list[str], broken: Mapping[str, Exception]) -> Step:
    """A step that notes its name and what it read."""

    def step(context: Context) -> None:
        log.append(name)
        if name in broken:
            raise broken[name]
        agents = " ".join(context.bench.study.agents)
        (context.out / "read.txt").write_text(f"{agents}: {' '.join(context.needs)}")

    return step


def fake_plan(
    needs: Mapping[str, Iterable[str]],
    log: list[str] | None = None,
    broken: Mapping[str, Exception] | None = None,
) -> Plan:
    """A plan of stages by name, each with those that it needs."""
    study = Study.model_validate({"agents": AGENTS})
    source = ModelSource("none", Path("none"), "folder", "0" * 64)
    keys: dict[str, str] = {}
    tasks: list[Task] = []
    for name, wanted in needs.items():
        kind = GATHERS.get(name, name.partition("-")[0])
        asked = {} if name in ("behaviour", "evidence") else {"device": "cpu"}
        package = "evidence" if name == "evidence" else "core"
        stage = Stage(name, package, kind, {"name": name, **asked}, {n: keys[n] for n in wanted})
        keys[name] = stage.key
        step = writing(name, [] if log is None else log, broken or {})
        tasks.append(Task(stage, step))
    return Plan(study, source, tuple(tasks))


STUDY: dict[str, tuple[str, ...]] = {
    "prompts": (),
    "train-a": (),
    "train-b": (),
    "agents": ("train-a", "train-b"),
    "decide-base": ("prompts",),
    "decide-a": ("prompts", "train-a"),
    "decide-b": ("prompts", "train-b"),
    "patch-base>a": ("train-a",),
    "patch-base>b": ("train-b",),
    "behaviour": ("prompts", "agents", "decide-base", "decide-a", "decide-b"),
    "evidence": (
        "prompts", "agents", "decide-base", "decide-a", "decide-b", "patch-base>a",
        "patch-base>b", "behaviour",
    ),
}  # fmt: skip
