"""The base under another kernel or dtype sets the numerical noise floor."""

import numpy as np
import polars as pl
import pytest
import synthetic
from gating import gate

from moralscope.core.tables import from_rows
from moralscope.evidence.claims import make_claims
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.gates.replicas import behaviour_noise, rounding_noise

REFERENCE = np.array([0.4, -8.0, 2.0])


def replicas(kernel: np.ndarray, dtype: np.ndarray | None = None) -> pl.DataFrame:
    rows = [
        {"agent": "base", "prompt": f"p{i}", "change": change, "setting": setting,
         "log_odds": float(x + d), "reference_log_odds": float(x)}
        for change, setting, found in (("kernel", "eager", kernel), ("dtype", "bfloat16", dtype))
        if found is not None
        for i, (x, d) in enumerate(zip(REFERENCE, found, strict=True))
    ]  # fmt: skip
    return from_rows("replicas", rows)


def test_another_kernel_may_move_large_log_odds_by_more() -> None:
    fine = {"replicas": replicas(np.array([1e-5, 3e-4, -2e-5]))}
    row = gate(fine, "noise floor", "kernel base")
    assert row["measured"] == pytest.approx(3e-4 / 8.0)
    assert (row["threshold"], row["passed"]) == (5e-5, True)
    assert "(eager, 3 prompts) move the log-odds by at most 3.0e-04 nats" in str(row["advice"])
    coarse = {"replicas": replicas(np.array([6e-5, 0.0, 0.0]))}
    row = gate(coarse, "noise floor", "kernel base")
    assert row["measured"] == pytest.approx(6e-5)
    assert row["passed"] is False
    assert "6.0e-05 of their size where 5e-05 is allowed" in str(row["advice"])
    assert "Compare them with float64 on one prompt" in str(row["advice"])


def test_rounded_weights_are_measured_and_compared_with_nothing() -> None:
    found = {"replicas": replicas(np.zeros(3), np.array([0.03, -0.4, 0.1]))}
    row = gate(found, "noise floor", "dtype base")
    assert row["measured"] == pytest.approx(0.4)
    assert (row["threshold"], row["passed"]) == (None, True)
    assert "Rounding the weights (bfloat16, 3 prompts) moves the log-odds" in str(row["advice"])


@pytest.mark.parametrize(("dtype", "threshold"), [("float32", 5e-5), ("float64", 5e-5),
                                                  ("bfloat16", None), ("nf4", None)])  # fmt: skip
def test_kernels_are_compared_with_a_threshold_in_full_precision_only(
    dtype: str, threshold: float | None
) -> None:
    noisy = {
        "replicas": replicas(np.array([0.05, 0.0, 0.0])),
        "agents": synthetic.agents().with_columns(dtype=pl.lit(dtype)),
    }
    row = gate(noisy, "noise floor", "kernel base")
    assert (row["threshold"], row["passed"]) == (threshold, threshold is None)


def test_the_noise_of_behaviour_is_the_largest_of_the_kernel() -> None:
    found = {"replicas": replicas(np.array([1e-5, -3e-4, 2e-5]), np.array([0.5, 0.5, 0.5]))}
    assert behaviour_noise(found) == pytest.approx(3e-4, rel=1e-9)
    assert behaviour_noise({}) == 0.0
    only_dtype = found["replicas"].filter(pl.col("change") == "dtype")
    assert behaviour_noise({"replicas": only_dtype}) == 0.0
    assert judge_gates({"replicas": only_dtype}).get_column("subject").to_list() == ["dtype base"]


def test_changes_of_behaviour_must_exceed_what_another_kernel_does(
    sound: synthetic.Tables,
) -> None:
    """A change of 3 nats beside kernels that differ by 9; a patch has one kernel on both sides."""
    noisy = {
        **{name: sound[name] for name in ("agents", "prompts", "decisions", "patching")},
        "replicas": replicas(np.array([9.0, 0.0, 0.0])),
    }
    verdicts = dict(make_claims(noisy, draws=199).select("id", "verdict").iter_rows())
    quiet = {**noisy, "replicas": replicas(np.array([1e-6, 0.0, 0.0]))}
    before = dict(make_claims(quiet, draws=199).select("id", "verdict").iter_rows())
    assert before["change:game"] == "supported"
    assert verdicts["change:game"] == "not distinguishable from noise"
    patches = "patching:game>utilitarian"
    assert before[patches] == verdicts[patches] == "supported"


