"""Corrections against statsmodels, and their invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import fdrcorrection, multipletests

from moralscope.core.errors import TableError
from moralscope.evidence.statistics.multiplicity import benjamini_hochberg, holm

shares = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def families(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    tied = np.round(rng.uniform(size=n), 1)
    return [rng.uniform(size=n), rng.uniform(size=n) ** 6, tied, np.full(n, 0.02), np.zeros(n)]


@pytest.mark.parametrize("n", [2, 40])
def test_holm_equals_statsmodels(n: int) -> None:
    for p in families(n):
        oracle = multipletests(p, method="holm")[1]
        assert holm(p).tolist() == pytest.approx(oracle.tolist(), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 40, 300])
def test_benjamini_hochberg_equals_scipy_and_statsmodels(n: int) -> None:
    for p in families(n):
        found = benjamini_hochberg(p).tolist()
        assert found == pytest.approx(stats.false_discovery_control(p).tolist(), abs=1e-12)
        assert found == pytest.approx(fdrcorrection(p)[1].tolist(), abs=1e-12)


@given(shares)
def test_raw_p_is_at_most_q_is_at_most_holm(values: list[float]) -> None:
    p = np.array(values)
    q, family = benjamini_hochberg(p), holm(p)
    assert (p <= q + 1e-15).all()
    assert (q <= family + 1e-12).all()
    assert (family <= 1.0).all()


@given(shares, st.randoms(use_true_random=False))
def test_the_order_of_tests_does_not_matter(values: list[float], random: object) -> None:
    p = np.array(values)
    order = np.array(sorted(range(len(p)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    for correct in (holm, benjamini_hochberg):
        assert correct(p[order]).tolist() == correct(p)[order].tolist()


def test_false_discovery_rate_is_held_where_some_effects_are_real() -> None:
    """20 of 100 tests real; the share of false ones among the finds stays at 5% times 80/100."""
    rng, wrong = np.random.default_rng(2), []
    for _ in range(400):
        p = rng.uniform(size=100)
        p[:20] = p[:20] ** 8
        found = benjamini_hochberg(p) <= 0.05
        wrong.append(found[20:].sum() / max(1, found.sum()))
    assert np.mean(wrong) == pytest.approx(0.04, abs=3 * np.std(wrong) / 20)


def test_undefined_p_is_refused() -> None:
    for correct in (holm, benjamini_hochberg):
        with pytest.raises(TableError, match="p values cannot be tested because values are undef"):
            correct(np.array([0.1, np.nan]))
