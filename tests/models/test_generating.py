"""Answers drawn with kept keys and values are those of plain forwards, one sequence at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from tiny import FAMILIES, never_narrowed, plain_logits, tiny_model, tiny_tokenizer, token_prompts

from moralscope.core.errors import ConfigError
from moralscope.models import generating
from moralscope.models.generating import end_tokens, generate

PROMPTS = [prompt.tokens for prompt in token_prompts(4)]
ASKED = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[3][:9], PROMPTS[3], PROMPTS[0]]
UNIFORMS = np.random.default_rng(0).random((len(ASKED), 5))
UNIFORMS[6, :2] = UNIFORMS[0, :2]  # begins as the first does, and parts from it


def drawn_plainly(
    model: torch.nn.Module, prompt: tuple[int, ...], uniforms: np.ndarray, ends: frozenset[int]
) -> tuple[list[int], list[float]]:
    """One whole forward for each token; the first token at which the sum exceeds the number."""
    tokens: list[int] = []
    found: list[float] = []
    for uniform in uniforms:
        p = plain_logits(model, [*prompt, *tokens])[-1].double().softmax(-1)
        sums = np.add.accumulate(p.numpy())
        token = int(np.argmax(sums > uniform * sums[-1]))
        tokens.append(token)
        found.append(float(p[token].log()))
        if token in ends:
            break
    return tokens, found


@contextmanager
def counted(model: torch.nn.Module) -> Generator[list[int]]:
    """Tokens of each forward."""
    seen: list[int] = []

    def listen(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].numel())

    handle = model.get_input_embeddings().register_forward_pre_hook(listen)
    yield seen
    handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_what_plain_forwards_draw(family: str) -> None:
    model = tiny_model(family)
    found = generate(model, ASKED[:4], UNIFORMS[:4, :4])
    for prompt, uniforms, answer in zip(ASKED, UNIFORMS[:, :4], found, strict=False):
        tokens, log_p = drawn_plainly(model, prompt, uniforms, frozenset())
        assert list(answer.tokens) == tokens
        assert answer.log_p == pytest.approx(log_p, abs=1e-9)
        assert not answer.finished


def test_narrow_weights_agree_within_a_ten_thousandth() -> None:
    model = tiny_model(dtype=torch.float32)
    for prompt, uniforms, answer in zip(
        ASKED, UNIFORMS, generate(model, ASKED, UNIFORMS), strict=True
    ):
        tokens, log_p = drawn_plainly(model, prompt, uniforms, frozenset())
        assert list(answer.tokens) == tokens
        assert answer.log_p == pytest.approx(log_p, abs=1e-4)


def test_answers_end_with_a_token_that_ends_them() -> None:
    model = tiny_model()
    open_ended = generate(model, ASKED, UNIFORMS)
    ends = frozenset({open_ended[1].tokens[2], open_ended[3].tokens[0]})
    found = generate(model, ASKED, UNIFORMS, ends=ends)
    assert [len(answer.tokens) for answer in found[1::2]][:2] == [3, 1]
    assert len({answer.finished for answer in found}) == 2
    for prompt, uniforms, answer in zip(ASKED, UNIFORMS, found, strict=True):
        assert list(answer.tokens) == drawn_plainly(model, prompt, uniforms, ends)[0]
        assert answer.finished == (answer.tokens[-1] in ends)


def test_how_the_work_is_divided_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma2")
    whole = generate(model, ASKED, UNIFORMS)
    monkeypatch.setattr(generating, "MAX_ROWS", 2)
    with counted(model) as forwards:
        blocks = generate(model, ASKED, UNIFORMS)
    assert max(forwards[1:]) == 2
    assert len(forwards) > 10
    events = []
    with counted(model) as forwards:
        generate(model, ASKED, UNIFORMS, max_nodes=70)
    assert max(forwards) < 70
    assert len([count for count in forwards if count > len(ASKED)]) > 1  # several trees
    apart = generate(model, ASKED[::-1], UNIFORMS[::-1], max_nodes=1, progress=events.append)[::-1]
    for other in (blocks, apart):
        assert [a.tokens for a in other] == [a.tokens for a in whole]
        for one, two in zip(other, whole, strict=True):
            assert one.log_p == pytest.approx(two.log_p, abs=1e-9)
    assert [event.done for event in events][-1] == len(ASKED)
    assert len(events) == len(set(ASKED))


def test_nothing_is_run_twice() -> None:
    model = tiny_model()
    with counted(model) as forwards:
        found = generate(model, ASKED, UNIFORMS)
    assert found[0].tokens[:2] == found[6].tokens[:2]
    assert found[0].tokens != found[6].tokens
    prefixes = {prompt[:end] for prompt in ASKED for end in range(1, len(prompt) + 1)}
    expected = [
        len(prefixes),
        *(len({(p, a.tokens[:k]) for p, a in zip(ASKED, found, strict=True)}) for k in range(1, 5)),
    ]
    assert forwards == expected
    assert expected[1] < len(ASKED)


def test_the_librarys_own_generation_gives_the_same_tokens_and_scores() -> None:
    model = tiny_model(dtype=torch.float32)
    prompt = PROMPTS[1]
    ids = torch.tensor([prompt])
    greedy = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False,
        eos_token_id=None, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    tokens = greedy.sequences[0, len(prompt) :].tolist()
    p = [logits[0].double().softmax(-1).numpy() for logits in greedy.logits]
    middle = [x[:t].sum() + x[t] / 2 for x, t in zip(p, tokens, strict=True)]
    (found,) = generate(model, [prompt], np.array([middle]))
    assert list(found.tokens) == tokens
    scores = model.compute_transition_scores(
        greedy.sequences, greedy.logits, normalize_logits=True
    )[0]
    assert found.log_p == pytest.approx(scores.tolist(), abs=1e-4)


def test_tokens_come_up_as_often_as_they_are_likely() -> None:
    model = tiny_model()
    count = 4000
    uniforms = (np.arange(count)[:, None] + 0.5) / count
    found = generate(model, [PROMPTS[0]] * count, uniforms)
    shares = np.bincount([a.tokens[0] for a in found], minlength=320) / count
    with never_narrowed():
        p = plain_logits(model, PROMPTS[0])[-1].softmax(-1).numpy()
    assert np.allclose(shares, p, atol=1.01 / count)


def test_what_ends_an_answer_is_told_by_model_and_tokenizer() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert end_tokens(model, tokenizer) == {1}
    model.generation_config.eos_token_id = [1, 7]
    tokenizer.eos_token = "<s>"  # noqa: S105
    assert end_tokens(model, tokenizer) == {0, 1, 7}


@pytest.mark.parametrize("shape", [(6, 3), (7, 0), (7,)])
def test_numbers_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="do not fit the prompts.*for 7 prompts"):
        generate(tiny_model(), ASKED, np.zeros(shape))
