"""Do rewards differ more than seeds? Against distances and relabellings written out by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import synthetic
from replicated_planted import study
from statsmodels.stats.multitest import multipletests

from moralscope.core.errors import TableError
from moralscope.core.tables import from_rows
from moralscope.evidence.auditing import coverage, parts
from moralscope.evidence.auditing.audit import audit
from moralscope.evidence.claims import judge_findings, make_claims, setting_of
from moralscope.evidence.designing.table import design_table
from moralscope.evidence.findings.replicates import replicate_findings
from moralscope.evidence.findings.wired_rewards import wired_reward_findings

Tables = synthetic.Tables
Row = dict[str, object]

BEHAVIOUR = "replicates:behaviour"
NOT_IDENTIFIED = "not identified by this design"
NOISE = "not distinguishable from noise"


def claims(tables: Tables, draws: int = 999, **options: float) -> dict[str, Row]:
    setting = setting_of(tables, draws=draws, **options)
    made = judge_findings(setting, list(replicate_findings(setting)))
    context = pl.SQLContext({**setting.tables, "gates": pl.DataFrame({"subject": [""]})})
    for row in made.iter_rows(named=True):
        if "FROM gates" in row["query"]:
            continue
        found = context.execute(row["query"], eager=True).item()
        if row["estimate"] is None:
            assert found is None
        else:
            assert found == pytest.approx(row["estimate"], abs=1e-10), row["id"]
    return {str(row["id"]): row for row in made.iter_rows(named=True)}


def by_hand(tables: Tables, table: str, value: str) -> tuple[float, float, float]:
    """Mean distance between rewards, within them, and the exact p, from loops over the rows.

    Two agents of one seed do not count, whatever they were trained for.
    """
    scenario = dict(tables["prompts"].select("prompt", "scenario").iter_rows())
    named = tables["agents"].filter(pl.col("reward").is_not_null())
    units: dict[str, tuple[str, dict[tuple[str, str], float]]] = {}
    for agent, reward in named.select("agent", "reward").iter_rows():
        rows = tables[table].filter(pl.col("agent") == agent)
        cells: dict[tuple[str, str], list[float]] = {}
        for row in rows.iter_rows(named=True):
            cells.setdefault((scenario[row["prompt"]], row.get("site", "")), []).append(row[value])
        units[agent] = (reward, {place: math.fsum(v) / len(v) for place, v in cells.items()})
    agents = list(units)
    d = {
        frozenset((a, b)): math.sqrt(
            math.fsum((units[a][1][p] - units[b][1][p]) ** 2 for p in units[a][1])
            / len(units[a][1])
        )
        for a, b in itertools.combinations(agents, 2)
    }

    seeds = dict(named.select("agent", "training_seed").iter_rows())
    pairs = [
        (a, b)
        for a, b in itertools.combinations(agents, 2)
        if seeds[a] is None or seeds[a] != seeds[b]
    ]

    def means(rewards: dict[str, str]) -> tuple[float, float]:
        different = [d[frozenset(p)] for p in pairs if rewards[p[0]] != rewards[p[1]]]
        same = [d[frozenset(p)] for p in pairs if rewards[p[0]] == rewards[p[1]]]
        return sum(different) / len(different), sum(same) / len(same)

    observed = {agent: units[agent][0] for agent in agents}
    between, within = means(observed)
    first = observed[agents[0]]
    second = next(r for r in observed.values() if r != first)
    drawn = []
    for chosen in itertools.combinations(agents, sum(r == first for r in observed.values())):
        b, w = means({agent: first if agent in chosen else second for agent in agents})
        drawn.append(b - w >= between - within - 1e-9)
    return between, within, sum(drawn) / len(drawn)


@pytest.mark.parametrize(
    ("seeds", "floor"), [((4, 4), 2 / 70), ((5, 4), 1 / 126)], ids=["equal", "unequal"]
)
@pytest.mark.parametrize("apart", [0.0, 0.4, 3.0])
def test_estimate_and_p_are_those_of_every_relabelling(
    seeds: tuple[int, int], floor: float, apart: float
) -> None:
    tables = study(dict(zip(("game", "utilitarian"), seeds, strict=True)), apart)
    row = claims(tables)[BEHAVIOUR]
    between, within, p = by_hand(tables, "decisions", "log_odds")
    assert row["estimate"] == pytest.approx(between - within, abs=1e-10)
    assert row["p"] == row["p_adjusted"] == pytest.approx(p, abs=1e-10)
    assert row["p_floor"] == pytest.approx(floor)
    assert (row["n_units"], row["replicate"], row["unit"]) == (sum(seeds), "training seeds", "nats")
    assert f"{between:.3g} nats apart between rewards and {within:.3g} nats" in row["statement"]


def test_rewards_that_differ_are_found_and_rewards_that_do_not_are_not() -> None:
    row = claims(study({"game": 4, "utilitarian": 4}, 3.0))[BEHAVIOUR]
    assert row["verdict"] == "supported"
    assert str(row["statement"]).startswith(
        "In their decisions, agents of different rewards (game and utilitarian) differ more than "
        "agents of one reward that differ in their training seed: they lie "
    )
    assert "root mean square over 10 scenarios, 8 training seeds; adjusted p = .029" in str(
        row["statement"]
    )
    alike = claims(study({"game": 4, "utilitarian": 4}, 0.0))[BEHAVIOUR]
    assert alike["verdict"] == NOISE
    assert "are compared with agents of one reward" in str(alike["statement"])


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((3, 3), "3 training seeds of each reward cannot carry it"),
        ((1, 1), "1 training seed of each reward cannot carry it"),
        ((3, 7), "3 and 7 training seeds of them cannot carry it"),
    ],
)
def test_too_few_seeds_identify_nothing_and_say_how_many_would(
    seeds: tuple[int, int], said: str
) -> None:
    row = claims(study(dict(zip(("game", "utilitarian"), seeds, strict=True)), 5.0))[BEHAVIOUR]
    assert row["verdict"] == NOT_IDENTIFIED
    assert row["p"] is None
    assert said in str(row["statement"])
    assert "; 4 seeds of each of the 2 rewards would identify it (attainable p 0.029" in str(
        row["statement"]
    )
    assert (row["estimate"] is None) is (max(seeds) == 1)
    if max(seeds) == 1:
        assert "no reward has two seeds" in str(row["statement"])


def test_one_reward_is_compared_with_nothing() -> None:
    assert claims(study({"game": 5})) == {}


def test_measures_are_one_family_corrected_by_holm() -> None:
    tables = study({"game": 5, "utilitarian": 5}, 0.6, inner=("attribution", "norms"))
    made = claims(tables)
    hands = [
        by_hand(tables, "decisions", "log_odds"),
        by_hand(tables, "attribution", "contribution"),
        by_hand(tables, "norms", "norm"),
    ]
    rows = [made[f"replicates:{name}"] for name in ("behaviour", "attribution", "norms")]
    assert [row["estimate"] for row in rows] == pytest.approx([b - w for b, w, _ in hands])
    assert [row["p"] for row in rows] == pytest.approx([p for *_, p in hands], abs=1e-10)
    adjusted = multipletests([p for *_, p in hands], method="holm")[1]
    assert [row["p_adjusted"] for row in rows] == pytest.approx(list(adjusted), abs=1e-10)
    assert {row["n_tests"] for row in rows} == {3}
    assert [row["unit"] for row in rows] == ["nats", "nats", "model units"]
    assert "over 10 scenarios and 3 distinct sites" in str(rows[1]["statement"])


def test_the_design_says_the_same_as_the_claims() -> None:
    """Four seeds of two rewards reach .029, which three measures corrected together exclude."""
    tables = study({"game": 4, "utilitarian": 4}, inner=("attribution", "norms"))
    made = claims(tables)
    assert {row["verdict"] for row in made.values()} == {NOT_IDENTIFIED}
    assert "5 seeds of each of the 2 rewards would identify it" in str(made[BEHAVIOUR]["statement"])
    asked = design_table(tables, questions=["seeds"]).row(0, named=True)
    assert asked["level"] == pytest.approx(0.05 / 3)
    assert (asked["identified"], asked["needed"]) == (False, 5)
    alone = {name: tables[name] for name in ("agents", "prompts", "decisions")}
    assert design_table(alone, questions=["seeds"])["identified"].to_list() == [True]
    assert claims(alone)[BEHAVIOUR]["verdict"] == "supported"


def test_three_rewards_are_compared_together() -> None:
    seeds = {"game": 4, "utilitarian": 4, "deontological": 4}
    row = claims(study(seeds, 2.0))[BEHAVIOUR]
    assert (row["verdict"], row["n_units"]) == ("supported", 12)
    assert "(game, utilitarian and deontological)" in str(row["statement"])


def test_rewards_of_different_bases_stay_apart() -> None:
    one = study({"game": 5, "utilitarian": 5}, 3.0)
    big = {
        name: one[name].with_columns(agent=pl.lit("big ") + pl.col("agent"))
        for name in ("agents", "decisions")
    }
    big["agents"] = big["agents"].with_columns(base=pl.lit("big"))
    both = {name: pl.concat([one[name], big[name]]) for name in big}
    made = claims({**both, "prompts": one["prompts"]})
    assert set(made) == {f"{BEHAVIOUR}:base", f"{BEHAVIOUR}:big base"}
    assert [row["p_adjusted"] for row in made.values()] == pytest.approx([4 / 252, 4 / 252])
    assert {row["n_units"] for row in made.values()} == {10}


def test_sites_that_are_copies_count_once() -> None:
    tables = study({"game": 5, "utilitarian": 5}, inner=("attribution",))
    copied = synthetic.copy_site(tables, "attribution", "L0.h0", ["L0.h1"])
    without = {**tables, "attribution": tables["attribution"].filter(pl.col("site") != "L0.h1")}
    first, second = (claims(each)["replicates:attribution"] for each in (copied, without))
    assert first["estimate"] == pytest.approx(second["estimate"], abs=1e-12)
    assert "2 distinct sites" in str(first["statement"])
    assert "duplicates (attribution game-0): failed" in str(first["gates"])


def test_where_no_site_is_resolved_nothing_is_claimed() -> None:
    tables = study({"game": 5, "utilitarian": 5}, inner=("norms",))
    tables["norms"] = tables["norms"].with_columns(norm=0.0)
    row = claims(tables)["replicates:norms"]
    assert (row["verdict"], row["estimate"], row["p"]) == ("artefact", None, None)
    assert "no site is a distinct, resolved measurement" in str(row["statement"])


def as_another(frame: pl.DataFrame, agent: str, other: str) -> pl.DataFrame:
    """The table with an agent's numbers put down for another as well."""
    rest = frame.filter(pl.col("agent") != other)
    copy = frame.filter(pl.col("agent") == agent).with_columns(agent=pl.lit(other))
    return pl.concat([rest, copy])


