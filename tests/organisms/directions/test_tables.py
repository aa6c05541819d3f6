"""Rows say what was found, one for each layer or intervention, and null what is not known."""

from __future__ import annotations

import numpy as np
import pytest
from lessons import drawn_streams

from moralscope.core.streams import stream
from moralscope.organisms.directions.converging import converge
from moralscope.organisms.directions.effects import Tried, judge_effects
from moralscope.organisms.directions.interventions import Intervention
from moralscope.organisms.directions.means import direction_evidence, find_direction
from moralscope.organisms.directions.nulls import unrelated_cosines
from moralscope.organisms.directions.tables import convergence_rows, direction_rows, effect_rows
from moralscope.organisms.directions.transfer import Transfer, Undone


def test_a_direction_has_a_row_for_each_layer():
    found = find_direction(*drawn_streams(5, each=2, lengths=(4, 9)), factor=1.5)
    judged = direction_evidence(found.sums, stream(0, "halves"), draws=20)
    rows = direction_rows("selfishness", found, judged)
    assert [row["layer"] for row in rows] == [0, 1, 2]
    for row in rows:
        layer = row["layer"]
        assert row["length"] == pytest.approx(np.linalg.norm(found.vectors[layer]))
        assert row["relative"] == found.relative[layer]
        assert (row["p"], row["p_adjusted"]) == (judged.p[layer], judged.p_adjusted[layer])
        assert row["split_half"] == judged.split_half[layer]
        assert row["pairs"] + row["left_positive"] == 10
        assert row["n"] == len(found.sums.questions)
        assert (row["what"], row["agent"], row["over"]) == ("selfishness", "organism", "answer")
    alone = find_direction(*drawn_streams(1))
    (row, *_) = direction_rows(
        "selfishness", alone, direction_evidence(alone.sums, stream(0, "halves"), draws=20)
    )
    assert row["split_half"] is None


def test_an_intervention_has_a_row():
    effect = np.array([1.0, 2.0, 3.0])
    tried = [
        Tried(Intervention("steer", 4, 2.0), effect, np.zeros((20, 3)), -effect / 2),
        Tried(Intervention("own layers"), np.zeros(3), np.zeros((20, 3)), None),
    ]
    moved = Transfer("other", -effect, tuple(judge_effects(tried)), (Undone(1.0, 0.5, 1.5), None))
    first, second = effect_rows("selfishness", "organism", moved)
    assert (first["what"], first["source"], first["agent"]) == ("selfishness", "organism", "other")
    assert (first["intervention"], first["way"], first["layer"]) == ("steer L4 x2", "steer", 4)
    assert (first["effect"], first["shift"], first["n"], first["n_random"]) == (2.0, -2.0, 3, 20)
    assert (first["undone"], first["undone_low"], first["undone_high"]) == (1.0, 0.5, 1.5)
    assert (first["style"], first["beyond_style"]) == (-1.0, 1.0)
    assert first["low"] < 2.0 < first["high"]
    for key in ("layer", "low", "high", "style", "beyond_style", "beyond_style_p", "undone"):
        assert second[key] is None
    assert set(first) == set(second)


def test_a_pair_has_a_row_for_each_layer():
    first, second = (find_direction(*drawn_streams(5, seed=k, agent=f"o{k}")) for k in range(2))
    texts = stream(0, "texts").standard_normal((6, 3, 8))
    found = converge(first, second, unrelated_cosines(texts, texts, stream(0, "halves"), draws=19))
    rows = convergence_rows("selfishness", [found, found])
    assert [row["layer"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert {(row["agent_a"], row["agent_b"], row["halves"]) for row in rows} == {
        ("o0", "o1", "shared")
    }
    assert [row["cosine"] for row in rows[:3]] == found.cosine.tolist()
    assert {(row["n"], row["floor"], row["shared_answers"]) for row in rows} == {(6, 0.05, 10)}
