"""Distances of every level, each against its definition computed another way."""

from __future__ import annotations

import itertools
import math

import cascade_planted
import numpy as np
import polars as pl
import pytest
import synthetic
from scipy import stats

from moralscope.core.errors import TableError
from moralscope.evidence.synthesis.distances import apart, jackknife
from moralscope.evidence.synthesis.levels import LEVELS, all_distances
from moralscope.evidence.synthesis.patching import patching
from moralscope.evidence.synthesis.wiring import fisher

SEEDS = {"deontological": 2, "utilitarian": 1}
PAIRS = [("deontological-0", "utilitarian-0"), ("base", "deontological-1")]


@pytest.fixture(scope="module")
def tables() -> synthetic.Tables:
    return cascade_planted.study(SEEDS, ("wiring",), scenarios=5)


def by_level(tables: synthetic.Tables) -> dict[tuple[str, str], object]:
    return {(one.level, one.measure): one for one in all_distances(tables, PAIRS)}


def scenario_means(frame: pl.DataFrame, prompts: pl.DataFrame, agent: str, value: str):
    """(scenario, place) means as a plain dictionary."""
    where = dict(prompts.select("prompt", "scenario").iter_rows())
    sums: dict[tuple[str, object], list[float]] = {}
    place = [c for c in ("site", "layer", "head", "category") if c in frame.columns]
    for row in frame.filter(pl.col("agent") == agent).iter_rows(named=True):
        key = (where[row["prompt"]], tuple(row[c] for c in place))
        sums.setdefault(key, []).append(row[value])
    return {key: math.fsum(values) / len(values) for key, values in sums.items()}


@pytest.mark.parametrize(
    ("level", "measure", "table", "value"),
    [
        ("behaviour", "log_odds", "decisions", "log_odds"),
        ("attribution", "contribution", "attribution", "contribution"),
        ("attention", "attention_log_odds", "attention", "logit"),
    ],
)
def test_profiles_lie_apart_by_their_root_mean_square(
    tables: synthetic.Tables, level: str, measure: str, table: str, value: str
) -> None:
    found = by_level(tables)[level, measure]
    frame = tables[table]
    if value == "logit":
        frame = frame.with_columns(logit=(pl.col("mass") / (1 - pl.col("mass"))).log())
    for one, other in PAIRS:
        x, y = (scenario_means(frame, tables["prompts"], a, value) for a in (one, other))
        squares = {key: (x[key] - y[key]) ** 2 for key in x}
        expected = math.sqrt(math.fsum(squares.values()) / len(squares))
        assert found.between(other, one).whole == pytest.approx(expected, abs=1e-12)
        left = []
        for name in dict.fromkeys(key[0] for key in x):
            rest = [value for key, value in squares.items() if key[0] != name]
            left.append(math.sqrt(math.fsum(rest) / len(rest)))
        assert sorted(found.between(one, other).without) == pytest.approx(sorted(left), abs=1e-12)
    assert (found.n, found.replicate, found.unit) == (5, "scenarios", "nats")


def test_attention_below_a_thousandth_weighs_nothing(tables: synthetic.Tables) -> None:
    base = pl.col("agent") == "base"
    tiny = tables["attention"].with_columns(mass=pl.when(base).then(1e-9).otherwise(5e-4))
    (found,) = LEVELS["attention"]({**tables, "attention": tiny}, PAIRS)
    assert found.between("base", "deontological-1").whole == 0.0


def test_wiring_is_the_distance_of_correlations(tables: synthetic.Tables) -> None:
    found = by_level(tables)["wiring", "norm_correlation"]
    one, other = PAIRS[0]
    where = dict(tables["prompts"].select("prompt", "scenario").iter_rows())

    def correlations(agent: str, without: str | None) -> np.ndarray:
        own = tables["norms"].filter(pl.col("agent") == agent)
        own = own.filter(pl.col("prompt").replace_strict(where) != (without or ""))
        columns = [own.filter(site=s).get_column("norm") for s in cascade_planted.SITES]
        pairs = itertools.combinations(columns, 2)
        return np.array([np.arctanh(stats.pearsonr(x, y).statistic) for x, y in pairs])

    def distance(without: str | None) -> float:
        difference = correlations(one, without) - correlations(other, without)
        return float(np.sqrt(np.mean(difference**2)))

    apart_by = found.between(one, other)
    assert apart_by.whole == pytest.approx(distance(None), abs=1e-10)
    names = list(dict.fromkeys(where.values()))
    assert apart_by.without == pytest.approx([distance(name) for name in names], abs=1e-10)
    assert (found.unit, found.n) == ("Fisher z", 5)


