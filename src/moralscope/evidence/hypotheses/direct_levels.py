"""Do two rewards differ at this level, as was said? Named hypotheses about levels of the cascade.

With d the distance of two agents at the level, over agents of two rewards, one per training seed,

    T = mean of d over pairs of different rewards - mean of d over pairs of one reward,

pairs from one training seed left out. Seeds are relabelled at this level alone, one-sided, so
nothing is corrected for the other levels, which nobody asked about (``synthesis.relabelling``;
Anderson 2001). Holm's correction over the registered hypotheses comes afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moralscope.evidence.findings.cascade import rewards_at_level
from moralscope.evidence.hypotheses.grammar import Hypothesis
from moralscope.evidence.hypotheses.stating import (
    Basis,
    as_stated,
    lacking,
    require_known,
    untested,
)
from moralscope.evidence.ledger import Finding, Setting
from moralscope.evidence.synthesis.comparing import Question, questions_of

_TEST = "relabelling of training seeds, one-sided; null: rewards are exchangeable"


def levels_apart(setting: Setting, hypothesis: Hypothesis) -> Finding:
    """Whether agents of two rewards lie further apart at a level than seeds of one reward do.

    Raises:
        ConfigError: a reward is not one that an agent was trained with.
        TableError: agents that are compared were measured on different prompts or sites.
    """
    if setting.has("agents"):
        trained = setting.tables["agents"].get_column("reward").drop_nulls().unique().sort()
        require_known(hypothesis, "reward", hypothesis.rewards, trained.to_list())
    if (absent := lacking(setting, hypothesis)) is not None:
        return untested(setting, hypothesis, absent)
    asked = comparisons_of(questions_of(setting.tables), hypothesis.rewards)
    rewards = " and ".join(hypothesis.rewards)
    if not asked:
        reason = (
            f"no comparison of the rewards {rewards} has two training seeds of one of them; name "
            "one whose sides are agents with several seeds."
        )
        return untested(setting, hypothesis, reason)
    if len(asked) > 1:
        reason = f"the rewards {rewards} were trained from {len(asked)} bases; one is needed."
        return untested(setting, hypothesis, reason)
    made = rewards_at_level(setting, asked[0], str(hypothesis.level))
    if made is None:
        reason = f"agents of the rewards {rewards} were not compared in {hypothesis.level}."
        return untested(setting, hypothesis, reason)
    return as_stated(setting, hypothesis, Basis(replace(made, test=_TEST)))


def comparisons_of(questions: Sequence[Question], rewards: Sequence[str]) -> list[Question]:
    """The questions that are about two rewards, in either order."""
    return [one for one in questions if one.rewards and set(one.rewards) == set(rewards)]
