"""Policies with known answers, asked through Inspect AI: its scores and the tables of its log."""

from __future__ import annotations

import gc
import logging
import math
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Generator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalError, EvalLog, read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from polars.testing import assert_frame_equal

from moralscope.behaviour import policy_table
from moralscope.behaviour.inspecting import decisions, decisions_from_log, prompts_without_stem
from moralscope.behaviour.presentations import presented
from moralscope.behaviour.scripted import scripted_decisions
from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, TableError
from moralscope.games import scenarios, structured, write_prompts

ROOT = Path(__file__).resolve().parents[2]
Policy = Callable[[str], str]

# Both are Inspect AI's own affair: what it asks of tenacity, and streams that it leaves to be
# collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers  # a task puts its own one there and leaves it
    root.setLevel(level)
    gc.collect()  # what is left open is collected here, where it may be


def ask(task: Task, policy: Policy, folder: Path, **options: Any) -> EvalLog:
    def answer(messages: Any, *_: object) -> ModelOutput:
        output = ModelOutput.from_content("mockllm/model", policy(messages[-1].text))
        # Counts that are not given would be made with a vocabulary from the network.
        output.usage = ModelUsage(input_tokens=9, output_tokens=2, total_tokens=11)
        return output

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    (log,) = evaluate(
        task, model=model, display="none", log_dir=str(folder), log_realtime=False, **options
    )
    assert log.status == "success", log.error
    return log


def metrics(log: EvalLog, name: str) -> dict[str, float]:
    assert log.results is not None
    (score,) = (score for score in log.results.scores if score.name == name)
    found = {key: float(metric.value) for key, metric in score.metrics.items()}
    return {key.removeprefix("moralscope/"): value for key, value in found.items()}


def clustered_error(values: dict[str, list[float]]) -> float:
    """Of a mean of values in clusters: residuals summed within each, G / (G - 1)."""
    flat = [value for cluster in values.values() for value in cluster]
    centre, g = sum(flat) / len(flat), len(values)
    within = [sum(value - centre for value in cluster) for cluster in values.values()]
    return math.sqrt(g / (g - 1) * sum(w**2 for w in within)) / len(flat)


def reciprocates(text: str) -> str:
    """Tit-for-tat, by what the text says of the other's last move."""
    found = re.search(r"and A played (\w+)", text)
    assert found is not None
    return found[1]


def test_tit_for_tat_through_a_log_is_the_scripted_policy(tmp_path: Path):
    log = ask(decisions(), reciprocates, tmp_path)
    tables = decisions_from_log(log, agent="policy:tit-for-tat")
    asked = structured(stem=False)
    scripted = scripted_decisions("policy:tit-for-tat", "tit-for-tat", list(asked))
    assert_frame_equal(tables.decisions, scripted)
    assert_frame_equal(
        policy_table(tables.prompts, tables.decisions), policy_table(tables.prompts, scripted)
    )
    (policy,) = presented(tables.prompts, tables.decisions)
    np.testing.assert_array_equal(policy.mean[:, 0], [1, 0, 1, 0])
    assert policy.presentations == tuple(
        f"{words} o{first}a{answer}"
        for words in ("action1/action2", "action2/action1")
        for first in (0, 1)
        for answer in (0, 1)
    )

    assert tables.prompts.get_column("text").to_list() == [
        p.decision.messages[0].content for p in asked
    ]
    assert set(tables.prompts.get_column("stem")) == {""}
    assert tables.answers.get_column("answer").to_list() == [
        p.labels.split("/")[p.opponent_previous == "D"] for p in asked
    ]
    assert tables.answers.select("finished", "n_tokens", "log_p").unique().rows() == [
        (True, 2, None)
    ]
    assert tables.agents.row(0, named=True)["kind"] == "base"

    again = decisions_from_log(Path(log.location))
    assert again.decisions.get_column("agent").unique().to_list() == ["mockllm/model"]
    assert_frame_equal(again.prompts, tables.prompts)
    assert_frame_equal(again.decisions.drop("agent"), tables.decisions.drop("agent"))

    told = metrics(log, "cooperation")
    by_state = {key: told.pop(f"by_state_{key}") for key in ("CC", "CD", "DC", "DD")}
    assert by_state == {"CC": 1, "CD": 0, "DC": 1, "DD": 0}
    by_scenario = {f"by_scenario_IPD.{state}": value for state, value in by_state.items()}
    # Four scenarios at 1, 0, 1, 0: the standard error of the mean of four numbers.
    error = float(np.std([1, 0, 1, 0], ddof=1)) / 2
    assert told == pytest.approx({"mean": 0.5, "stderr": error, **by_scenario})
    assert metrics(log, "legal_strict") == metrics(log, "legal_tolerant")
    assert metrics(log, "legal_strict") == {"mean": 1, "stderr": 0}


