"""Where agents look and what they use, planted: found where it is, and nowhere without it."""

from __future__ import annotations

import attention_planted
import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import special, stats

from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.evidence.claims import setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.attention import attention_findings
from moralscope.evidence.findings.attention_uses import attention_use_findings
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.judged import claim_rows
from moralscope.evidence.statistics.shares import share_log_odds

SHIFT = {("game", 1, 2, "payoffs"): 1.5}
USE = {(agent, "payoffs"): 1.0 for agent in attention_planted.AGENTS} | {("game", "goal"): 0.8}


def claims(tables: synthetic.Tables, draws: int = 1999) -> dict[str, dict[str, object]]:
    setting = setting_of(tables, draws=draws)
    found = [*attention_findings(setting), *attention_use_findings(setting)]
    return {str(row["id"]): row for row in claim_rows(setting, found)}


def supported(found: dict[str, dict[str, object]]) -> set[str]:
    return {name for name, claim in found.items() if claim["verdict"] == "supported"}


@pytest.fixture(scope="module")
def planted() -> synthetic.Tables:
    return attention_planted.tables(SHIFT, USE)


@pytest.fixture(scope="module")
def found(planted: synthetic.Tables) -> dict[str, dict[str, object]]:
    return claims(planted)


def test_a_planted_shift_is_found_at_its_head_and_category(
    found: dict[str, dict[str, object]],
) -> None:
    assert {name for name in supported(found) if name.startswith("attention")} >= {
        "attention:game:base", "attention:game:utilitarian", "attention:game:base:payoffs",
        "attention:game:utilitarian:payoffs",
    }  # fmt: skip
    for name in ("attention:game:base", "attention:game:utilitarian"):
        claim = found[name]
        assert "at L1.h2 on payoffs" in str(claim["statement"])
        assert 1.0 < float(str(claim["estimate"])) < 1.6
        assert claim["n_tests"] == 6 * 4
    words = str(found["attention:game:base:payoffs"]["statement"])
    assert words.startswith("game looks more at payoffs than base: ")
    # One of six heads moved: the mean over heads is a sixth of it.
    assert 0.15 < float(str(found["attention:game:base:payoffs"]["estimate"])) < 0.27


def test_agents_that_look_alike_are_equivalent(found: dict[str, dict[str, object]]) -> None:
    for category in ("first", "payoffs", "labels", "goal"):
        claim = found[f"attention:utilitarian:base:{category}"]
        assert claim["verdict"] == "equivalent"
        assert "margin of 0.0953 nats" in str(claim["reason"])
    heads = found["attention:utilitarian:base"]
    assert heads["verdict"] == "not distinguishable from noise"


def test_without_the_plant_nothing_is_claimed() -> None:
    assert supported(claims(attention_planted.tables(seed=7))) == set()


def test_the_same_agent_twice_differs_by_nothing_at_all() -> None:
    tables = attention_planted.tables(SHIFT, USE)
    for name in ("attention", "attention_edits", "decisions"):
        rows = tables[name].filter(pl.col("agent") == "game")
        others = tables[name].filter(pl.col("agent") != "utilitarian")
        tables[name] = pl.concat([others, rows.with_columns(agent=pl.lit("utilitarian"))])
    found = claims(tables)
    same = {n: c for n, c in found.items() if n.split(":")[1:3] == ["game", "utilitarian"]}
    assert len(same) == 1 + 4 + 3
    assert {claim["estimate"] for claim in same.values()} == {0.0}
    assert {n: c["verdict"] for n, c in same.items()} == {
        name: "not distinguishable from noise"
        if name == "attention:game:utilitarian"
        else "equivalent"
        for name in same
    }


