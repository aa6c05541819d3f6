"""Which stages measure component interactions? Agents, their comparison, and what follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from moralscope.studies.catalogue import digest, mechanism_prompts
from moralscope.studies.planning.planner import Inputs, Planner
from moralscope.studies.steps import interactions
from moralscope.studies.study import inside


def add_interactions(plan: Planner, agents: Mapping[str, Inputs]) -> list[str]:
    """One stage per agent, one for all comparisons, one per pair whose pathways are patched."""
    study = plan.study
    if "interactions" not in study.mechanisms.methods:
        return []
    chosen = study.mechanisms.interactions
    prompts = digest(interactions.interaction_prompts(study))
    own: list[str] = []
    for name in inside(study):
        inputs = {"prompts": prompts, **plan.compute, **agents[name], "level": chosen.level}
        step = interactions.interact(name)
        needs = ["prompts", *plan.trained(name)]
        own.append(plan.add(f"interact-{name}", ("mechanisms", "interact"), inputs, needs, step))
    judged: dict[str, object] = {
        "pairs": [asdict(pair) for pair in interactions.compared_inside(study)],
        "difference": chosen.difference,
        "evidence": study.evidence.model_dump(mode="json"),
        "seed": study.seed,
    }
    networks = plan.add(
        interactions.NETWORKS,
        ("evidence", "wire"),
        judged,
        ["prompts", *own],
        interactions.compare_wiring,
    )
    followed: list[str] = []
    for first, second in interactions.traced_pairs(study):
        inputs = {
            "prompts": digest(mechanism_prompts(study)),
            **plan.compute,
            "agents": [agents[first], agents[second]],
            "pathways": chosen.pathways,
            "write": study.mechanisms.write,
            "seed": study.seed,
        }
        step = interactions.follow(first, second)
        needs = ["prompts", networks, *plan.trained(first, second)]
        name = f"follow-{first}>{second}"  # > cannot stand in the name of an agent
        followed.append(plan.add(name, ("mechanisms", "follow"), inputs, needs, step))
    return [*own, networks, *followed]
