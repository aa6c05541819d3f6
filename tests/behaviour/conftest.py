"""Scripted worlds: prompts as the games make them, and agents whose learning is planted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from moralscope.behaviour import TrainedOn
from moralscope.core.tables import from_rows

SAME, SWAPPED = "action1/action2", "action2/action1"
STATES = tuple(itertools.product("CD", "CD"))


def prompt_row(
    family: str,
    template: str,
    labels: str,
    table_order: str,
    state: tuple[str | None, str | None],
    *,
    order: int = 0,
    game: str = "IPD",
    scenario: str | None = None,
) -> dict[str, object]:
    own, other = state
    name = f"{family}.{game}.{template}.{own}{other}.o{order}.{table_order}.{labels}"
    return {
        "prompt": name,
        "game": game,
        "scenario": scenario or f"{game}.{own}{other}",
        "family": family,
        "template": template,
        "labels": labels,
        "option_order": order,
        "answer_order": 0,
        "table_order": table_order,
        "stem": "I choose action",
        "system": "",
        "chat_template": True,
        "own_previous": own,
        "opponent_previous": other,
        "others_cooperated": None,
        "text": name,
        "sha256": name,
        "positive": "2",
        "negative": "1",
    }


def memory_one_prompts(
    assignments: tuple[str, ...] = (SAME, SWAPPED),
    table_orders: tuple[str, ...] = ("original", "rows", "columns", "both"),
    wordings: tuple[str, ...] = ("letter", "duel", "market"),
    mirrored: bool = False,
    orders: tuple[int, ...] = (0,),
) -> pl.DataFrame:
    structured = (
        prompt_row("structured", "matrix", labels, table, state, order=order)
        for labels in assignments
        for table in table_orders
        for state in STATES
        for order in (0, 1)
    )
    texts = [*wordings, *(f"{name}-mirrored" for name in wordings if mirrored)]
    worded = (
        prompt_row("wordings", wording, labels, "none", state, order=order)
        for labels in assignments
        for wording in texts
        for state in STATES
        for order in orders
    )
    return from_rows("prompts", [*structured, *worded])


def decision_row(
    agent: str, prompt: Mapping[str, object], log_odds: float | None, p: float, legal: float = 1.0
) -> dict[str, object]:
    return {
        "agent": agent,
        "prompt": prompt["prompt"],
        "game": prompt["game"],
        "scenario": prompt["scenario"],
        "log_odds": log_odds,
        "p_positive": p * legal,
        "p_negative": (1 - p) * legal,
        "legal_mass": legal,
        "p_positive_given_legal": p,
        "fingerprint_log_odds": None,
    }


def decide(
    agent: str, prompts: pl.DataFrame, log_odds: Callable[[dict[str, object]], float]
) -> pl.DataFrame:
    """An agent with these log-odds of defecting, every answer of it legal."""
    rows: list[dict[str, object]] = []
    for prompt in prompts.iter_rows(named=True):
        value = float(log_odds(prompt))
        rows.append(decision_row(agent, prompt, value, 1 / (1 + np.exp(-value))))
    return from_rows("decisions", rows)


def follow(
    agent: str, prompts: pl.DataFrame, defects: Callable[[dict[str, object]], float]
) -> pl.DataFrame:
    """A scripted policy: exact probabilities of defecting, no log-odds."""
    return from_rows(
        "decisions",
        [decision_row(agent, p, None, defects(p)) for p in prompts.iter_rows(named=True)],
    )


def base_log_odds(prompt: Mapping[str, object]) -> float:
    """A base with leanings of its own on every prompt, the same each time."""
    seed = [int(x) for x in str(prompt["prompt"]).encode()]
    return float(np.random.default_rng(seed).normal(0.3, 0.8))


def label_of_defect(prompt: Mapping[str, object]) -> int:
    return 1 if prompt["labels"] == SAME else -1


def row_of_defect(prompt: Mapping[str, object]) -> int:
    """+1 where defecting is the second row, and an arbitrary place where there is no table."""
    places = {"original": 1, "columns": 1, "rows": -1, "both": -1}
    table = str(prompt["table_order"])
    return places[table] if table in places else 1 if str(prompt["template"]) > "k" else -1


def mention_of_defect(prompt: Mapping[str, object]) -> int:
    """+1 where defecting is mentioned first, -1 where cooperating is."""
    first = -1 if str(prompt["template"]).startswith("duel") else 1
    exchanged = str(prompt["table_order"]) in ("rows", "both")
    mirrored = str(prompt["template"]).endswith("-mirrored")
    return -first if exchanged or mirrored else first


def agents_frame(*names: str) -> pl.DataFrame:
    rows = [{"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"}]
    rows += [{"agent": n, "base": "tiny", "kind": "adapter", "dtype": "float32"} for n in names]
    return from_rows("agents", rows)


@dataclass(frozen=True)
class Learner:
    """What is planted: nats towards defecting for move, label, row and being mentioned first.

    ``by_state`` multiplies all of them in a state, so that it may depend on what was played.
    """

    move: float = 0.0
    label: float = 0.0
    row: float = 0.0
    noise: float = 0.02
    seed: int = 0
    by_template: Mapping[str, float] = field(default_factory=dict[str, float])
    mention: float = 0.0
    by_state: Mapping[str, float] = field(default_factory=dict[str, float])

    def change(self, prompt: Mapping[str, object], rng: np.random.Generator) -> float:
        planted = (
            self.move * self.by_template.get(str(prompt["template"]), 1.0)
            + self.label * label_of_defect(prompt)
            + self.row * row_of_defect(prompt)
            + self.mention * mention_of_defect(prompt)
        )
        state = f"{prompt['own_previous']}{prompt['opponent_previous']}"
        return planted * self.by_state.get(state, 1.0) + float(rng.normal(0, self.noise))

    def decisions(self, prompts: pl.DataFrame, name: str = "agent") -> pl.DataFrame:
        rng = np.random.default_rng(self.seed)
        base = decide("base", prompts, base_log_odds)
        agent = decide(name, prompts, lambda p: base_log_odds(p) + self.change(p, rng))
        return pl.concat([base, agent])


@dataclass(frozen=True)
class World:
    """Everything above, handed to tests as one value."""

    prompts = staticmethod(memory_one_prompts)
    prompt_row = staticmethod(prompt_row)
    decision_row = staticmethod(decision_row)
    decide = staticmethod(decide)
    follow = staticmethod(follow)
    agents = staticmethod(agents_frame)
    base_log_odds = staticmethod(base_log_odds)
    learner = Learner
    states = STATES
    same = SAME
    swapped = SWAPPED
    fixed = TrainedOn(("structured",), ("matrix",), (SAME,))
    both = TrainedOn(("structured",), ("matrix",), (SAME, SWAPPED))


@pytest.fixture(scope="session")
def world() -> World:
    return World()
