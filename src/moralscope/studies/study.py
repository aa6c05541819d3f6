"""What does a study ask? The study file: agents, prompts, methods, tests.

A study is a frozen value read from YAML. Every default is written out when a run saves it, so
``study.yaml`` in a run directory says everything that was decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import yaml
from pydantic import Field, model_validator

from moralscope.behaviour.scripted import scripted_policy
from moralscope.core.agents import AgentSpec, Frozen
from moralscope.core.documents import read_yaml, validate
from moralscope.core.errors import ConfigError, nearest
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.pairs import Pair
from moralscope.games import MIRRORED, WORDINGS, reward_phases
from moralscope.studies.choices.agents import AgentEntry, Settings, expanded
from moralscope.studies.choices.controls import ControlChoice
from moralscope.studies.choices.derived import CourseChoice, TargetedChoice, with_derived
from moralscope.studies.choices.evaluation import EvaluationChoice
from moralscope.studies.choices.evidence import EvidenceChoice
from moralscope.studies.choices.mechanisms import MechanismChoice
from moralscope.studies.choices.prompts import PromptChoice
from moralscope.studies.comparing import check_comparisons, compared_pairs
from moralscope.studies.expectations import Measures, check_hypotheses
from moralscope.studies.presets import with_changes, with_preset
from moralscope.training.batches import training_game
from moralscope.training.config import TrainingConfig
from moralscope.training.finished import SETTINGS, read_settings
from moralscope.training.others import check_opponent


class Study(Frozen):
    """A study.

    Attributes:
        name: shown in the report.
        preset: supplies what is left out, see ``presets``: ``small`` or ``paper``.
        model: base model: ``default``, a hub id or a folder.
        dtype, device: of the base weights.
        seed: of every draw of the study; agents may have training seeds of their own.
        max_nodes: largest packed forward, in tree nodes; lower it to use less memory.
        agents: by name; exactly one has neither reward, adapter nor checkpoint: the base.
        comparisons: by name, the two that are compared: agents, or entries with ``seeds``. What is
            said about two agents is said about these, about each agent and the base, and about
            agents that differ in their seed alone; with none, about every two agents.
        course: look at trainings on their way, see ``CourseChoice``.
        targeted: repeat trainings in parts of the model alone, see ``TargetedChoice``.
        training: settings common to all agents trained here.
        prompts, evaluation, mechanisms, controls, evidence: see their types.
        hypotheses: what is expected, named before anything is measured (``registration``).
    """

    name: str = "study"
    preset: Literal["small", "paper"] = "small"
    model: str = "default"
    dtype: Literal["float32", "bfloat16", "nf4"] = "float32"
    device: str = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0
    max_nodes: Annotated[int, Field(ge=64)] = 1024
    agents: Annotated[dict[str, AgentEntry], Field(min_length=1)]
    comparisons: dict[str, tuple[str, str]] = Field(default_factory=dict[str, tuple[str, str]])
    course: CourseChoice | None = None
    targeted: TargetedChoice | None = None
    training: Settings = Field(default_factory=dict[str, object])
    prompts: PromptChoice = PromptChoice()
    evaluation: EvaluationChoice = EvaluationChoice()
    mechanisms: MechanismChoice = MechanismChoice()
    controls: ControlChoice = ControlChoice()
    evidence: EvidenceChoice = EvidenceChoice()
    hypotheses: tuple[Hypothesis, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_seeds(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        settings = with_preset(cast("Mapping[str, object]", given))
        agents = settings.get("agents")
        if not isinstance(agents, Mapping):
            return settings
        return {**settings, "agents": expanded(cast("Mapping[str, object]", agents))}

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        # Frozen for everybody else; a study is not in use before it is validated.
        object.__setattr__(self, "agents", with_derived(self.agents, self.course, self.targeted))
        bases = [n for n, a in self.agents.items() if _is_base(a)]
        if len(bases) != 1:
            raise ConfigError(
                "A study needs exactly one base agent",
                seen=f"{len(bases)}: {', '.join(bases) or 'none'}",
                allowed="one agent with no reward, adapter, checkpoint or policy",
                remedy="add 'base: {}' under agents" if not bases else "remove the others",
            )
        for name in self.agents:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ConfigError(
                    "This cannot be the name of an agent",
                    seen=repr(name),
                    allowed="letters, digits, - and _",
                    remedy="rename the agent",
                )
            _refuse_two_sources(name, self.agents[name])
            training_config(self, name)
        for pair in self.mechanisms.pairs or ():
            for name in pair:
                if name not in models_of(self):
                    raise ConfigError(
                        "A pair names an agent that the study does not have"
                        if name not in self.agents
                        else "A pair names a scripted policy, which has nothing inside",
                        seen=f"{pair[0]} into {pair[1]}",
                        allowed=", ".join(models_of(self)),
                        remedy=nearest(name, models_of(self)),
                    )
        if not self.prompts.games and not self.prompts.files:
            raise ConfigError(
                "The study has no prompts that claims could rest on",
                seen="games: [] and no files",
                allowed="games of the clusters, or prompt files of your own",
                remedy="name a game under prompts.games, or a file under prompts.files",
            )
        for wording in self.prompts.wordings:
            if wording not in (*WORDINGS, *MIRRORED):
                raise ConfigError(
                    "There is no such wording",
                    seen=wording,
                    allowed=", ".join((*WORDINGS, *MIRRORED)),
                    remedy=nearest(wording, (*WORDINGS, *MIRRORED)),
                )
        check_comparisons(self.comparisons, self.agents)
        check_hypotheses(self.hypotheses, measures(self))
        return self


def _refuse_two_sources(name: str, agent: AgentEntry) -> None:
    given = {
        key: value
        for key in ("adapter", "checkpoint", "policy")
        if (value := getattr(agent, key)) is not None
    }
    if len(given) > 1:
        raise ConfigError(
            f"Agent {name!r} is given in more than one way",
            seen=", ".join(f"{key} {value}" for key, value in given.items()),
            allowed="one of adapter, checkpoint and policy, or none for the base itself",
            remedy="keep one of the keys",
        )
    if agent.policy is not None:
        if agent.reward is not None:
            raise ConfigError(
                f"Agent {name!r} is scripted and cannot be trained",
                seen=f"policy {agent.policy} and reward {agent.reward}",
                allowed="a policy without a reward",
                remedy="remove one of the two keys",
            )
        scripted_policy(agent.policy)


def _is_base(agent: AgentEntry) -> bool:
    return all(v is None for v in (agent.reward, agent.adapter, agent.checkpoint, agent.policy))


def models_of(study: Study) -> tuple[str, ...]:
    """The agents that have weights: all but scripted policies."""
    return tuple(name for name, agent in study.agents.items() if agent.policy is None)


def base_name(study: Study) -> str:
    """The name of the study's base agent."""
    return next(n for n, a in study.agents.items() if _is_base(a))


