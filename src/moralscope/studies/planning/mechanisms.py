"""Which stages look inside agents? Lens, attribution and patches here; further methods beside.

Every method is a function that adds its own stages (``ADDERS``). It reads the study, adds nothing
where the study does not ask for it, and returns the names of the stages that it added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from moralscope.studies.catalogue import digest, digest_pairs, mechanism_prompts
from moralscope.studies.choices.mechanisms import Method
from moralscope.studies.planning.attention import add_attention
from moralscope.studies.planning.interactions import add_interactions
from moralscope.studies.planning.planner import Inputs, Planner
from moralscope.studies.planning.representations import add_representations
from moralscope.studies.planning.weights import add_weights
from moralscope.studies.steps import controls, mechanisms
from moralscope.studies.steps.context import Step
from moralscope.studies.study import Study, base_name, inside, patched_pairs

_READING: tuple[Method, ...] = ("lens", "attribution", "attribution_change")
"""Methods that look at one agent at a time."""

Agents = Mapping[str, Inputs]
"""What identifies each agent, by name."""

Adder = Callable[[Planner, Agents], list[str]]


def add_mechanisms(plan: Planner, agents: Agents) -> list[str]:
    """All stages that look inside agents.

    Args:
        plan: gets the stages; those that train agents are in it already.
        agents: every agent of the study.
    """
    return [name for add in ADDERS for name in add(plan, agents)]


def common_inputs(plan: Planner) -> dict[str, object]:
    """What every stage depends on that runs agents over the mechanism prompts."""
    return {"prompts": digest(mechanism_prompts(plan.study)), **plan.compute}


def add_reading(plan: Planner, agents: Agents) -> list[str]:
    """Lens and attribution of each agent."""
    study = plan.study
    reading = [m for m in _READING if m in study.mechanisms.methods]
    base = base_name(study)
    added: list[str] = []
    for name in inside(study) if reading else ():
        inputs = {**common_inputs(plan), **agents[name], "methods": reading}
        if "attribution_change" in reading:
            inputs["base"] = agents[base]
        what = ("mechanisms", "explain")
        needs = plan.trained(name)
        added.append(plan.add(f"explain-{name}", what, inputs, needs, mechanisms.explain(name)))
    return added


def add_patches(plan: Planner, agents: Agents) -> list[str]:
    """Patches of every pair, what is estimated, traced and searched for, and their controls."""
    study = plan.study
    methods, changes = study.mechanisms.methods, study.mechanisms.changes
    pairs = patched_pairs(study)
    common = {**common_inputs(plan), **_patching_inputs(study)}

    def add(
        kind: str, pair: tuple[str, str], step: Step, needs: Sequence[str], **more: object
    ) -> str:
        source, target = pair
        inputs = {**common, "source": agents[source], "target": agents[target], **more}
        name = f"{kind}-{source}>{target}"  # > cannot stand in the name of an agent
        return plan.add(name, ("mechanisms", kind), inputs, needs, step)

    themselves = [(t, t) for t in dict.fromkeys(target for _, target in pairs)]
    swept = [
        add("patch", pair, mechanisms.patch(*pair), plan.trained(*dict.fromkeys(pair)))
        for pair in dict.fromkeys((*pairs, *themselves))
    ]
    changed = [digest_pairs(study, change) for change in changes]
    for pair in dict.fromkeys((*pairs, *themselves)) if changed else ():
        needs = plan.trained(*dict.fromkeys(pair))
        swept.append(add("cross", pair, mechanisms.cross(*pair), needs, changes=changed))
    added = list(swept)
    for pair in pairs:
        exact = f"patch-{pair[0]}>{pair[1]}"
        needs = plan.trained(*dict.fromkeys(pair))
        # Into itself nothing is changed, so there is nothing as long as the change.
        if study.controls.of_patches and pair[0] != pair[1]:
            wanted = study.controls.model_dump(mode="json", exclude={"kernel", "dtype"})
            step = controls.control(*pair, exact)
            added.append(add("control", pair, step, [*needs, exact], controls=wanted))
        if "approximations" in methods:
            step = mechanisms.approximate(*pair, exact)
            added.append(add("approximate", pair, step, [*needs, exact]))
        if "paths" in methods:
            added.append(add("trace", pair, mechanisms.trace(*pair), needs))
        if "circuits" in methods:
            settings = {"seed": study.seed, "share": study.mechanisms.circuit_share}
            step = mechanisms.find_circuits(*pair)
            added.append(add("circuits", pair, step, needs, **settings))
    if any((target, source) in pairs for source, target in pairs):
        what = ("mechanisms", "directions")
        added.append(plan.add("directions", what, {}, swept, mechanisms.compare_directions))
    return added


def _patching_inputs(study: Study) -> dict[str, object]:
    """What decides the result of a patch; the memory that it may use does not."""
    wanted = {"sites", "positions", "write", "self_patch_prompts"}
    return study.mechanisms.model_dump(mode="json", include=wanted)


ADDERS: tuple[Adder, ...] = (
    add_reading,
    add_patches,
    add_attention,
    add_interactions,
    add_weights,
    add_representations,
)
"""Every method's stages, in the order in which they are computed."""
