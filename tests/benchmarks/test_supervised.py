"""The comparison of lessons: three ways that are the same training, timed as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from benchmarks.supervised import Size, compare, lesson_chats, main

SIZE = Size(examples=6, batch=3, epochs=2, repeats=1)


@pytest.fixture(scope="module")
def entry() -> dict[str, Any]:
    base = tiny.loaded(tiny.tiny_model("llama", dtype=torch.float32), tiny.tiny_tokenizer())
    return compare(base, [2], SIZE)["cached_below_2_vs_plain"]


def test_ratios_are_those_of_the_stated_times(entry: dict[str, Any]) -> None:
    assert entry["ratio"] == pytest.approx(entry["peer_seconds"] / entry["ours_seconds"])
    assert set(entry["turns"]) == {"padded", "tree", "cached"}
    assert entry["ours_seconds"] == entry["turns"]["cached"][0] > 0
    assert json.loads(json.dumps(entry)) is not None


def test_all_ways_have_the_same_gradient(entry: dict[str, Any]) -> None:
    apart = entry["deviation"]["gradient_relative"]
    assert set(apart) == {"tree", "cached"}
    assert all(0 < value < 1e-4 for value in apart.values())


def test_the_cache_and_the_tokens_are_stated(entry: dict[str, Any]) -> None:
    assert entry["cache"]["mapped"] is False
    assert entry["cache"]["bytes"] % (32 * 4) == 0
    tokens = entry["tokens"]
    assert 0 < tokens["answers"] < tokens["batch"] < tokens["batch_with_padding"]


def test_chats_are_all_different() -> None:
    chats = lesson_chats(72)
    assert len({chat.messages for chat in chats}) == 72


def test_a_model_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(Path("nowhere") / "model")]) == 2
    assert "nowhere" in capsys.readouterr().err
