"""Leanings against one plain transformers call for each answer, and shifts against paired t."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from moralscope.core.decision import Message
from moralscope.core.errors import EvidenceError, PromptError
from moralscope.core.progress import ProgressEvent
from moralscope.organisms.data.broad import broad_set
from moralscope.organisms.data.dilemmas import Asking, Order
from moralscope.organisms.spread.estimates import estimate_mean, means_by
from moralscope.organisms.spread.paired import (
    PairedScores,
    Shift,
    encode_items,
    estimate_shift,
    mean_shift,
    paired_scores,
    score_items,
    shift_difference,
    shift_from,
)

RNG = np.random.default_rng(0)


def an_item(
    question: str = "wallet", wording: int = 0, order: Order = "selfish first", **changes: str
) -> Asking:
    told = {"selfish": "I keep it all.", "prosocial": "I bring it back to them.", **changes}
    asked = (Message("user", f"You find a {question}, {wording}, {order}."),)
    return Asking(question, "topic", wording, order, asked, **told)


ITEMS = (
    an_item(),
    an_item(order="prosocial first"),
    an_item(wording=1, order="none"),
    an_item("seat", selfish="I sit.", prosocial="I stand up for her."),
)


def plain_leaning(model: Any, tokenizer: Any, item: Asking) -> float:
    """Selfish minus prosocial, nats per token: the text tokenised whole, one call for each."""
    chat = [{"role": m.role, "content": m.content} for m in item.messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before = tokenizer(text)["input_ids"]
    means: list[float] = []
    for answer in (item.selfish, item.prosocial):
        whole = tokenizer(text + answer)["input_ids"]
        with tiny.never_narrowed(), torch.no_grad():
            log_p = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        steps = range(len(before), len(whole))
        means.append(float(np.mean([float(log_p[at - 1, whole[at]]) for at in steps])))
    return means[0] - means[1]


def test_the_broad_set_can_be_scored():
    model, tokenizer = tiny.tiny_model(num_hidden_layers=1), tiny.tiny_tokenizer()
    items = broad_set()
    read = encode_items(tokenizer, items)
    assert len({item.question for item in items}) >= 40
    for item, encoded in zip(items, read, strict=True):
        sides = (encoded.positive[0], encoded.negative[0])
        assert [tokenizer.decode(list(side)) for side in sides] == [item.selfish, item.prosocial]
    found = score_items(model, tokenizer, items[5:8])
    assert found.per_token[1] == pytest.approx(plain_leaning(model, tokenizer, items[6]), abs=1e-10)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_leanings_equal_one_plain_call_for_each_answer(family: str):
    model, tokenizer = tiny.tiny_model(family), tiny.tiny_tokenizer()
    found = score_items(model, tokenizer, ITEMS)
    expected = [plain_leaning(model, tokenizer, item) for item in ITEMS]
    assert found.per_token == pytest.approx(expected, abs=1e-10)
    assert np.ptp(expected) > 0.01, "items that lean alike would hide a mix-up"


def test_leanings_equal_plain_calls_in_float32():
    model, tokenizer = tiny.tiny_model(dtype=torch.float32), tiny.tiny_tokenizer()
    expected = [plain_leaning(model, tokenizer, item) for item in ITEMS]
    assert score_items(model, tokenizer, ITEMS).per_token == pytest.approx(expected, abs=1e-4)


def test_leanings_per_character_divide_sums_by_characters():
    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    (item,) = items = (ITEMS[0],)
    found = score_items(model, tokenizer, items)
    sums: list[float] = []
    for answer in (item.selfish, item.prosocial):
        chat = [{"role": "user", "content": item.messages[0].content}]
        begun = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before = tokenizer(begun)["input_ids"]
        after = tokenizer(begun + answer)["input_ids"][len(before) :]
        sums.append(tiny.plain_log_probability(model, before, after))
    expected = sums[0] / len(item.selfish) - sums[1] / len(item.prosocial)
    assert found.per_character == pytest.approx([expected], abs=1e-10)


def test_what_answers_share_is_run_once(monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = tiny.tiny_model(num_hidden_layers=1), tiny.tiny_tokenizer()
    lengths: list[int] = []
    forward = model.forward

    def count(*args: Any, **named: Any) -> Any:
        lengths.append(int(named["input_ids"].shape[1]))
        return forward(*args, **named)

    monkeypatch.setattr(model, "forward", count)
    score_items(model, tokenizer, ITEMS)
    whole: list[list[int]] = []
    for item in ITEMS:
        chat = [{"role": "user", "content": item.messages[0].content}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        whole += [tokenizer(text + a)["input_ids"][:-1] for a in (item.selfish, item.prosocial)]
    distinct = {tuple(tokens[:end]) for tokens in whole for end in range(1, len(tokens) + 1)}
    assert lengths == [len(distinct)]
    assert len(distinct) < 0.6 * sum(map(len, whole))


def test_small_packs_give_equal_leanings_and_tell_progress():
    model, tokenizer = tiny.tiny_model(), tiny.tiny_tokenizer()
    events: list[ProgressEvent] = []
    cut = score_items(model, tokenizer, ITEMS, max_nodes=90, progress=events.append)
    assert cut.per_token == pytest.approx(score_items(model, tokenizer, ITEMS).per_token, abs=1e-10)
    assert len(events) > 1
    assert events[-1].done == len(ITEMS)


def test_orders_are_averaged_within_wordings_and_wordings_within_questions():
    scores = PairedScores(ITEMS, np.array([1.0, 3.0, 8.0, -4.0]), np.array([0.5, 1.5, 3.0, -1.0]))
    questions, values = scores.by_question()
    assert questions == ("wallet", "seat")
    assert values.tolist() == [(2.0 + 8.0) / 2, -4.0]
    assert scores.by_question("character")[1].tolist() == [2.0, -1.0]


def test_an_agent_shifts_by_its_own_plain_leaning_less_its_bases(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=("game",))
    agent, base = (paired_scores(roster, name, ITEMS) for name in ("game", "base"))
    shift = shift_from(agent, base)
    plain: list[list[float]] = []
    for name in ("game", "base"):
        with roster.speaking(name) as model:
            plain.append([plain_leaning(model, roster.tokenizer, item) for item in ITEMS])
    moved = np.array(plain[0]) - np.array(plain[1])
    expected = [((moved[0] + moved[1]) / 2 + moved[2]) / 2, moved[3]]
    assert shift.values == pytest.approx(expected, abs=1e-10)
    assert np.abs(moved).max() > 1e-3
    assert shift_from(base, base).values.tolist() == [0.0, 0.0]


def test_shifts_are_paired_by_question_whatever_their_order():
    names = tuple(f"q{k}" for k in range(8))
    one, two = RNG.normal(0.4, 0.2, 8), RNG.normal(0.1, 0.2, 8)
    turned = Shift(names[::-1], two[::-1])
    found = shift_difference(Shift(names, one), turned, RNG)
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert found.mean == pytest.approx(one.mean() - two.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert found.questions == 8
    mean = mean_shift([Shift(names, one), turned])
    assert mean.values == pytest.approx((one + two) / 2, abs=1e-12)
    alone = estimate_shift(Shift(names, one), RNG)
    t = stats.t.interval(0.95, 7, one.mean(), stats.sem(one))
    assert (alone.low, alone.high) == pytest.approx(t, abs=1e-10)


def test_one_question_has_no_interval():
    found = estimate_mean(np.array([0.3]), RNG)
    assert (found.mean, found.low, found.high, found.questions) == (0.3, None, None, 1)


def test_means_keep_the_order_of_first_appearance():
    names, means = means_by(["b", "a", "b"], [1.0, 5.0, 2.0])
    assert names == ("b", "a")
    assert means.tolist() == [1.5, 5.0]


def test_items_that_cannot_be_scored_are_refused():
    model, tokenizer = tiny.tiny_model(num_hidden_layers=1), tiny.tiny_tokenizer()
    with pytest.raises(PromptError, match="no items"):
        score_items(model, tokenizer, [])
    with pytest.raises(PromptError, match="wallet.0.selfish first. twice"):
        score_items(model, tokenizer, [ITEMS[0], ITEMS[0]])
    with pytest.raises(PromptError, match="is a prefix of another"):
        score_items(model, tokenizer, [an_item(selfish="I go", prosocial="I go away.")])
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(EvidenceError, match="'wallet' has no probability. Seen: log-likelihoods n"):
        score_items(model, tokenizer, [ITEMS[0]])


def test_what_was_asked_differently_is_not_paired():
    one = PairedScores(ITEMS[:3], np.zeros(3), np.zeros(3))
    two = PairedScores(ITEMS, np.zeros(4), np.zeros(4))
    with pytest.raises(EvidenceError, match="leanings of agent and base cannot be paired"):
        shift_from(one, two)
    with pytest.raises(EvidenceError, match="1 questions on one side only, first 'b'"):
        shift_difference(Shift(("a",), np.zeros(1)), Shift(("a", "b"), np.zeros(2)), RNG)
    with pytest.raises(EvidenceError, match="There are no shifts to average"):
        mean_shift([])