def test_one_run_under_two_seeds_is_an_artefact() -> None:
    tables = study({"game": 5, "utilitarian": 5}, 3.0, inner=("attribution",))
    decided = {**tables, "decisions": as_another(tables["decisions"], "game-0", "game-1")}
    row = claims(decided)[BEHAVIOUR]
    assert row["verdict"] == "artefact"
    assert "duplicates (seeds game of base)" in str(row["statement"])
    # Without decisions no gate has looked; the attribution itself shows it.
    inner = {name: tables[name] for name in ("agents", "prompts")}
    inner["attribution"] = as_another(tables["attribution"], "game-0", "game-1")
    row = claims(inner)["replicates:attribution"]
    assert row["verdict"] == "artefact"
    assert "game-0 and game-1 have the same results in all 10 scenarios" in str(row["statement"])


def test_dead_and_unchecked_agents() -> None:
    sound = study({"game": 5, "utilitarian": 5}, 3.0)
    dead = claims(synthetic.kill(sound, "game-0"))[BEHAVIOUR]
    assert dead["verdict"] == "artefact"
    assert "liveness (game-0)" in str(dead["statement"])
    bare = claims(synthetic.without_fingerprints(sound))[BEHAVIOUR]
    assert bare["verdict"] == "supported"
    assert "Liveness could not be checked" in str(bare["statement"])
    same = study({"game": 5, "utilitarian": 5}, 0.0)
    assert claims(synthetic.without_fingerprints(same))[BEHAVIOUR]["verdict"] == NOT_IDENTIFIED


