"""Which prompts does a study ask? All of them, and the few that mechanisms are studied on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.hashing import sha256_value
from moralscope.games import (
    CLUSTER_GAMES,
    STATES,
    balanced,
    clusters,
    read_prompts,
    scenarios,
    structured,
    wordings,
)
from moralscope.studies.study import Study, training_config
from moralscope.training.batches import training_prompts


def cluster_prompts(study: Study) -> PromptSet:
    """The clusters of the study's games: what inference rests on.

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
    return clusters(study.prompts.words).where(lambda p: p.game in study.prompts.games)


def all_prompts(study: Study) -> PromptSet:
    """Every prompt that agents are measured on; training prompts are among them."""
    found: list[Prompt] = []
    for order in study.prompts.table_orders:
        found += structured(study.prompts.words, table_order=order)
    if study.prompts.wordings:
        found += wordings(study.prompts.words, names=study.prompts.wordings)
    if study.prompts.scenarios:
        found += scenarios(study.prompts.words)
    found += cluster_prompts(study)
    for name in study.agents:
        config = training_config(study, name)
        known = {p.name for p in found}
        if config is not None:
            found += [p for p in training_prompts(config) if p.name not in known]
    for file in study.prompts.files:
        found += read_prompts(Path(file))
    return PromptSet(tuple(found))


def mechanism_prompts(study: Study) -> PromptSet:
    """One prompt per scenario and wording of the clusters, orders and labels rotated."""
    chosen = balanced(cluster_prompts(study))
    order = [f"{game}.{state.name}" for state in STATES for game in study.prompts.games]
    kept = set(order[: study.mechanisms.scenarios])
    return chosen.where(lambda p: p.scenario in kept)


def digest(prompts: PromptSet) -> str:
    """Hash of everything that a prompt set says."""
    return sha256_value([asdict(prompt) for prompt in prompts])