def _constant(change: float, decimals: int | None = None) -> synthetic.Tables:
    """An agent that differs from its base by the same everywhere."""
    sound = synthetic.build()
    zero = sound["decisions"].filter(pl.col("agent") == "base")
    x = pl.col("log_odds") + change
    own = zero.with_columns(agent=pl.lit("game"), log_odds=x)
    both = pl.concat([zero, own])
    if decimals is not None:
        both = both.with_columns(pl.col("log_odds").round(decimals))
    agents = sound["agents"].filter(pl.col("agent").is_in(["base", "game"]))
    return {"agents": agents, "prompts": sound["prompts"], "decisions": both}


def test_rounding_leaves_open_the_mean_step_of_the_numbers() -> None:
    tables = _constant(0.5)
    x = tables["decisions"].filter(pl.col("agent") == "base").get_column("log_odds").to_numpy()
    expected = np.spacing(np.abs(x).astype(np.float32)).astype(np.float64).mean()
    assert rounding_noise(tables, ["base"]) == pytest.approx(expected, rel=1e-12)
    narrow = {**tables, "agents": tables["agents"].with_columns(dtype=pl.lit("bfloat16"))}
    assert rounding_noise(narrow, ["base"]) == pytest.approx(expected, rel=1e-12)
    assert rounding_noise(_constant(0.5, 2), ["base"]) == pytest.approx(0.01, rel=0.05)
    assert rounding_noise({}, ["base"]) == 0.0


@pytest.mark.parametrize(
    ("change", "decimals", "verdict"),
    [
        (1e-9, None, "not identified by this design"),
        (1e-3, None, "supported"),
        (0.004, 2, "not identified by this design"),
        (0.05, 2, "supported"),
    ],
)
def test_a_change_that_rounding_can_make_is_none(
    change: float, decimals: int | None, verdict: str
) -> None:
    """However steady it is; p is the smallest there is."""
    claims = make_claims(_constant(change, decimals), draws=199)
    row = claims.row(by_predicate=pl.col("id") == "change:game", named=True)
    assert row["p"] == pytest.approx(1.0 / 200.0)
    assert row["verdict"] == verdict


def test_nothing_is_equal_within_a_margin_that_noise_can_cross() -> None:
    """An agent without effect, beside kernels that differ by more than the margin."""
    sound = synthetic.build()
    tables = {name: sound[name] for name in ("agents", "prompts", "decisions")}

    def hybrid(kernel: float) -> dict[str, object]:
        noisy = {**tables, "replicas": replicas(np.array([kernel, 0.0, 0.0]))}
        claims = make_claims(noisy, draws=199, margin=0.6)
        return claims.row(by_predicate=pl.col("id") == "change:hybrid", named=True)

    assert hybrid(1e-6)["verdict"] == "equivalent"
    loud = hybrid(0.7)
    assert loud["verdict"] == "not distinguishable from noise"
    assert str(loud["reason"]).startswith(
        "The numerical noise floor of 0.7 nats is no smaller than"
    )


def test_no_divergence_is_said_to_be_detectable_that_cannot_be() -> None:
    """Two scenarios tell next to nothing, and no divergence exceeds log 2."""
    sound = synthetic.build()
    few = sound["prompts"].filter(pl.col("scenario").is_in(["s0", "s1"]))
    asked = sound["decisions"].filter(pl.col("prompt").is_in(few.get_column("prompt").to_list()))
    claims = make_claims({"agents": sound["agents"], "prompts": few, "decisions": asked}, draws=199)
    pairs = claims.filter(pl.col("id").str.starts_with("alike:"))
    assert pairs.height > 3
    assert pairs.get_column("detectable").drop_nulls().max() is None or bool(
        (pairs.get_column("detectable").drop_nulls() <= np.log(2.0)).all()
    )
    whole = make_claims(tables_of(sound), draws=199)
    found = whole.filter(pl.col("id") == "alike:base:game").get_column("detectable")[0]
    assert 0.01 < found < np.log(2.0)


def tables_of(sound: synthetic.Tables) -> synthetic.Tables:
    return {name: sound[name] for name in ("agents", "prompts", "decisions")}
