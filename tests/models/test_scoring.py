"""Packed scoring against one plain transformers call for each form of each option."""

import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.progress import ProgressEvent
from moralscope.models.forward import full_precision
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import (
    Scores,
    log_probabilities_from_logits,
    make_packs,
    option_log_probabilities,
    score,
)

ALL = tiny.FAMILIES


@pytest.mark.parametrize("forms", ["single", "multi", "several"])
@pytest.mark.parametrize("family", ALL)
def test_the_tree_equals_one_by_one_scoring(family: str, forms: str):
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(forms=forms)
    found = score(model, prompts)
    single = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
    assert found.log_odds == pytest.approx(single, abs=1e-10)
    assert np.ptp(single) > 0.5, "prompts that decide alike would hide a mix-up"


@pytest.mark.parametrize("family", ALL)
def test_probabilities_are_those_of_the_plain_model(family: str):
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(4, forms="several")
    found = score(model, prompts)
    for at, prompt in enumerate(prompts):
        p_positive, p_negative = (
            sum(math.exp(tiny.plain_log_probability(model, prompt.tokens, f)) for f in forms)
            for forms in (prompt.positive, prompt.negative)
        )
        assert found.p_positive[at] == pytest.approx(p_positive, rel=1e-9)
        assert found.p_negative[at] == pytest.approx(p_negative, rel=1e-9)
        assert found.legal_mass[at] == pytest.approx(p_positive + p_negative, rel=1e-9)
        given_legal = p_positive / (p_positive + p_negative)
        assert found.p_positive_given_legal[at] == pytest.approx(given_legal, rel=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "gpt2"])
def test_in_float32_the_tree_equals_ordinary_calls_without_any_help(family: str):
    model = tiny.tiny_model(family, dtype=torch.float32)
    prompts = tiny.token_prompts(forms="single")
    single: list[float] = []
    for prompt in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1]
        single.append(float(logits[prompt.positive[0][0]] - logits[prompt.negative[0][0]]))
    assert score(model, prompts).log_odds == pytest.approx(single, abs=5e-5)


@pytest.mark.parametrize("family", ["gemma2", "mistral", "qwen2_window"])
def test_the_sliding_window_matters_here(family: str):
    prompts = tiny.token_prompts(forms="single")
    assert min(len(p.tokens) for p in prompts) > tiny.WINDOW
    narrow = score(tiny.tiny_model(family), prompts).log_odds
    wide = score(tiny.tiny_model(family, sliding_window=1000), prompts).log_odds
    assert np.abs(narrow - wide).max() > 0.01


@pytest.mark.parametrize("limit", [1, 40, 60, 100, 10_000])
def test_packs_of_any_size_give_equal_results(limit: int):
    model = tiny.tiny_model("gemma2")
    prompts = tiny.token_prompts(forms="several")
    whole = score(model, prompts)
    cut = score(model, prompts, max_nodes=limit)
    assert cut.log_p_positive == pytest.approx(whole.log_p_positive, abs=1e-10)
    assert cut.log_p_negative == pytest.approx(whole.log_p_negative, abs=1e-10)


@given(st.permutations(range(6)), st.sampled_from([50, 10_000]))
def test_results_follow_the_order_of_the_prompts(order: list[int], limit: int):
    prompts = tiny.token_prompts(forms="several")
    whole = score(SMALL, prompts).log_odds
    shuffled = score(SMALL, [prompts[i] for i in order], max_nodes=limit).log_odds
    assert shuffled == pytest.approx(whole[order], abs=1e-10)