def test_what_is_used_is_found_whichever_way_it_pushes(
    found: dict[str, dict[str, object]],
) -> None:
    """The planted effects have random signs, so their mean is near zero and their size is not."""
    uses = {name for name in supported(found) if name.startswith("uses")}
    assert uses == {
        "uses:base:payoffs", "uses:game:payoffs", "uses:utilitarian:payoffs", "uses:game:goal",
        "uses:game:base:goal", "uses:game:utilitarian:goal",
    }  # fmt: skip
    words = str(found["uses:game:payoffs"]["statement"])
    assert words.startswith(
        "game uses what it sees of payoffs: masking it moves the decision further than masking "
        "random tokens, by +0."
    )
    assert "mean effect" in words
    assert found["uses:game:payoffs"]["n_tests"] == 9
    assert found["uses:game:base:goal"]["n_tests"] == 6


def test_estimates_are_means_over_scenarios_computed_otherwise(
    planted: synthetic.Tables, found: dict[str, dict[str, object]]
) -> None:
    scenario = dict(planted["prompts"].select("prompt", "scenario").iter_rows())
    masses = {
        (r["agent"], r["prompt"], r["layer"], r["head"]): r["mass"]
        for r in planted["attention"].filter(pl.col("category") == "payoffs").iter_rows(named=True)
    }
    by_scenario: dict[str, list[float]] = {}
    for (agent, prompt, layer, head), mass in masses.items():
        if agent == "game":
            other = masses["base", prompt, layer, head]
            value = special.logit(mass) - special.logit(other)
            by_scenario.setdefault(scenario[prompt], []).append(float(value))
    means = [float(np.mean(values)) for values in by_scenario.values()]
    claim = found["attention:game:base:payoffs"]
    assert claim["estimate"] == pytest.approx(np.mean(means), abs=1e-10)
    # Bootstrap-t from 20 units on: never narrower than Student's interval.
    low, high = stats.t.interval(0.95, len(means) - 1, np.mean(means), stats.sem(means))
    assert float(str(claim["low"])) <= low + 1e-12
    assert float(str(claim["high"])) >= high - 1e-12


def test_the_excess_is_that_of_sizes(
    planted: synthetic.Tables, found: dict[str, dict[str, object]]
) -> None:
    scenario = dict(planted["prompts"].select("prompt", "scenario").iter_rows())
    rows = planted["attention_edits"].filter(
        (pl.col("agent") == "game") & (pl.col("category") == "goal") & (pl.col("how") == "mask")
    )
    by_scenario: dict[str, list[float]] = {}
    for prompt in rows.get_column("prompt").unique():
        own = rows.filter(pl.col("prompt") == prompt)
        effects = dict(own.select("draw", "effect").iter_rows())
        excess = abs(effects.pop(-1)) - np.mean([abs(e) for e in effects.values()])
        by_scenario.setdefault(scenario[prompt], []).append(float(excess))
    expected = np.mean([np.mean(values) for values in by_scenario.values()])
    assert found["uses:game:goal"]["estimate"] == pytest.approx(expected, abs=1e-12)


def test_every_claim_can_be_walked_down_to_its_rows(planted: synthetic.Tables) -> None:
    setting = setting_of(planted, draws=199)
    findings = [*attention_findings(setting), *attention_use_findings(setting)]
    made = from_rows("claims", claim_rows(setting, findings))
    assert len(findings) == 3 * (1 + 4) + 3 * 3 + 3 * 3
    gates = judge_gates(planted)
    for name in made.get_column("id"):
        assert explain_claim(planted, made, gates, name).agrees
    walked = explain_claim(planted, made, gates, "uses:game:base:goal")
    assert (walked.units.height, walked.n_rows) == (20, 80)
    walked = explain_claim(planted, made, gates, "attention:game:base")
    assert walked.rows.collect().get_column("head").unique().to_list() == [2]


def test_a_named_comparison_is_the_only_one_that_is_tested(planted: synthetic.Tables) -> None:
    row = {"comparison": "a", "kind": "named", "agent_a": "utilitarian", "agent_b": "game"}
    rows = [row | {"tested": True}, row | {"agent_b": "base", "tested": False}]
    only = claims({**planted, "comparisons": from_rows("comparisons", rows)}, 199)
    names = [name for name in only if name.startswith("attention")]
    assert names[-1] == "attention:utilitarian:game"
    assert len(names) == 5
    assert all(name.startswith("attention:utilitarian:game") for name in names)


