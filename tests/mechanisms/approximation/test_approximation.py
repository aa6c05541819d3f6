"""Tables of estimates, samples of sites, and agreement with exact patches."""

from __future__ import annotations

import nudged
import numpy as np
import polars as pl
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from worlds import Worlds

from moralscope.core.errors import AgentError, ConfigError, EvidenceError, SiteError
from moralscope.core.site import Site, parse_site
from moralscope.core.streams import stream
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.gates.approximation import rank_by
from moralscope.evidence.gates.judging import judge_gates
from moralscope.mechanisms.approximation.gradients import activity_of, attribution_patching
from moralscope.mechanisms.approximation.tables import (
    METHODS,
    agreement_table,
    approximation_table,
    sample_sites,
)
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.patching.tables import patching_table


def table(both: nudged.Two, **wanted: object) -> pl.DataFrame:
    return approximation_table(both.target_model, both.anatomy, both.source, both.target, **wanted)  # type: ignore[arg-type]


def test_the_table_holds_every_site_prompt_and_method():
    both = nudged.two("llama", n=3)
    events: list[tuple[int, int]] = []
    found = table(both, steps=2, progress=lambda e: events.append((e.done, e.total)))
    conform("approximations", found)
    layers, heads = both.anatomy.n_layers, both.anatomy.n_heads
    assert found.height == 3 * 3 * layers * (heads + 2)
    assert set(found.get_column("method").to_list()) == set(METHODS)
    assert events == [(1, 3), (2, 3), (3, 3)]
    direct = attribution_patching(
        both.target_model, both.anatomy, both.target, 0, activity_of(both.source, 0)
    )
    for row in found.filter(pl.col("method") == "attribution_patching").iter_rows(named=True):
        site = parse_site(row["site"])
        member = [p.name for p in both.prompts].index(row["prompt"])
        position = both.target.packs[0].pack.members.index(member)
        assert row["estimate"] == float(direct.of(site)[position])
        assert (row["layer"], row["kind"], row["head"]) == (site.layer, site.kind, site.head)
        assert row["source_prompt"] == row["prompt"]
    by_method = [g.get_column("estimate").to_list() for _, g in found.group_by("method")]
    assert len({tuple(values) for values in by_method}) == 3


