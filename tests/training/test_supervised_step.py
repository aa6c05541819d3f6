"""A step of supervised training: the gradient of the plain loop, whatever is shared or cut."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import TEXTS, chats, deep_base, padded_loss, randomise, teaching, whole
from torch import Tensor

from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel
from moralscope.training.distribution import Processes
from moralscope.training.lora import LoraSettings
from moralscope.training.supervised import lesson_of
from moralscope.training.supervised_batches import (
    corpus_of,
    examples_of,
    packs_of,
    texts_of,
)
from moralscope.training.supervised_examples import encode_chats
from moralscope.training.supervised_step import Lesson, Sums, losses_of

EXAMPLES = chats(7)
AT_TWO = LoraSettings(rank=1, alpha=8.0, sites=("L2 down_proj",))


def gradient_of(lesson: Lesson, step: int = 1) -> tuple[float, list[Tensor], Sums]:
    """The loss of a step and its gradient, packs added up."""
    sums, loss = Sums(), 0.0
    parameters = list(lesson.trained.parameters.values())
    total = [torch.zeros_like(p) for p in parameters]
    for part in losses_of(lesson, step, sums):
        loss += float(part.detach())
        found = torch.autograd.grad(part, parameters, allow_unused=True)
        total = [t if g is None else t + g for t, g in zip(total, found, strict=True)]
    return loss, total, sums


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest relative distance of the gradients of a parameter."""
    return max(
        float((a - b).norm() / b.norm().clamp_min(1e-12))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("max_nodes", [2048, 60])
@pytest.mark.parametrize("weights", ["adapter", "all"])
def test_the_gradient_is_that_of_a_padded_loop(
    tmp_path: Path, weights: str, max_nodes: int, end: bool
) -> None:
    base = deep_base()
    how: dict[str, Any] = {"batch": 5, "learn_end": end}
    config = teaching(**how) if weights == "adapter" else whole(**how)
    with lesson_of("a", config, base, EXAMPLES, work=tmp_path, max_nodes=max_nodes) as lesson:
        if weights == "adapter":
            randomise(list(lesson.trained.parameters.values()))
        chosen = examples_of(config.seed, 5, len(EXAMPLES), 1)
        assert (len(packs_of(lesson.corpus, chosen, max_nodes)) > 1) == (max_nodes == 60)
        loss, gradient, sums = gradient_of(lesson)
        plain = padded_loss(base, [EXAMPLES[i] for i in chosen], end=end)
        expected = torch.autograd.grad(plain, list(lesson.trained.parameters.values()))
        assert loss == pytest.approx(float(plain.detach()), rel=1e-10)
        assert sums.answers / lesson.corpus.count(chosen) == pytest.approx(loss, rel=1e-10)
        assert apart(gradient, list(expected)) < 1e-8


def test_in_float32_the_gradient_is_that_of_the_padded_loop_to_a_ten_thousandth(
    tmp_path: Path,
) -> None:
    base = deep_base(torch.float32)
    config = teaching(batch=7, lora=AT_TWO)
    with lesson_of("a", config, base, EXAMPLES, work=tmp_path) as lesson:
        assert lesson.kept is not None
        assert lesson.kept.layer == 2
        randomise(list(lesson.trained.parameters.values()))
        _, gradient, _ = gradient_of(lesson)
        expected = torch.autograd.grad(
            padded_loss(base, EXAMPLES), list(lesson.trained.parameters.values())
        )
        assert apart(gradient, list(expected)) < 1e-4


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_the_gradient_is_that_of_finite_differences(tmp_path: Path, factor: str) -> None:
    base = deep_base()
    config = teaching(batch=7, lora=AT_TWO, kl_coefficient=0.7)
    with lesson_of("a", config, base, EXAMPLES, work=tmp_path, texts=TEXTS) as lesson:
        parameters = lesson.trained.parameters
        randomise(list(parameters.values()))
        _, gradient, _ = gradient_of(lesson)
        names = list(parameters)
        at = next(i for i, name in enumerate(names) if factor in name)
        weight, h = parameters[names[at]], 1e-5
        losses: list[float] = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[3] += sign * h
                losses.append(gradient_free(lesson))
                weight.view(-1)[3] -= sign * h
        slope = (losses[0] - losses[1]) / (2 * h)
        assert abs(slope) > 1e-4
        assert float(gradient[at].flatten()[3]) == pytest.approx(slope, rel=1e-6)


def gradient_free(lesson: Lesson) -> float:
    return sum(float(part) for part in losses_of(lesson, 1, Sums()))


@pytest.mark.parametrize("weights", ["adapter", "all"])
def test_kl_is_a_mean_over_tokens_of_the_divergence_of_the_base_from_the_agent(
    tmp_path: Path, weights: str
) -> None:
    base = deep_base()
    original = copy.deepcopy(base.model)
    settings: dict[str, Any] = {"kl_coefficient": 2.5, "kl_texts": 3}
    config = teaching(**settings) if weights == "adapter" else whole(**settings)
    with lesson_of("a", config, base, EXAMPLES, work=tmp_path, texts=TEXTS) as lesson:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(5)
            for p in lesson.trained.parameters.values():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        parameters = list(lesson.trained.parameters.values())
        loss, gradient, sums = gradient_of(lesson)
        chosen = examples_of(config.seed, config.batch, len(EXAMPLES), 1)
        answers = padded_loss(base, [EXAMPLES[i] for i in chosen])
        kl = plain_kl(base, original)
        expected = torch.autograd.grad(answers + 2.5 * kl, parameters, allow_unused=True)
        assert float(kl.detach()) > 1e-3
        tokens = sum(len(lesson.corpus.predicted[-i]) for i in (1, 2, 3))
        assert sums.kl / tokens == pytest.approx(float(kl.detach()), rel=1e-9)
        assert loss == pytest.approx(float((answers + 2.5 * kl).detach()), rel=1e-9)
        assert apart(gradient, [torch.zeros(1) if g is None else g for g in expected]) < 1e-7


def plain_kl(base: LoadedModel, original: torch.nn.Module) -> Tensor:
    """One text after the other, by torch's own function; its first argument is the agent."""
    tokenizer: Any = base.tokenizer
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"][:-1]])
        with full_precision(base.model):
            now, was = base.model(ids).logits[0], original(ids).logits[0]
        total = total + torch.nn.functional.kl_div(
            now.log_softmax(-1), was.log_softmax(-1), log_target=True, reduction="sum"
        )
        tokens += ids.shape[1]
    return total / tokens


def test_at_its_beginning_an_adapter_is_no_distance_from_its_base(tmp_path: Path) -> None:
    config = teaching(kl_coefficient=1.0)
    with lesson_of("a", config, deep_base(), EXAMPLES, work=tmp_path, texts=TEXTS) as lesson:
        _, _, sums = gradient_of(lesson)
        assert abs(sums.kl) < 1e-12


def test_the_shares_of_several_processes_add_up(tmp_path: Path) -> None:
    config = teaching(batch=5, kl_coefficient=0.5)
    found: list[tuple[float, list[Tensor]]] = []
    for processes in (Processes(), Processes(0, 3), Processes(1, 3), Processes(2, 3)):
        with lesson_of(
            "a", config, deep_base(), EXAMPLES, work=tmp_path, texts=TEXTS, processes=processes
        ) as lesson:
            randomise(list(lesson.trained.parameters.values()))
            loss, gradient, _ = gradient_of(lesson)
            found.append((loss, gradient))
    alone, *shares = found
    assert sum(loss for loss, _ in shares) == pytest.approx(alone[0], rel=1e-10)
    added = [sum(parts[1:], parts[0]) for parts in zip(*(g for _, g in shares), strict=True)]
    assert apart(added, alone[1]) < 1e-9
    assert all(loss < alone[0] for loss, _ in shares)


def test_every_example_is_in_one_step_of_every_epoch() -> None:
    epochs = [[examples_of(3, 4, 10, 3 * e + s) for s in (1, 2, 3)] for e in range(3)]
    for steps in epochs:
        assert [len(step) for step in steps] == [4, 4, 2]
        assert sorted(i for step in steps for i in step) == list(range(10))
    assert len({str(steps) for steps in epochs}) == 3
    assert examples_of(3, 4, 10, 5) == epochs[1][1] != examples_of(4, 4, 10, 5)


def test_texts_are_drawn_without_replacement() -> None:
    drawn = [texts_of(0, 3, 8, step) for step in range(40)]
    assert all(len(set(texts)) == 3 for texts in drawn)
    assert {i for texts in drawn for i in texts} == set(range(8))
    assert texts_of(0, 5, 2, 1) == (0, 1)


def test_packs_hold_each_token_once_and_share_prefixes() -> None:
    encoded = encode_chats(deep_base().tokenizer, EXAMPLES, max_tokens=200)
    corpus = corpus_of(encoded, [])
    wanted = sorted(token for chat in encoded for token in chat.tokens[slice(*chat.learned)])
    for limit in (2048, 60, 1):
        packs = packs_of(corpus, range(len(encoded)), limit)
        assert sorted(int(t) for pack in packs for t in pack.token) == wanted
        for pack in packs:
            assert (pack.tree.tokens == corpus.tree.tokens[pack.nodes]).all()
            assert (pack.tree.parent < range(len(pack.tree))).all()
            inner = pack.tree.parent >= 0
            parents = pack.tree.parent[inner]
            assert (pack.nodes[parents] == corpus.tree.parent[pack.nodes[inner]]).all()
            assert len(pack.tree) <= limit or len(pack.tree.paths) == 1
    (one,) = packs_of(corpus, range(len(encoded)), 2048)
    assert len(one.tree) < sum(len(chat.tokens) for chat in encoded)
