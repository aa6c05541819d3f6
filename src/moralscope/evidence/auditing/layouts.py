"""Which columns must a table of another tool have, and what do they call them? Data.

A table needs what identifies a row and what was measured. Everything else is filled in where it
follows from the rest or where no test needs it, and every filling is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from moralscope.core.tables import schema_of

_SITES = ("layer", "kind", "head")


@dataclass(frozen=True, slots=True)
class Layout:
    """What an audit asks of a table.

    Attributes:
        needs: columns without which a row says nothing.
        any_of: sets of columns of which one must be there in full; empty where there is no choice.
        fills: values of columns that are not there, where no test needs the truth.
        source: where the table usually comes from.
    """

    needs: tuple[str, ...]
    any_of: tuple[tuple[str, ...], ...] = ()
    fills: Mapping[str, object] | None = None
    source: str = "the tool that measured it (its columns are documented)"


NOT_RECORDED: Final = "not recorded"
"""What stands in text columns that nobody wrote."""

LAYOUTS: Mapping[str, Layout] = {
    "agents": Layout(
        ("agent",),
        fills={"base": NOT_RECORDED, "kind": "checkpoint", "dtype": NOT_RECORDED},
        source="the list of models that were measured",
    ),
    "prompts": Layout(
        ("prompt",),
        fills={
            "game": "user", "family": "user", "template": NOT_RECORDED, "labels": NOT_RECORDED,
            "option_order": 0, "answer_order": 0, "table_order": "none", "stem": "", "system": "",
            "chat_template": False, "positive": "positive", "negative": "negative",
        },
        source="the list of texts that models were asked",
    ),
    "decisions": Layout(
        ("agent", "prompt"),
        (("log_odds",), ("p_positive", "p_negative"), ("p_positive_given_legal",)),
        fills={"game": "user", "scenario": NOT_RECORDED},
        source="scoring both answers of each prompt: log P(positive) - log P(negative)",
    ),
    "patching": Layout(
        ("source", "target", "prompt", "site"),
        (("effect",), ("baseline_log_odds", "patched_log_odds")),
        fills={"positions": NOT_RECORDED, "write": "write"},
        source="the patching sweep: whose activation, into whom, on which prompt, at which site",
    ),
    "attribution": Layout(
        ("agent", "prompt", "site", "contribution"),
        fills={"token": -1, "part": "whole"},
        source="direct logit attribution, one value per component",
    ),
    "completeness": Layout(
        ("agent", "prompt", "error", "logit_diff"),
        fills={"remainder": 0.0},
        source="the attribution: sum over components minus the logit difference",
    ),
    "norms": Layout(
        ("agent", "prompt", "site", "norm"), source="the Euclidean norm of what each site writes"
    ),
    "attention": Layout(
        ("agent", "prompt", "layer", "head", "category", "mass"),
        source="attention patterns summed over spans of the prompt",
    ),
    "interactions": Layout(
        ("agent", "site_a", "site_b", "value"),
        fills={"measure": "correlation"},
        source="correlations over prompts; n is on how many prompts they rest",
    ),
}  # fmt: skip
"""Tables that other tools make. All others are read by their documented columns."""

WIDE: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "decisions": (("prompt",), "agent", ""),
    "patching": (("source", "target", "prompt"), "site", "effect"),
    "attribution": (("agent", "prompt"), "site", "contribution"),
    "norms": (("agent", "prompt"), "site", "norm"),
}
"""Tables that may be wide: what identifies a row, what the column names are, what the cells are."""

ALIASES: Mapping[str, str] = {
    "model": "agent", "model_name": "agent", "agent_name": "agent", "checkpoint_name": "agent",
    "prompt_id": "prompt", "prompt_name": "prompt", "prompt_key": "prompt", "item": "prompt",
    "example": "prompt", "example_id": "prompt",
    "cluster": "scenario", "scenario_id": "scenario", "scenario_name": "scenario",
    "component": "site", "component_name": "site", "node": "site", "hook": "site",
    "hook_name": "site", "hook_point": "site", "act_name": "site",
    "component_a": "site_a", "component_b": "site_b", "component_1": "site_a",
    "component_2": "site_b", "node_a": "site_a", "node_b": "site_b",
    "source_agent": "source", "source_model": "source", "from_model": "source",
    "target_agent": "target", "target_model": "target", "to_model": "target",
    "logodds": "log_odds", "log_odds_ratio": "log_odds",
    "original_log_odds": "baseline_log_odds", "baseline": "baseline_log_odds",
    "baseline_logit_diff": "baseline_log_odds", "original_logit_diff": "baseline_log_odds",
    "clean_logit_diff": "baseline_log_odds",
    "patched": "patched_log_odds", "patched_logit_diff": "patched_log_odds",
    "delta": "effect", "patch_effect": "effect", "patching_effect": "effect",
    "dla": "contribution", "attribution": "contribution",
    "direct_logit_attribution": "contribution", "logit_attribution": "contribution",
    "l2_norm": "norm", "activation_norm": "norm",
    "correlation": "value", "corr": "value", "n_prompts": "n",
    "seed": "training_seed", "train_seed": "training_seed", "reward_type": "reward",
    "base_model": "base", "torch_dtype": "dtype", "prompt_text": "text",
    "prob_positive": "p_positive", "prob_negative": "p_negative", "flip": "flipped",
}  # fmt: skip
"""Names that mean one thing wherever they stand; a table takes those of its own columns."""

ALIASES_OF: Mapping[str, Mapping[str, str]] = {
    "decisions": {"logit_diff": "log_odds", "logit_difference": "log_odds"},
    "attribution": {"logit_diff": "contribution", "effect": "contribution"},
    "patching": {"change": "effect", "logit_diff_change": "effect"},
    "prompts": {"id": "prompt", "name": "prompt"},
    "agents": {"name": "agent", "id": "agent"},
    "interactions": {"r": "value"},
}
"""Names that mean something in one table only."""

FILE_NAMES: Mapping[str, str] = {
    "models": "agents", "model": "agents", "patches": "patching", "patch": "patching",
    "activation_patching": "patching", "patching_results": "patching", "dla": "attribution",
    "direct_logit_attribution": "attribution", "logit_attribution": "attribution",
    "correlations": "interactions", "component_interactions": "interactions",
    "attention_patterns": "attention", "choices": "decisions", "logit_differences": "decisions",
}  # fmt: skip
"""What other tools call their files."""

JUDGED: Final = (
    "gates", "claims", "design", "hypotheses", "coverage", "control_results", "calibration",
)  # fmt: skip
"""Tables that an audit makes itself, whatever lies in the folder."""


def layout_of(table: str) -> Layout:
    """What an audit asks of a table: all documented columns that may not be null, by default."""
    if table in LAYOUTS:
        return LAYOUTS[table]
    schema = schema_of(table)
    present = {column.name for column in schema.columns}
    derived = set(_SITES) if "site" in present else set[str]()
    needs = [c.name for c in schema.columns if not c.nullable and c.name not in derived]
    return Layout(tuple(needs))


def missing_columns(table: str, columns: Iterable[str]) -> tuple[str, ...]:
    """What a table lacks, alternatives in words; empty where it can be used."""
    layout, present = layout_of(table), set(columns)
    lacking = [name for name in layout.needs if name not in present]
    if layout.any_of and not any(set(group) <= present for group in layout.any_of):
        lacking.append(" or ".join(" with ".join(group) for group in layout.any_of))
    return tuple(lacking)


def needs_of(table: str) -> str:
    """The columns that a table must have, in words."""
    layout = layout_of(table)
    choices = " or ".join(" with ".join(group) for group in layout.any_of)
    return ", ".join(layout.needs) + (f", and {choices}" if choices else "")
