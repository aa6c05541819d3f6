"""A study of situations with known truth: eight texts in four states, five situations by twenty."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from moralscope.core.tables import from_rows

STATES = ("CC", "CD", "DC", "DD")
SITUATIONS = ("CC_continue", "CC_temptation", "CD_punished", "DC_exploited", "DD_trapped")
LABELS = ("action1/action2", "action2/action1")

Leaning = Callable[[str, str], float]
"""(family, cell) to the log-odds of cooperating that is planted there."""


def prompts(texts: int = 8) -> pl.DataFrame:
    rows: list[dict[str, object]] = []
    for labels in LABELS:
        for t in range(texts):
            # The first text is the structured one.
            family = "structured" if t == 0 else "wordings"
            rows += [_prompt(family, f"w{t}", labels, s, f"IPD.{s}") for s in STATES]
        for situation in SITUATIONS:
            rows += [
                _prompt("scenarios", f"{situation}{i}", labels, situation[:2], situation)
                for i in range(4)
            ]
    return from_rows("prompts", rows)


def _prompt(family: str, text: str, labels: str, state: str, scenario: str) -> dict[str, object]:
    name = f"{family}.{text}.{state}.{labels}"
    return {
        "prompt": name,
        "game": "IPD",
        "scenario": scenario,
        "family": family,
        "template": text,
        "labels": labels,
        "option_order": 0,
        "answer_order": 0,
        "table_order": "original" if family == "structured" else "none",
        "stem": "",
        "system": "",
        "chat_template": True,
        "own_previous": state[0],
        "opponent_previous": state[1],
        "others_cooperated": None,
        "text": name,
        "sha256": hashlib.sha256(name.encode()).hexdigest(),
        "positive": "2",
        "negative": "1",
    }  # fmt: skip


def agents(*names: str) -> pl.DataFrame:
    rows = [{"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"}]
    rows += [{"agent": n, "base": "tiny", "kind": "adapter", "dtype": "float32"} for n in names]
    return from_rows("agents", rows)


def decisions(
    asked: pl.DataFrame, planted: Mapping[str, Leaning], noise: float = 0.3, alive: bool = True
) -> pl.DataFrame:
    """Agents that lean as planted, with quirks of the text that all share and some of their own."""
    rows: list[dict[str, object]] = []
    for agent, leaning in planted.items():
        for prompt in asked.iter_rows(named=True):
            cell = (
                str(prompt["scenario"])
                if prompt["family"] == "scenarios"
                else f"{prompt['own_previous']}{prompt['opponent_previous']}"
            )
            shared = _quirk(str(prompt["template"]), 0.5)
            own = _quirk(f"{agent}{prompt['prompt']}", noise)
            x = -(leaning(str(prompt["family"]), cell) + shared + own)
            p = 1.0 / (1.0 + np.exp(-x))
            rows.append(
                {
                    "agent": agent,
                    "prompt": prompt["prompt"],
                    "game": "IPD",
                    "scenario": prompt["scenario"],
                    "log_odds": x,
                    "p_positive": 0.95 * p,
                    "p_negative": 0.95 * (1.0 - p),
                    "legal_mass": 0.95,
                    "p_positive_given_legal": p,
                    "fingerprint_log_odds": x if agent != "base" and alive else None,
                }
            )
    return from_rows("decisions", rows)


def _quirk(name: str, size: float) -> float:
    return size * float(np.random.default_rng(zlib.crc32(name.encode())).normal())


def build(
    planted: Mapping[str, Leaning], *, texts: int = 8, noise: float = 0.3, alive: bool = True
) -> dict[str, pl.DataFrame]:
    asked = prompts(texts)
    return {
        "prompts": asked,
        "agents": agents(*(name for name in planted if name != "base")),
        "decisions": decisions(asked, planted, noise, alive),
    }
