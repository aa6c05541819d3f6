"""Does an agent still speak sense? Perplexity of neutral text, loss and repetition of answers.

Neutral text i has ``n_i`` nats per token under the agent and ``b_i`` under its base
(``models.divergence``). With R the ratio of the two perplexities,

    log R = mean_i (n_i - b_i),      interval: that of the mean over texts, exponentiated

and coherence is *kept* where the whole interval of R lies within a bar of 1 (.05), *lost* where it
lies outside, and *undecided* else.

An answer a of T tokens to chat x has, under the **base** model, the loss
``-(1 / T) sum_k log p(a_k | x, a_<k)`` in nats per token: what the base finds hard to believe is
odd, broken or in another language. Its *repetition* is the share of its runs of 4 words that stood
there before. Both are given per answer and averaged by question; neither knows what is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from moralscope.behaviour.speaking.neutral import TEXTS
from moralscope.behaviour.speaking.side_effects import GRAM, different_runs
from moralscope.core.errors import ConfigError, EvidenceError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.evidence.statistics.resampling import Array
from moralscope.models.divergence import read_text
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster
from moralscope.models.scoring import MAX_NODES, score
from moralscope.organisms.spread.answers import Answer
from moralscope.organisms.spread.estimates import means_by
from moralscope.organisms.spread.sampling import answer_tokens, chat_tokens

BAR = 0.05
"""Change of the perplexity of neutral text, as a share, that is too small to matter."""

Kept = Literal["kept", "lost", "undecided"]
Measure = Literal["loss", "repetition"]


@dataclass(frozen=True, slots=True)
class PerplexityRatio:
    """Perplexity of neutral texts under an agent over that under its base.

    Attributes:
        ratio: above 1 where the agent reads worse.
        low, high: its 95% interval over texts; None where one text, or no spread, leaves it
            undefined.
        agent, base: the two perplexities, at the mean over texts of nats per token.
        texts: how many were read.
    """

    ratio: float
    low: float | None
    high: float | None
    agent: float
    base: float
    texts: int

    def kept(self, bar: float = BAR) -> Kept:
        """Does the whole interval lie within ``1 +- bar``, outside, or neither?

        Without an interval the ratio alone cannot say, unless it is exactly 1.

        Raises:
            ConfigError: the bar is not between 0 and 1.
        """
        if not 0.0 < bar < 1.0:
            raise ConfigError(
                "A bar on perplexity is not a share",
                seen=bar,
                allowed="above 0 and below 1, as .05 for five per cent",
                remedy=f"leave it at {BAR:g}",
            )
        if self.low is None or self.high is None:
            return "kept" if self.ratio == 1.0 else "undecided"
        if 1.0 - bar <= self.low and self.high <= 1.0 + bar:
            return "kept"
        return "lost" if self.low > 1.0 + bar or self.high < 1.0 - bar else "undecided"


def perplexity_ratio(
    roster: Roster,
    name: str,
    base: str,
    texts: Sequence[str] = TEXTS,
    *,
    progress: Progress = silent,
) -> PerplexityRatio:
    """How much worse does an agent read neutral text than its base?

    Args:
        roster: models and adapters.
        name: the agent.
        base: what it is compared with.
        texts: neutral prose, of two tokens or more each.
        progress: told as texts are read.

    Raises:
        AgentError: there is no such agent.
        ConfigError: there is no text.
        PromptError: a text has nothing to predict.
    """
    if not texts:
        raise ConfigError(
            "There is no neutral text to read",
            seen="no texts",
            allowed="one text or more, of two tokens or more each",
            remedy="leave the texts at what is shipped",
        )
    nats = np.empty((len(texts), 2))
    tokenizer: Any = roster.tokenizer
    for number, text in enumerate(texts):
        tokens = tuple(int(token) for token in tokenizer(text)["input_ids"])
        nats[number], _ = read_text(roster, (name, base), tokens)
        progress(ProgressEvent(f"read neutral text {name}", number + 1, len(texts)))
    return _ratio(nats)


def _ratio(nats: Array) -> PerplexityRatio:
    """From nats per token ``(texts, 2)``, the agent's first."""
    changes = nats[:, 0] - nats[:, 1]
    bounds = cluster_t(changes)
    low, high = (None, None) if bounds is None else np.exp(bounds).tolist()
    agent, base = np.exp(nats.mean(axis=0)).tolist()
    return PerplexityRatio(float(np.exp(changes.mean())), low, high, agent, base, len(nats))


