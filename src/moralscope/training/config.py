"""What is trained, on what, and how? The resolved configuration of one agent's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from moralscope.core.agents import Frozen
from moralscope.core.documents import flattened
from moralscope.core.errors import ConfigError, nearest
from moralscope.games import reward_phases
from moralscope.training.presets import PRESETS

Labels = Literal["same", "swapped", "both", "random"]
Visitation = Literal["uniform", "visitation"]
ComputeDtype = Literal["float32", "bfloat16"]
Method = Literal["exact", "ppo", "reinforce", "grpo"]
Horizon = Literal["bandit", "reward-to-go"]
Actions = Literal["score", "generate"]
KLEstimator = Literal["k1", "abs", "mse", "k3"]

Probability = Annotated[float, Field(ge=0, le=1)]


class LoraSettings(Frozen):
    """The adapter: ``W + (alpha / rank) B A`` beside frozen linear layers.

    Attributes:
        rank: columns of ``B``.
        alpha: numerator of the scaling.
        rslora: scale by ``alpha / sqrt(rank)`` instead.
        dropout: of the adapter's inputs; active only where a preset samples with dropout on.
        sites: where adapters go (``L11-L23 mlp``, ``L5 attn``, ``L3.q``, ``down_proj``); every
            linear layer but the unembedding with none.
    """

    rank: Annotated[int, Field(ge=1)] = 64
    alpha: Annotated[float, Field(gt=0)] = 32.0
    rslora: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    sites: tuple[str, ...] = ()


class SamplingSettings(Frozen):
    """How play is sampled and turned into updates: PPO, REINFORCE and GRPO.

    Attributes:
        games: games played in a step; a game starts afresh in a uniform state.
        group: games of a step that start in the same state on the same wording; baselines of
            REINFORCE and GRPO are taken within a group. Divides ``games``.
        rounds: rounds of a game; each is one decision.
        variant: wording, orders and labels are drawn for every round, or once for a game, which
            asks fewer different prompts and is faster.
        epochs: passes over a step's decisions.
        minibatches: optimiser steps of a pass.
        one_update: average the gradient of all passes into one optimiser step, as the published
            code does by accident. Parameters do not change between the passes then.
        clip: half-width of the interval around 1 beyond which a ratio earns nothing.
        value_clip, value_coefficient: of the value head (PPO). The published head has dropout,
            which never acts: every pass that it is read in runs in evaluation mode.
        gae_lambda: lambda of generalised advantage estimation over an answer's tokens (PPO).
        whiten: advantages get mean 0 and variance 1 over the step's tokens (PPO).
        scale: group advantages are divided by the group's standard deviation (GRPO).
        kl_in: the KL penalty is part of each token's reward, or a term of the loss.
        kl_estimator: k1 ``log pi - log ref``, its absolute value, half its square, or k3
            ``ref/pi - 1 - log ref/pi``.
        adaptive_kl, kl_target, kl_horizon: the coefficient follows ``kl_target`` over
            ``kl_horizon`` decisions.
        normalise_scores: scores are divided by their running deviation, after subtracting their
            running mean, over all history.
        score_clip: bound on the absolute value of a normalised score; None for none.
        ratio_limit: an update whose mean ratio exceeds this has no gradient of the policy and the
            value (as published, Adam's momentum moves on).
        dropout_while_playing: adapter dropout is on while play is sampled, as in the published
            code, and off while its answers are scored.
    """

    games: Annotated[int, Field(ge=1)] = 8
    group: Annotated[int, Field(ge=1)] = 1
    rounds: Annotated[int, Field(ge=1)] = 5
    variant: Literal["round", "game"] = "round"
    epochs: Annotated[int, Field(ge=1)] = 1
    minibatches: Annotated[int, Field(ge=1)] = 1
    one_update: bool = False
    clip: Annotated[float, Field(gt=0)] = 0.2
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    value_coefficient: Annotated[float, Field(ge=0)] = 0.1
    gae_lambda: Probability = 0.95
    whiten: bool = True
    scale: bool = True
    kl_in: Literal["reward", "loss"] = "reward"
    kl_estimator: KLEstimator = "k1"
    adaptive_kl: bool = False
    kl_target: Annotated[float, Field(gt=0)] = 6.0
    kl_horizon: Annotated[int, Field(ge=1)] = 10000
    normalise_scores: bool = False
    score_clip: Annotated[float, Field(gt=0)] | None = None
    ratio_limit: Annotated[float, Field(gt=1)] = 10.0
    dropout_while_playing: bool = False

    @model_validator(mode="after")
    def _divides(self) -> SamplingSettings:
        if self.games % self.group:
            raise ConfigError(
                "The games of a step cannot be divided into groups",
                seen=f"games {self.games}, group {self.group}",
                allowed="a number of games that is a multiple of group",
                remedy=f"use games: {max(1, self.games // self.group) * self.group}",
            )
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ConfigError(
                "This KL term would penalise nothing: its expected gradient is zero",
                seen="kl_in loss with kl_estimator k1",
                allowed="k3 or mse in the loss; k1 in the reward",
                remedy="use kl_estimator: k3",
            )
        if self.adaptive_kl and self.games * self.rounds >= 5 * self.kl_horizon:
            raise ConfigError(
                "One step could take the coefficient of KL to zero or below",
                seen=f"{self.games * self.rounds} decisions a step, kl_horizon {self.kl_horizon}",
                allowed="a horizon above a fifth of the decisions of a step",
                remedy="raise kl_horizon",
            )
        if self.games * self.rounds < self.minibatches:
            raise ConfigError(
                "A step has fewer decisions than minibatches",
                seen=f"{self.games * self.rounds} decisions, minibatches {self.minibatches}",
                allowed="at least one decision for each",
                remedy="play more games in a step, or use fewer minibatches",
            )
        return self


class TrainingConfig(Frozen):
    """One agent's training.

    Attributes:
        preset: where defaults come from, see ``presets``; what is given beside it wins.
        reward: an expression of ``games.rewards``; ``game then deontological`` trains on one
            after the other, optimiser and statistics carried over.
        opponent: an expression of ``games.opponents``, ``learner`` for a second adapter that
            learns at the same time, or ``agent(FOLDER)`` for a frozen earlier one.
        opponent_reward: what a learning opponent is trained for; ``reward`` unless given.
        game: name or expression of ``games``.
        seed: of the adapter's initialisation and of every draw.
        wordings: texts to train on: ``structured`` or names of ``games.WORDINGS`` or
            ``games.MIRRORED``.
        table_orders: payoff-table orders of the structured text.
        words: labels of cooperating and of defecting under the assignment ``same``.
        more_words: further pairs of labels to train with.
        labels: which assignment of labels: one of the two, both in every step, or drawn for each
            prompt. Fixed labels teach the label, not the move.
        stem: the answer begins with what both labels begin with ("I choose action"). Without it
            the answer is the label alone, as published; a small model then rarely answers legally.
        steps: optimiser steps, or steps of play; of every phase together.
        phase_steps: steps of each phase of ``reward``; equal shares unless given.
        prompts_per_step: prompts in a step of ``exact``, divided evenly over states and label
            assignments; fewer where there are no more.
        learning_rate: of Adam.
        schedule: ``constant``, or ``linear`` decay to zero after the last step.
        warmup: steps over which the rate rises from zero.
        max_gradient_norm: longer gradients are shortened to this; None for none.
        method: exact expected gradient, or sampled play.
        horizon: a decision is credited with its own round, or with all rounds from it on.
        discount: of later rounds, per round.
        actions: an answer is drawn among the two options and "neither" by their scored
            probability, or generated token by token and legal only if it is exactly an option.
        kl_coefficient: beta, in points per nat.
        visitation: how ``exact`` weights states: equally, or as the agent's own play of
            ``sampling.rounds`` rounds from uniform starts visits them.
        sampling: of the sampled methods; ``rounds`` also of ``exact``.
        compute_dtype: of the forward and backward passes; the loss is always float32.
        gradient_checkpointing: recompute activations instead of keeping them: less memory, about
            a third more time.
        checkpoint_every: steps between checkpoints, or ``auto``: as often as costs 5% of the time.
        keep_steps: steps whose adapter is kept beside the last one, for studies of the course.
        lora: the adapter.
    """

    preset: str = "exact"
    reward: str
    opponent: str = "tit-for-tat"
    opponent_reward: str | None = None
    game: str = "IPD"
    seed: Annotated[int, Field(ge=0)] = 0
    wordings: Annotated[tuple[str, ...], Field(min_length=1)] = ("structured",)
    table_orders: Annotated[tuple[str, ...], Field(min_length=1)] = ("original",)
    words: tuple[str, str] = ("action1", "action2")
    more_words: tuple[tuple[str, str], ...] = ()
    labels: Labels = "both"
    stem: bool = True
    steps: Annotated[int, Field(ge=1)] = 25
    phase_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    prompts_per_step: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Literal["constant", "linear"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    method: Method = "exact"
    horizon: Horizon = "bandit"
    discount: Probability = 1.0
    actions: Actions = "score"
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.2
    visitation: Visitation = "uniform"
    sampling: SamplingSettings = SamplingSettings()
    compute_dtype: ComputeDtype = "float32"
    gradient_checkpointing: bool = False
    checkpoint_every: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    keep_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    lora: LoraSettings = LoraSettings()

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: object) -> object:
        return merged(given)

    @model_validator(mode="after")
    def _has_baseline(self) -> TrainingConfig:
        if self.method in ("reinforce", "grpo") and self.sampling.group < 2:
            raise ConfigError(
                "A baseline from the other games of a group needs other games",
                seen=f"method {self.method}, sampling.group {self.sampling.group}",
                allowed="groups of 2 games or more",
                remedy="set sampling.group to 8, and games to a multiple of it",
            )
        return self


def merged(given: object) -> object:
    """The settings of a preset with what is given on top, nested settings one by one.

    Rewards are written as ``games.get_reward`` names them.

    Raises:
        ConfigError: there is no such preset or reward.
    """
    if not isinstance(given, Mapping):
        return given
    settings = cast("Mapping[str, object]", given)
    name = str(settings.get("preset", "exact"))
    if name not in PRESETS:
        raise ConfigError(
            "There is no preset of this name",
            seen=name,
            allowed=", ".join(PRESETS),
            remedy=nearest(name, PRESETS),
        )
    result: dict[str, object] = dict(PRESETS[name])
    for key, value in settings.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = {**cast("dict[str, object]", below), **cast("dict[str, object]", value)}
        else:
            result[key] = value
    for key in ("reward", "opponent_reward"):
        if isinstance(result.get(key), str):
            result[key] = " then ".join(reward_phases(str(result[key])))
    return result


def deviations(config: TrainingConfig) -> dict[str, tuple[object, object]]:
    """What differs from the preset: setting, to the preset's value and the one in force.

    Settings that are not of the training, such as those of an agent file alone, are left out.
    """
    usual = TrainingConfig.model_validate({"preset": config.preset, "reward": config.reward})
    free = {"reward", "opponent", "opponent_reward", "game", "seed", "checkpoint_every"}
    free |= {"keep_steps", "phase_steps"}
    theirs, ours = (flattened(c.model_dump(mode="json")) for c in (usual, config))
    return {
        key: (theirs[key], value)
        for key, value in ours.items()
        if key.split(".")[0] not in free and value != theirs.get(key, value)
    }