def trained_for(study: Study, name: str) -> str | None:
    """The reward of an agent in regular writing, phase by phase; None where none is given.

    Raises:
        ConfigError: it is not a reward.
    """
    given = study.agents[name].reward
    if given is None:
        return None
    try:
        return " then ".join(reward_phases(given))
    except ConfigError as error:
        raise ConfigError(
            f"The reward of agent {name!r} cannot be used: {error.problem}",
            seen=error.seen,
            allowed=error.allowed,
            remedy=error.remedy,
        ) from error


def seed_of(study: Study, name: str) -> int:
    """The training seed of an agent that is trained here."""
    seed = study.agents[name].seed
    return study.seed if seed is None else seed


def inside(study: Study) -> tuple[str, ...]:
    """The agents that are looked inside: all with weights but those trained in parts."""
    made = {name: study.agents[name].derived for name in models_of(study)}
    return tuple(name for name, of in made.items() if of is None or of.by is None)


def label_of(study: Study, name: str) -> str | None:
    """An agent's reward as tables name it: that of its training, and which part or state of it."""
    reward, derived = trained_for(study, name), study.agents[name].derived
    return reward if reward is None or derived is None else f"{reward} {derived.label}"


def training_config(study: Study, name: str) -> TrainingConfig | None:
    """The resolved training of an agent; None for one that is not trained here.

    Raises:
        ConfigError: an unknown reward, opponent or setting.
    """
    agent = study.agents[name]
    reward = trained_for(study, name)
    if not agent.trained_here:
        check_opponent(agent.opponent)
    if not agent.trained_here:
        return None
    settings: dict[str, object] = {
        "words": list(study.prompts.words),
        **study.training,
        **agent.training,
        "reward": reward,
        "opponent": agent.opponent,
        "seed": seed_of(study, name),
    }
    config = validate(TrainingConfig, settings, f"the training of agent {name!r}")
    check_opponent(config.opponent, training_game(config))
    return config


