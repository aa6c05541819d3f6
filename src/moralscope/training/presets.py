"""Which settings belong together? Named recipes that a training file can start from.

``exact``      the expected gradient: every answer weighed by its own probability, no sampling.
``paper``      PPO as published (arXiv 2410.01639 and its public code): one game of five rounds a
               step, four accumulated passes that make one optimiser step at ratio 1, scores
               normalised by all history, adaptive KL, a value head, two freely generated tokens
               that must be exactly a label, dropout on while play is sampled. There the
               clip interval is never reached, and the score clip, misspelt in that code, is off.
``fixed``      the same with what was meant: several updates a step so that the clip can act, the
               score clip on, no dropout while playing, more games a step.
``reinforce``  REINFORCE with the leave-one-out baseline (arXiv 2402.14740).
``grpo``       group-relative advantages (arXiv 2402.03300), KL in the loss by its k3 estimator.

What ``paper`` leaves to the agent file: the base (there gemma-2-2b-it held as nf4) and the three
rounds a game of its two learners. What is otherwise than published: the texts of prompts and the
random draws; dropout is on from the first step, where the adapter is still zero and it changes
nothing; an answer has as many tokens as the longest option has with that tokenizer (there always
two). Two learners do not sit at one table: each plays against the other's policy, its scored
probabilities in each state averaged over wordings. Where the other answers illegally its last
legal move counts, in every reward; in the published code the moral rewards saw the illegal answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PAPER: dict[str, object] = {
    "method": "ppo",
    "actions": "generate",
    "stem": False,
    "labels": "same",
    "steps": 1000,
    "learning_rate": 1.41e-5,
    "kl_coefficient": 0.2,
    "lora": {"rank": 64, "alpha": 32.0, "dropout": 0.05},
    "sampling": {
        "games": 1,
        "rounds": 5,
        "epochs": 4,
        "minibatches": 1,
        "one_update": True,
        "adaptive_kl": True,
        "normalise_scores": True,
        "score_clip": None,
        "dropout_while_playing": True,
    },
}

_FIXED: dict[str, object] = {
    **_PAPER,
    "steps": 200,
    "lora": {"rank": 64, "alpha": 32.0},
    "sampling": {
        "games": 2,
        "rounds": 5,
        "variant": "game",
        "epochs": 2,
        "minibatches": 2,
        "adaptive_kl": True,
        "normalise_scores": True,
        "score_clip": 0.5,
    },
}

PRESETS: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "exact": {},
        "paper": _PAPER,
        "fixed": _FIXED,
        "reinforce": {
            "method": "reinforce",
            "steps": 60,
            "sampling": {"games": 64, "group": 8, "rounds": 1, "kl_in": "reward"},
        },
        "grpo": {
            "method": "grpo",
            "steps": 60,
            "sampling": {
                "games": 64,
                "group": 8,
                "rounds": 1,
                "minibatches": 2,
                "kl_in": "loss",
                "kl_estimator": "k3",
            },
        },
    }
)
"""The recipes by name."""
