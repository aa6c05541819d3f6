"""What has to be computed, in which order? A study as content-addressed stages.

    prompts   train-A ...               what is asked; who is trained
    replicate-BASE                      the base measured once more, in another way
       |         |
       +--> agents, decide-A ...        who is measured; decisions of every agent
       |         |
       +--> explain-A ...               lens, attribution
       +--> patch-S>T, cross-S>T ...    patching, with self-patches; from counterparts of prompts
       |        +--> approximate-S>T    approximations, compared with exact patches
       |        +--> control-S>T        the same with random directions and known effects
       +--> trace-S>T, circuits-S>T     paths to the decision; circuits, localisation
        +--> answer-A ..., affect-A ...  sampled answers and conversations; side effects
                |
             behaviour, evaluation, play --> evidence     tables in, claims out

Arrows go from what is read to what reads it; every task comes after those that it needs.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moralscope.core.decision import PromptSet
from moralscope.core.hashing import sha256_file, sha256_value
from moralscope.core.stage import Stage, StageCache, cache_folder
from moralscope.models.devices import require_device
from moralscope.models.loading import ModelSource, locate_model
from moralscope.models.roster import WEIGHTS, find_adapter
from moralscope.studies import control_steps, evaluation_steps, mechanism_steps, steps
from moralscope.studies.catalogue import (
    asked_prompts,
    digest,
    digest_pairs,
    fingerprint_prompts,
    mechanism_prompts,
)
from moralscope.studies.registration import check_answerable, named_hypotheses, named_inputs
from moralscope.studies.steps import TRAIN, Step
from moralscope.studies.study import (
    Method,
    Study,
    base_name,
    known_training,
    models_of,
    patched_pairs,
    training_config,
)
from moralscope.training.seating import frozen_digest

_READING: tuple[Method, ...] = ("lens", "attribution", "attribution_change")
"""Methods that look at one agent at a time."""

_LIBRARIES = ("torch", "transformers", "peft", "numpy", "polars", "scipy")


@dataclass(frozen=True)
class Task:
    """A stage and the function that computes it."""

    stage: Stage
    step: Step


@dataclass(frozen=True)
class Plan:
    """A study's tasks, each after those that it needs.

    Attributes:
        study: what is planned.
        source: the base model's files.
        tasks: in an order that can be run.
    """

    study: Study
    source: ModelSource
    tasks: tuple[Task, ...]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def needs(self, task: Task) -> tuple[Task, ...]:
        """The tasks whose outputs a task reads, in order."""
        return tuple(t for t in self.tasks if t.stage.name in task.stage.needs)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found}


def threads() -> int:
    """Threads that the model libraries compute with."""
    limit = os.environ.get("OMP_NUM_THREADS")
    return int(limit) if limit and limit.isdigit() else len(os.sched_getaffinity(0))


class _Planner:
    """Adds tasks one by one, resolving what each depends on."""

    def __init__(self, study: Study, source: ModelSource) -> None:
        self.study = study
        self.tasks: dict[str, Task] = {}
        self.common: dict[str, object] = {
            "versions": versions(),
            "glue": [
                sha256_file(Path(str(m.__file__)))
                for m in (steps, control_steps, evaluation_steps, mechanism_steps)
            ],
        }
        self.compute: dict[str, object] = {
            "model": source.sha256,
            "dtype": study.dtype,
            "device": study.device,
            "threads": threads(),
            "machine": platform.machine(),
            "max_nodes": study.max_nodes,
        }

    def add(
        self,
        name: str,
        what: tuple[str, str],
        inputs: Mapping[str, object],
        needs: Sequence[str],
        step: Step,
    ) -> str:
        """Add one task, ``what`` being its package and kind of work; returns its name."""
        keys = {need: self.tasks[need].stage.key for need in needs}
        stage = Stage(name, *what, {**self.common, **inputs}, keys)
        self.tasks[name] = Task(stage, step)
        return name

    def agent_inputs(self, name: str) -> dict[str, object]:
        """What identifies an agent: its entry and, where it is loaded, the hash of its weights."""
        entry = self.study.agents[name]
        weights: str | None = None
        if entry.adapter is not None:
            weights = sha256_file(find_adapter(name, entry.adapter) / WEIGHTS)
        elif entry.checkpoint is not None:
            weights = locate_model(entry.checkpoint).sha256
        return {"agent": name, "entry": entry.model_dump(mode="json"), "weights": weights}


def make_plan(study: Study, out: Path | None = None) -> Plan:
    """Resolve a study into stages.

    Args:
        study: what is planned.
        out: the run folder; hypotheses about what it holds already come too late.

    Raises:
        ModelError: the base model, a checkpoint or the device cannot be found.
        AgentError: an adapter cannot be found.
        ConfigError: a prompt choice that cannot be met, or a hypothesis about a site, label
            assignment or contrast that does not exist.
    """
    require_device(study.device)
    source = locate_model(study.model)
    check_answerable(study, source)
    plan = _Planner(study, source)
    asked = plan.add(
        "prompts",
        ("models", "ask"),
        {"prompts": digest(asked_prompts(study)), **plan.compute},
        (),
        steps.ask,
    )
    replicated = _add_replicas(plan)
    trained = [_add_training(plan, name) for name in study.agents if training_config(study, name)]
    everyone = {name: plan.agent_inputs(name) for name in study.agents}
    tables = [asked, *trained]
    tables.append(
        plan.add(
            "agents",
            ("models", "enrol"),
            {"agents": everyone, **plan.compute},
            trained,
            steps.enrol,
        )
    )
    tables += [_add_decisions(plan, name, [asked, *trained]) for name in study.agents]
    tables += _add_mechanisms(plan, everyone, trained)
    tables += _add_questioning(plan, everyone, [asked, *trained])
    configs = {name: known_training(study, name) for name in study.agents}
    settings = {n: None if c is None else c.model_dump(mode="json") for n, c in configs.items()}
    tables.append(
        plan.add("behaviour", ("behaviour", "behave"), {"training": settings}, tables, steps.behave)
    )
    tables += _add_evaluation(plan, settings, tables)
    measured = [task.stage for task in plan.tasks.values()]
    named = named_hypotheses(study, measured, StageCache(cache_folder()), out)
    judged = {
        "evidence": study.evidence.model_dump(mode="json"),
        "seed": study.seed,
        "hypotheses": named_inputs(named),
    }
    plan.add("evidence", ("evidence", "judge"), judged, [*tables, *replicated], steps.judge(named))
    return Plan(study, source, tuple(plan.tasks.values()))


def _add_replicas(plan: _Planner) -> list[str]:
    """The base measured once more; first of all, because it leaves no model in memory."""
    wanted = plan.study.controls
    if not wanted.of_base:
        return []
    base = base_name(plan.study)
    prompts = PromptSet(control_steps.replica_prompts(plan.study))
    inputs: dict[str, object] = {
        "agent": base,
        "prompts": digest(prompts),
        **wanted.model_dump(mode="json", include={"kernel", "dtype"}),
        **plan.compute,
    }
    what = ("models", "replicate")
    return [plan.add(f"replicate-{base}", what, inputs, (), control_steps.replicate)]


def _add_training(plan: _Planner, name: str) -> str:
    config = training_config(plan.study, name)
    inputs: dict[str, object] = {
        "agent": name,
        "config": None if config is None else config.model_dump(mode="json"),
        "fingerprint": digest(fingerprint_prompts(plan.study)),
        **plan.compute,
    }
    frozen = None if config is None else frozen_digest(config)
    if frozen is not None:
        inputs["opponent"] = frozen  # a folder can be trained anew under its old name
    return plan.add(f"{TRAIN}{name}", ("training", "train"), inputs, (), steps.train(name))


def _add_decisions(plan: _Planner, name: str, needs: Sequence[str]) -> str:
    own = [n for n in needs if not n.startswith(TRAIN) or n == f"{TRAIN}{name}"]
    if plan.study.agents[name].policy is not None:
        inputs, package = plan.agent_inputs(name), "behaviour"
    else:
        inputs, package = {**plan.agent_inputs(name), **plan.compute}, "models"
    return plan.add(f"decide-{name}", (package, "decide"), inputs, own, steps.decide(name))


def _add_questioning(
    plan: _Planner, agents: Mapping[str, Mapping[str, object]], needs: Sequence[str]
) -> list[str]:
    """What models are asked beyond decisions: answers in their own words, neutral texts."""
    study, wanted = plan.study, plan.study.evaluation
    added: list[str] = []
    common = {**plan.compute, "seed": study.seed}
    base = base_name(study)
    told = {"answers", "answer_tokens", "conversation_tokens"}
    for name in models_of(study):
        own = [n for n in needs if not n.startswith(TRAIN) or n == f"{TRAIN}{name}"]
        if wanted.wants("answers"):
            inputs = {**common, **agents[name], **wanted.model_dump(mode="json", include=told)}
            step = evaluation_steps.answer(name)
            added.append(plan.add(f"answer-{name}", ("behaviour", "answer"), inputs, own, step))
        if wanted.wants("side_effects") and name != base:
            inputs = {**common, **agents[name], "base": agents[base]}
            step = evaluation_steps.affect(name)
            added.append(plan.add(f"affect-{name}", ("behaviour", "affect"), inputs, own, step))
    return added


def _add_evaluation(
    plan: _Planner, training: Mapping[str, object], needs: Sequence[str]
) -> list[str]:
    """Everything about behaviour that is computed from tables alone."""
    wanted = plan.study.evaluation
    read = [n for n in needs if n.partition("-")[0] in ("prompts", "agents", "decide", "answer")]
    inputs = {"evaluation": wanted.model_dump(mode="json"), "seed": plan.study.seed}
    added: list[str] = []
    if set(wanted.parts) - {"play", "tournament", "side_effects"}:
        what = ("behaviour", "evaluate")
        more = {**inputs, "training": training}
        added.append(plan.add("evaluation", what, more, read, evaluation_steps.evaluate))
    if wanted.wants("play", "tournament"):
        what = ("behaviour", "play")
        added.append(plan.add("play", what, inputs, read, evaluation_steps.play))
    return added


def _add_mechanisms(
    plan: _Planner, agents: Mapping[str, Mapping[str, object]], trained: Sequence[str]
) -> list[str]:
    study = plan.study
    chosen = study.mechanisms
    common: dict[str, object] = {
        "prompts": digest(mechanism_prompts(study)),
        **plan.compute,
    }

    def own(*names: str) -> list[str]:
        return [t for t in trained if t.removeprefix(TRAIN) in names]

    added: list[str] = []
    reading = [m for m in _READING if m in chosen.methods]
    base = base_name(study)
    for name in models_of(study) if reading else ():
        inputs = {**common, **agents[name], "methods": reading}
        if "attribution_change" in reading:
            inputs["base"] = agents[base]
        what = ("mechanisms", "explain")
        added.append(
            plan.add(f"explain-{name}", what, inputs, own(name), mechanism_steps.explain(name))
        )
    patched = _add_patches(plan, {**common, **_patching_inputs(study)}, agents, own)
    return [*added, *patched]


def _patching_inputs(study: Study) -> dict[str, object]:
    """What decides the result of a patch; the memory that it may use does not."""
    wanted = {"sites", "positions", "write", "self_patch_prompts"}
    return study.mechanisms.model_dump(mode="json", include=wanted)


def _add_patches(
    plan: _Planner,
    common: Mapping[str, object],
    agents: Mapping[str, Mapping[str, object]],
    own: Callable[..., list[str]],
) -> list[str]:
    study = plan.study
    methods = study.mechanisms.methods
    pairs = patched_pairs(study)
    added: list[str] = []

    def add(
        kind: str, pair: tuple[str, str], step: Step, needs: Sequence[str], **more: object
    ) -> str:
        source, target = pair
        inputs = {**common, "source": agents[source], "target": agents[target], **more}
        name = f"{kind}-{source}>{target}"  # > cannot stand in the name of an agent
        added.append(plan.add(name, ("mechanisms", kind), inputs, needs, step))
        return name

    targets = dict.fromkeys(target for _, target in pairs)
    swept = [
        add("patch", pair, mechanism_steps.patch(*pair), own(*pair))
        for pair in [*pairs, *((t, t) for t in targets)]
    ]
    changed = [digest_pairs(study, change) for change in study.mechanisms.changes]
    for pair in dict.fromkeys((*pairs, *((t, t) for t in targets))) if changed else ():
        step = mechanism_steps.cross(*pair)
        swept.append(add("cross", pair, step, own(*pair), changes=changed))
    for pair in pairs if study.controls.of_patches else ():
        if pair[0] == pair[1]:
            continue  # nothing is changed, so there is nothing as long as the change
        exact = f"patch-{pair[0]}>{pair[1]}"
        wanted = study.controls.model_dump(mode="json", exclude={"kernel", "dtype"})
        step = control_steps.control(*pair, exact)
        add("control", pair, step, [*own(*pair), exact], controls=wanted)
    for pair in pairs:
        needs = own(*pair)
        if "approximations" in methods:
            exact = f"patch-{pair[0]}>{pair[1]}"
            add("approximate", pair, mechanism_steps.approximate(*pair, exact), [*needs, exact])
        if "paths" in methods:
            add("trace", pair, mechanism_steps.trace(*pair), needs)
        if "circuits" in methods:
            settings = {"seed": study.seed, "share": study.mechanisms.circuit_share}
            add("circuits", pair, mechanism_steps.find_circuits(*pair), needs, **settings)
    if any((target, source) in pairs for source, target in pairs):
        step = mechanism_steps.compare_directions
        added.append(plan.add("directions", ("mechanisms", "directions"), {}, swept, step))
    return added


def plan_digest(plan: Plan) -> str:
    """Hash of all stage keys: equal for runs that must give equal results."""
    return sha256_value([task.stage.key for task in plan])
