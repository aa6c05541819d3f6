"""Behavioural fingerprints: what matches, what is refused, what is not compared."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.errors import AgentError
from moralscope.models.fingerprint import (
    TOLERANCE,
    Fingerprint,
    compare,
    make_fingerprint,
    read_fingerprint,
    write_fingerprint,
)
from moralscope.models.loading import DtypeName

PROMPTS = tiny.token_prompts(4)
VALUES = np.array([1.0, -2.0, 0.5, 3.0])
BASE = tiny.loaded(tiny.tiny_model(num_hidden_layers=1))
STORED = make_fingerprint(BASE, "adapter-hash", PROMPTS, VALUES)


def compared(log_odds: Any = VALUES, **changes: Any) -> Any:
    named: dict[str, Any] = {
        "base": BASE, "adapter_sha256": "adapter-hash", "prompts": PROMPTS, **changes,
    }  # fmt: skip
    return compare("game", STORED, log_odds=np.asarray(log_odds, dtype=float), **named)


def test_it_survives_the_disk(tmp_path: Path):
    write_fingerprint(tmp_path, STORED)
    assert read_fingerprint(tmp_path) == STORED
    assert read_fingerprint(tmp_path / "elsewhere") is None


def test_the_same_agent_matches():
    match = compared()
    assert match.stored.tolist() == VALUES.tolist()
    assert (match.compared, match.largest) == (4, 0.0)


@given(st.integers(0, 3), st.floats(-1e-3, 1e-3))
def test_the_tolerance_is_exact(at: int, shift: float):
    moved = VALUES.copy()
    moved[at] += shift
    gap = np.abs(moved - VALUES).max()
    if gap <= TOLERANCE["float64"]:
        assert compared(moved).largest == gap
    else:
        with pytest.raises(AgentError, match="does not act as it did"):
            compared(moved)


def test_another_behaviour_is_refused_with_the_worst_prompt():
    moved = VALUES + np.array([0.0, 0.1, -0.7, 0.0])
    with pytest.raises(
        AgentError, match="Agent 'game' does not act as it did when it was tra"
    ) as e:
        compared(moved)
    assert e.value.seen == "log-odds off by up to 0.7 nats on 4 prompts, most on 'p2'"
    assert "at most 1e-06 nats" in e.value.allowed
    assert "un-merged" in e.value.remedy


def test_a_dead_adapter_is_refused():
    with pytest.raises(AgentError, match="does not act as it did"):
        compared(np.zeros(4))


def test_the_wider_tolerance_of_both_dtypes_holds():
    narrow = dataclasses.replace(BASE, dtype="float32")
    assert compared(VALUES + 4e-3, base=narrow).largest == pytest.approx(4e-3)
    with pytest.raises(AgentError, match="float64 against float32"):
        compared(VALUES + 6e-3, base=narrow)


def test_every_dtype_has_its_tolerance():
    assert set(TOLERANCE) == set(get_args(DtypeName))


OTHER_SOURCE = dataclasses.replace(BASE.source, sha256="1" * 64)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"base": dataclasses.replace(BASE, source=OTHER_SOURCE)}, "base"),
        ({"adapter_sha256": "other"}, "adapter"),
        (
            {"base": dataclasses.replace(BASE, tokenizer=tiny.tiny_tokenizer(chat=False))},
            "chat template",
        ),
    ],
)
def test_another_world_is_refused_by_what_differs(changes: dict[str, Any], what: str):
    with pytest.raises(AgentError, match=f"Agent 'game' does not belong to this {what}") as e:
        compared(**changes)
    assert "as stored when it was trained" in e.value.allowed


def test_another_tokenizer_is_refused():
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_tokens(["novel"])
    with pytest.raises(AgentError, match="does not belong to this tokenizer"):
        compared(base=dataclasses.replace(BASE, tokenizer=tokenizer))


def test_reworded_and_new_prompts_are_not_compared():
    reworded = dataclasses.replace(PROMPTS[1], text="other words")
    new = dataclasses.replace(PROMPTS[2], name="new")
    match = compared([1.0, 99.0, 99.0, 3.0], prompts=[PROMPTS[0], reworded, new, PROMPTS[3]])
    assert match.compared == 2
    assert np.isnan(match.stored).tolist() == [False, True, True, False]


def test_without_a_prompt_in_common_nothing_is_claimed():
    match = compared([99.0], prompts=[dataclasses.replace(PROMPTS[0], name="new")])
    assert (match.compared, match.largest) == (0, None)


@pytest.mark.parametrize("content", ["{", "[]", '{"base": "x"}', '{"surprise": 1}'])
def test_a_damaged_fingerprint_is_refused(tmp_path: Path, content: str):
    (tmp_path / "fingerprint.json").write_text(content)
    with pytest.raises(AgentError, match="A fingerprint is damaged") as e:
        read_fingerprint(tmp_path)
    assert str(tmp_path) in str(e.value)
    assert "liveness is then not available" in e.value.remedy


def test_a_fingerprint_names_its_prompts_by_text():
    assert isinstance(STORED, Fingerprint)
    assert {k: v.sha256 for k, v in STORED.prompts.items()} == {p.name: p.sha256 for p in PROMPTS}


def test_log_odds_that_are_not_numbers_are_refused():
    with pytest.raises(AgentError, match="does not act as it did"):
        compared([1.0, np.nan, 0.5, 3.0])
