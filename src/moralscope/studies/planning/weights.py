"""Which stages look at weight updates? One per agent, and one for all their comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from moralscope.studies.catalogue import digest, mechanism_prompts
from moralscope.studies.planning.planner import Inputs, Planner
from moralscope.studies.steps import weights


def add_weights(plan: Planner, agents: Mapping[str, Inputs]) -> list[str]:
    """The stages of ``weights``; nothing is run through the model, so prompts give labels only."""
    study = plan.study
    if "weights" not in study.mechanisms.methods:
        return []
    chosen = study.mechanisms.weights
    prompts = digest(mechanism_prompts(study))
    added: list[str] = []
    for name in weights.updated(study):
        inputs = {
            "prompts": prompts,
            **plan.compute,
            **agents[name],
            "spectrum": chosen.spectrum,
        }
        what = ("mechanisms", "weigh")
        added.append(
            plan.add(f"weigh-{name}", what, inputs, plan.trained(name), weights.weigh(name))
        )
    pairs = weights.overlapped(study)
    if pairs:
        names = tuple(dict.fromkeys(name for pair in pairs for name in pair))
        inputs = {
            **plan.compute,
            "agents": [agents[name] for name in names],
            "pairs": pairs,
            "tops": chosen.tops,
        }
        needs = plan.trained(*names)
        what = ("mechanisms", "overlap")
        added.append(plan.add(weights.COMPARED, what, inputs, needs, weights.compare_updates))
    return added
