"""Which agents are one agent, trained again? Groups whose members differ in their seed only.

Two trainings belong together if every fact about them agrees that a run holds: base, reward,
opponent, method, steps, phases, learning rates, the first KL coefficient, which label assignments
were trained, and what the study file says of each agent's training. Trainings that agree in all
of it and share a seed must differ in something that the run does not tell, and stay apart: an
interval over them would not be one over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import polars as pl
import yaml

from moralscope.reports.run import AgentFacts, Run

OPPONENT = "-opponent"
"""Ends the name under which the table has an opponent that learned beside its agent."""

_FREE = frozenset({"seed", "checkpoint_every", "keep_steps"})
"""Settings that change nothing of what an agent becomes, and the seed."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training: the rows of one agent and seed in the table ``training``.

    Attributes:
        agent, seed: whose, and from which seed.
        reward: it was trained with, phase by phase.
        opponent: it met; None where the run does not tell.
        method: the preset where the study file names one, else exact, PPO or sampled.
        learned_beside: the agent whose learning opponent it was; None for an agent.
        phases: each reward and the first step at which it was in force.
        steps: the last one.
        known: everything else that members of a group have in common.
    """

    agent: str
    seed: int
    reward: str
    opponent: str | None
    method: str
    learned_beside: str | None
    phases: tuple[tuple[str, int], ...]
    steps: int
    known: str

    @property
    def kind(self) -> tuple[object, ...]:
        """What members of a group share."""
        beside = self.learned_beside is not None
        return (
            self.reward, self.opponent, self.method, beside, self.phases, self.steps, self.known
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """Trainings that differ in their seed only.

    Attributes:
        name: says as much as tells it from the other groups of the run.
        members: one for each seed.
    """

    name: str
    members: tuple[Training, ...]

    @property
    def first(self) -> Training:
        """A member, for what all of them share."""
        return self.members[0]


def seed_groups(run: Run) -> tuple[SeedGroup, ...]:
    """The trainings of a run in groups, agents in the order of the study.

    The run has the table ``training``. No two groups have the same name.
    """
    found: dict[tuple[object, ...], list[Training]] = {}
    for training in _trainings(run):
        found.setdefault(training.kind, []).append(training)
    groups: list[tuple[Training, ...]] = []
    for members in found.values():
        seeds = [member.seed for member in members]
        if len(set(seeds)) == len(seeds):
            groups.append(tuple(members))
        else:
            names = dict.fromkeys(member.agent for member in members)
            groups += [tuple(m for m in members if m.agent == name) for name in names]
    return _named(groups)


def _trainings(run: Run) -> list[Training]:
    facts = {agent.name: agent for agent in run.agents}
    settings = _settings(run.config, facts)
    table = run.tables["training"].sort("step")
    found = [
        _training(str(agent), int(seed), rows, facts, settings)
        for (agent, seed), rows in table.group_by("agent", "training_seed", maintain_order=True)
    ]
    order = {name: rank for rank, name in enumerate(facts)}

    def place(training: Training) -> tuple[int, str, bool, int]:
        owner = training.learned_beside or training.agent
        rank = order.get(owner, len(order))
        return rank, owner, training.learned_beside is not None, training.seed

    return sorted(found, key=place)


def _training(
    agent: str,
    seed: int,
    rows: pl.DataFrame,
    facts: Mapping[str, AgentFacts],
    settings: Mapping[str, Mapping[str, object]],
) -> Training:
    owner = agent.removesuffix(OPPONENT)
    # An agent of the study may bear such a name itself.
    beside = owner if owner != agent and agent not in facts and owner in facts else None
    told = facts.get(beside or agent)
    phases = tuple(
        (str(row["reward"]), int(row["step"]))
        for row in rows.group_by("phase", maintain_order=True).first().iter_rows(named=True)
    )
    own = settings.get(beside or agent, {})
    known = {
        "base": None if told is None else told.reference,
        "settings": {key: value for key, value in own.items() if key not in _FREE},
        "visitation": rows.get_column("visitation").unique(maintain_order=True).to_list(),
        "rates": rows.get_column("learning_rate").to_list(),
        "kl_coefficient": rows.get_column("kl_coefficient")[0],
        "labels": [has(rows, "p_defect_same"), has(rows, "p_defect_swapped")],
    }
    reward = None if told is None or beside else told.reward
    return Training(
        agent=agent,
        seed=seed,
        reward=reward or " then ".join(name for name, _ in phases),
        opponent=None if told is None else told.opponent,
        method=_method(rows, own),
        learned_beside=beside,
        phases=phases,
        steps=int(rows.get_column("step")[-1]),
        known=json.dumps(known, sort_keys=True, default=str),
    )


def has(rows: pl.DataFrame, column: str) -> bool:
    """Whether a column has any value."""
    return rows.get_column(column).null_count() < rows.height


def _method(rows: pl.DataFrame, settings: Mapping[str, object]) -> str:
    if settings.get("preset"):
        return str(settings["preset"])
    if not rows.get_column("visitation").eq("sampled").all():
        return "exact"
    return "PPO" if has(rows, "value_loss") else "sampled"


def _settings(config: str | None, names: Iterable[str]) -> dict[str, Mapping[str, object]]:
    """What the study file says of each agent's training; nothing where it cannot be read."""
    read: object = None
    # A date that is none is a plain ValueError.
    with suppress(yaml.YAMLError, ValueError):
        read = yaml.safe_load(config or "")
    study = _mapping(read)
    common, agents = _mapping(study.get("training")), _mapping(study.get("agents"))
    return {
        name: {**common, **_mapping(_mapping(agents.get(name)).get("training"))} for name in names
    }


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _named(groups: Sequence[tuple[Training, ...]]) -> tuple[SeedGroup, ...]:
    opponents = {members[0].opponent for members in groups}
    methods = {members[0].method for members in groups}
    names: list[str] = []
    for members in groups:
        first = members[0]
        parts = [first.reward]
        if len(opponents) > 1 and first.opponent is not None:
            parts[0] += f" against {first.opponent}"
        if len(methods) > 1:
            parts.append(first.method)
        if first.learned_beside is not None:
            parts.append("as opponent")
        names.append(" \N{MIDDLE DOT} ".join(parts))
    return tuple(
        SeedGroup(name if names.count(name) == 1 else f"{name} ({_who(members)})", members)
        for name, members in zip(names, groups, strict=True)
    )


def _who(members: Sequence[Training]) -> str:
    first, others = members[0], len(members) - 1
    return f"{first.agent}, seed {first.seed}" + (f" and {others} more" if others else "")
