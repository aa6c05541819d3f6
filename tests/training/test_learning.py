"""Agents learn what theory says that their reward, game and opponent reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from moralscope.games import get_game, get_opponent, get_reward, meet, visits
from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.scoring import MAX_NODES
from moralscope.training.batches import make_cells, training_game, training_prompts
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import ALONE
from moralscope.training.exact import exact_step
from moralscope.training.loop import train_agent
from moralscope.training.lora import Saved, adapted_together
from moralscope.training.seating import learners_of, phase_of, seats_of

Array = NDArray[np.float64]
Configure = Callable[..., TrainingConfig]
Learn = Callable[..., pl.DataFrame]
PGG = "public-goods(players=3, multiplier=2)"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def quick(configure: Configure) -> Configure:
    """A training that is soon done: fixed labels, few prompts, no KL."""

    def make(**settings: object) -> TrainingConfig:
        common: dict[str, object] = {
            "labels": "same", "kl_coefficient": 0.0, "prompts_per_step": 4, "steps": 20,
        }  # fmt: skip
        return configure(**(common | settings))

    return make


@pytest.fixture
def learn(base: LoadedModel, tmp_path: Path) -> Learn:
    """Train, into a folder of this name."""

    def run(name: str, config: TrainingConfig) -> pl.DataFrame:
        return train_agent(name, config, base, out=tmp_path / name, work=tmp_path / f"{name}-w")

    return run


@torch.no_grad()
def learned(base: LoadedModel, folder: Path, config: TrainingConfig) -> Array:
    """P(C), P(D) and neither in every state, by plain forwards with what was saved."""
    game = training_game(config)
    prompts = tuple(training_prompts(config, game))
    state = make_cells(config, prompts, game).state
    found = np.zeros((max(state) + 1, 3))
    with adapted_together(base, {"saved": Saved(str(folder))}), full_precision(base.model):
        for s, prompt in zip(state, encode_all(base.tokenizer, prompts), strict=True):
            p = base.model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1].softmax(-1)
            (d,), (c,) = prompt.positive[0], prompt.negative[0]
            found[s] += [float(p[c]), float(p[d]), max(0.0, 1 - float(p[c] + p[d]))]
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize(("reward", "move"), [("game", 1), ("utilitarian", 0)])
def test_two_learners_end_where_their_reward_says(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path, *, reward: str, move: int
) -> None:
    config = quick(opponent="learner", reward=reward)
    table = learn("a", config)
    assert table["agent"].to_list() == ["a", "a-opponent"] * 20
    for folder in (tmp_path / "a", tmp_path / "a" / "opponent"):
        assert learned(base, folder, config)[:, move].min() > 0.9
    last = table.tail(2)["reward_mean"].to_list()
    # Both defecting earns 1 each, both cooperating 6 together; a few percent are illegal.
    expected = 1.0 if reward == "game" else 6.0
    assert last == pytest.approx([expected] * 2, abs=0.7)
    first, second = ((tmp_path / "a" / f / WEIGHTS).read_bytes() for f in (".", "opponent"))
    assert first != second


def test_learners_that_want_different_things_part(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path
) -> None:
    config = quick(opponent="learner", opponent_reward="virtue-kindness")
    table = learn("a", config)
    assert learned(base, tmp_path / "a", config)[:, 1].min() > 0.9
    assert learned(base, tmp_path / "a" / "opponent", config)[:, 0].min() > 0.9
    exploited = table.filter(pl.col("agent") == "a")["reward_mean"]
    assert exploited[-1] > 3.3  # all but 4, what betraying a cooperator earns


@pytest.mark.parametrize(
    ("opponent", "reward", "move"),
    [("copies", "game", 1), ("copies", "utilitarian", 0), ("tit-for-tat", "utilitarian", 0)],
)
def test_a_group_contributes_for_everybodys_points_and_not_for_its_own(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path,
    *, opponent: str, reward: str, move: int,
) -> None:  # fmt: skip
    config = quick(game=PGG, opponent=opponent, reward=reward, prompts_per_step=6, steps=12)
    learn("a", config)
    policy = learned(base, tmp_path / "a", config)
    assert policy.shape == (6, 3)
    assert policy[:, move].min() > 0.9


@pytest.mark.parametrize(("reward", "move"), [("game", 1), ("utilitarian", 0)])
def test_copies_of_a_pair_do_what_two_learners_do(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path, *, reward: str, move: int
) -> None:
    config = quick(opponent="copies", reward=reward)
    learn("a", config)
    assert learned(base, tmp_path / "a", config)[:, move].min() > 0.9


def test_who_looks_ahead_cooperates_with_tit_for_tat_and_who_does_not_defects(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path
) -> None:
    """Against tit-for-tat always C earns about 3 a round, always D about 1."""
    rounds = 10
    e = meet(get_game("IPD"), get_reward("game"), get_opponent("tit-for-tat"))
    returns: dict[str, float] = {}
    for horizon, move in (("bandit", 1), ("reward-to-go", 0)):
        config = quick(
            horizon=horizon, visitation="visitation", discount=1.0, sampling={"rounds": rounds}
        )
        learn(horizon, config)
        policy = learned(base, tmp_path / horizon, config)
        d = visits(e, policy, rounds).mean(0)
        assert float(d @ policy[:, move]) > 0.9
        returns[horizon] = float((d[:, None] * policy * e.rewards).sum())
    assert returns["reward-to-go"] > returns["bandit"] + 1


def test_sampled_play_that_looks_ahead_cooperates_with_tit_for_tat_too(
    quick: Configure, learn: Learn
) -> None:
    last: dict[str, float] = {}
    for horizon in ("bandit", "reward-to-go"):
        sampling = {"games": 16, "group": 8, "rounds": 6, "variant": "game"}
        config = quick(preset="reinforce", steps=15, horizon=horizon, sampling=sampling)
        last[horizon] = learn(horizon, config)["cooperation"][-1]
    assert last["bandit"] < 0.15
    assert last["reward-to-go"] > 0.85


def test_phases_follow_each_other_with_the_optimisers_state_carried_over(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path
) -> None:
    config = quick(reward="game then deontological", steps=40, phase_steps=(15, 25))
    table = learn("a", config)
    assert table["reward"].to_list() == ["game"] * 15 + ["deontological"] * 25
    assert table["phase"].to_list() == [1] * 15 + [2] * 25
    defects = 1 - table["cooperation"].to_numpy()
    assert defects[0] < 0.85
    assert defects[14] > 0.95  # it rises
    assert defects[15] > 0.95
    assert defects[-1] < 0.2  # and falls: to defect on who cooperated is what the norm forbids
    # What the second phase teaches, it teaches after the other's cooperation: states CC and DC.
    assert learned(base, tmp_path / "a", config)[[0, 2], 1].max() < 0.2

    def by_hand(*, fresh: bool) -> list[torch.Tensor]:
        seats = seats_of("a", config, base, max_nodes=MAX_NODES)
        ready = learners_of(seats, config, base, processes=ALONE, max_nodes=MAX_NODES)
        with ready as (session, learners):
            for step in range(1, 19):
                if fresh and step == 16:
                    learners[0].optimiser.state.clear()
                exact_step(session, learners, step, phase_of(config, 2, step), 0.02)
            return [p.detach().clone() for p in learners[0].parameters.values()]

    kept = quick(reward="game then deontological", steps=18, phase_steps=(15, 3))
    learn("short", kept)
    with safe_open(tmp_path / "short" / WEIGHTS, framework="pt") as file:
        saved = sorted(float(file.get_tensor(key).double().sum()) for key in file.keys())  # noqa: SIM118
    carried, restarted = (
        sorted(float(p.double().sum()) for p in by_hand(fresh=f)) for f in (False, True)
    )
    assert saved == carried != restarted


def test_a_frozen_opponent_is_exploited_as_it_plays(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path
) -> None:
    learn("kind", quick(reward="virtue-kindness"))
    before = (tmp_path / "kind" / WEIGHTS).read_bytes()
    table = learn("a", quick(opponent=f"agent({tmp_path / 'kind'})"))
    assert (tmp_path / "kind" / WEIGHTS).read_bytes() == before
    assert table["agent"].unique().to_list() == ["a"]
    assert learned(base, tmp_path / "a", quick())[:, 1].min() > 0.9
    assert table["reward_mean"][-1] > 3.3


METHODS: dict[str, dict[str, object]] = {
    "exact": {},
    "fixed": {"preset": "fixed", "stem": True, "actions": "score", "steps": 12},
    "fixed generated": {"preset": "fixed", "stem": True, "steps": 12},
    "reinforce": {"preset": "reinforce", "steps": 12, "sampling": {"games": 16, "group": 4}},
    "grpo": {"preset": "grpo", "steps": 12, "sampling": {"games": 16, "group": 4}},
    "paper": {"preset": "paper", "stem": True, "steps": 25, "learning_rate": 0.005},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_raises_its_reward(
    base: LoadedModel, quick: Configure, learn: Learn, tmp_path: Path, name: str
) -> None:
    """The expected reward of the policy itself, exact over answers, not that of a lucky sample."""
    config = quick(opponent="always-cooperate", reward="virtue-kindness", **METHODS[name])
    table = learn("a", config)
    assert table["cooperation"][0] < 0.4  # the base mostly defects
    e = meet(get_game("IPD"), get_reward("virtue-kindness"), get_opponent("always-cooperate"))
    policy = learned(base, tmp_path / "a", config)
    met = [0, 2]  # the only states that are met: CC and DC
    assert e.rewards[met].tolist() == [[5, 0, -6]] * 2
    assert float((policy * e.rewards)[met].sum(1).mean()) > 3.0  # from below 2
    assert policy[met, 0].min() > 0.8
