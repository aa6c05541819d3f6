"""What of an agent changes while it learns? One adapter, its optimiser and its statistics.

Everything that a step may change is here and nothing else, so a snapshot of it together with the
step's number is the whole state of training: draws are functions of seed and step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moralscope.core.decision import Prompt
from moralscope.core.errors import ConfigError
from moralscope.core.streams import integer_seed
from moralscope.games import Game, PublicGoods, Reward, get_reward, reward_phases
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.training.batches import Cells, make_cells, training_prompts
from moralscope.training.config import TrainingConfig
from moralscope.training.optimising import move, norm_of_b, put_back, state_of
from moralscope.training.others import MemoryOne, Others, as_opponent
from moralscope.training.running import KLController, RunningMoments

_VALUE = "value_head."


@dataclass(frozen=True)
class Seat:
    """One player's place: what it is asked, what it earns, whom it meets.

    Attributes:
        name: how tables call the player.
        adapter: its adapter's name on the base.
        config: its training.
        game: as this player sees it.
        rewards: one for each phase.
        others: who else plays; None for the other learner.
        cells: its prompts.
        encoded: the same as the model reads them, in order.
    """

    name: str
    adapter: str
    config: TrainingConfig
    game: Game | PublicGoods
    rewards: tuple[Reward, ...]
    others: Others | None
    cells: Cells
    encoded: tuple[EncodedPrompt, ...]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Its prompts."""
        return self.cells.prompts

    @property
    def two_player_game(self) -> Game:
        """Its game, where another model can sit opposite.

        Raises:
            ConfigError: the game is one of a group.
        """
        if isinstance(self.game, PublicGoods):
            raise ConfigError(
                "A group has no single opponent",
                seen=self.game.name,
                allowed="a two-player game",
                remedy="name what everybody else plays, or copies",
            )
        return self.game

    @property
    def states(self) -> int:
        """How many states its game has."""
        return len(self.game.states) if isinstance(self.game, PublicGoods) else 4


def take_seat(
    name: str,
    adapter: str,
    config: TrainingConfig,
    base: LoadedModel,
    *,
    game: Game | PublicGoods,
    reward: str,
    others: Others | None,
) -> Seat:
    """A seat with its prompts, encoded for the base's tokenizer."""
    prompts = tuple(training_prompts(config, game))
    return Seat(
        name,
        adapter,
        config,
        game,
        tuple(get_reward(phase) for phase in reward_phases(reward)),
        others,
        make_cells(config, prompts, game),
        encode_all(base.tokenizer, prompts),
    )


def facing(seat: Seat, name: str, policy: NDArray[np.float64]) -> MemoryOne:
    """Another model as this seat meets it: a memory-one opponent.

    Args:
        seat: in a two-player game.
        name: the other's.
        policy: the other's, in its own states, ``[4, 3]``.
    """
    return MemoryOne(seat.two_player_game, as_opponent(name, policy), seat.config.seed)


@dataclass
class Learner:
    """An agent that learns.

    Attributes:
        seat: its place.
        reference: log-probabilities of the options under the base, ``[prompts, 2]``.
        parameters: of its adapter and, for PPO, its value head, by name.
        optimiser: Adam over them.
        value_head: predicts an answer's return from the activation before each token.
        moments: of all scores so far.
        controller: of the KL coefficient.
    """

    seat: Seat
    reference: Tensor
    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Adam
    value_head: nn.Linear | None
    moments: RunningMoments
    controller: KLController


def make_learner(
    seat: Seat, adapter: Mapping[str, nn.Parameter], reference: Tensor, *, width: int
) -> Learner:
    """A learner at its beginning.

    Args:
        seat: its place.
        adapter: the parameters of its adapter.
        reference: log-probabilities of the options under the base, ``[prompts, 2]``.
        width: of the activations that a value head reads.
    """
    config = seat.config
    parameters = dict(adapter)
    head: nn.Linear | None = None
    if config.method == "ppo":
        head = _value_head(width, integer_seed(config.seed, "value head", seat.adapter))
        head.to(reference.device)
        parameters |= {_VALUE + name: p for name, p in head.named_parameters()}
    sampling = config.sampling
    return Learner(
        seat,
        reference,
        parameters,
        torch.optim.Adam(parameters.values(), lr=config.learning_rate),
        head,
        RunningMoments(),
        KLController(
            config.kl_coefficient,
            sampling.kl_target if sampling.adaptive_kl else None,
            sampling.kl_horizon,
        ),
    )


@torch.no_grad()
def _value_head(width: int, seed: int) -> nn.Linear:
    """A linear read-out, drawn as ``nn.Linear`` draws its own, uniform in ``+- 1/sqrt(width)``."""
    head = nn.Linear(width, 1, device="meta").to_empty(device="cpu")  # draws nothing by itself
    generator = torch.Generator().manual_seed(seed)
    for parameter in head.parameters():
        bound = 1 / math.sqrt(width)
        parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
    return head


def descend(learner: Learner, losses: Sequence[Tensor], *, rate: float, share: Any = None) -> float:
    """One optimiser step down the sum of losses.

    Args:
        learner: whose parameters move.
        losses: scalars; all graphs are freed.
        rate: of Adam, for this step.
        share: sums gradients over processes, in place; None for one process.

    Returns:
        Length of the gradient before it is shortened, if it is.
    """
    # The value head is used after the rows are put together: its gradient is whole already.
    shared = [p for n, p in learner.parameters.items() if not n.startswith(_VALUE)]
    return move(
        learner.parameters,
        learner.optimiser,
        losses,
        rate=rate,
        limit=learner.seat.config.max_gradient_norm,
        share=None if share is None else lambda: share(shared),
    )


def adapter_norm(learner: Learner) -> float:
    """Frobenius norm of all ``lora_B`` together; 0 is an adapter that changes nothing."""
    return norm_of_b(learner.parameters)


def state_tensors(learner: Learner) -> dict[str, Tensor]:
    """Parameters and moments, by names that begin with the adapter's."""
    return state_of(learner.seat.adapter, learner.parameters, learner.optimiser)


def state_values(learner: Learner) -> dict[str, object]:
    """Statistics, as JSON values that are read back to the same bits."""
    return {
        "moments": learner.moments.to_json(),
        "controller": learner.controller.to_json(),
    }


def restore(learner: Learner, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Put a learner back to where a snapshot was taken."""
    put_back(learner.seat.adapter, learner.parameters, learner.optimiser, tensors)
    learner.moments = RunningMoments.from_json(values["moments"])
    learner.controller = KLController.from_json(values["controller"])