SMALL = tiny.tiny_model("llama", num_hidden_layers=1)


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each forward of a model is given."""
    lengths: list[int] = []
    forward = model.forward

    def count(*args: Any, **named: Any) -> Any:
        lengths.append(int(named["input_ids"].shape[1]))
        return forward(*args, **named)

    monkeypatch.setattr(model, "forward", count)
    return lengths


def test_prefixes_are_really_shared_and_run_once(monkeypatch: pytest.MonkeyPatch):
    model = tiny.tiny_model("llama")
    prompts = tiny.token_prompts(forms="several")
    lengths = counted(model, monkeypatch)
    score(model, prompts)
    sequences = [s for prompt in prompts for s in prompt.continuations]
    distinct = {s[:end] for s in sequences for end in range(1, len(s) + 1)}
    assert lengths == [len(distinct)]
    assert len(distinct) < 0.9 * sum(len(p.tokens) for p in prompts)
    assert len(distinct) < 0.2 * sum(map(len, sequences))


def test_progress_counts_prompts_to_the_end():
    events: list[ProgressEvent] = []
    prompts = tiny.token_prompts()
    score(SMALL, prompts, max_nodes=60, task="decide game", progress=events.append)
    done = [event.done for event in events]
    assert done == sorted(set(done))
    assert done[-1] == len(prompts)
    assert {(event.task, event.total) for event in events} == {("decide game", len(prompts))}


def test_normalising_by_tokens_takes_the_mean():
    model = tiny.tiny_model("llama")
    prompts = tiny.token_prompts(4, forms="multi")
    found = score(model, prompts, normalise="token")
    for at, prompt in enumerate(prompts):
        for value, form in (
            (found.log_p_positive[at], prompt.positive[0]),
            (found.log_p_negative[at], prompt.negative[0]),
        ):
            whole = tiny.plain_log_probability(model, prompt.tokens, form)
            assert value == pytest.approx(whole / len(form), abs=1e-10)


def test_gradients_flow_and_equal_finite_differences():
    model = tiny.tiny_model("llama", num_hidden_layers=1)
    (pack,) = make_packs(tiny.token_prompts(3, forms="several"))
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.requires_grad_(requires_grad=True)
    value = option_log_probabilities(model, pack)[:, 0].sum()
    (gradient,) = torch.autograd.grad(value, weight)
    step = 1e-5
    for at in [(0, 0), (3, 7), (10, 20)]:
        ends: list[float] = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[at] += sign * step
                ends.append(float(option_log_probabilities(model, pack)[:, 0].sum()))
                weight[at] -= sign * step
        assert float(gradient[at]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=6))
def test_views_of_the_scores_agree_with_each_other(pairs: list[tuple[float, float]]):
    found = Scores(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    direct = found.p_positive / found.legal_mass
    assert found.p_positive_given_legal == pytest.approx(direct, abs=1e-12)
    assert found.log_odds == pytest.approx(np.log(found.p_positive / found.p_negative), abs=1e-9)


@given(st.integers(0, 10_000))
def test_log_probabilities_match_a_direct_sum_over_forms(seed: int):
    prompts = tiny.token_prompts(3, seed=seed, forms="several")
    (pack,) = make_packs(prompts)
    logits = torch.randn(
        len(pack.keep), tiny.VOCABULARY, dtype=torch.float64,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    found = log_probabilities_from_logits(logits, pack)
    log_p = logits.log_softmax(-1)
    row_of = {int(node): row for row, node in enumerate(pack.keep)}
    paths = iter(pack.tree.paths)
    for position, member in enumerate(pack.members):
        prompt = prompts[member]
        for side, forms in enumerate((prompt.positive, prompt.negative)):
            sums: list[float] = []
            for form in forms:
                path = next(paths)[len(prompt.tokens) - 1 :]
                steps = zip(path.tolist(), form, strict=True)
                sums.append(sum(float(log_p[row_of[node], token]) for node, token in steps))
            assert float(found[position, side]) == pytest.approx(
                np.logaddexp.reduce(sums), abs=1e-10
            )


def test_a_float64_model_runs_in_float64_throughout():
    model = tiny.tiny_model("llama")
    tokens = torch.tensor([tiny.token_prompts()[0].tokens])
    with torch.no_grad():
        narrowed = model(input_ids=tokens).logits
        with full_precision(model):
            wide = model(input_ids=tokens).logits
        with tiny.never_narrowed():
            expected = model(input_ids=tokens).logits
    assert (wide - expected).abs().max() < 1e-12
    assert 1e-12 < (narrowed - wide).abs().max() < 1e-3


def test_a_float32_model_is_left_as_it_is():
    model = tiny.tiny_model("llama", dtype=torch.float32)
    tokens = torch.tensor([tiny.token_prompts()[0].tokens])
    with torch.no_grad():
        plain = model(input_ids=tokens).logits
        with full_precision(model):
            assert torch.equal(model(input_ids=tokens).logits, plain)


def test_a_prompt_may_begin_another():
    tokens = tiny.token_prompts()[0].tokens
    pair = [
        EncodedPrompt("short", "a", tokens[:20], ((11,),), ((12,),)),
        EncodedPrompt("long", "b", tokens, ((11,),), ((12,),)),
    ]
    model = tiny.tiny_model("gemma2")
    single = [tiny.plain_log_odds(model, prompt) for prompt in pair]
    assert score(model, pair).log_odds == pytest.approx(single, abs=1e-10)
