"""What is read of an answer, and how one is drawn, equal plain forwards one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from moralscope.games import structured
from moralscope.models.forward import full_precision
from moralscope.models.generating import drawn_from
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.training.answers import Question, generate_answers, read_answers


@pytest.fixture(scope="module")
def encoded(wide_base: LoadedModel) -> tuple[EncodedPrompt, ...]:
    found = (*list(structured(stem=False))[:6], *list(structured())[:4])
    return encode_all(wide_base.tokenizer, found)


def plain(base: LoadedModel, tokens: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Log-probabilities after each token, and what the unembedding reads, one sequence alone."""
    with torch.no_grad(), full_precision(base.model):
        out = base.model(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    return out.logits[0].log_softmax(-1), out.hidden_states[-1][0]


def sequence_log_p(
    base: LoadedModel, prompt: EncodedPrompt, answer: tuple[int, ...]
) -> list[float]:
    log_p, _ = plain(base, prompt.tokens + answer)
    start = len(prompt.tokens) - 1
    return [float(log_p[start + k, token]) for k, token in enumerate(answer)]


@pytest.mark.parametrize("max_nodes", [4096, 150])
def test_a_reading_equals_plain_forwards(
    wide_base: LoadedModel, encoded: tuple[EncodedPrompt, ...], max_nodes: int
) -> None:
    answers = [(7, 9), (), (11,), (7, 9), (3, 4), (), (8, 8), (5,), (), (5,)]
    questions = [Question(p, a) for p, a in zip(encoded, answers, strict=True)]
    questions.append(questions[0])  # asked twice, read once
    read = read_answers(wide_base.model, questions, max_nodes=max_nodes, hidden=True)
    assert read.hidden is not None
    assert read.token_log_p.shape == read.mask.shape == (11, 2)
    for i, question in enumerate(questions):
        prompt = question.prompt
        for side, forms in enumerate((prompt.positive, prompt.negative)):
            total = np.logaddexp.reduce([sum(sequence_log_p(wide_base, prompt, f)) for f in forms])
            assert float(read.log_p[i, side]) == pytest.approx(total, abs=1e-10)
        expected = sequence_log_p(wide_base, prompt, question.answer)
        count = len(question.answer)
        assert read.mask[i].tolist() == [k < count for k in range(2)]
        assert read.token_log_p[i, :count].tolist() == pytest.approx(expected, abs=1e-10)
        assert read.token_log_p[i, count:].tolist() == [0.0] * (2 - count)
        _, hidden = plain(wide_base, prompt.tokens + question.answer)
        start = len(prompt.tokens) - 1
        for k in range(max(1, count)):
            assert torch.allclose(read.hidden[i, k], hidden[start + k], atol=1e-10)
    assert read_answers(wide_base.model, questions).hidden is None


def test_answers_are_the_quantiles_of_the_next_token_distribution(
    wide_base: LoadedModel, encoded: tuple[EncodedPrompt, ...]
) -> None:
    prompts = [encoded[0], encoded[3], encoded[0], encoded[9], encoded[0]]
    uniforms = np.random.default_rng(0).random((5, 3))
    uniforms[4] = uniforms[0]
    known: dict[tuple[int, ...], np.ndarray] = {}
    found = generate_answers(wide_base.model, prompts, uniforms, known, max_nodes=300)
    assert generate_answers(wide_base.model, prompts, uniforms, known) == found
    asked = {
        p.tokens + answer[:k] for p, answer in zip(prompts, found, strict=True) for k in range(3)
    }
    assert set(known) == asked  # nothing is computed twice
    assert found[4] == found[0]
    assert len({answer[0] for answer in found}) > 1
    for prompt, row, answer in zip(prompts, uniforms, found, strict=True):
        given: tuple[int, ...] = ()
        for u, token in zip(row, answer, strict=True):
            log_p, _ = plain(wide_base, prompt.tokens + given)
            p = log_p[-1].exp().numpy()
            below, height = p[:token].sum(), p[: token + 1].sum()
            assert below <= u * p.sum() + 1e-9
            assert u * p.sum() <= height + 1e-9
            given += (token,)


def test_tokens_come_up_as_often_as_they_are_likely() -> None:
    p = torch.tensor([0.3, -1.0, 2.0, float("-inf")]).double().softmax(0).numpy()
    count = 20_000
    drawn = [drawn_from(3 * p, (i + 0.5) / count) for i in range(count)]
    assert np.allclose(np.bincount(drawn, minlength=4) / count, p, atol=1e-4)
    assert drawn_from(p, 1 - 2**-53) == 2
