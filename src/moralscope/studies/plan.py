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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from moralscope.core.hashing import sha256_value
from moralscope.core.stage import StageCache, cache_folder
from moralscope.models.comparable import check_comparable
from moralscope.models.devices import require_device
from moralscope.models.loading import ModelSource, locate_model
from moralscope.studies.catalogue import asked_prompts, digest
from moralscope.studies.planning.measuring import (
    add_decisions,
    add_evaluation,
    add_questioning,
    add_replicas,
    add_training,
)
from moralscope.studies.planning.mechanisms import add_mechanisms
from moralscope.studies.planning.planner import Planner, Task, threads, versions
from moralscope.studies.planning.targeted import add_keeping, add_targets
from moralscope.studies.registration import check_answerable, named_hypotheses, named_inputs
from moralscope.studies.steps import judging, measuring
from moralscope.studies.steps.context import TRAIN
from moralscope.studies.study import Study, compared, known_training, training_config

__all__ = ["Plan", "Task", "make_plan", "plan_digest", "threads", "versions"]


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


def make_plan(study: Study, out: Path | None = None, *, elsewhere: bool = False) -> Plan:
    """Resolve a study into stages.

    Args:
        study: what is planned.
        out: the run folder; hypotheses about what it holds already come too late.
        elsewhere: other machines compute it, so this one need not have the device.

    Raises:
        ModelError: the base model, a checkpoint or the device cannot be found.
        AgentError: an adapter cannot be found, or an agent cannot be compared with its base.
        ConfigError: a prompt choice that cannot be met, or a hypothesis about a site, label
            assignment or contrast that does not exist.
    """
    if not elsewhere:
        require_device(study.device)
    source = locate_model(study.model)
    loaded = study.agents.items()
    check_comparable(
        source,
        {name: agent.adapter for name, agent in loaded if agent.adapter is not None},
        {name: agent.checkpoint for name, agent in loaded if agent.checkpoint is not None},
    )
    check_answerable(study, source)
    plan = Planner(study, source)
    asked = plan.add(
        "prompts",
        ("models", "ask"),
        {"prompts": digest(asked_prompts(study)), **plan.compute},
        (),
        measuring.ask,
    )
    replicated = add_replicas(plan)
    whole = [name for name, entry in study.agents.items() if not entry.in_parts]
    trained = [add_training(plan, name) for name in whole if training_config(study, name)]
    everyone = {name: plan.agent_inputs(name) for name in study.agents}
    # Parts are chosen by what was found inside, and trained before anybody is asked.
    looked = add_mechanisms(plan, everyone) if study.targeted else []
    targets = add_targets(plan)
    trained += [name for name in targets if name.startswith(TRAIN)]
    tables = [asked, *trained, *_add_agents(plan, everyone, trained)]
    tables += [add_decisions(plan, name, [asked, *trained]) for name in study.agents]
    tables += looked or add_mechanisms(plan, everyone)
    tables += [name for name in targets if not name.startswith(TRAIN)]
    tables += add_keeping(plan, tables)
    tables += add_questioning(plan, everyone, [asked, *trained])
    configs = {name: known_training(study, name) for name in study.agents}
    settings = {n: None if c is None else c.model_dump(mode="json") for n, c in configs.items()}
    tables.append(
        plan.add(
            "behaviour", ("behaviour", "behave"), {"training": settings}, tables, measuring.behave
        )
    )
    tables += add_evaluation(plan, settings, tables)
    measured = [task.stage for task in plan.tasks.values()]
    named = named_hypotheses(study, measured, StageCache(cache_folder()), out)
    judged = {
        "evidence": study.evidence.model_dump(mode="json"),
        "seed": study.seed,
        "hypotheses": named_inputs(named),
    }
    plan.add(
        "evidence", ("evidence", "judge"), judged, [*tables, *replicated], judging.judge(named)
    )
    return Plan(study, source, tuple(plan.tasks.values()))


def _add_agents(
    plan: Planner, everyone: Mapping[str, Mapping[str, object]], trained: Sequence[str]
) -> list[str]:
    """Who is measured, and who is compared with whom."""
    study = plan.study
    inputs = {"agents": everyone, **plan.compute}
    added = [plan.add("agents", ("models", "enrol"), inputs, trained, measuring.enrol)]
    if compared(study):
        course = None if study.course is None else study.course.model_dump(mode="json")
        pairs = {"pairs": [asdict(pair) for pair in compared(study)], "course": course}
        added.append(plan.add("comparisons", ("core", "compare"), pairs, (), measuring.compare))
    return added


def plan_digest(plan: Plan) -> str:
    """Hash of all stage keys: equal for runs that must give equal results."""
    return sha256_value([task.stage.key for task in plan])
