"""Do the figures of attention show the numbers of its tables, and say what they leave out?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
from scipy import special, stats

from moralscope.core.hashing import sha256_text
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_attention import (
    FLOOR,
    attention_change,
    attention_mass,
    attention_uses,
)
from moralscope.reports.figure_attention_heads import attention_heads
from moralscope.reports.figure_attention_tokens import attention_tokens
from moralscope.reports.figures import FIGURES, makers_of
from moralscope.reports.figures_attention import ATTENTION
from moralscope.reports.look import agent_colours, styled
from moralscope.reports.run import Run, run_of

AGENTS = ("base", "game-0", "game-1", "hybrid-0")
CATEGORIES = ("first", "payoffs", "goal", "rest")
COLOURS = agent_colours(AGENTS, frozenset({"base"}), {})
PLACES = [(layer, head) for layer in range(2) for head in range(3)]
TEXT = ("<s>", "</script>", " pick", " A", "\n", "\u202e", " points", " 3", "", " go")


def prompts() -> list[dict[str, object]]:
    return [
        {"prompt": f"s{s}.{w}", "game": "IPD", "scenario": f"s{s}", "family": "clusters",
         "template": f"w{w}", "labels": "a/b", "option_order": 0, "answer_order": 0,
         "table_order": "none", "stem": "", "system": "", "chat_template": True,
         "own_previous": None, "opponent_previous": None, "text": f"{s} {w}",
         "sha256": sha256_text(f"{s} {w}"), "positive": "b", "negative": "a"}
        for s in range(6) for w in range(2)
    ]  # fmt: skip


def attention(rng: np.random.Generator) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for agent in AGENTS:
        for prompt in prompts():
            for layer, head in PLACES:
                shift = 1.0 if (agent[:4], layer, head) == ("game", 1, 2) else 0.0
                logits = rng.normal(0.0, 0.2, 4) + np.array([2.0, shift, 0.0, 0.0])
                rows += [
                    {"agent": agent, "prompt": prompt["prompt"], "layer": layer, "head": head,
                     "category": category, "mass": float(mass), "tokens": 3}
                    for category, mass in zip(CATEGORIES, special.softmax(logits), strict=True)
                ]  # fmt: skip
    return rows


def tokens(rng: np.random.Generator) -> list[dict[str, object]]:
    """Of game-0 head L1.h2 moves most, and there prompt s2.1."""
    rows: list[dict[str, object]] = []
    for agent in AGENTS:
        for prompt in ("s0.0", "s2.1"):
            for layer, head in ((0, 1), (1, 2)):
                base = rng.dirichlet(np.full(len(TEXT), 50.0))
                far = (agent, layer, prompt) == ("game-0", 1, "s2.1")
                own = rng.dirichlet(np.full(len(TEXT), 0.2)) if far else base[::-1]
                rows += [
                    {"agent": agent, "prompt": prompt, "layer": layer, "head": head,
                     "position": at, "token": text, "category": "rest", "weight": float(own[at]),
                     "base_weight": None if agent == "base" else float(base[at])}
                    for at, text in enumerate(TEXT)
                ]  # fmt: skip
    return rows


def edits(rng: np.random.Generator) -> list[dict[str, object]]:
    return [
        {"agent": agent, "prompt": prompt["prompt"], "category": category, "how": how,
         "factor": factor, "layers": "all", "draw": draw, "tokens": 3, "baseline_log_odds": 0.5,
         "edited_log_odds": 0.5 + effect, "effect": effect}
        for agent in AGENTS for prompt in prompts() for category in ("payoffs", "goal")
        for how, factor, draw in (("mask", 0.0, -1), ("mask", 0.0, 0), ("mask", 0.0, 1),
                                  ("amplify", 4.0, -1))
        for effect in [float(rng.normal(0.0, 2.0 if (category, draw) == ("payoffs", -1) else 0.3))]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    rng = stream(3, "attention figures")
    agents = [{"agent": "base", "base": "tiny", "kind": "base", "dtype": "float32"}] + [
        {"agent": name, "base": "tiny", "kind": "adapter", "reward": name[:-2],
         "training_seed": int(name[-1]), "dtype": "float32"}
        for name in AGENTS[1:]
    ]  # fmt: skip
    rows: dict[str, list[dict[str, object]]] = {
        "agents": agents,
        "prompts": prompts(),
        "attention": attention(rng),
        "attention_tokens": tokens(rng),
        "attention_edits": edits(rng),
    }
    return run_of({name: from_rows(name, table) for name, table in rows.items()})


def replaced(run: Run, **tables: pl.DataFrame | None) -> Run:
    found = {**run.tables, **tables}
    return run_of({name: table for name, table in found.items() if table is not None})


def figure(make: Callable[[Run, dict[str, str]], Figure | Absent], run: Run) -> Figure:
    made = make(run, COLOURS)
    assert isinstance(made, Figure), made
    return made


def data_of(chart: alt.TopLevelMixin) -> list[dict[str, Any]]:
    """Every row of every dataset of a chart."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def by_scenario(run: Run, agent: str, category: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    rows = run.tables["attention"].filter(agent=agent, category=category)
    for prompt, mass in rows.select("prompt", "mass").iter_rows():
        found.setdefault(prompt.split(".")[0], []).append(mass)
    return found


