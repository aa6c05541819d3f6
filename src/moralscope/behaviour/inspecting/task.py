"""How does Inspect AI ask and score? The task ``moralscope/decisions``.

Every prompt is a sample, every epoch one more answer to it, drawn at temperature 1. No answer is
right or wrong. A score has three values,

    cooperation     1 or 0 by the first option that the answer names; undefined where it names none
    legal_strict    1 if the answer is exactly an option, space at both ends aside
    legal_tolerant  1 if it names an option, whatever stands around it

read as ``games.parsing`` does. Inspect AI averages over epochs, undefined values left out, so that
``cooperation`` of a prompt is P(C | legal) as sampled, and then over prompts. The standard errors
are clustered by scenario, the unit of replication. What a prompt without any legal answer would
have done is not known: it counts for legality alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    Value,
    mean,
    metric,
    scorer,
    stderr,
)
from inspect_ai.solver import TaskState, generate

from moralscope.behaviour.inspecting.asking import asked_prompts
from moralscope.behaviour.inspecting.places import options_of, sample_of
from moralscope.core.errors import ConfigError
from moralscope.games.parsing import parse

MAX_TOKENS = 32
"""The longest answer, unless ``--max-tokens`` says otherwise."""


@metric
def by_scenario() -> Metric:
    """The mean of every scenario, over its prompts."""
    return _means("scenario")


@metric
def by_state() -> Metric:
    """The mean of every state, own last move first: a memory-one table where both are told."""
    return _means("state")


def _means(key: str) -> Metric:
    def means(scores: list[SampleScore]) -> Value:
        groups: dict[str, list[float]] = {}
        for each in scores:
            place = (each.sample_metadata or {})[key]
            groups.setdefault(str(place), []).append(each.score.as_float())
        return {place: sum(values) / len(values) for place, values in sorted(groups.items())}

    return means


_SHARE: list[Metric] = [mean(), stderr(cluster="scenario")]
_METRICS: dict[str, list[Metric]] = {
    "cooperation": [*_SHARE, by_scenario(), by_state()],
    "legal_strict": _SHARE,
    "legal_tolerant": _SHARE,
}


@task
def decisions(
    prompts: str = "structured",
    games: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    samples: int = 1,
) -> Task:
    """Does a model cooperate? The package's decisions, asked without an answer stem.

    Args:
        prompts: ``structured``, ``wordings``, ``scenarios``, ``clusters``, ``families``,
            ``framings``, ``robustness``, ``generalisation``, ``public-goods``, or a file of
            prompts.
        games: names of games, for sets that do not have games of their own.
        labels: pairs of labels, such as ``action1/action2``; each is asked under both assignments.
        samples: answers to every prompt.

    Raises:
        ConfigError: there is no such prompt set or game, a pair of labels is not one, or no
            answer is asked for.
        PromptError: the labels cannot stand in a prompt.
    """
    if samples < 1:
        raise ConfigError(
            "No answer is asked for",
            seen=f"samples={samples}",
            allowed="one answer to every prompt or more",
            remedy="leave out samples for one answer",
        )
    asked = asked_prompts(prompts, games, labels)
    return Task(
        dataset=MemoryDataset([sample_of(prompt) for prompt in asked], name=prompts),
        solver=generate(),
        scorer=reading_scorer(),
        epochs=samples,
        config=GenerateConfig(temperature=1.0, max_tokens=MAX_TOKENS),
    )


@scorer(metrics=_METRICS)
def reading_scorer() -> Scorer:
    """Reads answers strictly and tolerantly, as ``games.parsing`` does."""

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        answer = state.output.completion
        read = parse(options_of(str(state.sample_id), state.metadata), answer)
        cooperated = {"negative": 1.0, "positive": 0.0, "illegal": math.nan}[read.tolerant]
        return Score(
            value={
                "cooperation": cooperated,
                "legal_strict": float(read.strict != "illegal"),
                "legal_tolerant": float(read.tolerant != "illegal"),
            },
            answer=answer,
            metadata={"strict": read.strict, "tolerant": read.tolerant},
        )

    return score
