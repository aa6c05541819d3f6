"""Sites are ranked by an approximation only where it agrees with exact patches."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import EvidenceError, TableError
from moralscope.core.site import parse_site
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.gates.approximation import rank_by, worst_agreement
from moralscope.evidence.gates.judging import judge_gates


def estimates(
    values: dict[str, list[float]], *, method: str = "relp", source: str = "a"
) -> pl.DataFrame:
    """Estimates by site, one for each prompt."""
    rows: list[dict[str, object]] = []
    for name, found in values.items():
        site = parse_site(name)
        rows += [
            {
                "source": source, "target": "b", "prompt": f"p{i}", "source_prompt": f"p{i}",
                "site": name, "layer": site.layer, "kind": site.kind, "head": site.head,
                "positions": "answer_span", "method": method, "estimate": value,
            }
            for i, value in enumerate(found)
        ]  # fmt: skip
    return from_rows("approximations", rows)


def agreed(
    *rows: tuple[str, int, float | None, float | None], method: str = "relp", source: str = "a"
) -> pl.DataFrame:
    """Agreement by kind, n, Pearson's and Spearman's correlation."""
    return from_rows(
        "agreement",
        [
            {"source": source, "target": "b", "method": method, "kind": kind, "n": n,
             "pearson": pearson, "spearman": spearman}
            for kind, n, pearson, spearman in rows
        ],
    )  # fmt: skip


ESTIMATES = estimates({"L1.h0": [0.1, -0.5], "L1.h1": [0.2, 0.2], "L1.mlp": [-1.0, -1.0]})
GOOD = agreed(("head", 20, 0.95, 0.9), ("mlp", 12, 0.85, 0.88), ("all", 32, 0.93, 0.91))


def judged(*, agreement: pl.DataFrame | None, kept: bool = True) -> dict[str, object]:
    tables = {"approximations": ESTIMATES} if kept else {}
    if agreement is not None:
        tables["agreement"] = agreement
    gates = conform("gates", judge_gates(tables))
    assert gates.height == 1
    return gates.row(0, named=True)


@pytest.mark.parametrize("kept", [True, False])
def test_the_smallest_correlation_counts(kept: bool):
    row = judged(agreement=GOOD, kept=kept)
    assert row == {
        "gate": "approximation", "subject": "relp a>b", "measured": 0.85, "threshold": 0.8,
        "passed": True, "advice": "Estimates correlate with exact patches by 0.85 or more.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ((("head", 20, 0.95, 0.9), ("mlp", 12, 0.79, 0.9), ("all", 32, 0.9, 0.9)), "mlp"),
        ((("head", 20, 0.95, 0.79), ("mlp", 12, 0.9, 0.9), ("all", 32, 0.9, 0.9)), "head"),
        ((("head", 20, 0.95, 0.9), ("mlp", 12, 0.9, 0.9), ("all", 32, 0.79, 0.9)), "all"),
    ],
)
def test_one_kind_that_does_not_agree_fails(
    rows: tuple[tuple[str, int, float, float], ...], where: str
):
    row = judged(agreement=agreed(*rows))
    assert (row["measured"], row["passed"]) == (0.79, False)
    assert f"by only 0.79 (kind {where}); do not rank sites by them" in str(row["advice"])


@pytest.mark.parametrize(
    ("agreement", "why"),
    [
        (None, "never compared with exact patches (kind head)"),
        (GOOD.filter(pl.col("kind") != "all"), "never compared with exact patches (kind all)"),
        (agreed(("head", 0, None, None)), "never compared with exact patches (kind head)"),
        (agreed(("head", 9, 0.99, 0.99)), "compared on 9 exact patches, 10 are needed (kind head)"),
        (agreed(("head", 30, None, None)), "effects or estimates do not vary (kind head)"),
        (agreed(("head", 30, 0.9, 0.9), method="other"), "never compared"),
        (agreed(("head", 30, 0.9, 0.9), source="other"), "never compared"),
    ],
)
def test_what_was_not_compared_is_not_available(agreement: pl.DataFrame | None, why: str):
    gates = judge_gates(
        {"approximations": ESTIMATES, **({} if agreement is None else {"agreement": agreement})}
    )
    row = gates.filter(pl.col("subject") == "relp a>b").row(0, named=True)
    assert (row["measured"], row["threshold"], row["passed"]) == (None, 0.8, None)
    assert row["advice"].startswith("Not available: " + why)
    with pytest.raises(EvidenceError, match="cannot be ranked by relp"):
        rank_by(ESTIMATES, conform("agreement", GOOD.head(0)) if agreement is None else agreement)


def test_ranks_follow_the_mean_absolute_estimate():
    found = rank_by(ESTIMATES, GOOD)
    assert found.get_column("site").to_list() == ["L1.mlp", "L1.h0", "L1.h1"]
    assert found.get_column("rank").to_list() == [1, 2, 3]
    assert found.row(1, named=True) == {
        "source": "a", "target": "b", "method": "relp", "rank": 2, "site": "L1.h0", "layer": 1,
        "kind": "head", "head": 0, "n_prompts": 2, "mean_estimate": pytest.approx(-0.2),
        "mean_absolute_estimate": pytest.approx(0.3),
    }  # fmt: skip


def test_each_pair_is_ranked_on_its_own():
    other = estimates({"L1.h0": [0.1], "L1.h1": [0.9], "L1.mlp": [0.2]}, source="c")
    agreement = pl.concat([GOOD, GOOD.with_columns(source=pl.lit("c"))])
    found = rank_by(pl.concat([ESTIMATES, other]), agreement)
    assert found.filter(pl.col("rank") == 1).select("source", "site").rows() == [
        ("a", "L1.mlp"), ("c", "L1.h1"),
    ]  # fmt: skip


def test_a_method_that_does_not_agree_is_refused_by_name():
    bad = agreed(("head", 20, 0.95, 0.9), ("mlp", 12, 0.01, 0.2), ("all", 32, 0.5, 0.6))
    with pytest.raises(EvidenceError) as caught:
        rank_by(ESTIMATES, bad)
    assert str(caught.value) == (
        "Sites of a>b cannot be ranked by relp. Seen: correlation with exact patches 0.01 (kind "
        "mlp). Allowed: 0.8 or more, on 10 patches or more of each kind. Next: patch exactly."
    )
    # The kind that agrees may be ranked alone.
    assert rank_by(ESTIMATES, bad, kinds=["head"]).get_column("site").to_list() == [
        "L1.h0", "L1.h1",
    ]  # fmt: skip


def test_an_unknown_correlation_is_refused_with_its_reason():
    with pytest.raises(EvidenceError) as caught:
        rank_by(ESTIMATES, agreed(("head", 4, 1.0, 1.0)))
    assert str(caught.value) == (
        "Sites of a>b cannot be ranked by relp. Seen: correlation with exact patches not available "
        "(compared on 4 exact patches, 10 are needed, kind head). Allowed: 0.8 or more, on 10 "
        "patches or more of each kind. Next: patch exactly, or compare more exact patches with it."
    )


def test_kinds_that_were_not_estimated_are_named():
    with pytest.raises(EvidenceError) as caught:
        rank_by(ESTIMATES, GOOD, kinds=["heads"])
    assert str(caught.value) == (
        "No effect of this kind of site was estimated. Seen: heads. Allowed: head, mlp. Next: did "
        "you mean 'head'."
    )
    with pytest.raises(EvidenceError, match="none: the table is empty. Next: estimate effects"):
        rank_by(ESTIMATES.head(0), GOOD, kinds=["head"])
    assert rank_by(ESTIMATES.head(0), GOOD).columns == rank_by(ESTIMATES, GOOD).columns
    with pytest.raises(TableError):
        rank_by(ESTIMATES.drop("estimate"), GOOD)


def test_nothing_to_rank_has_no_agreement():
    assert worst_agreement(GOOD, []).correlation is None


@settings(max_examples=30, deadline=None)
@given(
    correlations=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=3, max_size=3),
    better=st.floats(0, 1),
)
def test_the_gate_passes_exactly_where_ranking_is_allowed(
    correlations: list[tuple[float, float]], better: float
):
    kinds = ("head", "mlp", "all")
    rows = [
        (kind, 20, p + (1 - p) * better, s + (1 - s) * better)
        for kind, (p, s) in zip(kinds, correlations, strict=True)
    ]
    agreement = agreed(*rows)
    row = judged(agreement=agreement)
    smallest = min(min(p, s) for _, _, p, s in rows)
    assert row["measured"] == smallest
    assert row["passed"] == (smallest >= 0.8)
    if row["passed"]:
        assert rank_by(ESTIMATES, agreement).height == 3
    else:
        with pytest.raises(EvidenceError):
            rank_by(ESTIMATES, agreement)