def test_masses_are_means_over_scenarios_with_students_interval(run: Run) -> None:
    drawn = figure(attention_mass, run)
    dots = {(r["agent"], r["panel"]): r for r in data_of(drawn.chart) if "panel" in r}
    assert {panel for _, panel in dots} == {"first", "payoffs", "goal"}
    own = [float(np.mean(masses)) for masses in by_scenario(run, "hybrid-0", "payoffs").values()]
    dot = dots["hybrid-0", "payoffs"]
    assert dot["value"] == pytest.approx(np.mean(own), abs=1e-12)
    low, high = stats.t.interval(0.95, 5, np.mean(own), stats.sem(own))
    assert (dot["low"], dot["high"]) == pytest.approx((low, high), abs=1e-12)
    # Two seeds of one reward are one dot, with an interval over seeds.
    seeds = [
        np.mean([np.mean(m) for m in by_scenario(run, name, "payoffs").values()])
        for name in ("game-0", "game-1")
    ]
    assert dots["game (2 seeds)", "payoffs"]["value"] == pytest.approx(np.mean(seeds), abs=1e-12)
    assert "95%, over 6 scenarios and over 2 training seeds" in drawn.shows.replace(",", "", 0)
    assert "mean over 6 heads" in drawn.shows


def test_changes_stand_beside_the_distance_of_two_seeds(run: Run) -> None:
    drawn = figure(attention_change, run)
    rows = [r for r in data_of(drawn.chart) if r.get("panel") == "payoffs"]
    logits = {
        name: np.mean(
            [np.mean(special.logit(m)) for m in by_scenario(run, name, "payoffs").values()]
        )
        for name in AGENTS
    }
    change = next(r for r in rows if r["agent"] == "hybrid-0" and r["row"] != FLOOR)
    assert change["value"] == pytest.approx(logits["hybrid-0"] - logits["base"], abs=1e-10)
    floor = next(r for r in rows if r["row"] == FLOOR)
    apart = abs(logits["game-0"] - logits["game-1"])
    assert floor["agent"] == "game (2 seeds)"
    assert (floor["low"], floor["high"]) == pytest.approx((-apart, apart), abs=1e-10)
    assert floor["value"] is None
    assert "root mean square over 1 pair;" in drawn.shows
    dots = [r for r in data_of(drawn.chart) if r.get("row") not in (None, FLOOR)]
    top = max(dots, key=lambda r: abs(r["value"]))
    assert f"Largest: {top['agent']} at {top['panel']}, " in drawn.shows


def test_without_seeds_there_is_no_floor(run: Run) -> None:
    one = {
        name: run.tables[name].filter(pl.col("agent") != "game-1")
        for name in ("agents", "attention")
    }
    drawn = figure(attention_change, replaced(run, **one))
    assert "there is no floor of what chance does" in drawn.shows
    assert not [r for r in data_of(drawn.chart) if r.get("row") == FLOOR]


def test_heads_are_mapped_layer_by_layer(run: Run) -> None:
    drawn = figure(attention_heads, run)
    cells = {
        (r["agent"], r["category"], r["layer"], r["head"]): r["value"] for r in data_of(drawn.chart)
    }
    assert len(cells) == 2 * 3 * 6
    assert {agent for agent, *_ in cells} == {"game-0", "hybrid-0"}
    best = max(cells, key=lambda place: abs(cells[place]))
    assert best == ("game-0", "payoffs", 1, 2)
    assert "game-0 L1.h2 on payoffs (+" in drawn.shows
    assert "Not drawn, but in the table: game-1." in drawn.shows
    table = run.tables["attention"].filter(layer=0, head=1, category="goal")
    own, base = (
        np.mean([special.logit(m) for m in table.filter(agent=name).get_column("mass")])
        for name in ("hybrid-0", "base")
    )
    assert cells["hybrid-0", "goal", 0, 1] == pytest.approx(own - base, abs=1e-10)