@dataclass(frozen=True, slots=True)
class AnswerCoherence:
    """How an answer reads.

    Attributes:
        question, sample: which answer.
        loss: under the base model, nats per token; None for an answer without a token.
        repetition: share of its runs of 4 words that stood there before, in [0, 1); None for an
            answer of fewer words.
        n_tokens: its tokens.
    """

    question: str
    sample: int
    loss: float | None
    repetition: float | None
    n_tokens: int


def repetition(text: str, length: int = GRAM) -> float | None:
    """Share of the runs of so many words that stood there before; None where there is no run."""
    words = text.casefold().split()
    number = {word: index for index, word in enumerate(dict.fromkeys(words))}
    different = different_runs(tuple(number[word] for word in words), length)
    return None if different is None else 1.0 - different


def answer_coherence(
    base: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Answer],
    *,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> tuple[AnswerCoherence, ...]:
    """Loss under the base and repetition of every answer, in order.

    Args:
        base: the decoder that the answers are read by, without an adapter.
        tokenizer: its tokenizer.
        answers: in the tokens in which they were drawn, where these are known.
        max_nodes: largest tree that is run at once.
        progress: told as answers are read.

    Raises:
        PromptError: an answer known as text only merges with the end of its question.
        EvidenceError: an answer has no probability under the base.
    """
    read = [_read(tokenizer, answer) for answer in answers]
    said = [encoded for encoded in read if encoded.positive[0]]
    nats = iter(())
    if said:
        scored = score(
            base, said, max_nodes=max_nodes, normalise="token", task="read answers",
            progress=progress,
        )  # fmt: skip
        nats = iter(scored.log_p_positive.tolist())
    found: list[AnswerCoherence] = []
    for answer, encoded in zip(answers, read, strict=True):
        tokens = len(encoded.positive[0])
        loss = -next(nats) if tokens else None
        if loss is not None and not np.isfinite(loss):
            raise EvidenceError(
                f"An answer to question {answer.question!r} has no probability under the base",
                seen=f"sample {answer.sample}: {loss:g} nats per token",
                allowed="a finite loss",
                remedy="check that the answers were drawn with the base's tokenizer",
            )
        repeated = repetition(answer.text)
        found.append(AnswerCoherence(answer.question, answer.sample, loss, repeated, tokens))
    return tuple(found)


def _read(tokenizer: PreTrainedTokenizerBase, answer: Answer) -> EncodedPrompt:
    """An answer as the one option of a prompt; without tokens where it has no text."""
    tokens = answer.tokens
    if not tokens and answer.text:
        tokens = answer_tokens(tokenizer, answer.asked, answer.text)
    name = f"{answer.question}|{answer.sample}"
    return EncodedPrompt(name, "", chat_tokens(tokenizer, answer.asked), (tokens,), ())


def coherence_by_question(
    rows: Sequence[AnswerCoherence], measure: Measure
) -> tuple[tuple[str, ...], Array, int]:
    """Mean of a measure on each question.

    Returns:
        Questions with a value, their means ``(G,)``, and how many answers have none.

    Raises:
        EvidenceError: no answer has a value.
    """
    values = [(row.question, getattr(row, measure)) for row in rows]
    known = [(question, value) for question, value in values if value is not None]
    if not known:
        raise EvidenceError(
            f"No answer has a {measure}",
            seen=f"{len(rows)} answers, all too short",
            allowed="answers with text, for repetition of four words or more",
            remedy="look at what the agent says, and allow more tokens",
        )
    questions, means = means_by(*zip(*known, strict=True))
    return questions, means, len(values) - len(known)