def test_a_talker_is_read_tolerantly_and_not_strictly(tmp_path: Path):
    said = "I choose action2 because action1 is worse."
    log = ask(decisions("scenarios", samples=2), lambda _: said, tmp_path)
    assert metrics(log, "legal_strict")["mean"] == 0
    assert metrics(log, "legal_tolerant")["mean"] == 1
    # Cooperating is called action2 under one of two assignments.
    assert metrics(log, "cooperation")["mean"] == 0.5
    asked = prompts_without_stem(scenarios())
    tolerant = decisions_from_log(log)
    expected = [float(p.labels == "action2/action1") for p in asked]
    assert tolerant.decisions.get_column("p_negative").to_list() == expected
    assert tolerant.decisions.get_column("legal_mass").to_list() == [1.0] * len(asked)
    assert tolerant.answers.height == 2 * len(asked)
    assert tolerant.answers.select("strict", "tolerant").unique().height == 2
    strict = decisions_from_log(log, reading="strict")
    assert strict.decisions.select("p_positive", "p_negative", "legal_mass").unique().rows() == [
        (0, 0, 0)
    ]
    assert strict.decisions.get_column("p_positive_given_legal").null_count() == len(asked)
    assert_frame_equal(strict.answers, tolerant.answers)


def own_prompt(name: str, scenario: str) -> Prompt:
    decision = Decision(
        (Message("system", "Be brief."), Message("user", name)),
        "I answer",
        Option("refuse", (" no", " nope")),
        Option("help", (" yes",)),
    )
    return Prompt(name, decision, "user", scenario, "user", "own", "yes/no")


ANSWERS = {
    "a": ("yes", "no.", "perhaps", "yes "),
    "b": ("nope", "Nope!", "no", "no"),
    "c": ("maybe", "", "I cannot say", "both"),
    "d": ("yes", "yes", "yes", "no"),
    "e": ("nope", "no", "yes", "well, yes"),
}
SCENARIOS = {"a": "first", "b": "first", "c": "second", "d": "second", "e": "third"}


def test_shares_and_their_errors_are_those_of_the_answers(tmp_path: Path):
    path = tmp_path / "own.jsonl"
    write_prompts(path, PromptSet(tuple(own_prompt(n, s) for n, s in SCENARIOS.items())))
    counts: Counter[str] = Counter()

    def policy(text: str) -> str:
        counts[text] += 1
        return ANSWERS[text][counts[text] - 1]

    log = ask(decisions(str(path), samples=4), policy, tmp_path)
    assert set(counts.values()) == {4}
    tables = decisions_from_log(log, agent="it")
    shares = tables.decisions.select("p_positive", "p_negative", "p_positive_given_legal").rows()
    assert shares == [
        (1 / 4, 2 / 4, 1 / 3), (1, 0, 1), (0, 0, None), (1 / 4, 3 / 4, 1 / 4), (2 / 4, 2 / 4, 1 / 2)
    ]  # fmt: skip
    strict = decisions_from_log(log, reading="strict").decisions
    assert strict.select("p_positive", "p_negative").rows() == [
        (0, 2 / 4), (3 / 4, 0), (0, 0), (1 / 4, 3 / 4), (2 / 4, 1 / 4)
    ]  # fmt: skip
    assert tables.prompts.get_column("prompt").to_list() == [f"{name}.nostem" for name in ANSWERS]
    assert tables.prompts.get_column("system").unique().to_list() == ["Be brief."]
    found = tables.answers.group_by("prompt", maintain_order=True).agg(pl.col("answer").sort())
    assert found.get_column("answer").to_list() == [sorted(a) for a in ANSWERS.values()]

    cooperation = {"first": [2 / 3, 0], "second": [3 / 4], "third": [1 / 2]}
    told = metrics(log, "cooperation")
    assert told["mean"] == pytest.approx((2 / 3 + 3 / 4 + 1 / 2) / 4)
    assert told["stderr"] == pytest.approx(clustered_error(cooperation))
    assert told["stderr"] > 0.1
    assert told["by_scenario_first"] == pytest.approx(1 / 3)
    assert told["by_state_none"] == told["mean"]
    legal = metrics(log, "legal_strict")
    assert legal["mean"] == pytest.approx((2 + 3 + 0 + 4 + 3) / 20)
    per_scenario = {"first": [1 / 2, 3 / 4], "second": [0, 1], "third": [3 / 4]}
    assert legal["stderr"] == pytest.approx(clustered_error(per_scenario))
    assert metrics(log, "legal_tolerant")["mean"] == pytest.approx((3 + 4 + 0 + 4 + 4) / 20)
    assert log.results is not None
    assert log.results.scores[0].unscored_samples == 1


