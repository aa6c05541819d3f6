"""What goes between driver and workers arrives as it was sent, errors included."""

from __future__ import annotations

import json

import pytest

from moralscope.core.errors import AgentError, ConfigError, MoralscopeError, OutputError
from moralscope.core.progress import ProgressEvent
from moralscope.studies.engines.assignments import (
    Answer,
    Assignment,
    Broken,
    Died,
    Failure,
    Finished,
    Heard,
    WorkOrder,
    failure_of,
)
from moralscope.studies.engines.computing import AnotherPlanError
from moralscope.studies.engines.wire import answer_in, assignment_in, line_of, order_in
from moralscope.studies.engines.working import throttled

FAILURE = Failure("AgentError", "It broke", "ü\n3", "4", "try again", "Traceback")


@pytest.mark.parametrize(
    "answer",
    [
        Finished(2, "patch-a>b", computed=False),
        Broken(1, "train-a", FAILURE, fatal=True),
        Died(3, "train-a", "killed by SIGKILL"),
        Heard(1, ProgressEvent("train a", 3, 25, "loss 0.1", 0.25)),
    ],
)
def test_answers_arrive_on_one_line(answer: Answer) -> None:
    line = line_of(answer)
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert answer_in(line) == answer


def test_orders_and_assignments_arrive() -> None:
    order = WorkOrder("agents: {}\n", "/cache", "/here", "/cache/probe", {"A": "1"})
    assert order_in(line_of(order)) == order
    given = Assignment("evidence", "0" * 64, {"b": "1" * 64, "a": "2" * 64}, ("x", "y"))
    there = assignment_in(line_of(given))
    assert there == given
    assert list(there.needs) == ["b", "a"]  # the order of parts of a table


@pytest.mark.parametrize("kind", [AgentError, OutputError, ConfigError])
def test_an_error_of_ours_is_raised_again_as_it_was(kind: type[MoralscopeError]) -> None:
    error = kind("It broke", seen=3, allowed="4", remedy="try again")
    again = failure_of(error).error()
    assert type(again) is kind
    assert str(again) == str(error)
    assert failure_of(error).why == "It broke. Seen: 3. Next: try again"


def test_another_plan_is_raised_as_a_wrong_setting() -> None:
    error = AnotherPlanError("It differs", seen=1, allowed="2", remedy="install")
    assert type(failure_of(error).error()) is ConfigError


def test_an_error_that_was_not_foreseen_keeps_class_text_and_place() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        failure = failure_of(error)
    assert failure.kind == "JSONDecodeError"
    assert failure.why.startswith("JSONDecodeError: Expecting property name")
    assert "decode" in failure.why
    assert "Traceback" in failure.trace
    again = failure.error()
    assert type(again) is MoralscopeError
    assert str(again).startswith("JSONDecodeError: Expecting property name")


def test_progress_is_told_first_last_and_now_and_then() -> None:
    now, heard = [0.0], list[tuple[str, int]]()
    tell = throttled(lambda event: heard.append((event.task, event.done)), clock=lambda: now[0])
    for step in range(11):
        now[0] = step / 10
        tell(ProgressEvent("train a", step, 10))
        tell(ProgressEvent("train b", step, 100))
    assert heard == [
        ("train a", 0), ("train b", 0), ("train a", 5), ("train b", 5), ("train a", 10),
        ("train b", 10),
    ]  # fmt: skip
