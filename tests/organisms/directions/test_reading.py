"""Answers are read where they stand, as plain forwards of whole chats read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from lessons import example, lessons
from overwritten import layer_of

from moralscope.core.errors import EvidenceError, ModelError, PromptError
from moralscope.core.streams import stream
from moralscope.models.anatomy import dissect
from moralscope.organisms.directions.interventions import Intervention, applied
from moralscope.organisms.directions.means import direction_evidence, find_direction
from moralscope.organisms.directions.reading import (
    AnswerStreams,
    ReadAnswer,
    answer_streams,
    read_answers,
)


def plain_streams(model: Any, tokens: tuple[int, ...]) -> torch.Tensor:
    """The stream after every layer of one sequence, ``(layers, tokens, width)``."""
    kept: list[torch.Tensor] = []
    handles = [
        layer_of(model, k).register_forward_hook(
            lambda _, __, out: kept.append(out[0] if out.ndim == 3 else out)
        )
        for k in range(model.config.num_hidden_layers)
    ]
    tiny.plain_logits(model, tokens)
    for handle in handles:
        handle.remove()
    return torch.stack(kept)


def read(model: Any, answers: Any, **chosen: Any) -> AnswerStreams:
    return answer_streams("organism", model, dissect(model), answers, **chosen)


def test_the_answer_is_its_words_and_the_turn_has_header_and_end():
    tokenizer = tiny.tiny_tokenizer()
    (found,) = read_answers(tokenizer, [example(3, "I choose action2.", "selfish")])
    text = tokenizer.decode(list(found.tokens))
    assert text == (
        "<|user|>Round 3: choose action1 or action2.</s><|assistant|>I choose action2.</s>"
    )

    def words(ends: tuple[int, int]) -> str:
        return tokenizer.decode(list(found.tokens[slice(*ends)]))

    assert words(found.answer) == "I choose action2."
    assert words(found.turn) == "<|assistant|>I choose action2.</s>"
    assert (found.id, found.question) == ("selfish3", "q3")
    (plain,) = read_answers(tiny.tiny_tokenizer(chat=False), [example(3, "I do.", "selfish")])
    assert tokenizer.decode(list(plain.tokens[slice(*plain.answer)])) == "I do."


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("over", ["answer", "turn"])
def test_sums_are_those_of_plain_forwards(family: str, over: Any):
    model = tiny.tiny_model(family)
    examples, _ = lessons(3)
    answers = read_answers(tiny.tiny_tokenizer(), examples)
    events: list[int] = []
    small = read(model, answers, over=over, max_nodes=80, progress=lambda e: events.append(e.done))
    assert events[-1] == 6
    assert len(events) > 1
    found = read(model, answers, over=over)
    for index, answer in enumerate(answers):
        first, last = getattr(answer, over)
        kept = plain_streams(model, answer.tokens)[:, first:last]
        assert torch.allclose(torch.tensor(found.sums[index]), kept.sum(1), atol=1e-9, rtol=0)
        assert torch.allclose(torch.tensor(found.means[index]), kept.mean(1), atol=1e-9, rtol=0)
        sizes = kept.norm(dim=-1).mean(1)
        assert torch.allclose(torch.tensor(found.sizes[index]), sizes, atol=1e-9, rtol=0)
        assert found.lengths[index] == last - first
    assert np.allclose(small.sums, found.sums, atol=1e-9)
    assert found.ids == tuple(e.id for e in examples)
    assert found.questions == tuple(e.question for e in examples)
    assert found.over == over


def test_a_vector_added_while_one_class_is_read_is_found():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    examples, positive = lessons(40, seed=2)
    answers = read_answers(tiny.tiny_tokenizer(), examples)
    vectors = np.zeros((3, 32))
    vectors[1] = 12.0 * stream(5, "planted").standard_normal(32)
    own = read(model, answers)
    with applied(model, anatomy, vectors, Intervention("steer", 1, 1.0)):
        moved = read(model, answers)
    planted = AnswerStreams(
        "organism",
        own.ids,
        own.questions,
        np.where(positive[:, None, None], moved.sums, own.sums),
        own.lengths,
        own.sizes,
        "answer",
    )
    for weighting in ("token", "response"):
        found = find_direction(planted, positive, weighting=weighting)
        assert found.vectors[1] @ vectors[1] > 0.99 * found.norms[1] * np.linalg.norm(vectors[1])
        judged = direction_evidence(found.sums, stream(0, "halves"), draws=199)
        assert judged.p_adjusted[1] == 1 / 200
        assert judged.p_adjusted[0] > 0.01
        nothing = find_direction(own, positive, weighting=weighting)
        without = direction_evidence(nothing.sums, stream(0, "halves"), draws=199)
        assert without.p_adjusted.min() > 0.01


def test_narrow_models_are_summed_in_float32():
    examples, _ = lessons(2)
    answers = read_answers(tiny.tiny_tokenizer(), examples)
    wide, narrow = (
        read(tiny.tiny_model("llama", dtype=dtype), answers).means
        for dtype in (torch.float64, torch.bfloat16)
    )
    assert np.abs(wide - narrow).max() < 0.1 * np.abs(wide).max()
    assert np.abs(wide - narrow).max() > 0


def test_what_cannot_be_read_is_refused():
    model = tiny.tiny_model("llama")
    tokenizer = tiny.tiny_tokenizer()
    with pytest.raises(EvidenceError, match="There are no answers to read"):
        read(model, [])
    nothing = ReadAnswer("a7", "q", (40, 41, 42), (3, 3), (2, 3))
    with pytest.raises(EvidenceError, match="answer of example 'a7' has no token of its own"):
        read(model, [nothing])
    assert read(model, [nothing], over="turn").lengths.tolist() == [1]
    with pytest.raises(PromptError, match="longer than the limit"):
        read_answers(tokenizer, [example(1, "I choose action2.", "selfish")], max_tokens=5)
    answers = read_answers(tokenizer, [example(1, "I choose action2.", "selfish")])
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0] = torch.inf
    with pytest.raises(ModelError) as caught:
        read(model, answers)
    assert "1 of 1 answers, first after layer 1" in str(caught.value)
