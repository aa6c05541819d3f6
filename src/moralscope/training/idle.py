"""Which settings change nothing here? What a method, or another setting, never reads.

A setting that is given and never read looks like an experiment and is none. Judged is what differs
from the preset, since a preset says the same for all methods that it can be combined with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moralscope.games import is_public_goods, opponent_kind
from moralscope.training.config import TrainingConfig, deviations
from moralscope.training.others import COPIES

Why = Callable[[TrainingConfig], str | None]

_ROUNDS = "sampling.rounds"
_VALUES = ("sampling.value_clip", "sampling.value_coefficient")
_PPO = (*_VALUES, "sampling.gae_lambda", "sampling.whiten")
_RATIOS = ("sampling.clip", "sampling.ratio_limit")


def idle_settings(config: TrainingConfig) -> Mapping[str, str]:
    """Settings that differ from the preset and change nothing: dotted key to the reason.

    Args:
        config: the training.
    """
    given = [*deviations(config)]
    if config.opponent_reward is not None:
        given.append("opponent_reward")
    found: dict[str, str] = {}
    for key in given:
        for concerns, reason in _REASONS:
            why = reason(config) if concerns(key) else None
            if why is not None:
                found.setdefault(key, why)
    return found


def _among(*keys: str) -> Callable[[str], bool]:
    return lambda key: key in keys


def _unless(met: Callable[[TrainingConfig], bool], why: str) -> Why:
    return lambda config: None if met(config) else why


def _sampled(config: TrainingConfig) -> bool:
    return config.method != "exact"


def _rolls(config: TrainingConfig) -> bool:
    """Whether the exact method looks at more than one round."""
    later = config.visitation == "visitation" or config.horizon == "reward-to-go"
    return _sampled(config) or later


def _learns(config: TrainingConfig) -> bool:
    """Whether the opponent does."""
    scripted = is_public_goods(config.game) or config.opponent == COPIES
    return not scripted and opponent_kind(config.opponent) == "learner"


def _drops(config: TrainingConfig) -> bool:
    playing = _sampled(config) and config.actions == "generate"
    return playing and config.sampling.dropout_while_playing and config.lora.dropout > 0


_REASONS: tuple[tuple[Callable[[str], bool], Why], ...] = (
    (
        lambda key: (key.startswith("sampling.") and key != _ROUNDS) or key == "actions",
        _unless(_sampled, "method exact samples nothing"),
    ),
    (
        _among(_ROUNDS),
        _unless(_rolls, "one round is all that a bandit with equally weighted states sees"),
    ),
    (
        _among("prompts_per_step", "visitation"),
        _unless(lambda c: not _sampled(c), "sampled play asks what its games come to"),
    ),
    (_among(*_PPO), _unless(lambda c: c.method == "ppo", "only ppo has a value head")),
    (_among("sampling.scale"), _unless(lambda c: c.method == "grpo", "only grpo scales so")),
    (
        _among(*_RATIOS),
        _unless(lambda c: c.method in ("ppo", "grpo"), "reinforce takes no ratios"),
    ),
    (
        _among("sampling.epochs", "sampling.minibatches"),
        _unless(lambda c: not c.sampling.one_update, "one_update makes one step of all passes"),
    ),
    (
        _among("sampling.kl_target", "sampling.kl_horizon"),
        _unless(lambda c: c.sampling.adaptive_kl, "the coefficient follows only with adaptive_kl"),
    ),
    (
        _among("sampling.dropout_while_playing", "lora.dropout"),
        _unless(
            _drops,
            "adapters drop inputs only in generated play, with dropout_while_playing and a "
            "lora.dropout above 0",
        ),
    ),
    (
        _among("discount"),
        _unless(lambda c: c.horizon == "reward-to-go", "a bandit has no later rounds"),
    ),
    (
        _among("opponent_reward"),
        _unless(_learns, "the opponent does not learn"),
    ),
    (
        _among("table_orders"),
        _unless(lambda c: "structured" in c.wordings, "only the structured text has a table"),
    ),
)
