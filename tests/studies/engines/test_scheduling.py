"""What is next, who computes it, and what can no longer be computed."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from fakes import AGENTS, STUDY, fake_plan

from moralscope.studies.engines.scheduling import (
    ATTEMPTS,
    Board,
    Worker,
    affinity,
    agents_of,
    essentials,
    matched,
    remember,
)

PLAN = fake_plan(STUDY)
TASKS = {task.stage.name: task for task in PLAN}


def names(board: Board) -> list[str]:
    return [assignment.stage for _, assignment in board.ready()]


def finish(board: Board, *wanted: str) -> None:
    found = {assignment.stage: assignment for _, assignment in board.ready()}
    for name in wanted:
        board.begin(name)
        board.finish(found[name])


def test_what_needs_nothing_is_ready_first_and_the_rest_when_its_needs_are_there() -> None:
    board = Board(PLAN)
    assert names(board) == ["prompts", "train-a", "train-b"]
    finish(board, "train-a")
    assert names(board) == ["prompts", "train-b", "patch-base>a"]
    board.begin("train-b")
    assert names(board) == ["prompts", "patch-base>a"]
    finish(board, "prompts")
    assert names(board) == ["decide-base", "decide-a", "patch-base>a"]


def test_a_whole_study_has_the_keys_of_its_plan() -> None:
    board = Board(PLAN)
    while not board.over:
        finish(board, *names(board))
    assert board.done == {name: task.stage.key for name, task in TASKS.items()}


def test_a_failure_costs_what_needs_it_and_names_the_root() -> None:
    board = Board(PLAN)
    finish(board, "prompts", "train-a")
    board.fail("train-b", "no number")
    skipped = board.skip_hopeless()
    assert [(m.name, m.why, m.skipped) for m in skipped] == [
        ("decide-b", "no number", "train-b"),
        ("patch-base>b", "no number", "train-b"),
    ]
    assert board.skip_hopeless() == ()
    assert "agents" in names(board)


def test_what_gathers_is_made_of_what_is_there_under_a_key_of_its_own() -> None:
    board = Board(PLAN)
    finish(board, "prompts", "train-a")
    board.fail("train-b", "no number")
    board.skip_hopeless()
    task, assignment = next(one for one in board.ready() if one[1].stage == "agents")
    assert assignment.without == ("b",)
    assert list(assignment.needs) == list(task.stage.needs) == ["train-a"]
    assert task.stage.key == assignment.key != TASKS["agents"].stage.key
    finish(board, "agents", "decide-base", "decide-a")
    behaviour = next(a for _, a in board.ready() if a.stage == "behaviour")
    assert behaviour.needs["agents"] == assignment.key
    assert list(behaviour.needs) == ["prompts", "agents", "decide-base", "decide-a"]
    assert behaviour.without == ("b",)


def test_a_missing_patch_takes_no_agent_out() -> None:
    board = Board(PLAN)
    board.fail("patch-base>b", "no memory")
    while not board.over:
        found = {a.stage: a for _, a in board.ready()}
        finish(board, *found)
        if "evidence" in found:
            assert found["evidence"].without == ()
            assert "patch-base>b" not in found["evidence"].needs
            return
    raise AssertionError("no evidence")


def test_nothing_is_concluded_without_what_everything_rests_on() -> None:
    assert essentials(PLAN) == {"prompts", "agents", "decide-base"}
    board = Board(PLAN)
    board.fail("agents", "two tokenizers")
    skipped = {missing.name: missing.skipped for missing in board.skip_hopeless()}
    assert skipped == {"behaviour": "agents", "evidence": "agents"}


def test_a_stage_is_given_out_three_times() -> None:
    board = Board(PLAN)
    tries = 0
    while True:
        board.begin("train-a")
        tries += 1
        if not board.lost("train-a"):
            break
        assert "train-a" in names(board)
    assert tries == ATTEMPTS == 3


@settings(max_examples=40)
@given(st.randoms(use_true_random=False))
def test_whatever_fails_everything_is_settled_and_nothing_runs_without_its_needs(
    draw: Random,
) -> None:
    board = Board(PLAN)
    broken = {name for name in TASKS if draw.random() < 0.25}
    while not board.over:
        board.skip_hopeless()
        ready = list(board.ready())
        if not ready:
            assert board.over
            break
        _, assignment = draw.choice(ready)
        name = assignment.stage
        assert all(board.done[need] == key for need, key in assignment.needs.items())
        if name in broken:
            board.fail(name, "broken")
        else:
            finish(board, name)
    assert set(board.done) | set(board.missing) == set(TASKS)
    assert not set(board.done) & set(board.missing)
    for missing in board.missing.values():
        assert missing.skipped is None or missing.skipped in broken
        assert missing.skipped is not None or missing.name in broken


def test_a_stage_names_its_agents() -> None:
    assert agents_of(TASKS["patch-base>a"].stage, AGENTS) == {"base", "a"}
    assert agents_of(TASKS["behaviour"].stage, AGENTS) == frozenset()


def pairs(ready: list[str], workers: list[Worker]) -> list[tuple[int, str]]:
    board = Board(fake_plan(dict.fromkeys(ready, ())))
    return [(w.number, a.stage) for w, _, a in matched(board.ready(), workers, AGENTS)]


def test_a_stage_goes_to_the_worker_that_knows_its_agents() -> None:
    workers = [Worker(1, loaded={"a"}), Worker(2, loaded={"base", "b"})]
    ready = ["decide-a", "patch-base>b", "decide-b"]
    assert pairs(ready, workers) == [(2, "patch-base>b"), (1, "decide-a")]


def test_training_goes_to_the_worker_that_knows_fewest() -> None:
    workers = [Worker(1, loaded={"a", "b"}), Worker(2, loaded={"a"})]
    assert pairs(["train-a"], workers) == [(2, "train-a")]
    assert affinity(TASKS["train-a"].stage, workers[0], AGENTS) == -2


def test_of_equals_the_first_of_the_plan_and_the_first_worker_are_taken() -> None:
    assert pairs(["decide-b", "decide-a"], [Worker(1), Worker(2)]) == [
        (1, "decide-b"),
        (2, "decide-a"),
    ]


def test_busy_workers_get_nothing_and_those_for_tables_no_model() -> None:
    assert pairs(["decide-a"], [Worker(1, busy="decide-b")]) == []
    workers = [Worker(1), Worker(2, tables_only=True)]
    assert pairs(["behaviour", "decide-a"], workers) == [(2, "behaviour"), (1, "decide-a")]
    assert pairs(["decide-a", "decide-b"], workers) == [(1, "decide-a")]


def test_workers_are_remembered_by_what_they_loaded() -> None:
    worker = Worker(1)
    remember(worker, TASKS["patch-base>a"].stage, AGENTS)
    assert worker.loaded == {"base", "a"}
    remember(worker, TASKS["behaviour"].stage, AGENTS)
    assert worker.loaded == {"base", "a"}
    remember(worker, TASKS["agents"].stage, AGENTS)
    assert worker.loaded == {"base", "a", "b"}
    remember(worker, TASKS["train-a"].stage, AGENTS)
    assert worker.loaded == set()
