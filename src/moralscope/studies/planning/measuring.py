"""Which stages measure the base once more, train agents, and ask them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moralscope.core.decision import PromptSet
from moralscope.studies.catalogue import digest, fingerprint_prompts
from moralscope.studies.planning.planner import Planner
from moralscope.studies.steps import controls, evaluation, measuring
from moralscope.studies.steps.context import TRAIN
from moralscope.studies.study import base_name, models_of, training_config
from moralscope.training.seating import frozen_digest


def add_replicas(plan: Planner) -> list[str]:
    """The base measured once more; first of all, because it leaves no model in memory."""
    wanted = plan.study.controls
    if not wanted.of_base:
        return []
    base = base_name(plan.study)
    prompts = PromptSet(controls.replica_prompts(plan.study))
    inputs: dict[str, object] = {
        "agent": base,
        "prompts": digest(prompts),
        **wanted.model_dump(mode="json", include={"kernel", "dtype"}),
        **plan.compute,
    }
    what = ("models", "replicate")
    return [plan.add(f"replicate-{base}", what, inputs, (), controls.replicate)]


def add_training(plan: Planner, name: str, needs: Sequence[str] = ()) -> str:
    """One agent's training; ``needs`` are stages that decide what is trained."""
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
    return plan.add(f"{TRAIN}{name}", ("training", "train"), inputs, needs, measuring.train(name))


def add_decisions(plan: Planner, name: str, needs: Sequence[str]) -> str:
    """One agent's decisions on every prompt."""
    own = [n for n in needs if not n.startswith(TRAIN)] + plan.trained(name)
    if plan.study.agents[name].policy is not None:
        inputs, package = plan.agent_inputs(name), "behaviour"
    else:
        inputs, package = {**plan.agent_inputs(name), **plan.compute}, "models"
    return plan.add(f"decide-{name}", (package, "decide"), inputs, own, measuring.decide(name))


def add_questioning(
    plan: Planner, agents: Mapping[str, Mapping[str, object]], needs: Sequence[str]
) -> list[str]:
    """What models are asked beyond decisions: answers in their own words, neutral texts."""
    study, wanted = plan.study, plan.study.evaluation
    added: list[str] = []
    common = {**plan.compute, "seed": study.seed}
    base = base_name(study)
    told = {"answers", "answer_tokens", "conversation_tokens"}
    for name in models_of(study):
        own = [n for n in needs if not n.startswith(TRAIN)] + plan.trained(name)
        if wanted.wants("answers"):
            inputs = {**common, **agents[name], **wanted.model_dump(mode="json", include=told)}
            step = evaluation.answer(name)
            added.append(plan.add(f"answer-{name}", ("behaviour", "answer"), inputs, own, step))
        if wanted.wants("side_effects") and name != base:
            inputs = {**common, **agents[name], "base": agents[base]}
            step = evaluation.affect(name)
            added.append(plan.add(f"affect-{name}", ("behaviour", "affect"), inputs, own, step))
    return added


def add_evaluation(
    plan: Planner, training: Mapping[str, object], needs: Sequence[str]
) -> list[str]:
    """Everything about behaviour that is computed from tables alone."""
    wanted = plan.study.evaluation
    read = [n for n in needs if n.partition("-")[0] in ("prompts", "agents", "decide", "answer")]
    inputs = {"evaluation": wanted.model_dump(mode="json"), "seed": plan.study.seed}
    added: list[str] = []
    if set(wanted.parts) - {"play", "tournament", "side_effects"}:
        what = ("behaviour", "evaluate")
        more = {**inputs, "training": training}
        added.append(plan.add("evaluation", what, more, read, evaluation.evaluate))
    if wanted.wants("play", "tournament"):
        what = ("behaviour", "play")
        added.append(plan.add("play", what, inputs, read, evaluation.play))
    return added