def loaded_adapters(study: Study) -> dict[str, Path]:
    """The folders of adapters that are loaded from this machine, by agent."""
    return {
        name: folder
        for name, agent in study.agents.items()
        if agent.adapter is not None and (folder := Path(agent.adapter).expanduser()).is_dir()
    }


def known_training(study: Study, name: str) -> TrainingConfig | None:
    """How an agent was trained, here or as the folder that it is loaded from tells; else None.

    A study of the user's own prompts alone has nothing to compare a loaded agent's training with,
    so that it is not asked about it.

    Raises:
        ConfigError: an unknown reward, opponent or setting.
        AgentError: the folder's record of its training is damaged.
    """
    derived = study.agents[name].derived
    if study.agents[name].adapter is None:
        return training_config(study, name if derived is None else derived.of)
    folder = loaded_adapters(study).get(name)
    if folder is None or not study.prompts.table_orders or not (folder / SETTINGS).is_file():
        return None
    return read_settings(folder)


def agent_spec(study: Study, name: str, adapter: Path | None = None) -> AgentSpec:
    """An agent as ``models`` loads it; ``adapter`` is the folder that training wrote."""
    agent = study.agents[name]
    seed = agent.seed
    if adapter is not None and seed is None:
        seed = study.seed
    return AgentSpec(
        name=name,
        base=study.model,
        adapter=str(adapter) if adapter is not None else agent.adapter,
        checkpoint=agent.checkpoint,
        reward=label_of(study, name),
        opponent=None if agent.reward is None else agent.opponent,
        training_seed=seed,
    )


def patched_pairs(study: Study) -> tuple[tuple[str, str], ...]:
    """Ordered pairs (source, target) to patch."""
    if not {"patching", "approximations", "paths", "circuits"} & set(study.mechanisms.methods):
        return ()
    if study.mechanisms.pairs is not None:
        return study.mechanisms.pairs
    base = base_name(study)
    named = [p.agents for p in compared(study) if p.kind == "named" and p.tested]
    both = [pair for a, b in named if study.comparisons for pair in ((a, b), (b, a))]
    return (*((base, name) for name in inside(study) if name != base), *both)


def compared(study: Study) -> tuple[Pair, ...]:
    """The pairs of agents that the study compares, see ``evidence.pairs``."""
    entries = {name: study.agents[name] for name in inside(study)}
    rewards = {name: label_of(study, name) for name in entries}
    return compared_pairs(study.comparisons, entries, rewards, base_name(study))


def measures(study: Study) -> Measures:
    """What a study measures, as far as hypotheses can ask for it."""
    return Measures(
        rewards={name: label_of(study, name) for name in models_of(study)},
        base=base_name(study),
        scripted=[name for name, agent in study.agents.items() if agent.policy is not None],
        pairs=patched_pairs(study) if "patching" in study.mechanisms.methods else (),
        kinds=study.mechanisms.sites,
        positions=study.mechanisms.positions,
        write=study.mechanisms.write,
        attributed="attribution" in study.mechanisms.methods,
        methods=study.mechanisms.methods,
        compared=_compared_rewards(study),
    )


def _compared_rewards(study: Study) -> frozenset[frozenset[str]]:
    """Every two rewards whose agents are compared by name."""
    pairs = (
        frozenset(label for name in pair.agents if (label := label_of(study, name)) is not None)
        for pair in compared(study)
        if pair.kind == "named"
    )
    return frozenset(pair for pair in pairs if len(pair) == 2)


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: the file.
        changes: keys that are set anew, ``KEY=VALUE`` (``presets.with_changes``).

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; the message names the
            place and the nearest right key.
    """
    where = " with --set ".join((path.name, *changes))
    return validate(Study, with_changes(read_yaml(path), changes), where)


def study_yaml(study: Study) -> str:
    """The study with every default written out, as YAML."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
