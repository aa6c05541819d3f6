"""Which prompts does a study ask? All of them, and the few that mechanisms are studied on."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.hashing import sha256_value
from moralscope.games import (
    CLUSTER_GAMES,
    STATES,
    Pair,
    balanced,
    clusters,
    counterfactual_pairs,
    read_prompts,
    scenarios,
    structured,
    with_sources,
    wordings,
)
from moralscope.games.asking.robustness import united
from moralscope.studies.choices.evaluation import evaluation_prompts
from moralscope.studies.study import Study, known_training
from moralscope.training.batches import training_prompts


def own_prompts(study: Study) -> tuple[Prompt, ...]:
    """The prompts in the user's own files."""
    return tuple(prompt for file in study.prompts.files for prompt in read_prompts(Path(file)))


def inference_prompts(study: Study) -> PromptSet:
    """What claims rest on: the clusters of the study's games, else the user's own prompts.

    Raises:
        ConfigError: a game that has no clusters.
    """
    for game in study.prompts.games:
        if game not in CLUSTER_GAMES:
            raise ConfigError(
                "There are no clusters of this game",
                seen=game,
                allowed=", ".join(CLUSTER_GAMES),
                remedy=nearest(game, CLUSTER_GAMES),
            )
    if not study.prompts.games:
        return PromptSet(own_prompts(study))
    return clusters(study.prompts.words).where(lambda p: p.game in study.prompts.games)


def fingerprint_prompts(study: Study) -> PromptSet:
    """What trained agents are fingerprinted on, beside their training prompts.

    All clusters, whichever games the study asks about, so that studies of different games share
    their agents; and the user's own prompts where claims rest on those.
    """
    every = clusters(study.prompts.words)
    return every if study.prompts.games else every + PromptSet(own_prompts(study))


def all_prompts(study: Study) -> PromptSet:
    """Every prompt that agents are measured on, each once; training prompts are among them."""
    found: list[Prompt] = []
    for order in study.prompts.table_orders:
        found += structured(study.prompts.words, table_order=order)
    if study.prompts.wordings:
        found += wordings(study.prompts.words, names=study.prompts.wordings)
    if study.prompts.scenarios:
        found += scenarios(study.prompts.words)
    if study.prompts.games:
        found += inference_prompts(study)
    found += evaluation_prompts(study.evaluation, study.prompts.words)
    for name in study.agents:
        config = known_training(study, name)
        if config is not None:
            found += training_prompts(config)
    return PromptSet((*(united(found) if found else ()), *own_prompts(study)))


def mechanism_prompts(study: Study) -> PromptSet:
    """The prompts that mechanisms are studied on, from the first scenarios that the study wants.

    Of the clusters one prompt per scenario and wording, orders and labels rotated, scenarios
    taken in turn over games; of the user's own prompts all, in the order of the files.
    """
    asked = inference_prompts(study)
    if study.prompts.games:
        asked = balanced(asked)
        order = [f"{game}.{state.name}" for state in STATES for game in study.prompts.games]
    else:
        order = list(dict.fromkeys(prompt.scenario for prompt in asked))
    kept = set(order[: study.mechanisms.scenarios])
    return asked.where(lambda p: p.scenario in kept)


def changed_pairs(study: Study, change: str) -> tuple[Pair, ...]:
    """Mechanism prompts with their counterparts under a change."""
    return counterfactual_pairs(mechanism_prompts(study), change)


def digest_pairs(study: Study, change: str) -> str:
    """Hash of the mechanism prompts' counterparts under a change."""
    pairs = changed_pairs(study, change)
    return sha256_value([change, [[asdict(p.target), asdict(p.source)] for p in pairs]])


def asked_prompts(study: Study) -> PromptSet:
    """Every prompt of the study, and the counterparts that patches across prompts come from."""
    found = all_prompts(study)
    for change in study.mechanisms.changes:
        found = with_sources(found, changed_pairs(study, change))
    return found


@functools.lru_cache(maxsize=64)
def digest(prompts: PromptSet) -> str:
    """Hash of everything that a prompt set says."""
    return sha256_value([asdict(prompt) for prompt in prompts])
