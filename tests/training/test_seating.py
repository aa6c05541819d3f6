"""Who learns against whom, and what is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from moralscope.core.errors import AgentError, ConfigError
from moralscope.games import PublicGoods, get_game
from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel
from moralscope.models.scoring import MAX_NODES
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import ALONE
from moralscope.training.learners import Seat
from moralscope.training.loop import train_agent
from moralscope.training.lora import Saved, adapted_together
from moralscope.training.others import Group, MemoryOne
from moralscope.training.seating import learners_of, phase_of, seats_of

Configure = Callable[..., TrainingConfig]
PGG = "public-goods(players=3, multiplier=2)"
ASYMMETRIC = "matrix(CC=3:2, CD=0:5, DC=4:1, DD=1:0)"


def seats(config: TrainingConfig, base: LoadedModel) -> tuple[Seat, ...]:
    return seats_of("a", config, base, max_nodes=MAX_NODES)


def test_two_learners_sit_opposite_each_other(base: LoadedModel, configure: Configure) -> None:
    config = configure(opponent="learner", opponent_reward="utilitarian", game=ASYMMETRIC)
    first, second = seats(config, base)
    assert (first.name, second.name) == ("a", "a-opponent")
    assert first.adapter != second.adapter
    assert [r.name for r in first.rewards] == ["game"]
    assert [r.name for r in second.rewards] == ["utilitarian"]
    assert second.config.reward == "utilitarian"
    assert first.others is second.others is None
    assert second.game == get_game(ASYMMETRIC).mirrored != first.game
    texts = [s.prompts[0].decision.messages[0].content for s in (first, second)]
    assert texts[0] != texts[1]  # each is told its own points


def test_a_learning_opponent_wants_the_same_unless_it_is_said(
    base: LoadedModel, configure: Configure
) -> None:
    _, second = seats(configure(opponent="learner", reward="hybrid"), base)
    assert [r.name for r in second.rewards] == ["hybrid"]


def test_two_learners_begin_apart(base: LoadedModel, configure: Configure) -> None:
    config = configure(opponent="learner")
    both = seats(config, base)
    with learners_of(both, config, base, processes=ALONE, max_nodes=MAX_NODES) as (_, learners):
        one, two = ([p.detach().clone() for p in x.parameters.values()] for x in learners)
        assert len(one) == len(two) > 4
        assert not any(torch.equal(a, b) for a, b in zip(one, two, strict=True) if a.any())
        assert not {id(p) for p in learners[0].parameters.values()} & {
            id(p) for p in learners[1].parameters.values()
        }


@pytest.mark.parametrize(("game", "kind"), [("IPD", MemoryOne), (PGG, Group)])
def test_copies_of_the_agent_sit_in_any_game(
    base: LoadedModel, configure: Configure, game: str, kind: type[object]
) -> None:
    (seat,) = seats(configure(game=game, opponent="copies"), base)
    assert isinstance(seat.others, kind)
    assert seat.others is not None
    assert seat.others.reacts
    assert seat.states == (6 if game == PGG else 4)
    assert isinstance(seat.game, PublicGoods) == (game == PGG)


def test_a_frozen_agent_plays_what_it_says_when_it_is_asked_plainly(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    folder = tmp_path / "earlier"
    train_agent(
        "earlier", configure(reward="deontological"), base, out=folder, work=tmp_path / "w"
    )  # fmt: skip
    config = configure(opponent=f"agent({folder})")
    before = {k: v.clone() for k, v in base.model.state_dict().items()}
    (seat,) = seats(config, base)
    assert isinstance(seat.others, MemoryOne)
    assert not seat.others.reacts
    # One plain forward for each of its prompts, without trees.
    policy = np.zeros((4, 3))
    with adapted_together(base, {"x": Saved(str(folder))}), torch.no_grad():
        for prompt, state in zip(seat.encoded, seat.cells.state, strict=True):
            with full_precision(base.model):
                logits = base.model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1]
            p = logits.double().softmax(-1)
            (d,), (c,) = prompt.positive[0], prompt.negative[0]
            policy[state] += [float(p[c]), float(p[d]), 1 - float(p[c] + p[d])]
    policy /= policy.sum(1, keepdims=True)
    met = seat.others.opponent
    assert met is not None
    assert met.name == "agent(earlier)"
    expected = {
        ("C", "C"): policy[0, 0] + policy[0, 2],
        ("D", "C"): policy[1, 0] + policy[1, 2],
        ("C", "D"): policy[2, 0],
        ("D", "D"): policy[3, 0],
    }
    assert dict(met.p_cooperate_after) == pytest.approx(expected, abs=1e-5)
    (plain,) = seats(configure(opponent="random"), base)
    assert plain.prompts == seat.prompts
    assert all(torch.equal(v, before[k]) for k, v in base.model.state_dict().items())


def test_a_frozen_agent_that_is_not_there_is_refused(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match="missing"):
        seats(configure(opponent=f"agent({tmp_path / 'missing'})"), base)


def test_phases_share_the_steps_or_take_those_they_are_given(configure: Configure) -> None:
    def course(phases: int, **settings: object) -> list[int]:
        config = configure(**settings)
        return [phase_of(config, phases, step) for step in range(1, config.steps + 1)]

    assert course(1, steps=4) == [0, 0, 0, 0]
    two = "game then hybrid"
    assert course(2, reward=two, steps=4) == [0, 0, 1, 1]
    assert course(2, reward=two, steps=5) == [0, 0, 1, 1, 1]
    assert course(2, reward=two, steps=5, phase_steps=(4, 1)) == [0, 0, 0, 0, 1]
    three = "game then hybrid then utilitarian"
    assert course(3, reward=three, steps=6) == [0, 0, 1, 1, 2, 2]
    assert course(3, reward=three, steps=3) == [0, 1, 2]


TWO = "game then deontological"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"reward": TWO, "steps": 4, "phase_steps": (1, 2)},
            (
                r"phases do not fit the training. Seen: phase_steps \[1, 2\], 2 phases, steps 4. "
                r"Allowed: one number for each phase, adding up to steps"
            ),
        ),
        (
            {"reward": TWO, "steps": 4, "phase_steps": (1, 1, 2)},
            r"do not fit the training. Seen: phase_steps \[1, 1, 2\]",
        ),
        ({"phase_steps": (2,)}, "do not fit the training. .*1 phases, steps 3"),
        (
            {"reward": f"{TWO} then hybrid", "steps": 2},
            "more phases than steps. Seen: 3 phases, steps 2. .*raise steps",
        ),
        (
            {"opponent": "learner", "opponent_reward": TWO},
            "two learners have different numbers of phases. .*game then game",
        ),
        ({"opponent": "learner(3)"}, "A learner takes no settings"),
        ({"opponent": "tit-for-tit"}, "no opponent of this name.*did you mean 'tit-for-tat'"),
        ({"opponent": "agent"}, "A frozen opponent does not say where it is"),
        ({"game": "IDP"}, "Seen: IDP"),
        ({"game": PGG, "opponent": "learner"}, "Nobody plays public goods .*Seen: learner"),
        ({"game": PGG, "opponent": "grim"}, "Nobody plays public goods .*Seen: grim"),
        ({"game": PGG, "opponent": "agent(x)"}, "Nobody plays public goods .*Seen: agent"),
        ({"game": "public-goods(players=11)"}, "number of players that it cannot have"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    base: LoadedModel, configure: Configure, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        seats(configure(**settings), base)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "papr"}, "no preset of this name. Seen: papr. .*did you mean 'paper'"),
        ({"reward": "gaem"}, "no reward of this name. Seen: gaem.*did you mean 'game'"),
        ({"reward": "game then "}, "A reward lacks a term"),
        (
            {"sampling": {"games": 6, "group": 4}},
            "cannot be divided into groups. Seen: games 6, group 4. .*use games: 4",
        ),
        (
            {"sampling": {"games": 2, "group": 4}},
            "cannot be divided into groups. .*use games: 4",
        ),
        (
            {"sampling": {"games": 1, "rounds": 2, "minibatches": 3}},
            "fewer decisions than minibatches. Seen: 2 decisions, minibatches 3",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    configure: Configure, settings: dict[str, object], said: str
) -> None:
    # Pydantic tells what a validator says as its own error.
    with pytest.raises(ValidationError, match=said):
        configure(**settings)


@pytest.mark.parametrize("preset", ["reinforce", "grpo"])
def test_a_baseline_from_the_group_needs_a_group(configure: Configure, preset: str) -> None:
    with pytest.raises(ValidationError, match=f"needs other games.*method {preset}, sampling.gro"):
        configure(preset=preset, sampling={"games": 4, "group": 1})


def test_copies_do_not_take_the_other_seat_of_an_asymmetric_game(
    base: LoadedModel, configure: Configure, tmp_path: Path
) -> None:
    config = configure(game="BOS", opponent="copies")
    with pytest.raises(ConfigError, match="Copies of an agent cannot.*Seen: BOS.*learner"):
        train_agent("a", config, base, out=tmp_path / "out", work=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_two_learners_draw_apart(base: LoadedModel, configure: Configure) -> None:
    one, two = seats_of("a", configure(opponent="learner", seed=3), base, max_nodes=2048)
    assert one.config.seed == 3 != two.config.seed
    again = seats_of("a", configure(opponent="learner", seed=3), base, max_nodes=2048)
    assert again[1].config.seed == two.config.seed