def test_agents_that_were_not_measured_are_named() -> None:
    tables = study({"game": 5, "utilitarian": 5}, 3.0, inner=("norms",))
    tables["norms"] = tables["norms"].filter(~pl.col("agent").is_in(["game-4", "utilitarian-0"]))
    row = claims(tables)["replicates:norms"]
    assert row["n_units"] == 8
    said = "2 of 10 agents with a reward are not measured there and left out: game-4 and "
    assert f"{said}utilitarian-0." in str(row["statement"])
    gap = (pl.col("agent") == "game-1") & (pl.col("prompt") == pl.col("prompt").first())
    undefined = synthetic.set_values(tables, "decisions", gap, log_odds=pl.lit(None, pl.Float64))
    row = claims(undefined)[BEHAVIOUR]
    assert row["n_units"] == 9
    assert "1 of 10 agents with a reward is not measured there and left out: game-1." in str(
        row["statement"]
    )


def test_other_prompts_are_an_error() -> None:
    tables = study({"game": 5, "utilitarian": 5})
    gap = (pl.col("agent") == "game-1") & (pl.col("prompt") == pl.col("prompt").first())
    tables["decisions"] = tables["decisions"].filter(~gap)
    setting = setting_of(tables)
    with pytest.raises(TableError, match="'game-1' was not measured on every prompt"):
        list(replicate_findings(setting))


