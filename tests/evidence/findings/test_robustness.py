"""Labels and kinds of text as claims: planted leanings, figures by hand, designs too small."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.evidence.verdicts import EQUIVALENT, NOISE, SUPPORTED

LABELS = ("action1/action2", "action2/action1")
WORDED = ("rounds", "bullets", "market", "log", "cards", "ledger", "transposed")
KINDS = {
    "unstructured": ("cafe", "train", "message"),
    "poetic": ("eaves", "broom", "kitchen"),
    "explicit": ("name", "class", "paper"),
}


def row(family: str, template: str, labels: str, state: str, order: int) -> dict[str, Any]:
    name = f"{family}.{template}.{state}.{order}.{labels}"
    return {
        "prompt": name,
        "game": "IPD",
        "scenario": f"IPD.{state}",
        "family": family,
        "template": template,
        "labels": labels,
        "option_order": order,
        "answer_order": order,
        "table_order": "none",
        "stem": "I choose",
        "system": "",
        "chat_template": True,
        "own_previous": state[0],
        "opponent_previous": state[1],
        "text": name,
        "sha256": name,
        "positive": labels.split("/")[1],
        "negative": labels.split("/", maxsplit=1)[0],
    }


def asked(worded: tuple[str, ...] = WORDED, crossed: bool = True) -> pl.DataFrame:
    texts = [("structured", "structured"), *(("wordings", name) for name in worded)]
    texts += [("wordings", "rounds-mirrored")]
    texts += [(kind, name) for kind, names in KINDS.items() for name in names]
    rows = [
        row(family, template, labels, state, order)
        for family, template in texts
        for labels, state, order in itertools.product(LABELS, ("CC", "CD", "DC", "DD"), (0, 1))
        if crossed or family != "wordings" or order == (labels == LABELS[0])
    ]
    return from_rows("prompts", rows)


AGENTS = from_rows(
    "agents",
    [
        {"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"},
        {"agent": "mover", "base": "tiny", "kind": "adapter", "dtype": "float32"},
        {"agent": "sayer", "base": "tiny", "kind": "adapter", "dtype": "float32"},
        {"agent": "script", "base": "none", "kind": "policy", "dtype": "none"},
    ],
)
PLANTED = {"base": (0.0, 0.0, 0.0), "mover": (2.0, 0.0, 0.8), "sayer": (0.0, -1.5, 0.0)}
"""Nats towards defecting, towards the word action2, and towards what is named first."""


def decisions(prompts: pl.DataFrame, noise: float = 0.1) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    keys = [name.replace(LABELS[1], LABELS[0]) for name in prompts["prompt"]]
    lean = {key: rng.normal(3.0, 0.5) for key in dict.fromkeys(keys)}
    by_text = {name: rng.normal(0, noise) for name in prompts["template"].unique().sort()}
    rows: list[dict[str, Any]] = []
    for p in prompts.iter_rows(named=True):
        mirrored = 50.0 if p["template"].endswith("-mirrored") else 0.0
        for agent, (move, label, place) in PLANTED.items():
            word = label + (by_text[p["template"]] if agent != "base" else 0.0)
            sign = 1 if p["labels"] == LABELS[0] else -1
            # The base is even over labels, orders and states, so that planted numbers are seen.
            own = lean[p["prompt"].replace(LABELS[1], LABELS[0])]
            moved = move * (1 + (by_text[p["template"]] if agent != "base" else 0.0))
            named = (
                place
                if sorted(LABELS[0].split("/"))[p["option_order"]] == p["positive"]
                else -place
            )
            x = own + moved + named + sign * word + mirrored * sign + rng.normal(0, 0.02)
            rows.append(decided(agent, p, x))
        rows.append(decided("script", p, None))
    return from_rows("decisions", rows)


def decided(agent: str, p: dict[str, Any], x: float | None) -> dict[str, Any]:
    q = 0.5 if x is None else 1 / (1 + np.exp(-x))
    return {
        "agent": agent,
        "prompt": p["prompt"],
        "game": "IPD",
        "scenario": p["scenario"],
        "log_odds": x,
        "p_positive": q,
        "p_negative": 1 - q,
        "legal_mass": 1.0,
        "p_positive_given_legal": q,
        "fingerprint_log_odds": None if agent in ("base", "script") else x,
    }


def claims(tables: dict[str, pl.DataFrame], prefix: str) -> dict[str, dict[str, Any]]:
    made = make_claims(tables, draws=199)
    return {str(r["id"]): r for r in made.iter_rows(named=True) if str(r["id"]).startswith(prefix)}


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    prompts = asked()
    return {"agents": AGENTS, "prompts": prompts, "decisions": decisions(prompts)}


def test_a_leaning_to_a_word_is_found_and_a_move_is_none(tables: dict[str, pl.DataFrame]) -> None:
    found = claims(tables, "label:")
    assert set(found) == {"label:base", "label:mover", "label:sayer"}
    row = found["label:sayer"]
    assert row["verdict"] == SUPPORTED
    assert row["n_units"] == 8
    assert row["p_floor"] == 2 / 2**8
    assert str(row["statement"]).startswith("sayer leans to the word action1, whatever it means: -")
    assert row["estimate"] == pytest.approx(-3.0, abs=0.3)  # twice 1.5 nats a word
    assert found["label:mover"]["verdict"] in (NOISE, EQUIVALENT)
    assert str(found["label:mover"]["statement"]).startswith("The log-odds of defecting of mover")


def test_a_leaning_to_what_is_named_first_is_found_and_a_word_is_none(
    tables: dict[str, pl.DataFrame],
) -> None:
    found = claims(tables, "order:")
    assert set(found) == {"order:base", "order:mover", "order:sayer"}
    row = found["order:mover"]
    assert (row["verdict"], row["n_units"], row["p_floor"]) == (SUPPORTED, 8, 2 / 2**8)
    assert str(row["statement"]).startswith(
        "mover leans to the option that is named first, whatever it means: +"
    )
    assert row["estimate"] == pytest.approx(1.6, abs=0.5)
    assert found["order:sayer"]["verdict"] in (NOISE, EQUIVALENT)
    joined = tables["decisions"].join(tables["prompts"], on="prompt")
    values: list[float] = []
    for text in ("structured", *WORDED):
        rows = joined.filter(agent="mover", template=text)
        first = [
            r["log_odds"] if sorted(LABELS[0].split("/"))[r["option_order"]] == r["positive"]
            else -r["log_odds"]
            for r in rows.iter_rows(named=True)
        ]  # fmt: skip
        values.append(2 * float(np.mean(first)))
    assert row["estimate"] == pytest.approx(np.mean(values))


def test_label_figures_by_hand(tables: dict[str, pl.DataFrame]) -> None:
    joined = (
        tables["decisions"]
        .join(tables["prompts"], on="prompt")
        .filter(
            pl.col("agent") == "sayer",
            pl.col("family").is_in(["structured", "wordings"]),
            pl.col("template") != "rounds-mirrored",
        )
    )
    means = {
        key: float(np.mean(rows["log_odds"].to_list()))
        for key, rows in joined.group_by("template", "labels")
    }
    values = [means[t, LABELS[0]] - means[t, LABELS[1]] for t in ("structured", *WORDED)]
    half = stats.t.ppf(0.975, 7) * stats.sem(values)
    row = claims(tables, "label:")["label:sayer"]
    assert row["estimate"] == pytest.approx(np.mean(values))
    assert (row["low"], row["high"]) == pytest.approx(
        (np.mean(values) - half, np.mean(values) + half)
    )


def test_a_change_that_holds_in_other_kinds_of_text(tables: dict[str, pl.DataFrame]) -> None:
    found = claims(tables, "families:")
    assert set(found) == {"families:mover", "families:sayer"}
    row = found["families:mover"]
    assert (row["verdict"], row["n_units"]) == (SUPPORTED, 9)
    assert str(row["statement"]).startswith(
        "mover is more inclined to defect than base in other kinds of text (unstructured, poetic, "
        "explicit): +"
    )
    assert row["estimate"] == pytest.approx(2.0, abs=0.3)
    assert found["families:sayer"]["verdict"] == EQUIVALENT


def test_every_query_gives_its_estimate(tables: dict[str, pl.DataFrame]) -> None:
    context = pl.SQLContext(tables)
    found = {
        **claims(tables, "label:"), **claims(tables, "order:"), **claims(tables, "families:")
    }  # fmt: skip
    assert len(found) == 8
    for row in found.values():
        value = context.execute(row["query"], eager=True).item()
        assert value == pytest.approx(row["estimate"], abs=1e-9), row["id"]


def test_the_share_of_the_label_is_told_where_variance_was_split(
    tables: dict[str, pl.DataFrame],
) -> None:
    shares = from_rows(
        "variance",
        [
            {
                "agent": "sayer",
                "design": "crossed wordings",
                "factor": "label",
                "variance": 1.0,
                "share": 0.4,
                "total_share": 0.625,
                "levels": 2,
                "n_prompts": 128,
            }
        ],
    )
    found = claims({**tables, "variance": shares}, "label:")
    words = "The label and its interactions make up 62% of the variance"
    assert words in str(found["label:sayer"]["statement"])
    assert words not in str(found["label:mover"]["statement"])


def test_designs_that_cannot_reach_any_p_make_no_claims() -> None:
    few = asked(WORDED[:4])
    small = {"agents": AGENTS, "prompts": few, "decisions": decisions(few)}
    assert claims(small, "label:") == claims(small, "order:") == {}
    uncrossed = asked(crossed=False)
    made = {"agents": AGENTS, "prompts": uncrossed, "decisions": decisions(uncrossed)}
    assert claims(made, "label:") == claims(made, "order:") == {}
    only = few.filter(pl.col("family").is_in(["structured", "wordings", "poetic"]))
    assert claims({**small, "prompts": only, "decisions": decisions(only)}, "families:") == {}


def test_agents_with_undefined_log_odds_and_policies_are_left_out(
    tables: dict[str, pl.DataFrame],
) -> None:
    first = tables["decisions"].filter(agent="sayer")["prompt"][0]
    holed = tables["decisions"].with_columns(
        log_odds=pl.when((pl.col("agent") == "sayer") & (pl.col("prompt") == first))
        .then(None)
        .otherwise("log_odds")
    )
    found = claims({**tables, "decisions": holed}, "label:")
    assert set(found) == {"label:base", "label:mover"}