def test_small_packs_and_chosen_prompts_give_the_same_estimates():
    both = nudged.two("llama", n=5, forms="several")
    whole = table(both, steps=2)
    assert len(both.target.packs) == 1
    runs = [
        run_clean(name, model, anatomy, both.prompts, max_nodes=40)
        for name, model, anatomy in (
            ("source", both.source_model, both.source_anatomy),
            ("target", both.target_model, both.anatomy),
        )
    ]
    assert len(runs[1].packs) > 2
    parts = approximation_table(both.target_model, both.anatomy, runs[0], runs[1], steps=2,
                                pairs=[(4, 4), (1, 1)])  # fmt: skip
    key = ["prompt", "site", "method"]
    joined = parts.join(whole, on=key, how="left", suffix="_whole")
    assert joined.height == whole.height * 2 // 5
    np.testing.assert_allclose(
        joined.get_column("estimate"), joined.get_column("estimate_whole"), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("max_nodes", [2048, 40])
def test_other_prompts_can_be_the_source(max_nodes: int):
    """One model, two prompts: the full swap divides into embedding, attention layers and MLPs."""
    model = tiny.tiny_model("llama")
    anatomy = nudged.dissect(model)
    prompts = tiny.token_prompts(4, forms="multi")
    same_length = [
        (a, b) for a in range(4) for b in range(4)
        if a != b and len(prompts[a].tokens) == len(prompts[b].tokens)
    ][:2]  # fmt: skip
    assert same_length
    run = run_clean("base", model, anatomy, prompts, max_nodes=max_nodes)
    found = approximation_table(
        model, anatomy, run, run, pairs=same_length, steps=32,
        methods=("integrated_gradients",), sites=anatomy.sites("embed", "attn", "mlp"),
    )  # fmt: skip
    for mine, theirs in same_length:
        rows = found.filter(
            (pl.col("prompt") == prompts[mine].name)
            & (pl.col("source_prompt") == prompts[theirs].name)
        )
        assert rows.filter(pl.col("kind") == "embed").height == 1
        exact, _ = patching_table(model, anatomy, run, run, sites=[Site("mlp", 0)],
                                  pairs=[(mine, theirs)])  # fmt: skip
        swap = exact.filter(pl.col("site") == "all").item(0, "effect")
        assert abs(swap) > 1e-3
        assert rows.get_column("estimate").sum() == pytest.approx(swap, rel=1e-3)


def test_mistakes_are_refused():
    both = nudged.two("llama", n=1)
    with pytest.raises(ConfigError) as unknown:
        table(both, methods=("relevance",))
    assert "There is no approximation of this name. Seen: relevance." in str(unknown.value)
    with pytest.raises(SiteError, match="The effect of this site is not estimated. Seen: L1.resid"):
        table(both, sites=[Site("resid_pre", 1)])
    with pytest.raises(SiteError, match="the nearest is L2.mlp"):
        table(both, sites=[Site("mlp", 9)])
    other = nudged.two("llama", prompts=tiny.token_prompts(2, seed=3))
    with pytest.raises(AgentError, match="not run on the same prompts"):
        approximation_table(both.target_model, both.anatomy, other.source, both.target)


@settings(max_examples=25, deadline=None)
@given(layers=st.integers(1, 6), heads=st.integers(1, 5), n=st.integers(1, 60), seed=st.integers(0))
def test_a_sample_is_even_over_kinds_and_layers(layers: int, heads: int, n: int, seed: int):
    sites = [Site("head", i, h) for i in range(layers) for h in range(heads)]
    sites += [Site(kind, i) for kind in ("attn", "mlp") for i in range(layers)]
    chosen = sample_sites(sites, n, stream(seed % 2**31, "sites"))
    assert chosen == sample_sites(sites, n, stream(seed % 2**31, "sites"))
    assert len(set(chosen)) == len(chosen) == min(n, len(sites))
    assert set(chosen) <= set(sites)
    assert list(chosen) == sorted(chosen)
    per_kind = [sum(s.kind == kind for s in chosen) for kind in ("attn", "head", "mlp")]
    full = [layers, layers * heads, layers]
    short = [count for count, limit in zip(per_kind, full, strict=True) if count < limit]
    assert max(short, default=0) - min(short, default=0) <= 1
    by_layer = [sum(s.kind == "head" and s.layer == i for s in chosen) for i in range(layers)]
    assert max(by_layer) - min(by_layer) <= 1


def test_samples_differ_between_draws_and_need_a_size():
    sites = [Site("head", i, h) for i in range(4) for h in range(4)]
    draws = {sample_sites(sites, 4, stream(seed, "sites")) for seed in range(8)}
    assert len(draws) > 4
    with pytest.raises(ConfigError, match="A sample of sites has at least one. Seen: 0"):
        sample_sites(sites, 0, stream(1))


def planted(estimates: list[float], effects: list[float], kind: str = "mlp") -> list[pl.DataFrame]:
    """Approximations and patches of one site on as many prompts."""
    shared = [
        {"source": "a", "target": "b", "prompt": f"p{i}", "source_prompt": f"p{i}",
         "site": f"L1.{kind}", "layer": 1, "kind": kind, "positions": "answer_span"}
        for i in range(len(estimates))
    ]  # fmt: skip
    guessed = [
        {**row, "method": "relp", "estimate": value}
        for row, value in zip(shared, estimates, strict=True)
    ]
    exact = [
        {**row, "write": "write", "baseline_log_odds": 1.0, "patched_log_odds": 1.0 + value,
         "effect": value, "flipped": False, "margin": 1.0 + value}
        for row, value in zip(shared, effects, strict=True)
    ]  # fmt: skip
    return [from_rows("approximations", guessed), from_rows("patching", exact)]


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.tuples(st.integers(-9, 9), st.floats(-1e3, 1e3)), min_size=3, max_size=12),
    scale=st.sampled_from([1e-200, 1e-6, 1.0]),
)
def test_correlations_are_those_of_scipy(values: list[tuple[int, float]], scale: float):
    x, y = [scale * a for a, _ in values], [b for _, b in values]
    found = agreement_table(*planted(x, y))
    assert found.get_column("kind").to_list() == ["mlp", "all"]
    row = found.row(0, named=True)
    assert row["n"] == len(values)
    if np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        assert (row["pearson"], row["spearman"]) == (None, None)
        return
    assert row["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-10)
    ranged = (np.array(y) - np.mean(y)) / np.ptp(y)
    plain = np.corrcoef([a for a, _ in values], ranged)[0, 1]
    assert row["pearson"] == pytest.approx(plain, abs=1e-8)


def test_too_few_or_constant_values_have_no_correlation():
    for x, y in (([1.0, 2.0], [1.0, 2.0]), ([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]),
                 ([1.0, 2.0, 3.0], [0.0] * 3)):  # fmt: skip
        row = agreement_table(*planted(x, y)).row(0, named=True)
        assert (row["n"], row["pearson"], row["spearman"]) == (len(x), None, None)


def test_only_the_same_patches_are_compared():
    guessed, exact = planted([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, -4.0])
    activity = exact.with_columns(write=pl.lit("z"), effect=-pl.col("effect"))
    elsewhere = exact.with_columns(target=pl.lit("c"))
    both = agreement_table(guessed, pl.concat([exact.head(3), activity, elsewhere]))
    assert both.height == 2
    assert both.row(0, named=True)["n"] == 3
    assert both.row(0, named=True)["pearson"] == pytest.approx(1.0)
    nothing = agreement_table(guessed, exact.head(0))
    assert nothing.row(1, named=True) == {
        "source": "a", "target": "b", "method": "relp", "kind": "all", "n": 0, "pearson": None,
        "spearman": None,
    }  # fmt: skip


def test_a_small_change_is_approximated_and_a_large_one_is_not(worlds: Worlds):
    """The whole way: estimate, patch a sample, compare, judge and rank."""
    prompts = tiny.token_prompts(4)
    for size, trusted in ((0.003, True), (2.0, False)):
        both = nudged.two("llama", prompts=prompts, size=size)
        estimates = table(both, methods=("attribution_patching", "integrated_gradients"))
        chosen = sample_sites(both.anatomy.sites("head", "attn", "mlp"), 12, stream(2, "sample"))
        exact, _ = patching_table(
            both.target_model, both.anatomy, both.source, both.target, sites=chosen
        )
        agreement = agreement_table(estimates, exact)
        assert agreement.filter(pl.col("kind") == "all").get_column("n").to_list() == [48, 48]
        gates = judge_gates({"approximations": estimates, "agreement": agreement})
        tangent = gates.filter(pl.col("subject") == "attribution_patching source>target")
        assert tangent.get_column("passed").to_list() == [trusted]
        own = estimates.filter(pl.col("method") == "attribution_patching")
        if trusted:
            first = rank_by(own, agreement).row(0, named=True)
            effects = {
                site: own.filter(pl.col("site") == site).get_column("estimate").abs().mean()
                for site in own.get_column("site").unique().to_list()
            }
            assert first["site"] == max(effects, key=lambda site: effects[site])
        else:
            with pytest.raises(EvidenceError, match="cannot be ranked by attribution_patching"):
                rank_by(own, agreement)
