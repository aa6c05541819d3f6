"""Who learns, against whom, on which adapters? A configuration turned into seats and learners."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from moralscope.core.errors import ConfigError
from moralscope.core.hashing import sha256_file
from moralscope.core.streams import integer_seed
from moralscope.games import Game, PublicGoods, get_reward, opponent_kind, reward_phases
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import WEIGHTS, find_adapter
from moralscope.models.scoring import score
from moralscope.training.batches import training_game
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import Processes
from moralscope.training.learners import Learner, Seat, make_learner, take_seat
from moralscope.training.lora import Fresh, Saved, adapted_together, speaking, trainable
from moralscope.training.objectives import policy_table
from moralscope.training.others import (
    COPIES,
    MemoryOne,
    Others,
    agent_folder,
    as_opponent,
    scripted,
)
from moralscope.training.recomputing import recomputing
from moralscope.training.session import Session

AGENT, OPPONENT = "trained", "opponent"


def seats_of(
    name: str, config: TrainingConfig, base: LoadedModel, *, max_nodes: int
) -> tuple[Seat, ...]:
    """The agent's seat and, where the opponent learns too, the opponent's.

    Raises:
        ConfigError: an unknown reward, opponent or game, or prompts that cannot be made of it.
        AgentError: a frozen opponent's adapter does not land on the base.
    """
    game = training_game(config)
    check_phases(config)
    scripted_by_name = isinstance(game, PublicGoods) or config.opponent == COPIES
    learning = not scripted_by_name and opponent_kind(config.opponent) == "learner"
    others = None if learning else _others(config, game, base, max_nodes)
    seat = take_seat(name, AGENT, config, base, game=game, reward=config.reward, others=others)
    if not learning or isinstance(game, PublicGoods):
        return (seat,)
    reward = config.opponent_reward or config.reward
    # Its draws are its own: two learners with the same draws would make the same accidents.
    seed = integer_seed(config.seed, OPPONENT) % 2**31
    swapped = {"reward": reward, "opponent_reward": config.reward, "seed": seed}
    other = config.model_copy(update=swapped)
    return (
        seat,
        take_seat(
            f"{name}-{OPPONENT}",
            OPPONENT,
            other,
            base,
            game=game.mirrored,
            reward=reward,
            others=None,
        ),
    )


def check_phases(config: TrainingConfig) -> None:
    """Refuse phases that do not add up, before anything is computed.

    Raises:
        ConfigError: an unknown reward, phases and their steps that do not fit, or a step to keep
            that is never taken.
    """
    phases = reward_phases(config.reward)
    for phase in phases:
        get_reward(phase)
    steps = config.phase_steps
    if steps is not None and (len(steps) != len(phases) or sum(steps) != config.steps):
        raise ConfigError(
            "The steps of the phases do not fit the training",
            seen=f"phase_steps {list(steps)}, {len(phases)} phases, steps {config.steps}",
            allowed="one number for each phase, adding up to steps",
            remedy="correct phase_steps, or leave it out for equal shares",
        )
    if len(phases) > config.steps:
        raise ConfigError(
            "There are more phases than steps",
            seen=f"{len(phases)} phases, steps {config.steps}",
            allowed="at least one step for each phase",
            remedy="raise steps",
        )
    never = [step for step in config.keep_steps if step > config.steps]
    if never:
        raise ConfigError(
            "A step that is to be kept is never taken",
            seen=f"keep_steps {never}, steps {config.steps}",
            allowed=f"steps from 1 to {config.steps}",
            remedy="correct keep_steps, or raise steps",
        )
    if config.opponent_reward is not None and len(reward_phases(config.opponent_reward)) != len(
        phases
    ):
        raise ConfigError(
            "The two learners have different numbers of phases",
            seen=f"{config.reward!r} and {config.opponent_reward!r}",
            allowed="as many rewards for one as for the other",
            remedy="repeat a reward: game then game",
        )


def phase_of(config: TrainingConfig, phases: int, step: int) -> int:
    """Which phase a step is in, from 0; without ``phase_steps`` they are equal shares."""
    ends = config.phase_steps or [
        config.steps * (i + 1) // phases - config.steps * i // phases for i in range(phases)
    ]
    done = 0
    for index, length in enumerate(ends):
        done += length
        if step <= done:
            return index
    return phases - 1


def _others(
    config: TrainingConfig, game: Game | PublicGoods, base: LoadedModel, max_nodes: int
) -> Others:
    found = scripted(config.opponent, game, config.seed)
    if found is not None:
        return found
    folder = agent_folder(config.opponent)
    if folder is None or isinstance(game, PublicGoods):
        raise ValueError(f"{config.opponent} is neither scripted nor an agent")
    seat = take_seat(
        "frozen", OPPONENT, config, base, game=game.mirrored, reward=config.reward, others=None
    )
    frozen = {OPPONENT: Saved(folder)}
    with adapted_together(base, frozen) as wrapped, speaking(wrapped, OPPONENT):
        log_p = reference_of(base, seat.encoded, max_nodes)
    table = policy_table(log_p, torch.tensor(seat.cells.state), 4)
    return MemoryOne(game, as_opponent(f"agent({Path(folder).name})", table), config.seed)


def frozen_digest(config: TrainingConfig) -> str | None:
    """Which weights the opponent ``agent(FOLDER)`` has now; None for any other opponent.

    Raises:
        AgentError: there is no adapter.
    """
    if config.opponent == COPIES or isinstance(training_game(config), PublicGoods):
        return None
    folder = agent_folder(config.opponent)
    return None if folder is None else sha256_file(find_adapter(OPPONENT, folder) / WEIGHTS)


def reference_of(
    base: LoadedModel, encoded: Sequence[EncodedPrompt], max_nodes: int
) -> torch.Tensor:
    """Log-probabilities of the options as the model is now, ``[prompts, 2]``."""
    scores = score(base.model, encoded, max_nodes=max_nodes)
    both = [
        [float(p), float(n)]
        for p, n in zip(scores.log_p_positive, scores.log_p_negative, strict=True)
    ]
    return torch.as_tensor(both, device=base.device)


@contextlib.contextmanager
def learners_of(
    seats: Sequence[Seat],
    config: TrainingConfig,
    base: LoadedModel,
    *,
    processes: Processes,
    max_nodes: int,
) -> Generator[tuple[Session, tuple[Learner, ...]]]:
    """Fresh adapters on the base for every seat; the base leaves the block as it entered it."""
    references = [reference_of(base, seat.encoded, max_nodes) for seat in seats]
    wanted = {seat.adapter: Fresh(config.lora, config.seed) for seat in seats}
    untyped: Any = base.model
    width = int(untyped.get_output_embeddings().weight.shape[1])
    recompute = recomputing if config.gradient_checkpointing else contextlib.nullcontext
    with adapted_together(base, wanted) as wrapped, recompute(base.model):
        session = Session(config, base, wrapped, processes, max_nodes)
        yield (
            session,
            tuple(
                make_learner(seat, trainable(wrapped, seat.adapter), reference, width=width)
                for seat, reference in zip(seats, references, strict=True)
            ),
        )