def test_a_category_that_some_prompts_lack_is_not_compared(planted: synthetic.Tables) -> None:
    gone = pl.col("prompt").str.starts_with("s0") & (pl.col("category") == "goal")
    found = claims({name: rows.filter(~gone) if name.startswith("attention") else rows
                    for name, rows in planted.items()}, 199)  # fmt: skip
    for name in ("attention:game:base:goal", "uses:game:goal"):
        assert found[name]["verdict"] == "not identified by this design"
        assert "only 76 of 80 prompts name it" in str(found[name]["reason"])
    assert "uses:game:base:goal" not in found
    assert found["attention:game:base"]["n_tests"] == 6 * 3


def test_masks_without_random_tokens_say_nothing(planted: synthetic.Tables) -> None:
    bare = planted["attention_edits"].filter(pl.col("draw") < 0)
    found = claims({**planted, "attention_edits": bare}, 199)
    claim = found["uses:game:payoffs"]
    assert claim["verdict"] == "not identified by this design"
    assert "on 80 of 80 prompts there is no control" in str(claim["reason"])


def test_a_category_that_never_fires_is_an_artefact(planted: synthetic.Tables) -> None:
    silent = planted["attention"].with_columns(
        mass=pl.when(pl.col("category") == "labels").then(0.0).otherwise("mass")
    )
    found = claims({**planted, "attention": silent}, 199)
    claim = found["attention:game:base:payoffs"]
    assert claim["verdict"] == "artefact"
    assert "No head ever attends to labels" in str(claim["reason"])


def test_heads_that_are_copies_are_not_named(planted: synthetic.Tables) -> None:
    one = planted["attention"].filter((pl.col("layer") == 1) & (pl.col("head") == 2))
    copied = pl.concat(
        one.with_columns(head=pl.lit(h, pl.Int64), layer=pl.lit(layer, pl.Int64))
        for layer in range(2)
        for h in range(3)
    )
    found = claims({**planted, "attention": copied}, 199)
    assert found["attention:game:base"]["verdict"] == "artefact"
    assert found["attention:game:base:payoffs"]["verdict"] == "artefact"


def test_agents_that_were_measured_on_different_prompts_are_refused(
    planted: synthetic.Tables,
) -> None:
    fewer = planted["attention"].filter(
        (pl.col("agent") != "game") | ~pl.col("prompt").str.starts_with("s0")
    )
    with pytest.raises(TableError, match="was not measured alike.*rows of one alone") as error:
        list(attention_findings(setting_of({**planted, "attention": fewer}, draws=99)))
    assert "measure both on the same prompts" in str(error.value)
    judged = {**planted, "gates": judge_gates(planted)}
    gaps = planted["attention"].filter((pl.col("head") != 1) | (pl.col("prompt") != "s0w01"))
    with pytest.raises(TableError, match="has gaps. Seen: 1912 masses of 80 prompts, 6 heads and"):
        list(attention_findings(setting_of({**judged, "attention": gaps}, draws=99)))
    masks = planted["attention_edits"].filter(
        (pl.col("agent") != "game") | ~pl.col("prompt").str.starts_with("s0")
    )
    with pytest.raises(TableError, match="was not masked on the same scenarios"):
        list(attention_use_findings(setting_of({**planted, "attention_edits": masks}, draws=99)))


def test_log_odds_of_shares_have_no_end() -> None:
    shares = np.array([0.0, 5e-5, 1e-4, 0.2, 0.5, 1.0])
    expected = special.logit(np.array([1e-4, 1e-4, 1e-4, 0.2, 0.5, 1.0 - 1e-4]))
    assert share_log_odds(shares) == pytest.approx(expected, abs=1e-12)
