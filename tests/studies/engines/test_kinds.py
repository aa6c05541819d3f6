"""The words after --engine, and the threads that each worker has."""

from __future__ import annotations

import os

import pytest

from moralscope.core.errors import ConfigError
from moralscope.studies.engines.kinds import Engine, engine_of, threads_of, threads_set
from moralscope.studies.plan import threads


@pytest.mark.parametrize(
    ("words", "engine"),
    [
        ("local", Engine("here", 1)),
        ("local:1", Engine("processes", 1)),
        ("local:12", Engine("processes", 12)),
        ("ray", Engine("ray")),
        ("ray:auto", Engine("ray", address="auto")),
        ("ray:head:6379", Engine("ray", address="head:6379")),
        ("ray:ray://head:10001", Engine("ray", address="ray://head:10001")),
    ],
)
def test_engines_by_their_words(words: str, engine: Engine) -> None:
    assert engine_of(words) == engine


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("cloud", "no such engine. Seen: cloud. Allowed: local, local:N, ray, ray:ADDRESS"),
        ("", "no such engine"),
        ("Local", "no such engine"),
        ("local:", "local cannot be asked for in this way. Seen: local:. .*local:2"),
        ("local:0", "local cannot be asked for in this way"),
        ("local:two", "local cannot be asked for in this way"),
        ("local:-1", "local cannot be asked for in this way"),
        ("ray:", "ray cannot be asked for in this way. Seen: ray:. .*write ray alone"),
    ],
)
def test_other_words_are_refused(words: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        engine_of(words)


def test_cores_are_divided_among_processes() -> None:
    assert threads_of(engine_of("local"), 16) == 16
    assert [threads_of(engine_of(f"local:{n}"), 16) for n in (1, 2, 3, 16, 40)] == [16, 8, 5, 1, 1]
    assert [threads_of(engine_of("ray"), cores) for cores in (1, 2, 4, 64)] == [1, 2, 4, 4]


def test_the_plan_is_made_with_the_threads_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with threads_set(engine_of("local:1000")):
        assert threads() == 1
    assert "OMP_NUM_THREADS" not in os.environ
    with threads_set(engine_of("local")):
        assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with threads_set(engine_of("local:1000")):
        assert threads() == 3  # what the user says stays
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with threads_set(engine_of("local:1000")):
        assert threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "many"


def test_only_a_cluster_that_runs_already_may_have_other_devices() -> None:
    engines = [engine_of(words) for words in ("local", "local:2", "ray", "ray:auto")]
    assert [engine.elsewhere for engine in engines] == [False, False, False, True]
    assert [engine.parallel for engine in engines] == [False, True, True, True]
