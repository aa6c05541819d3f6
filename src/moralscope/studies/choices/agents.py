"""Who is compared? The key ``agents`` of the study file, and agents that differ in their seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import Field

from moralscope.core.agents import Frozen
from moralscope.core.errors import ConfigError

Settings = dict[str, object]


class Derived(Frozen):
    """What an agent was made of, see ``choices.derived``.

    Attributes:
        of: the agent whose training it is an earlier state or a repetition of.
        step: the state after this optimiser step.
        by, budget: how many sub-layers alone are trained, and how they are chosen.
    """

    of: str
    step: int | None = None
    by: str | None = None
    budget: int | None = None

    @property
    def label(self) -> str:
        """What sets its reward apart from that of the whole training."""
        return f"until step {self.step}" if self.step else f"in {self.budget} by {self.by}"


class AgentEntry(Frozen):
    """One agent of a study: trained here, loaded from somewhere, scripted, or the base itself.

    Attributes:
        reward: train it with this reward (with ``adapter`` or ``checkpoint``: what it is known
            to have been trained with).
        opponent, seed: of its training.
        seeds: as many agents as these, which differ in their seed alone; ``5`` for 0 to 4. Each is
            called by the entry's name and its seed (``utilitarian-0``).
        group: the entry that an agent came from; written by ``seeds``.
        derived: what it was made of; written by ``course`` and ``targeted``.
        adapter, checkpoint: load it instead of training it.
        policy: a scripted strategy, by the name or expression of a memory-one opponent: it has
            exact probabilities and nothing inside.
        training: settings of its training that differ from the study's.
    """

    reward: str | None = None
    opponent: str = "tit-for-tat"
    seed: Annotated[int, Field(ge=0)] | None = None
    group: str | None = None
    derived: Derived | None = None
    adapter: str | None = None
    checkpoint: str | None = None
    policy: str | None = None
    training: Settings = Field(default_factory=dict[str, object])

    @property
    def in_parts(self) -> bool:
        """Whether it is trained in parts of the model alone."""
        return self.derived is not None and self.derived.by is not None

    @property
    def trained_here(self) -> bool:
        """Whether a training of this study makes it."""
        loaded = self.adapter is not None or self.checkpoint is not None
        snapshot = self.derived is not None and self.derived.step is not None
        return self.reward is not None and not loaded and not snapshot


def expanded(agents: Mapping[str, object]) -> dict[str, object]:
    """Agents with an entry each, in place of entries with ``seeds``.

    Args:
        agents: as the file has them; whatever is not an entry is left to the validation.

    Raises:
        ConfigError: ``seeds`` is not a number of seeds or a list of different ones, or stands
            beside ``seed``, or two agents would get one name.
    """
    found: dict[str, object] = {}
    for name, entry in agents.items():
        if not isinstance(entry, Mapping) or "seeds" not in entry:
            new: dict[str, object] = {name: entry}
        else:
            settings = dict(cast("Mapping[str, object]", entry))
            new = {
                f"{name}-{seed}": {**settings, "seed": seed, "group": name}
                for seed in _seeds(name, settings.pop("seeds"), "seed" in settings)
            }
        twice = sorted(found.keys() & new.keys())
        if twice:
            raise ConfigError(
                "Two agents of the study have one name",
                seen=f"{twice[0]}, from {name} and its seeds",
                allowed="a name of its own for each agent",
                remedy="rename one of the entries",
            )
        found.update(new)
    return found


def _seeds(name: str, given: object, with_seed: bool) -> list[int]:
    if with_seed:
        raise ConfigError(
            f"Agent {name!r} has both seed and seeds",
            seen="seed and seeds",
            allowed="one of the two",
            remedy="remove seed",
        )
    listed = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    fine = isinstance(listed, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
        for seed in cast("list[object]", listed)
    )
    if (
        not fine
        or not listed
        or len(set(cast("list[int]", listed))) < len(cast("list[int]", listed))
    ):
        raise ConfigError(
            f"The seeds of agent {name!r} cannot be used",
            seen=given,
            allowed="how many (5 for 0 to 4), or a list of different whole numbers from 0",
            remedy="write seeds: 5",
        )
    return cast("list[int]", listed)
