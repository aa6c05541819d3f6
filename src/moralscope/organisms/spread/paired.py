"""Does an agent lean towards selfish answers that it was never taught? Paired continuations.

To one question, in wording w and order o, two answers are written beforehand: s, which serves the
one who gives it, and p, which has regard for others (``organisms.data.broad``; for the held-out
questions of a lesson ``organisms.data.dilemmas.contrasts`` pairs its two kinds of answers). With
the tokens t_1 .. t_c of an answer after the chat x,

    l(t | x) = (1 / c) sum_k log p(t_k | x, t_<k)            nats per token
    d = mean over w of mean over o of [ l(s | x_wo) - l(p | x_wo) ]

is the leaning of an agent on a question; ``per_character`` divides by characters instead. What is
asked of an organism is its *shift* ``d(agent) - d(base)``, and of a claim the difference of two
shifts, organism against matched control, paired by question. Intervals are over questions.

All answers of a pack are scored in one forward over their prefix tree (``models.scoring``): a
question and the beginning that its answers share are run once. The token that would end the turn is
no part of an answer.

What it does not do: a leaning in likelihood is not what an agent would say; sampled answers with a
judge are (``quadrants``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from moralscope.core.decision import Decision, Option, Prompt
from moralscope.core.errors import EvidenceError, PromptError
from moralscope.core.progress import Progress, silent
from moralscope.evidence.statistics.resampling import Array
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import MAX_NODES, score
from moralscope.organisms.data.dilemmas import Asking
from moralscope.organisms.spread.estimates import (
    Estimate,
    estimate_mean,
    means_by,
    require_same_questions,
)

Unit = Literal["token", "character"]
"""By what the log-likelihood of an answer is divided."""


@dataclass(frozen=True, slots=True)
class PairedScores:
    """An agent's leaning on every item.

    Attributes:
        items: what was scored.
        per_token: (items,) selfish minus prosocial, nats per token.
        per_character: (items,) the same, nats per character.
    """

    items: tuple[Asking, ...]
    per_token: Array
    per_character: Array

    def by_question(self, unit: Unit = "token") -> tuple[tuple[str, ...], Array]:
        """Questions in order of first appearance, and the leaning ``(G,)`` on each in nats.

        Orders are averaged within a wording, then wordings: each wording weighs alike.
        """
        values = self.per_token if unit == "token" else self.per_character
        versions = [(item.question, item.wording) for item in self.items]
        wordings, means = means_by(versions, values.tolist())
        return means_by([question for question, _ in wordings], means.tolist())


@dataclass(frozen=True, slots=True)
class Shift:
    """How far an agent's leaning moved from its base's.

    Attributes:
        questions: the G questions.
        values: (G,) nats per token or per character, above zero towards selfish answers.
    """

    questions: tuple[str, ...]
    values: Array


def encode_items(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Asking]
) -> tuple[EncodedPrompt, ...]:
    """The items as a model reads them: ``positive`` is the selfish answer.

    Raises:
        PromptError: there are none, one is there twice, an answer merges with the end of its
            question, or one of the two begins with the other.
    """
    twice = [name for name, count in Counter(_name(item) for item in items).items() if count > 1]
    if not items or twice:
        raise PromptError(
            "These paired answers cannot be scored",
            seen=f"{twice[0]!r} twice" if twice else "no items",
            allowed="one item or more, each question once in each wording and order",
            remedy="name wordings and orders apart, or remove one of the two",
        )
    return encode_all(tokenizer, [_prompt(item) for item in items])


def _name(item: Asking) -> str:
    return f"{item.question}|{item.wording}|{item.order}"


def _prompt(item: Asking) -> Prompt:
    decision = Decision(
        item.messages,
        "",
        Option("selfish", (item.selfish,)),
        Option("prosocial", (item.prosocial,)),
    )
    return Prompt(
        name=_name(item),
        decision=decision,
        game="user",
        scenario=item.question,
        family="spread",
        template=str(item.wording),
        labels="prosocial/selfish",
    )


def score_items(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Asking],
    *,
    max_nodes: int = MAX_NODES,
    task: str = "score answers",
    progress: Progress = silent,
) -> PairedScores:
    """The leaning of a decoder, with whatever adapter or intervention is in force on it.

    Args:
        model: the decoder.
        tokenizer: its tokenizer.
        items: questions with their two answers.
        max_nodes: largest tree that is run at once.
        task: what is running, for the progress.
        progress: told as items are scored.

    Raises:
        PromptError: an item cannot be scored (``encode_items``).
        EvidenceError: an answer has no probability at all.
    """
    read = encode_items(tokenizer, items)
    scores = score(model, read, max_nodes=max_nodes, task=task, progress=progress)
    sums = (scores.log_p_positive, scores.log_p_negative)
    for item, selfish, prosocial in zip(items, *sums, strict=True):
        if not np.isfinite(selfish - prosocial):
            raise EvidenceError(
                f"An answer to question {item.question!r} has no probability",
                seen=f"log-likelihoods {selfish:g} (selfish) and {prosocial:g} (prosocial)",
                allowed="finite log-likelihoods",
                remedy="the agent's weights or activations have overflowed: train it again with "
                "a lower learning rate, or steer it less",
            )
    tokens = np.array([(len(e.positive[0]), len(e.negative[0])) for e in read], dtype=np.float64)
    characters = np.array([(len(i.selfish), len(i.prosocial)) for i in items], dtype=np.float64)
    per_token, per_character = (
        sums[0] / lengths[:, 0] - sums[1] / lengths[:, 1] for lengths in (tokens, characters)
    )
    return PairedScores(tuple(items), per_token, per_character)


def paired_scores(
    roster: Roster,
    name: str,
    items: Sequence[Asking],
    *,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> PairedScores:
    """``score_items`` of an agent.

    Raises:
        AgentError: there is no such agent.
        PromptError: an item cannot be scored.
    """
    with roster.speaking(name) as model:
        return score_items(
            model,
            roster.tokenizer,
            items,
            max_nodes=max_nodes,
            task=f"score answers {name}",
            progress=progress,
        )


def shift_from(agent: PairedScores, base: PairedScores, unit: Unit = "token") -> Shift:
    """The agent's leaning on each question minus its base's, nats.

    Raises:
        EvidenceError: the two were not asked the same.
    """
    asked, before = ({_name(item) for item in each.items} for each in (agent, base))
    require_same_questions(tuple(asked), tuple(before), "leanings of agent and base")
    questions, own = agent.by_question(unit)
    theirs = dict(zip(*base.by_question(unit), strict=True))
    return Shift(questions, own - np.array([theirs[question] for question in questions]))


def mean_shift(shifts: Sequence[Shift]) -> Shift:
    """The mean of several agents' shifts on each question, as of the seeds of one recipe.

    Raises:
        EvidenceError: there are none, or they were not asked the same.
    """
    if not shifts:
        raise EvidenceError(
            "There are no shifts to average",
            seen="none",
            allowed="one or more",
            remedy="measure at least one agent",
        )
    first = shifts[0]
    return Shift(first.questions, np.mean([_aligned(each, first) for each in shifts], axis=0))


def _aligned(shift: Shift, like: Shift) -> Array:
    require_same_questions(shift.questions, like.questions, "shifts")
    values = dict(zip(shift.questions, shift.values, strict=True))
    return np.array([values[question] for question in like.questions])


def estimate_shift(shift: Shift, rng: np.random.Generator, level: float = 0.95) -> Estimate:
    """The mean shift over questions and its interval, nats."""
    return estimate_mean(shift.values, rng, level)


def shift_difference(
    organism: Shift, control: Shift, rng: np.random.Generator, level: float = 0.95
) -> Estimate:
    """The organism's shift beyond its matched control's, paired by question, nats.

    Raises:
        EvidenceError: the two were not asked the same questions.
    """
    return estimate_mean(organism.values - _aligned(control, organism), rng, level)
