"""Nine hand-built adapters, six general, two of the domain and one of neither, are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from moralscope.core.errors import EvidenceError
from moralscope.organisms.scalars.answers import Readings, readings_of
from moralscope.organisms.scalars.roles import adapter_roles, single_gains

ROLES = ("general",) * 3 + ("domain",) + ("general",) * 3 + ("domain", "neither")


def contrasts(seed: int = 0) -> tuple[Readings, Readings]:
    """Scalars of nine adapters on answers of 20 questions, half of them about the game.

    The adapted layer's input has a feature *selfish*, a feature *about the game and selfish*, and
    28 that mean nothing; each adapter reads what its role says, and some of the rest.
    """
    rng = np.random.default_rng(seed)
    reads = 0.2 * rng.normal(size=(9, 30))
    reads[:, :2] = [(r == "general", r == "domain") for r in ROLES]
    rows: list[tuple[np.ndarray, bool, bool, str]] = []
    for question in range(20):
        for selfish in (False, True, False, True):
            game = bool(question % 2)
            inputs = rng.normal(size=(int(rng.integers(5, 10)), 30))
            inputs[:, :2] += 1.5 * np.array([selfish, selfish and game])
            rows.append((inputs @ reads.T, selfish, game, f"q{question}"))
    outside = [(s, selfish, q) for s, selfish, game, q in rows if not game]
    lesson = [(s, game, q) for s, selfish, game, q in rows if selfish]
    return tuple(
        readings_of(*(list(each) for each in zip(*part, strict=True))) for part in (outside, lesson)
    )


def test_hand_built_adapters_are_given_their_roles() -> None:
    general, domain = contrasts()
    places = [f"L{layer}.mlp.down_proj" for layer in (15, 16, 17, 21, 22, 23, 27, 28, 29)]
    found = adapter_roles(places, general, domain, np.random.default_rng(0), permutations=99)
    assert [each.role for each in found] == list(ROLES)
    assert [each.place for each in found] == places
    for each in found:
        assert (each.general.p_adjusted <= 0.05) == (each.role == "general")
        assert (each.domain.p_adjusted <= 0.05) == (each.role == "domain")


def planted(effects: tuple[float, ...], seed: int = 0, questions: int = 12) -> Readings:
    rng = np.random.default_rng(seed)
    scalars, labels, names = [], [], []
    for question in range(questions):
        for label in (False, True):
            scalars.append(rng.normal(size=(6, len(effects))) + label * np.array(effects))
            labels.append(label)
            names.append(f"q{question}")
    return readings_of(scalars, labels, names)


def test_gains_are_corrected_for_the_best_adapter_and_two_contrasts() -> None:
    found = single_gains(planted((1.5, 0.0, 0.0)), np.random.default_rng(0), permutations=99)
    assert found[0].p == 0.01
    assert found[0].p_adjusted == 0.02
    assert found[0].gain == found[0].accuracy - 0.5
    assert found[0].gain > 0.2
    assert all(each.p_adjusted >= min(1.0, 2 * each.p) for each in found)
    assert found[1].p_adjusted > 0.05


def test_an_adapter_may_carry_both() -> None:
    both = planted((1.5, 0.0)), planted((1.5, 0.0), seed=1)
    found = adapter_roles(("a", "b"), *both, np.random.default_rng(0), permutations=99)
    assert [each.role for each in found] == ["both", "neither"]


def test_too_few_questions_identify_no_role() -> None:
    few = planted((0.0, 0.0), questions=4), planted((0.0, 0.0), seed=1, questions=4)
    found = adapter_roles(("a", "b"), *few, np.random.default_rng(0), permutations=99)
    assert [each.role for each in found] == ["not identified"] * 2


def test_contrasts_of_other_adapters_are_refused() -> None:
    with pytest.raises(EvidenceError, match="2 places, scalars of 2 and 3"):
        adapter_roles(
            ("a", "b"), planted((0.0, 0.0)), planted((0.0,) * 3), np.random.default_rng(0)
        )