def test_heads_are_left_out_where_sub_layers_were_measured(tables: synthetic.Tables) -> None:
    head = tables["norms"].filter(site="L0.attn").with_columns(site=pl.lit("L0.h0"))
    rng = np.random.default_rng(0)
    head = head.with_columns(norm=pl.Series(rng.normal(9.0, 1.0, head.height)))
    both = {**tables, "norms": pl.concat([tables["norms"], head])}
    (with_head,) = LEVELS["wiring"](both, PAIRS)
    (without,) = LEVELS["wiring"](tables, PAIRS)
    assert with_head.between(*PAIRS[0]).whole == without.between(*PAIRS[0]).whole


def test_correlations_of_what_does_not_vary_are_undefined() -> None:
    values = np.array([[1.0, 5.0, 2.0], [2.0, 5.0, 4.5], [3.0, 5.0, 6.0]])
    z = fisher(values)
    assert np.isnan(z[[0, 2]]).all()
    assert np.tanh(z[1]) == pytest.approx(stats.pearsonr(values[:, 0], values[:, 2]).statistic)


def test_weights_lie_apart_as_their_updates_do() -> None:
    rng = np.random.default_rng(1)
    updates = {a: rng.normal(size=(2, 4, 3)) for a in ("game-0", "game-1")}
    x, y = updates.values()
    rows = [
        {"agent_a": "game-0", "agent_b": "game-1", "layer": 0, "module": f"m{k}",
         "inner": float((x[k] * y[k]).sum()), "norm_a": float(np.linalg.norm(x[k])),
         "norm_b": float(np.linalg.norm(y[k])), "cosine": 0.0, "distance": 1.0, "reach": None}
        for k in (0, 1)
    ]  # fmt: skip
    tables = {"update_distances": pl.DataFrame(rows)}
    whole, turned = LEVELS["weights"](tables, [("game-1", "game-0"), ("base", "game-0")])
    assert whole.between("game-1", "game-0").whole == pytest.approx(np.linalg.norm(x - y))
    assert whole.from_base("base", "game-0").whole == pytest.approx(np.linalg.norm(x))
    unit = [u / np.linalg.norm(u) for u in (x, y)]
    direction = np.linalg.norm(unit[0] - unit[1])
    assert turned.between("game-0", "game-1").whole == pytest.approx(direction)
    assert turned.from_base("base", "game-1").whole == 1.0
    assert (whole.n, whole.replicate) == (2, "weight matrices")


def test_representations_lie_apart_over_layers_and_scenarios(tables: synthetic.Tables) -> None:
    found = by_level(tables)["representations", "stream"]
    rows = tables["representation_pairs"].filter(agent_a=PAIRS[0][0], agent_b=PAIRS[0][1])
    mean = float((rows.get_column("distance").to_numpy() ** 2).mean())
    assert found.between(*PAIRS[0]).whole == pytest.approx(math.sqrt(mean), abs=1e-12)
    embedded = rows.with_columns(layer=pl.lit(-1, pl.Int64), distance=pl.lit(9.0))
    more = {**tables, "representation_pairs": pl.concat([tables["representation_pairs"], embedded])}
    (stream, turned) = LEVELS["representations"](more, PAIRS)
    assert stream.between(*PAIRS[0]).whole == found.between(*PAIRS[0]).whole
    cosines = rows.get_column("change_cosine").to_numpy()
    expected = math.sqrt(float((2.0 - 2.0 * cosines).mean()))
    assert turned.between(*PAIRS[0]).whole == pytest.approx(expected, abs=1e-12)
    assert turned.from_base("base", "utilitarian-0").whole == 1.0