def test_the_prompt_is_written_token_by_token_and_hostile_text_is_data(run: Run) -> None:
    drawn = figure(attention_tokens, run)
    assert "game-0 L1.h2 on s2.1 (" in drawn.shows
    rows = [r for r in data_of(drawn.chart) if "text" in r]
    # Two agents are drawn (of the seeds of one reward the first), each beside its base.
    assert len(rows) == 2 * 2 * len(TEXT)
    own = run.tables["attention_tokens"].filter(agent="game-0", layer=1, prompt="s2.1")
    weights = own.get_column("weight").to_list()
    shown = [r for r in rows if r["text"] == " points"]
    assert any(r["weight"] == pytest.approx(weights[6]) for r in shown)
    texts = {r["text"] for r in rows}
    assert {"</script>", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\N{MIDDLE DOT}"} <= texts
    assert "\u202e" not in texts
    # What follows the end of a line stands on the next one, from its beginning.
    after = next(r for r in rows if r["token"] == 5)
    assert (after["line"], after["start"]) == (1, 0)
    assert all(r["weight"] == 0.0 for r in rows if r["token"] == 0)
    assert "</script>" in json.dumps(styled(drawn.chart))


def test_long_prompts_are_wrapped_and_cut_at_their_beginning(run: Run) -> None:
    n = 700
    rows = [
        {"agent": "game-0", "prompt": "p", "layer": 0, "head": 0, "position": at,
         "token": " word" if at else "x" * 300, "category": "rest", "weight": 1.0 / n,
         "base_weight": 2.0 * at / n**2}
        for at in range(n)
    ]  # fmt: skip
    drawn = figure(
        attention_tokens, replaced(run, attention_tokens=from_rows("attention_tokens", rows))
    )
    spec = json.dumps(drawn.chart.to_dict())
    assert "without its first 100 tokens" in spec
    pieces = [r for r in data_of(drawn.chart) if "text" in r]
    assert len(pieces) == 2 * 600
    assert max(r["end"] for r in pieces) <= 130
    few = replaced(run, attention_tokens=from_rows("attention_tokens", rows[:3]))
    pieces = [r for r in data_of(figure(attention_tokens, few).chart) if r.get("token") == 0]
    assert [len(r["text"]) for r in pieces] == [130, 130, 40] * 2


def test_masks_stand_beside_random_tokens(run: Run) -> None:
    drawn = figure(attention_uses, run)
    rows = {(r["agent"], r["panel"], r["row"]): r for r in data_of(drawn.chart) if "panel" in r}
    table = run.tables["attention_edits"].filter(agent="hybrid-0", category="payoffs", how="mask")
    for label, kept in (("its own tokens masked", -1), ("random tokens masked", 0)):
        part = table.filter(pl.col("draw") == -1 if kept < 0 else pl.col("draw") >= 0)
        sizes: dict[str, list[float]] = {}
        for prompt, effect in part.select("prompt", "effect").iter_rows():
            sizes.setdefault(prompt.split(".")[0], []).append(abs(effect))
        means = [float(np.mean(values)) for values in sizes.values()]
        dot = rows["hybrid-0", "payoffs", label]
        assert dot["value"] == pytest.approx(np.mean(means), abs=1e-12)
        assert dot["n"] == 6
    assert "its own tokens amplified" in {row for _, _, row in rows}
    assert "or amplified 4 times" in drawn.shows
    assert "hybrid-0 payoffs (+" in drawn.shows
    bare = run.tables["attention_edits"].filter(pl.col("draw") < 0, pl.col("how") == "mask")
    told = figure(attention_uses, replaced(run, attention_edits=bare)).shows
    assert "Nothing was drawn at random to compare with." in told
    assert "amplified" not in told


@pytest.mark.parametrize("entry", ATTENTION, ids=lambda entry: entry[2].__name__)
def test_each_is_drawn_where_asked_for_and_absent_with_its_reason(run: Run, entry: Any) -> None:
    _, asked, make = entry
    present = figure(make, run)
    assert present.topic == "attention"
    assert len(present.shows) > 80
    assert len(present.does_not_show) > 60
    table = present.tables[0]
    assert asked(run)
    assert not asked(replaced(run, **{table: None}))
    for left, reason in ((None, "is not in this run"), (run.tables[table].clear(), "has no rows")):
        absent = make(replaced(run, **{table: left}), COLOURS)
        assert isinstance(absent, Absent)
        assert reason in absent.reason
        assert (absent.name, absent.title) == (present.name, present.title)


def test_runs_without_attention_do_not_mention_it(run: Run) -> None:
    makers = {make for _, _, make in ATTENTION}
    assert makers <= set(makers_of(run))
    bare = replaced(run, attention=None, attention_tokens=None, attention_edits=None)
    assert makers_of(bare) == FIGURES


def test_an_agent_without_its_base_has_no_change(run: Run) -> None:
    own = replaced(run, attention=run.tables["attention"].filter(agent="game-0"))
    for make in (attention_change, attention_heads):
        absent = make(own, COLOURS)
        assert isinstance(absent, Absent)
        assert absent.reason == "The table attention holds no agent together with its base."