def test_agents_of_one_seed_are_one_unit_and_so_are_unknown_seeds() -> None:
    tables = study({"game": 5, "utilitarian": 6}, 3.0)
    shared = pl.col("agent").is_in(["utilitarian-4", "utilitarian-5"])
    for seed in (4, None):
        unit = pl.when(shared).then(pl.lit(seed, pl.Int64)).otherwise("training_seed")
        merged = {**tables, "agents": tables["agents"].with_columns(training_seed=unit)}
        row = claims(merged)[BEHAVIOUR]
        averaged = tables["decisions"].with_columns(
            log_odds=pl.when(shared)
            .then(pl.col("log_odds").filter(shared).mean().over("prompt"))
            .otherwise("log_odds")
        )
        one = pl.col("agent") != "utilitarian-5"
        single = {**tables, "agents": merged["agents"].filter(one)}
        between, within, p = by_hand({**single, "decisions": averaged}, "decisions", "log_odds")
        assert row["n_units"] == 10
        assert row["estimate"] == pytest.approx(between - within, abs=1e-10)
        assert row["p"] == pytest.approx(p, abs=1e-10)


def test_the_base_measured_in_another_way_stands_beside_it() -> None:
    tables = study({"game": 5, "utilitarian": 5}, 3.0)
    base = tables["decisions"].filter(pl.col("agent") == "base")
    shift = np.linspace(-0.2, 0.3, base.height)
    tables["replicas"] = pl.concat([
        base.select("agent", "prompt", reference_log_odds="log_odds").with_columns(
            change=pl.lit(change), setting=pl.lit(how),
            log_odds=pl.col("reference_log_odds") + pl.Series(shift * part),
        )
        for change, how, part in (("kernel", "eager", 1e-6), ("dtype", "bfloat16", 1.0))
    ])  # fmt: skip
    row = claims(tables)[BEHAVIOUR]
    order = base.get_column("scenario").to_list()
    means = [np.mean([s for s, o in zip(shift, order, strict=True) if o == n]) for n in set(order)]
    rms = math.sqrt(sum(m * m for m in means) / len(means))
    assert f"{rms:.3g} nats under another dtype (bfloat16, 10 scenarios)" in str(row["statement"])
    assert f"base itself lies {rms * 1e-6:.3g} nats under another kernel" in str(row["statement"])
    assert row["verdict"] == "supported"
    # A distance that is no larger than what another kernel makes of the base is none.
    noisy = tables["replicas"].with_columns(
        log_odds=pl.col("reference_log_odds") + 50.0 * (pl.col("change") == "kernel")
    )
    row = claims({**tables, "replicas": noisy})[BEHAVIOUR]
    assert row["verdict"] == NOISE
    assert "does not exceed the numerical noise floor of 50 nats" in str(row["statement"])


def test_rewards_that_do_not_differ_are_rarely_told_apart() -> None:
    """Attainable size with four seeds each: 2/70; the bound is three standard errors above."""
    runs, rejected = 200, 0
    who = study({"game": 4, "utilitarian": 4}, scenarios=3)
    gates = from_rows("gates", [])
    rng = np.random.default_rng(17)
    names = who["decisions"].get_column("agent").unique(maintain_order=True).to_list()
    of = np.array([names.index(agent) for agent in who["decisions"].get_column("agent")])
    for _ in range(runs):
        own = rng.standard_t(3, len(names))[of] + rng.normal(0.0, 0.5, len(of))
        decisions = who["decisions"].with_columns(log_odds=pl.Series(own))
        setting = setting_of({**who, "decisions": decisions, "gates": gates}, draws=99)
        (found,) = replicate_findings(setting)
        assert found.p_adjusted is not None
        rejected += found.p_adjusted < 0.05
    size = 2 / 70
    assert 0 < rejected / runs <= size + 3 * math.sqrt(size * (1 - size) / runs)


