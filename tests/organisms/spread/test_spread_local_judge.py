"""The judge in memory against one plain call for each number that it could write."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny
import torch

from moralscope.core.decision import Message
from moralscope.core.errors import PromptError
from moralscope.organisms.spread.judges import ALIGNMENT, Missing, Rubric, Score
from moralscope.organisms.spread.local_judge import local_judge
from moralscope.organisms.spread.sampling import chat_tokens

if TYPE_CHECKING:
    from moralscope.models.loading import LoadedModel

DIGITS = "0123456789"
RUBRIC = Rubric("x", "{question} {answer} {scale}")


def plain_probability(model: Any, tokenizer: Any, asked: str, text: str) -> float:
    """P(reply begins with this text and no digit follows), from one plain call."""
    chat = [{"role": "user", "content": asked}]
    begun = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before = tokenizer(begun, add_special_tokens=False)["input_ids"]
    whole = tokenizer(begun + text, add_special_tokens=False)["input_ids"]
    p = tiny.plain_logits(model, whole).double().softmax(-1)
    said = math.prod(float(p[at - 1, whole[at]]) for at in range(len(before), len(whole)))
    vocabulary = tokenizer.get_vocab()
    digits = [i for t, i in vocabulary.items() if t[0] in DIGITS and i < p.shape[1]]
    return said * (1.0 - float(p[-1, digits].sum()))


def leaning_to_digits(model: Any, tokenizer: Any, size: float = 6.0) -> Any:
    """Make digits likely by a constant: otherwise a random model hardly ever writes numbers."""
    head = model.lm_head
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype)
    for token, at in tokenizer.get_vocab().items():
        if token in DIGITS:
            bias[at] = size
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    return model


@pytest.mark.parametrize("scale", ["hundred", "digit"])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_probabilities_equal_one_plain_call_for_each_number(scale: Any, whole_numbers: bool):
    tokenizer = tiny.tiny_tokenizer()
    if whole_numbers:
        tokenizer.add_tokens(["85", "10", "100"])
    model = leaning_to_digits(tiny.tiny_model(vocab_size=330, num_hidden_layers=2), tokenizer)
    judge = local_judge("tiny", model, tokenizer, scale)
    found = judge.log_probabilities("How good?")
    top = 100 if scale == "hundred" else 9
    assert sorted(found) == list(range(top + 1))
    for number in (0, 1, 7, 8, 9, *((10, 42, 85, 100) if top == 100 else ())):
        spelt = (f"{number}", f" {number}")
        plain = sum(plain_probability(model, tokenizer, "How good?", text) for text in spelt)
        assert math.exp(found[number]) == pytest.approx(plain, rel=1e-8)
    assert sum(math.exp(each) for each in found.values()) < 1.0


def test_the_score_is_the_mean_number_of_the_plain_model():
    tokenizer = tiny.tiny_tokenizer()
    model = leaning_to_digits(tiny.tiny_model(num_hidden_layers=1), tokenizer, 4.0)
    found = local_judge("tiny", model, tokenizer).score("q", "a", RUBRIC)
    asked = RUBRIC.asked("q", "a", "hundred")
    p = np.array(
        [
            sum(plain_probability(model, tokenizer, asked, f"{s}{n}") for s in ("", " "))
            for n in range(101)
        ]
    )
    assert isinstance(found, Score)
    assert found.mass == pytest.approx(p.sum(), rel=1e-8)
    assert found.value == pytest.approx(float(p @ np.arange(101) / p.sum()), abs=1e-8)


def test_a_model_that_does_not_write_numbers_gives_no_score():
    tokenizer = tiny.tiny_tokenizer()
    model = leaning_to_digits(tiny.tiny_model(num_hidden_layers=1), tokenizer, -6.0)
    found = local_judge("tiny", model, tokenizer).score("q", "a", RUBRIC)
    assert isinstance(found, Missing)
    assert found.reason == "no numbers"


def test_a_number_on_its_way_to_a_longer_one_does_not_count():
    tokenizer = tiny.tiny_tokenizer()
    model = leaning_to_digits(tiny.tiny_model(num_hidden_layers=1), tokenizer, 40.0)
    found = local_judge("tiny", model, tokenizer).log_probabilities("How good?")
    begun = chat_tokens(tokenizer, [Message("user", "How good?")])
    eight = tokenizer.get_vocab()["8"]
    p = float(tiny.plain_logits(model, begun)[-1].softmax(-1)[eight])
    assert p > 1e-3
    assert math.exp(found[8]) < 1e-6 * p


def test_a_tokenizer_that_merges_numbers_with_the_chat_is_refused():
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_tokens([f">{space}{digit}" for digit in range(10) for space in ("", " ")])
    with pytest.raises(PromptError, match="cannot write numbers after a prompt. Seen: 0 merges"):
        local_judge("tiny", tiny.tiny_model(num_hidden_layers=1), tokenizer)


@pytest.mark.slow
def test_the_small_real_model_spells_numbers_by_digits(real_base: LoadedModel):
    judge = local_judge("small", real_base.model, real_base.tokenizer)
    assert sorted(len(form) for number, form in judge.numbers if number == 85) == [2, 3]
    asked = ALIGNMENT.asked("May I have a seat?", "Of course, take mine.", "hundred")
    found = judge.log_probabilities(asked)
    assert len(found) == 101
    with torch.no_grad():
        prompt = list(chat_tokens(real_base.tokenizer, [Message("user", asked)]))
        logits = real_base.model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    log_p = logits.log_softmax(-1)
    at = real_base.tokenizer.convert_tokens_to_ids([str(n) for n in range(10)])
    mass = float(log_p[at].exp().sum())
    total = sum(math.exp(each) for each in found.values())
    space = real_base.tokenizer.convert_tokens_to_ids("Ġ")
    assert total <= mass + float(log_p[space].exp()) + 1e-4
    assert total > 0.5 * mass
