"""Which agents follow from others? Earlier states of a training, and trainings of parts alone.

``course`` makes an agent of every chosen step of a training, so that whatever a study measures is
measured along the way. ``targeted`` trains an agent again in some of its sub-layers: those that an
analysis of the whole agent chooses, as many at random, and bands of consecutive layers. Which
sub-layers those are is known only when the analysis is done, in the same run.

Agents made so have a reward of their own in the tables (``utilitarian until step 5``,
``utilitarian in 8 by patching``): they are not further seeds of the whole training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field

from moralscope.core.agents import Frozen
from moralscope.core.errors import ConfigError, nearest
from moralscope.studies.choices.agents import AgentEntry, Derived

Strategy = Literal["patching", "attribution", "pathways", "random", "early", "middle", "late"]
BANDS: tuple[Strategy, ...] = ("early", "middle", "late")

Step = Annotated[int, Field(ge=1)]


class CourseChoice(Frozen):
    """States of a training on its way.

    Attributes:
        of: agents, or entries with seeds, that are trained here.
        steps: optimiser steps after which they are looked at.
    """

    of: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]


class TargetedChoice(Frozen):
    """Trainings of parts alone.

    Attributes:
        of: the agent, or the entry with seeds, whose training is repeated in parts; each seed is
            compared with its own whole training.
        chosen_on: the agent whose analysis chooses; the first of ``of`` unless given. Its own seed
            is left out of the comparison where others remain: it was chosen to do well there.
        by: how sub-layers are chosen. ``patching``: largest mean effect of putting the agent's
            sub-layer into the base. ``attribution``: largest change of contribution by the
            sub-layer's own weights. ``pathways``: those at the ends of pathways with the largest
            effect. ``random``: drawn, as many attention and MLP sub-layers as the first of the
            other choices has, so that parameters agree. ``early``, ``middle``, ``late``: whole
            consecutive layers, as many sub-layers.
        budgets: how many sub-layers (the attention or the MLP of one layer).
    """

    of: str
    chosen_on: str | None = None
    by: Annotated[tuple[Strategy, ...], Field(min_length=1)] = ("patching", "random", *BANDS)
    budgets: Annotated[tuple[Step, ...], Field(min_length=1)] = (4, 16)


def with_derived(
    agents: Mapping[str, AgentEntry], course: CourseChoice | None, targeted: TargetedChoice | None
) -> dict[str, AgentEntry]:
    """The agents, and those that follow from them; equal if they are there already.

    Raises:
        ConfigError: an agent that is not trained here, or a step or budget that is given twice.
    """
    found = dict(agents)
    if course is not None:
        _once("course.steps", course.steps)
        for name in (m for of in course.of for m in trained_members(of, agents, "course.of")):
            entry = found[name]
            kept = _kept(entry, course.steps)
            found[name] = entry.model_copy(update={"training": {**entry.training, **kept}})
            for step in course.steps:
                of = Derived(of=name, step=step)
                found[f"{name}-step{step}"] = _from(entry, of, f"step{step}")
    if targeted is not None:
        _once("targeted.budgets", targeted.budgets)
        for name in trained_members(targeted.of, agents, "targeted.of"):
            for by in targeted.by:
                for budget in targeted.budgets:
                    of = Derived(of=name, by=by, budget=budget)
                    found[f"{name}-{by}{budget}"] = _from(agents[name], of, f"{by}{budget}")
    return found


def _kept(entry: AgentEntry, steps: tuple[int, ...]) -> dict[str, object]:
    given = cast("list[int]", entry.training.get("keep_steps", []))
    return {"keep_steps": sorted({*given, *steps})}


def _from(entry: AgentEntry, of: Derived, suffix: str) -> AgentEntry:
    group = None if entry.group is None else f"{entry.group}-{suffix}"
    return entry.model_copy(update={"derived": of, "group": group})


def trained_members(name: str, agents: Mapping[str, AgentEntry], key: str) -> tuple[str, ...]:
    """The agents that an entry's name stands for, all of which are trained here.

    Raises:
        ConfigError: there is none, or one is not trained here.
    """
    whole = {n: e for n, e in agents.items() if e.derived is None}
    found = (name,) if name in whole else tuple(n for n, e in whole.items() if e.group == name)
    known = [n for n, entry in whole.items() if entry.trained_here]
    known += dict.fromkeys(whole[n].group or n for n in known)
    if not found or any(not whole[n].trained_here for n in found):
        raise ConfigError(
            f"{key} names an agent that is not trained in this study",
            seen=name,
            allowed=", ".join(dict.fromkeys(known)) or "an agent with a reward",
            remedy=nearest(name, known),
        )
    return found


def _once(key: str, numbers: tuple[int, ...]) -> None:
    if len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"{key} names a number twice",
            seen=", ".join(map(str, numbers)),
            allowed="each number once",
            remedy="remove the repeated one",
        )
