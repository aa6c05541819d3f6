"""What is claimed of representations: rewards that were planted apart, equal agents, subspaces."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import synthetic
from representations_planted import judged, searched, study, twins
from scipy import stats

from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.evidence.claims import judge_findings, make_claims, setting_of
from moralscope.evidence.explaining import explain_claim
from moralscope.evidence.findings.representations import representation_findings
from moralscope.evidence.findings.subspaces import subspace_findings
from moralscope.evidence.gates.judging import judge_gates

Row = dict[str, object]

FIVE = {"game": 5, "moral": 5}
SEVEN = {"game": 7, "moral": 7}

SUPPORTED, EQUIVALENT = "supported", "equivalent"
NOISE, NOT_IDENTIFIED = "not distinguishable from noise", "not identified by this design"
ARTEFACT = "artefact"


def claims(tables: synthetic.Tables) -> dict[str, Row]:
    """All claims of representations, each walked back to its rows."""
    setting = setting_of(tables, draws=999)
    made = judge_findings(setting, list(representation_findings(setting)))
    gates = judge_gates(tables)
    for claim in made.get_column("id").to_list():
        explained = explain_claim(setting.tables, made, gates, claim)
        assert explained.agrees, claim
        if explained.claim["estimate"] is not None:
            assert explained.n_rows > 0, claim
    return {str(row["id"]): row for row in made.iter_rows(named=True)}


def test_rewards_that_lie_apart_are_found_over_seeds_and_pairs() -> None:
    found = claims(judged(study(SEVEN, apart=3.0), SEVEN))
    assert set(found) == {
        "representation:game-0:moral-0", "representations:game:moral",
        "representations:game:moral:change",
    }  # fmt: skip
    assert {row["verdict"] for row in found.values()} == {SUPPORTED}
    # 42 pairs of seeds, so that a pair by itself can be the furthest by chance in one of 43.
    pair = found["representation:game-0:moral-0"]
    assert pair["p"] == pytest.approx(1.0 / 43.0)
    assert "42 pairs of seeds of one reward" in str(pair["statement"])
    assert "cosine of their changes from base" in str(pair["statement"])


def test_without_the_plant_nothing_is_claimed() -> None:
    for seed in range(2):
        found = claims(judged(study(SEVEN, apart=0.0, seed=seed), SEVEN))
        assert {row["verdict"] for row in found.values()} == {NOISE}, seed


def test_few_seeds_identify_no_pair_and_one_no_reward() -> None:
    few = claims(judged(study(FIVE, apart=3.0), FIVE))
    pair = few["representation:game-0:moral-0"]
    assert pair["p_floor"] == pytest.approx(1.0 / 21.0)
    assert few["representations:game:moral"]["verdict"] == SUPPORTED
    one = {"game": 1, "moral": 1}
    alone = claims(judged(study(one, apart=3.0), one))
    assert set(alone) == {"representation:game-0:moral-0"}
    assert alone["representation:game-0:moral-0"]["verdict"] == NOT_IDENTIFIED
    assert "train each reward from several seeds" in str(
        alone["representation:game-0:moral-0"]["reason"]
    )
    two = {"game": 2, "moral": 2}
    both = claims(judged(study(two, apart=3.0), two))
    assert both["representations:game:moral"]["verdict"] == NOT_IDENTIFIED
    assert "seeds of each reward would" in str(both["representations:game:moral"]["reason"])


def test_equal_agents_are_equivalent() -> None:
    tables = twins(judged(study(FIVE, apart=3.0), FIVE), "game-0", "moral-0")
    row = claims(tables)["representation:game-0:moral-0"]
    assert row["estimate"] == 0.0
    assert row["verdict"] == EQUIVALENT


def test_a_dead_agent_is_an_artefact() -> None:
    tables = synthetic.kill(judged(study(FIVE, apart=3.0), FIVE), "game-0")
    assert claims(tables)["representation:game-0:moral-0"]["verdict"] == ARTEFACT


def test_the_p_of_rewards_is_that_of_every_relabelling_by_hand() -> None:
    seeds = {"game": 4, "moral": 4}
    tables = judged(study(seeds, apart=0.4, seed=8), seeds)
    row = claims(tables)["representations:game:moral"]
    table = tables["representation_pairs"]
    means = {
        frozenset((a, b)): float(np.mean(own.filter(own["layer"] >= 0)["distance"].to_numpy()))
        for (a, b), own in table.group_by("agent_a", "agent_b")
    }
    names = [f"{r}-{k}" for r, n in seeds.items() for k in range(n)]

    def difference(first: tuple[str, ...]) -> float:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for a, b in itertools.combinations(names, 2):
            if a[-1] != b[-1]:
                sides[(a in first) != (b in first)].append(means[frozenset((a, b))])
        return float(np.mean(sides[True]) - np.mean(sides[False]))

    observed = difference(tuple(names[:4]))
    drawn = []
    for first in itertools.combinations(names, 4):
        try:
            drawn.append(difference(first))
        except ZeroDivisionError:
            drawn.append(np.inf)
    p = float(np.mean([d >= observed - 1e-9 for d in drawn]))
    assert row["estimate"] == pytest.approx(observed, abs=1e-10)
    if row["p"] is not None:
        assert row["p"] == pytest.approx(p, abs=1e-12)


def test_the_p_of_a_pair_is_the_largest_sign_flip() -> None:
    tables = judged(study(SEVEN, apart=0.9, scenarios=7, seed=2), SEVEN)
    row = claims(tables)["representation:game-0:moral-0"]
    table = tables["representation_pairs"]
    scenarios = tables["prompts"].select("prompt", "scenario")
    values = {
        (a, b): own.filter(own["layer"] >= 0)
        .join(scenarios, on="prompt")
        .sort("scenario")
        .group_by("scenario", maintain_order=True)
        .agg(pl.col("distance").mean())["distance"]
        .to_numpy()
        for (a, b), own in table.group_by("agent_a", "agent_b")
    }
    mine = values["game-0", "moral-0"]
    largest = 1.0 / 43.0
    for (a, b), theirs in values.items():
        if a != "base" and str(a)[:4] == str(b)[:4]:
            d = mine - theirs
            result = stats.permutation_test(
                (d,), np.mean, permutation_type="samples", n_resamples=np.inf
            )
            largest = max(largest, float(result.pvalue) if d.mean() > 0 else 1.0)
    assert row["p"] == pytest.approx(largest, abs=1e-12)
    assert row["estimate"] == pytest.approx(mine.mean(), abs=1e-12)


def test_other_scenarios_are_refused() -> None:
    tables = judged(study(FIVE, apart=1.0), FIVE)
    table = tables["representation_pairs"]
    gone = (table["agent_a"] == "game-0") & (table["prompt"] == table["prompt"][0])
    broken = {**tables, "representation_pairs": table.filter(~gone)}
    with pytest.raises(TableError, match=r"were not compared on the prompts of other.*39 of 40"):
        claims(broken)


def test_a_subspace_that_reaches_a_share_is_found_at_its_layer() -> None:
    row = claims(searched(study(FIVE, apart=1.0), reached=0.7))["subspace:opponent_previous:game-0"]
    assert row["verdict"] == SUPPORTED
    assert "after layer 1, 2 directions reach 69% of what" in str(row["statement"])
    assert 0.5 < float(str(row["estimate"])) < 0.8
    assert row["n_units"] == 20


def test_a_subspace_without_a_plant_is_noise() -> None:
    for seed in range(2):
        tables = searched(study(FIVE, apart=1.0), reached=0.0, seed=seed)
        row = claims(tables)["subspace:opponent_previous:game-0"]
        assert row["verdict"] == NOISE, seed


def test_what_searches_reach_by_luck_is_no_subspace() -> None:
    """Every search reaches some share on new scenarios, true sides or arbitrary ones."""
    base, found = study(FIVE, apart=1.0), 0
    for seed in range(40):
        tables = searched(base, reached=0.0, seed=1000 + seed, luck=0.15)
        rows = list(subspace_findings(setting_of(tables, draws=199)))
        found += sum(f.p_adjusted is not None and f.p_adjusted <= 0.05 for f in rows)
    assert found <= 6  # binomial(40, .05): more than 6 in 0.3% of the cases


def test_a_find_lies_beyond_the_luck_of_searches() -> None:
    tables = searched(study(FIVE, apart=1.0), reached=0.9, searches=8, luck=0.1)
    row = claims(tables)["subspace:opponent_previous:game-0"]
    assert row["verdict"] == SUPPORTED
    share = shares(tables["subspace_effects"])
    m, s = np.mean(share["arbitrary"]), np.std(share["arbitrary"], ddof=1)
    gap = share["none"][0] - m
    assert row["p"] == pytest.approx(
        max(stats.t.sf(gap / (s * np.sqrt(1 + 1 / 8)), 7), 1 / 1000), rel=1e-6
    )
    assert row["low"] < gap - stats.t.ppf(0.975, 7) * s * np.sqrt(1 + 1 / 8)


def test_two_searches_for_arbitrary_sides_do_not_say_how_far_luck_goes() -> None:
    tables = searched(study(FIVE, apart=1.0), reached=0.9, searches=2)
    row = claims(tables)["subspace:opponent_previous:game-0"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert "2 searches for arbitrary sides cannot say how far luck goes; set " in str(row["reason"])
    assert "mechanisms.representations.arbitrary to 3 or more" in str(row["reason"])


def test_where_the_whole_exchange_does_nothing_there_is_no_subspace() -> None:
    tables = searched(study(FIVE, apart=1.0), reached=0.7, full=1e-7)
    row = claims(tables)["subspace:opponent_previous:game-0"]
    assert row["verdict"] == NOT_IDENTIFIED
    assert row["estimate"] is None


def shares(effects: pl.DataFrame) -> dict[str, list[float]]:
    """Share by control and draw at the judged place; all scenarios have equally many prompts."""
    own = effects.filter(pl.col("layer") == 1, pl.col("dimension") == 2, split="test")
    found: dict[str, list[float]] = {}
    for control in ("none", "arbitrary", "random"):
        for draw in range(own.filter(control=control)["draw"].n_unique()):
            part = own.filter(control=control, draw=draw)
            w, e = part["wanted"].to_numpy(), part["effect"].to_numpy()
            found.setdefault(control, []).append(float((w @ e) / (w @ w)))
    return found


def test_the_estimate_of_a_subspace_is_a_difference_of_shares() -> None:
    tables = searched(study(FIVE, apart=1.0), reached=0.7)
    row = claims(tables)["subspace:opponent_previous:game-0"]
    share = {name: np.mean(of) for name, of in shares(tables["subspace_effects"]).items()}
    expected = share["none"] - max(share["arbitrary"], share["random"])
    assert row["estimate"] == pytest.approx(expected, abs=1e-10)


def test_they_are_among_all_claims_of_a_study() -> None:
    tables = searched(judged(study(FIVE, apart=3.0), FIVE), reached=0.7)
    names = set(make_claims(tables, draws=199).get_column("id"))
    assert {"representations:game:moral", "subspace:opponent_previous:game-0"} <= names
    bare = {"representation_pairs": from_rows("representation_pairs", [])}
    assert make_claims(bare).is_empty()