def test_patches_both_ways_count_by_their_symmetric_part(sound: synthetic.Tables) -> None:
    pair = ("game", "utilitarian")
    sites, swap = patching(sound, [pair])
    ahead, back = (
        scenario_means(
            sound["patching"].filter(pl.col("source") == source).rename({"target": "agent"}),
            sound["prompts"].rename({"labels": "l"}), target, "effect",
        )
        for source, target in (pair, pair[::-1])
    )  # fmt: skip
    half = {key: (ahead[key] - back[key]) / 2 for key in ahead}
    for found, wanted in ((sites, False), (swap, True)):
        kept = [v**2 for (_, place), v in half.items() if (place[0] == "all") is wanted]
        assert found.between(*pair).whole == pytest.approx(math.sqrt(np.mean(kept)), abs=1e-12)
    assert [sites.measure, swap.measure] == ["site_effects", "full_swap"]
    one_way = sound["patching"].filter(pl.col("source") == "game")
    (alone, _) = patching({**sound, "patching": one_way}, [pair])
    kept = [value**2 for (_, place), value in ahead.items() if place[0] != "all"]
    assert alone.between(*pair).whole == pytest.approx(math.sqrt(np.mean(kept)), abs=1e-12)


def test_sites_that_are_copies_count_once(sound: synthetic.Tables) -> None:
    copied = synthetic.copy_site(sound, "patching", "L0.h0", ["L0.h1", "L0.h2"])
    fewer = sound["patching"].filter(~pl.col("site").is_in(["L0.h1", "L0.h2"]))
    found = [
        next(iter(patching(tables, [("game", "utilitarian")]))).between("game", "utilitarian").whole
        for tables in (copied, {**sound, "patching": fewer})
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_agents_of_other_places_are_an_error(tables: synthetic.Tables) -> None:
    gap = (pl.col("agent") == "base") & (pl.col("category") == "goal")
    fewer = {**tables, "attention": tables["attention"].filter(~gap)}
    said = "'base' and 'deontological-0' were not measured on the same scenarios, heads"
    with pytest.raises(TableError, match=said):
        list(LEVELS["attention"](fewer, PAIRS))
    rows = tables["representation_pairs"]
    gap = (pl.col("agent_a") == "base") & pl.col("prompt").str.starts_with("s0")
    fewer = {**tables, "representation_pairs": rows.filter(~gap)}
    with pytest.raises(TableError, match="were not measured on the same scenarios"):
        list(LEVELS["representations"](fewer, PAIRS))


def test_agents_with_undefined_log_odds_are_not_compared(tables: synthetic.Tables) -> None:
    gap = (pl.col("agent") == "base") & (pl.col("prompt") == pl.col("prompt").first())
    odds = pl.when(gap).then(None).otherwise("log_odds")
    torn = {**tables, "decisions": tables["decisions"].with_columns(log_odds=odds)}
    (found,) = LEVELS["behaviour"](torn, PAIRS)
    assert found.between(*PAIRS[1]) is None
    assert found.between(*PAIRS[0]) is not None


def test_levels_without_a_table_have_no_distance(tables: synthetic.Tables) -> None:
    assert all_distances({name: tables[name] for name in ("agents", "prompts")}, PAIRS) == []


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    y = np.random.default_rng(4).normal(2.0, 1.0, 12)
    left = (y.sum() - y) / 11
    low, high = jackknife(float(y.mean()), left) or (0.0, 0.0)
    expected = stats.t.interval(0.95, 11, loc=y.mean(), scale=stats.sem(y))
    assert (low, high) == pytest.approx(expected, abs=1e-12)
    assert jackknife(1.0, np.array([1.0])) is None


def test_jackknife_intervals_of_distances_cover() -> None:
    """Twenty scenarios of a distance that is 1: coverage of 95% intervals over 1,000 studies."""
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(1000):
        squares = ((rng.normal(0.0, 0.6, (20, 1)) + rng.normal(0.0, 0.8, (20, 6))) ** 2).mean(1)
        found = apart(squares)
        low, high = jackknife(found.whole, found.without) or (0.0, 0.0)
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 1000 <= 0.97
