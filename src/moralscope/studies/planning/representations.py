"""Which stages look at representations? One per agent, one per judged pair, one that compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from moralscope.core.decision import Prompt
from moralscope.core.hashing import sha256_value
from moralscope.studies.catalogue import digest, mechanism_prompts
from moralscope.studies.planning.planner import Inputs, Planner
from moralscope.studies.steps import representations as steps
from moralscope.studies.study import base_name, compared, inside


def add_representations(plan: Planner, agents: Mapping[str, Inputs]) -> list[str]:
    """The stages of ``representations``."""
    study = plan.study
    if "representations" not in study.mechanisms.methods:
        return []
    settings = steps.chosen(study).model_dump(mode="json")
    searching = {"settings": settings, "seed": study.seed}
    own = digest(mechanism_prompts(study))
    added: list[str] = []
    for name in inside(study):
        searched = name in steps.searched_agents(study)
        inputs = {
            "prompts": own,
            "more": _told(steps.extra_prompts(study, searched=searched)),
            **plan.compute,
            **agents[name],
            **(searching if searched else {}),
        }
        what = ("mechanisms", "represent")
        step = steps.represent(name)
        added.append(plan.add(f"represent-{name}", what, inputs, plan.trained(name), step))
    untrained = {
        "prompts": own,
        "more": _told(steps.extra_prompts(study, searched=True)),
        **plan.compute,
        "base": agents[base_name(study)],
    }
    what = ("mechanisms", "represent_random")
    added.append(plan.add(steps.RANDOM, what, untrained, (), steps.represent_random))
    pairs = [asdict(pair) for pair in compared(study)]
    compared_inputs = {"pairs": pairs, "prompts": own, **searching}
    what = ("mechanisms", "represent_compare")
    streams = tuple(added)
    added.append(plan.add(steps.COMPARED, what, compared_inputs, streams, steps.compare_streams))
    for pair in steps.searched_pairs(study):
        source, agent = pair.second, pair.first
        inputs = {
            "prompts": own,
            **plan.compute,
            "source": agents[source],
            "target": agents[agent],
            **searching,
        }
        name = f"align-{source}>{agent}"  # > cannot stand in the name of an agent
        needs = plan.trained(source, agent)
        step = steps.align(source, agent)
        added.append(plan.add(name, ("mechanisms", "align"), inputs, needs, step))
    return list(dict.fromkeys(added))


def _told(prompts: Sequence[Prompt]) -> str:
    """Hash of everything that some prompts say, none of them included."""
    return sha256_value([asdict(prompt) for prompt in prompts])
