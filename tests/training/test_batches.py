"""Minibatches: balanced, and functions of the configuration and the step alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.decision import Decision, Message, Option, Prompt
from moralscope.core.errors import ConfigError
from moralscope.games import MIRRORED, STATES, TABLE_ORDERS, WORDINGS
from moralscope.training.batches import (
    draw_batch,
    make_cells,
    state_index,
    training_game,
    training_prompts,
)
from moralscope.training.config import TrainingConfig

SAME, SWAPPED = "action1/action2", "action2/action1"


def configured(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"reward": "game"} | settings)


trainings = st.builds(
    configured,
    labels=st.sampled_from(["same", "swapped", "both", "random"]),
    wordings=st.lists(
        st.sampled_from(["structured", *WORDINGS, *MIRRORED]), min_size=1, max_size=3, unique=True
    ).map(tuple),
    table_orders=st.lists(
        st.sampled_from(TABLE_ORDERS), min_size=1, max_size=2, unique=True
    ).map(tuple),
    seed=st.integers(0, 1000),
    prompts_per_step=st.sampled_from([8, 16, 24]),
)  # fmt: skip
steps = st.integers(1, 10_000)


def draw(config: TrainingConfig, prompts: tuple[Prompt, ...], step: int) -> tuple[int, ...]:
    return draw_batch(config, make_cells(config, prompts, training_game(config)), step)


def combination(prompt: Prompt) -> tuple[object, ...]:
    return prompt.template, prompt.table_order, prompt.option_order, prompt.answer_order


@given(trainings, steps)
def test_every_cell_gives_the_same_number_of_distinct_prompts(
    config: TrainingConfig, step: int
) -> None:
    prompts = tuple(training_prompts(config))
    chosen = draw(config, prompts, step)
    assert len(set(chosen)) == len(chosen)
    drawn = [prompts[i] for i in chosen]
    per_state = Counter(state_index(p) for p in drawn)
    assert set(per_state) == {0, 1, 2, 3}
    assert len(set(per_state.values())) == 1
    labels = Counter((state_index(p), p.labels) for p in drawn)
    if config.labels == "random":
        # Of two prompts that differ in their labels only, at most one is asked.
        twins = Counter((state_index(p), combination(p)) for p in drawn)
        assert set(twins.values()) == {1}
    else:
        wanted = {"same": {SAME}, "swapped": {SWAPPED}}.get(config.labels, {SAME, SWAPPED})
        assert {label for _, label in labels} == wanted
        assert len(set(labels.values())) == 1
    by_cell: dict[object, set[object]] = {}
    for p in prompts:
        label = None if config.labels == "random" else p.labels
        by_cell.setdefault((state_index(p), label), set()).add(combination(p))
    smallest = min(len(cell) for cell in by_cell.values())
    assert len(chosen) == len(by_cell) * min(config.prompts_per_step // len(by_cell), smallest)


@given(trainings, steps)
def test_states_are_asked_in_the_same_texts_and_orders(config: TrainingConfig, step: int) -> None:
    """A step's prompts share prefixes, and no text stands for a state."""
    if config.wordings != ("structured",) or config.labels == "random":
        config = config.model_copy(update={"wordings": ("structured",), "labels": "both"})
    prompts = tuple(training_prompts(config))
    asked: dict[tuple[str, int], set[tuple[object, ...]]] = {}
    for i in draw(config, prompts, step):
        p = prompts[i]
        asked.setdefault((p.labels, state_index(p)), set()).add(combination(p))
    for label in {label for label, _ in asked}:
        sets = [found for (name, _), found in asked.items() if name == label]
        assert all(found == sets[0] for found in sets)


@given(trainings, steps)
def test_a_batch_depends_on_seed_and_step_alone(config: TrainingConfig, step: int) -> None:
    prompts = tuple(training_prompts(config))
    first = draw(config, prompts, step)
    draw(config, prompts, step + 1)
    assert draw(config, prompts, step) == first
    other = config.model_copy(update={"reward": "hybrid", "steps": 7, "learning_rate": 1.0})
    assert draw(other, prompts, step) == first


def test_steps_and_seeds_give_different_batches() -> None:
    config = configured()
    prompts = tuple(training_prompts(config))
    by_step = {draw(config, prompts, step) for step in range(1, 40)}
    by_seed = {draw(configured(seed=seed), prompts, 1) for seed in range(40)}
    assert len(by_step) > 6
    assert len(by_seed) > 6


def test_every_prompt_comes_up() -> None:
    config = configured(wordings=("structured", "rounds"), labels="random")
    prompts = tuple(training_prompts(config))
    seen = {i for step in range(1, 80) for i in draw(config, prompts, step)}
    assert seen == set(range(len(prompts)))


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [("same", {SAME}), ("swapped", {SWAPPED}), ("both", {SAME, SWAPPED}),
     ("random", {SAME, SWAPPED})],
)  # fmt: skip
def test_labels_choose_the_assignments(labels: str, wanted: set[str]) -> None:
    assert {p.labels for p in training_prompts(configured(labels=labels))} == wanted


def test_words_wordings_and_table_orders_are_those_asked_for() -> None:
    config = configured(
        words=("wait", "walk"), wordings=("structured", "market"), table_orders=("original", "rows")
    )
    prompts = tuple(training_prompts(config))
    assert {p.labels for p in prompts} == {"wait/walk", "walk/wait"}
    assert {p.family for p in prompts} == {"structured", "wordings"}
    tables = {p.table_order for p in prompts if p.family == "structured"}
    assert tables == {"original", "rows"}
    assert len(prompts) == 2 * 2 * 16 + 2 * 4
    only = tuple(training_prompts(configured(wordings=("market",))))
    assert {p.template for p in only} == {"market"}


def test_the_state_is_the_prompts_memory() -> None:
    for prompt in training_prompts(configured()):
        state = STATES[state_index(prompt)]
        assert prompt.name.split(".")[1] == state.name


def test_a_prompt_without_memory_is_refused_by_name() -> None:
    decision = Decision((Message("user", "?"),), "", Option("a", ("x",)), Option("b", ("y",)))
    prompt = Prompt("refund-1", decision, "user", "s", "user", "user", "b/a")
    with pytest.raises(ConfigError, match="has no one-step memory. Seen: refund-1"):
        state_index(prompt)


@pytest.mark.parametrize(
    ("labels", "number", "said"),
    [
        ("both", 12, "prompts_per_step 12. Allowed: a multiple of 8 .*Next: use 8"),
        ("both", 4, "prompts_per_step 4. Allowed: a multiple of 8 .*Next: use 8"),
        ("same", 6, "prompts_per_step 6. Allowed: a multiple of 4 .*Next: use 4"),
        ("random", 10, "prompts_per_step 10. Allowed: a multiple of 4 .*Next: use 8"),
    ],
)
def test_a_step_that_cannot_be_divided_is_refused(labels: str, number: int, said: str) -> None:
    config = configured(labels=labels, prompts_per_step=number)
    with pytest.raises(ConfigError, match=f"cannot be divided evenly. Seen: {said}"):
        draw(config, tuple(training_prompts(config)), 1)


def test_unknown_texts_and_orders_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no wording of this name.*did you mean 'market'"):
        training_prompts(configured(wordings=("markte",)))
    with pytest.raises(ConfigError, match="no such order of the payoff table.*'columns'"):
        training_prompts(configured(table_orders=("colums",)))