def test_logs_that_say_less_are_read_as_far_as_they_go(tmp_path: Path):
    log = ask(decisions(), lambda _: "action1", tmp_path, limit=3, epochs=2, score=False)
    assert log.samples is not None
    assert log.samples[0].scores in (None, {})
    assert decisions_from_log(log).decisions.get_column("p_negative").to_list() == [1, 1, 1]
    log.samples[-1].output.choices[0].stop_reason = "max_tokens"
    log.samples[-1].output.usage = None
    told = decisions_from_log(log).answers.select("finished", "n_tokens").rows()
    assert told == [(True, 2)] * 5 + [(False, None)]

    failed = read_eval_log(log.location)
    assert failed.samples is not None
    for sample in failed.samples:
        if sample.epoch == 2:
            sample.error = EvalError(message="refused", traceback="", traceback_ansi="")
    kept = decisions_from_log(failed).answers
    assert kept.get_column("sample").to_list() == [0, 0, 0]
    failed.samples[0].error = failed.samples[-1].error
    with pytest.raises(TableError, match="A prompt has no answer in the log") as caught:
        decisions_from_log(failed)
    assert "inspect eval-retry" in caught.value.remedy

    header = read_eval_log(log.location, header_only=True)
    with pytest.raises(TableError, match="A log of Inspect AI has no samples"):
        decisions_from_log(header)
    with pytest.raises(TableError, match="A log of Inspect AI cannot be read"):
        decisions_from_log(tmp_path / "nothing.eval")
    with pytest.raises(ConfigError, match="There is no such reading of answers"):
        decisions_from_log(log, reading="lenient")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="No answer is asked for"):
        decisions(samples=0)
    other = Task(dataset=MemoryDataset([Sample(input="What is 2 + 2?", target="4")]))
    with pytest.raises(TableError, match="not one of the package's decisions"):
        decisions_from_log(ask(other, lambda _: "4", tmp_path / "other"))


BY_NAME = """
import sys
import moralscope, moralscope.behaviour, moralscope.games, moralscope.cli.main
assert "inspect_ai" not in sys.modules
for name in [name for name in sys.modules if name.startswith("moralscope")]:
    del sys.modules[name]
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

def answer(*_):
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    output = ModelOutput.from_content("m", "action1")
    return output.model_copy(update={"usage": usage})

(log,) = eval(
    "moralscope/decisions", task_args={"games": "ISH"}, limit=2, log_dir="logs", display="none",
    model=get_model("mockllm/model", custom_outputs=answer),
)
assert "torch" not in sys.modules
print(log.status, log.eval.task, log.eval.config.epochs, log.plan.config.max_tokens)
print(*(sample.metadata["game"] for sample in log.samples))
"""


def test_inspect_ai_finds_the_task_by_its_name(tmp_path: Path):
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    (line,) = (f"{name} = {value}" for name, value in points["inspect_ai"].items())
    # The metadata that an installation writes, found before those of the installed package.
    metadata = tmp_path / "site" / "moralscope-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: moralscope\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[inspect_ai]\n{line}\n")
    # Whether the package lies where it was written: its name goes before the task's then as well.
    origin = distribution("moralscope").read_text("direct_url.json")
    if origin is not None:
        (metadata / "direct_url.json").write_text(origin)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    result = subprocess.run(
        [sys.executable, "-c", BY_NAME], check=False, capture_output=True, text=True,
        cwd=tmp_path, env={**clean, "PYTHONPATH": str(metadata.parent)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["success moralscope/decisions 1 32", "ISH ISH"]
