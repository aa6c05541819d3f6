"""Which stages choose parts, train them alone, and say what they keep?"""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.errors import ConfigError
from moralscope.studies.estimating.shape import shape_of
from moralscope.studies.planning.measuring import add_training
from moralscope.studies.planning.planner import Planner
from moralscope.studies.steps import targeted
from moralscope.studies.steps.targeted import TARGETS, chooser
from moralscope.studies.study import base_name


def add_targets(plan: Planner) -> list[str]:
    """The choice of parts, and the trainings of them; after the stages that look inside.

    Raises:
        ConfigError: a strategy needs an analysis that the study does not make.
    """
    study, wanted = plan.study, plan.study.targeted
    if wanted is None:
        return []
    agent, base = chooser(study, wanted), base_name(study)
    needed = {
        "patching": f"patch-{agent}>{base}",
        "attribution": f"explain-{agent}",
        "pathways": f"follow-{base}>{agent}",
    }
    stages = [stage for by, stage in needed.items() if by in wanted.by]
    for stage in stages:
        unsplit = "attribution_change" not in study.mechanisms.methods
        if stage not in plan.tasks or (stage == needed["attribution"] and unsplit):
            raise ConfigError(
                "The parts to train cannot be chosen: the study does not make the analysis",
                seen=f"targeted.by without {stage}",
                allowed=f"patching of [{agent}, {base}], attribution_change or interactions",
                remedy="add the method under mechanisms, or leave the strategy out of targeted.by",
            )
    n_layers = shape_of(study, plan.source).sizes.n_layers
    inputs = {"targeted": wanted.model_dump(mode="json"), "n_layers": n_layers, "seed": study.seed}
    what = ("mechanisms", "choose")
    chosen = plan.add(TARGETS, what, inputs, stages, targeted.choose(wanted, n_layers))
    parts = [name for name, e in study.agents.items() if e.derived and e.derived.by]
    return [chosen, *(add_training(plan, name, (TARGETS,)) for name in parts)]


def add_keeping(plan: Planner, needs: Sequence[str]) -> list[str]:
    """What the parts keep; after the decisions of all agents."""
    wanted = plan.study.targeted
    if wanted is None:
        return []
    read = [n for n in needs if n.partition("-")[0] in ("prompts", "decide", "train", TARGETS)]
    inputs = {"targeted": wanted.model_dump(mode="json")}
    return [plan.add("keep", ("behaviour", "keep"), inputs, read, targeted.keep(wanted))]
