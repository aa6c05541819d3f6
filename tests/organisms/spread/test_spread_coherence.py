"""Perplexities and losses against plain calls, repetition against counts by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from moralscope.core.decision import Message
from moralscope.core.errors import ConfigError, EvidenceError, PromptError
from moralscope.organisms.spread.answers import Answer
from moralscope.organisms.spread.coherence import (
    AnswerCoherence,
    PerplexityRatio,
    answer_coherence,
    coherence_by_question,
    perplexity_ratio,
    repetition,
)

TEXTS = ("You play a game. Round one.", "ab abab I choose", "choose action1 or action2 now")
ASKED = (Message("user", "What now?"),)


def plain_nats(model: Any, tokens: list[int]) -> float:
    log_p = tiny.plain_logits(model, tokens).log_softmax(-1)
    return -float(np.mean([float(log_p[at - 1, tokens[at]]) for at in range(1, len(tokens))]))


def test_the_ratio_of_perplexities_equals_plain_calls(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=("game",))
    found = perplexity_ratio(roster, "game", "base", TEXTS)
    nats: list[list[float]] = []
    for name in ("game", "base"):
        with roster.speaking(name) as model:
            nats.append([plain_nats(model, roster.tokenizer(t)["input_ids"]) for t in TEXTS])
    apart = np.array(nats[0]) - np.array(nats[1])
    low, high = stats.t.interval(0.95, 2, apart.mean(), stats.sem(apart))
    assert found.ratio == pytest.approx(math.exp(apart.mean()), abs=1e-10)
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)), abs=1e-9)
    assert found.agent / found.base == pytest.approx(found.ratio, abs=1e-10)
    assert found.base == pytest.approx(math.exp(np.mean(nats[1])), rel=1e-10)
    assert abs(found.ratio - 1) > 1e-3
    assert found.texts == 3


def test_a_base_is_as_coherent_as_itself(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=())
    found = perplexity_ratio(roster, "base", "base", TEXTS)
    assert (found.ratio, found.low, found.kept()) == (1.0, None, "kept")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (1.01, 0.96, 1.04, "kept"),
        (1.01, 0.94, 1.04, "undecided"),
        (1.03, 1.01, 1.051, "undecided"),
        (1.2, 1.06, 1.3, "lost"),
        (0.8, 0.7, 0.94, "lost"),
        (1.0, None, None, "kept"),
        (1.001, None, None, "undecided"),
    ],
)
def test_coherence_is_kept_where_the_whole_interval_is_within_the_bar(
    ratio: float, low: float | None, high: float | None, said: str
):
    assert PerplexityRatio(ratio, low, high, ratio, 1.0, 12).kept() == said


def test_a_wider_bar_keeps_more():
    found = PerplexityRatio(1.1, 1.06, 1.14, 1.1, 1.0, 12)
    assert (found.kept(), found.kept(0.15)) == ("lost", "kept")
    with pytest.raises(ConfigError, match="A bar on perplexity is not a share. Seen: 5.0"):
        found.kept(5.0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d e f", 0.0),
        ("a a a a a a", 2 / 3),  # three runs of four, one kind
        ("A b c d a B c d", 1 / 5),  # five runs; the first comes back as the last
        ("a b c", None),
        ("", None),
    ],
)
def test_repetition_is_the_share_of_runs_that_stood_there_before(text: str, share: float | None):
    found = repetition(text)
    assert found is None if share is None else found == pytest.approx(share)


def test_losses_equal_plain_calls_in_the_order_of_the_answers():
    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    answers = [
        Answer("q1", ASKED, "I choose action1", 0),
        Answer("q1", ASKED, "", 1),
        Answer("q1", ASKED, "as drawn", 2, tokens=(40, 41, 42)),
        Answer("q2", (Message("user", "And then?"),), "I choose action2 and action1 now", 0),
    ]
    found = answer_coherence(model, tokenizer, answers)
    for row, answer in zip(found, answers, strict=True):
        chat = [{"role": "user", "content": answer.asked[0].content}]
        begun = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before = tokenizer(begun)["input_ids"]
        own = list(answer.tokens) or tokenizer(begun + answer.text)["input_ids"][len(before) :]
        assert (row.question, row.sample, row.n_tokens) == (
            answer.question,
            answer.sample,
            len(own),
        )
        if own:
            plain = -tiny.plain_log_probability(model, before, own) / len(own)
            assert row.loss == pytest.approx(plain, abs=1e-10)
    assert (found[1].loss, found[1].repetition) == (None, None)
    assert found[3].repetition == 0.0


def test_answers_without_a_value_are_counted_by_question():
    rows = [
        AnswerCoherence("q1", 0, 2.0, 0.5, 9),
        AnswerCoherence("q1", 1, 4.0, None, 2),
        AnswerCoherence("q2", 0, 1.0, 0.0, 9),
        AnswerCoherence("q3", 0, None, None, 0),
    ]
    questions, means, missing = coherence_by_question(rows, "loss")
    assert (questions, means.tolist(), missing) == (("q1", "q2"), [3.0, 1.0], 1)
    questions, means, missing = coherence_by_question(rows, "repetition")
    assert (questions, means.tolist(), missing) == (("q1", "q2"), [0.5, 0.0], 2)
    with pytest.raises(EvidenceError, match="No answer has a loss. Seen: 1 answers"):
        coherence_by_question(rows[3:], "loss")


def test_what_cannot_be_read_is_refused(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=())
    with pytest.raises(ConfigError, match="There is no neutral text to read"):
        perplexity_ratio(roster, "base", "base", ())
    with pytest.raises(PromptError, match="A text has nothing to predict"):
        perplexity_ratio(roster, "base", "base", ("a",))
    model = tiny.tiny_model(num_hidden_layers=1)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(EvidenceError, match="'q1' has no probability under the base"):
        answer_coherence(model, tiny.tiny_tokenizer(), [Answer("q1", ASKED, "I choose")])
