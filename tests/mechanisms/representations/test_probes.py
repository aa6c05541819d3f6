"""Probes: scipy's optimum, means by hand, held-out scenarios, and nothing found in noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize

from moralscope.core.errors import EvidenceError
from moralscope.games import balanced, clusters, counterfactual_pairs
from moralscope.mechanisms.representations import probes
from moralscope.mechanisms.representations.probes import Asked, Method, blocks_of, probe
from moralscope.mechanisms.representations.tables import change_question, questions

UNITS = tuple(f"s{i // 4}" for i in range(32))
STRATA = tuple(f"w{i // 2 % 2}" for i in range(32))
WITHIN = np.arange(32) % 2 == 1
BETWEEN = np.arange(32) // 4 % 2 == 1
"""Classes within every scenario and wording, and of whole scenarios."""


def asked(values: np.ndarray, labels: np.ndarray) -> Asked:
    return Asked(values, labels, UNITS, STRATA)


def readings(seed: int, labels: np.ndarray, gap: float, width: int = 200) -> np.ndarray:
    """Noise in many dimensions, the classes ``gap`` apart along the first."""
    found = np.random.default_rng(seed).standard_normal((32, width))
    found[:, 0] += gap * np.where(labels, 0.5, -0.5)
    return found


def logistic_scores(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The regularised logistic probe in the space of the streams, by scipy."""
    mean = x.mean(axis=0)
    scale = np.sqrt(((x - mean) ** 2).sum() / len(x))
    z, y = (x - mean) / scale, np.where(labels, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = y * (z @ w)
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * w @ w
        slope = -(z.T @ (y / (1.0 + np.exp(margin)))) + w
        return float(value), slope

    best = optimize.minimize(
        loss, np.zeros(x.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-12}
    )
    return (new - mean) / scale @ best.x


def mean_scores(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    one, none = x[labels].mean(axis=0), x[~labels].mean(axis=0)
    return (new - (one + none) / 2.0) @ (one - none)


def about_cells(x: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Readings about the mean of their block and wording, cell by cell."""
    found = x.copy()
    for cell in {(b, w) for b, w in zip(blocks.tolist(), STRATA, strict=True)}:
        rows = [i for i in range(32) if (int(blocks[i]), STRATA[i]) == cell]
        found[rows] -= sum(x[i] for i in rows) / len(rows)
    return found


@pytest.mark.parametrize("method", ["mean_difference", "logistic"])
@pytest.mark.parametrize("labels", [WITHIN, BETWEEN], ids=["within", "between"])
def test_scores_are_those_of_a_fit_without_the_block(method: Method, labels: np.ndarray) -> None:
    x = readings(1, labels, 2.0, width=12)
    oracle = mean_scores if method == "mean_difference" else logistic_scores
    blocks = np.arange(32) // (4 if labels is WITHIN else 8)
    z = about_cells(x, blocks)
    right, won, pairs = np.zeros(32), 0.0, 0
    for block in range(int(blocks.max()) + 1):
        fold, train = np.flatnonzero(blocks == block), np.flatnonzero(blocks != block)
        score = oracle(z[train], labels[train], z[fold])
        right[fold] = (score > 0) == labels[fold]
        one, none = score[labels[fold]], score[~labels[fold]]
        won += sum(float(a > b) for a in one for b in none)
        pairs += len(one) * len(none)
    found = probe(asked(x, labels), method, np.random.default_rng(0), 0)
    accuracy = (right[labels].mean() + right[~labels].mean()) / 2.0
    assert found.accuracy == pytest.approx(accuracy, abs=1e-12)
    assert found.auc == pytest.approx(won / pairs, abs=1e-12)
    assert 0.5 < found.accuracy < 1.0


def test_the_logistic_scores_themselves_are_scipys() -> None:
    x = readings(2, WITHIN, 1.0, width=12)
    gram = x @ x.T
    train, fold = np.arange(4, 32), np.arange(4)
    found = probes._logistic(
        gram[np.ix_(train, train)], gram[np.ix_(fold, train)], WITHIN[train][:, None]
    )
    assert found[:, 0] == pytest.approx(logistic_scores(x[train], WITHIN[train], x[fold]), abs=1e-6)


@pytest.mark.parametrize("method", ["mean_difference", "logistic"])
@pytest.mark.parametrize("labels", [WITHIN, BETWEEN], ids=["within", "between"])
def test_a_planted_direction_is_found_and_noise_is_not(method: Method, labels: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    planted = probe(asked(readings(3, labels, 14.0), labels), method, rng)
    assert planted.accuracy == 1.0
    assert planted.auc == 1.0
    assert planted.p <= (0.05 if labels is WITHIN else 0.15)
    assert abs(planted.chance - 0.5) < 0.1
    noise = [probe(asked(readings(seed, labels, 0.0), labels), method, rng) for seed in range(16)]
    assert abs(float(np.mean([n.accuracy for n in noise])) - 0.5) < 0.08
    assert sum(n.p <= 0.05 for n in noise) <= 3


def test_what_is_permuted_and_left_out_follows_the_labels() -> None:
    x = readings(0, WITHIN, 1.0)
    assert blocks_of(asked(x, WITHIN)).tolist() == [i // 4 for i in range(32)]
    assert blocks_of(asked(x, BETWEEN)).tolist() == [i // 8 for i in range(32)]
    rng = np.random.default_rng(0)
    assert probe(asked(x, WITHIN), "mean_difference", rng).permuted == "prompts"
    assert probe(asked(x, BETWEEN), "mean_difference", rng).permuted == "scenarios"


def test_wordings_that_balance_the_classes_do_not_turn_the_probe_round() -> None:
    """Two wordings far apart, each with one class in every other scenario, and no difference."""
    rng = np.random.default_rng(7)
    units = tuple(f"s{i // 2:02d}" for i in range(40))
    strata = tuple(f"w{i % 2}" for i in range(40))
    labels = (np.arange(40) % 2 == 1) ^ (np.arange(40) // 2 % 2 == 1)
    found: list[float] = []
    for _ in range(8):
        x = rng.standard_normal((40, 100))
        x[:, 0] += 50.0 * (np.arange(40) % 2)
        found.append(probe(Asked(x, labels, units, strata), "mean_difference", rng, 0).accuracy)
    assert abs(float(np.mean(found)) - 0.5) < 0.08


def test_a_scenario_is_never_on_both_sides() -> None:
    """A quirk of each scenario that gives its label away must not help on others."""
    rng = np.random.default_rng(6)
    found: list[float] = []
    for _ in range(16):
        quirks = 30.0 * rng.standard_normal((8, 200))
        x = quirks[np.arange(32) // 4] + rng.standard_normal((32, 200))
        found.append(probe(asked(x, BETWEEN), "logistic", rng, 0).accuracy)
    assert abs(float(np.mean(found)) - 0.5) < 0.15


def test_the_p_of_whole_scenarios_is_that_of_every_exchange() -> None:
    """Four blocks of two scenarios: eight ways up to the sign, so all classes turned is a tie."""
    x = readings(4, BETWEEN, 20.0, width=6)
    found = probe(asked(x, BETWEEN), "mean_difference", np.random.default_rng(1), 2_000)
    # Only the observed labels and their mirror image separate perfectly: 2 of 2^4.
    assert found.p == pytest.approx(2.0 / 16.0, abs=0.03)


def test_classes_of_one_scenario_are_refused() -> None:
    labels = np.arange(32) < 4
    with pytest.raises(EvidenceError, match="has not seen.*1 blocks of scenarios"):
        probe(asked(readings(0, labels, 1.0), labels), "logistic", np.random.default_rng(0))


def test_a_change_is_probed_on_prompts_that_differ_in_nothing_else() -> None:
    asked_of = balanced(clusters(("action1", "action2")))
    pairs = counterfactual_pairs(asked_of, "opponent_previous")
    prompts = tuple({p.name: p for pair in pairs for p in (pair.target, pair.source)}.values())
    question = change_question("opponent_previous", prompts)
    told = {prompt.name: prompt.opponent_previous == "D" for prompt in prompts}
    assert question.labels.tolist() == [told[name] for name in question.prompts]
    counts: dict[tuple[str, bool], int] = {}
    for stratum, label in zip(question.strata, question.labels.tolist(), strict=True):
        counts[stratum, label] = counts.get((stratum, label), 0) + 1
    assert all(counts[stratum, not label] == n for (stratum, label), n in counts.items())
    assert question.answerable


def test_properties_that_divide_prompts_alike_are_one_question() -> None:
    found = questions(tuple(balanced(clusters(("action1", "action2")))))
    assert [question.what for question in found] == ["labels", "option_order"]
    for one, other in itertools.combinations(found, 2):
        assert 0 < int((one.labels == other.labels).sum()) < len(one.labels)
