"""What did each agent decide? The tables ``prompts``, ``agents`` and ``decisions``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from moralscope.core.decision import Prompt
from moralscope.core.progress import Progress, silent
from moralscope.core.tables import from_rows
from moralscope.models.fingerprint import compare, read_fingerprint
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster, find_adapter
from moralscope.models.scoring import MAX_NODES, score


def prompts_table(prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]) -> pl.DataFrame:
    """The table ``prompts``: what each prompt is, and its text exactly as tokenised."""
    return from_rows(
        "prompts",
        (
            {
                "prompt": prompt.name,
                "game": prompt.game,
                "scenario": prompt.scenario,
                "family": prompt.family,
                "template": prompt.template,
                "labels": prompt.labels,
                "option_order": prompt.option_order,
                "answer_order": prompt.answer_order,
                "table_order": prompt.table_order,
                "stem": prompt.decision.stem,
                "system": "\n".join(
                    m.content for m in prompt.decision.messages if m.role == "system"
                ),
                "chat_template": prompt.decision.chat_template,
                "own_previous": prompt.own_previous,
                "opponent_previous": prompt.opponent_previous,
                "others_cooperated": prompt.others_cooperated,
                "text": read.text,
                "sha256": read.sha256,
                "positive": prompt.decision.positive.canonical,
                "negative": prompt.decision.negative.canonical,
            }
            for prompt, read in zip(prompts, encoded, strict=True)
        ),
    )


def agents_table(roster: Roster, scripted: Sequence[str] = ()) -> pl.DataFrame:
    """The table ``agents``: who was measured, and what is known of their training.

    Args:
        roster: models and adapters.
        scripted: names of scripted policies, which have no weights and exact probabilities.
    """
    models: list[dict[str, object]] = [
        {
            "agent": spec.name,
            "base": roster.base.source.name,
            "kind": spec.kind,
            "reward": spec.reward,
            "opponent": spec.opponent,
            "training_seed": spec.training_seed,
            "adapter_sha256": roster.weights_sha256(spec.name),
            "dtype": roster.base.dtype,
        }
        for spec in roster.specs.values()
    ]
    policies: list[dict[str, object]] = [
        {
            "agent": name,
            "base": roster.base.source.name,
            "kind": "policy",
            "reward": None,
            "opponent": None,
            "training_seed": None,
            "adapter_sha256": None,
            "dtype": "exact",
        }
        for name in scripted
    ]
    return from_rows("agents", models + policies)


def decisions_table(
    roster: Roster,
    name: str,
    prompts: Sequence[Prompt],
    encoded: Sequence[EncodedPrompt],
    *,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``decisions`` of one agent, checked against its fingerprint where it has one.

    Raises:
        AgentError: the agent does not act as it did when it was trained.
    """
    with roster.speaking(name) as model:
        scores = score(
            model, encoded, max_nodes=max_nodes, task=f"decide {name}", progress=progress
        )
    stored: list[float | None] = [None] * len(encoded)
    adapter = roster.specs[name].adapter
    fingerprint = None if adapter is None else read_fingerprint(find_adapter(name, adapter))
    if fingerprint is not None:
        match = compare(
            name,
            fingerprint,
            base=roster.base,
            adapter_sha256=str(roster.weights_sha256(name)),
            prompts=encoded,
            log_odds=scores.log_odds,
        )
        stored = [None if math.isnan(v) else float(v) for v in match.stored]
    return from_rows(
        "decisions",
        (
            {
                "agent": name,
                "prompt": prompt.name,
                "game": prompt.game,
                "scenario": prompt.scenario,
                "log_odds": _defined(scores.log_odds[i]),
                "p_positive": float(scores.p_positive[i]),
                "p_negative": float(scores.p_negative[i]),
                "legal_mass": float(scores.legal_mass[i]),
                "p_positive_given_legal": _defined(scores.p_positive_given_legal[i]),
                "fingerprint_log_odds": stored[i],
            }
            for i, prompt in enumerate(prompts)
        ),
    )


def _defined(value: float) -> float | None:
    """A number, or None where both options have no probability at all: nothing to divide by."""
    return None if math.isnan(value) else float(value)