def test_an_audit_finds_what_judging_whole_finds(tmp_path: Path) -> None:
    tables = study({"game": 4, "utilitarian": 4}, 3.0, inner=("attribution",), scenarios=4)
    folder, out = tmp_path / "tables", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    done = audit(folder, out, draws=99, alpha=0.2)
    whole = make_claims(tables, draws=99, alpha=0.2)
    ours, theirs = (
        {r["id"]: r for r in made.iter_rows(named=True) if r["id"].startswith("replicates:")}
        for made in (done.claims, whole)
    )
    assert set(ours) == {BEHAVIOUR, "replicates:attribution"} == set(theirs)
    for name, row in ours.items():
        for column in ("estimate", "p", "p_adjusted", "n_tests", "verdict"):
            assert row[column] == pytest.approx(theirs[name][column]), (name, column)
    designs = pl.read_parquet(out / "tables" / "design.parquet")
    assert designs.filter(pl.col("question") == "seeds")["level"].to_list() == [0.1]


def test_an_audit_says_where_there_is_too_much_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (parts, coverage):
        monkeypatch.setattr(module, "WHOLE", 250)
    tables = study({"game": 4, "utilitarian": 4}, inner=("attribution",), scenarios=6)
    folder, out = tmp_path / "tables", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name in ("agents", "prompts", "decisions", "attribution"):
        tables[name].write_parquet(folder / f"{name}.parquet")
    done = audit(folder, out, draws=99)
    found = done.claims.filter(pl.col("id").str.starts_with("replicates"))
    assert found.get_column("id").to_list() == [BEHAVIOUR]
    said = {(row["question"], row["subject"]): row for row in done.coverage.iter_rows(named=True)}
    asked = "whether rewards differ more than training seeds"
    assert said[asked, ""]["sentence"] == "1 claim."
    assert "324 rows, 250 are judged at once" in said[asked, "attribution"]["sentence"]


def test_agents_that_share_their_start_hide_no_difference_of_rewards() -> None:
    """Training from one seed leads to like agents, and each reward is trained from every seed."""
    tables = study({"game": 5, "utilitarian": 5}, 0.0, scenarios=40)
    rng = np.random.default_rng(4)
    scenario = tables["prompts"].get_column("scenario").to_list()
    places = {name: i for i, name in enumerate(dict.fromkeys(scenario))}
    start, reward = rng.normal(0, 2.0, (5, len(places))), rng.normal(0, 1.0, (2, len(places)))
    at = dict(tables["prompts"].select("prompt", "scenario").iter_rows())
    own = [
        0.0 if agent == "base"
        else start[int(agent[-1]), places[at[prompt]]]
        + reward[int(agent.startswith("game")), places[at[prompt]]]
        for agent, prompt in tables["decisions"].select("agent", "prompt").iter_rows()
    ]  # fmt: skip
    moved = pl.Series(own, dtype=pl.Float64) + pl.Series(rng.normal(0, 0.3, len(own)))
    tables["decisions"] = tables["decisions"].with_columns(
        log_odds=moved, fingerprint_log_odds=moved
    )
    row = claims(tables)[BEHAVIOUR]
    assert row["verdict"] == "supported"
    assert "5 of 45 pairs began from the same seed and are left out" in str(row["statement"])
    # Counted, they would make agents of different rewards lie closer than seeds of one.
    others = pl.when(pl.col("reward") == "game").then(pl.col("training_seed") + 10)
    told = tables["agents"].with_columns(training_seed=others.otherwise("training_seed"))
    apart = claims({**tables, "agents": told})[BEHAVIOUR]
    assert apart["verdict"] == NOISE
    assert "same seed" not in str(apart["statement"])


def test_states_of_trainings_are_no_rewards() -> None:
    """They differ from the end of their training, which says nothing about rewards."""
    tables = study({"deontological": 5, "deontological step5": 5}, inner=("norms",))
    assert claims(tables)[BEHAVIOUR]["verdict"] == "supported"
    states = [
        {"agent": f"deontological step5-{k}", "of": f"deontological-{k}", "step": 5, "steps": 25,
         "training_seed": k}
        for k in range(5)
    ]  # fmt: skip
    told = {**tables, "checkpoints": from_rows("checkpoints", states)}
    assert claims(told) == {}
    assert list(wired_reward_findings(setting_of(tables, draws=99)))
    assert list(wired_reward_findings(setting_of(told, draws=99))) == []
