"""What did a hosted model decide? A log of the task becomes the package's tables.

With ``n`` answers to a prompt, ``k+`` of them the positive option and ``k-`` the negative one,

    p_positive = k+ / n    p_negative = k- / n    legal_mass = (k+ + k-) / n

``p_positive_given_legal = k+ / (k+ + k-)``, null where no answer is legal. There are no log-odds:
an interface shows words, and a share of few answers has no finite ones. The shares carry sampling
error, which exact probabilities do not: with ``n`` answers each up to ``1 / (2 sqrt(n))``.

Answers are read again from the log, so that a log may be read strictly or tolerantly whichever way
its scores were made, or without scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from inspect_ai.log import EvalLog, EvalSample, read_eval_log

from moralscope.behaviour.inspecting.places import prompt_of
from moralscope.core.decision import Prompt
from moralscope.core.errors import ConfigError, TableError
from moralscope.core.hashing import sha256_text
from moralscope.core.tables import from_rows
from moralscope.games.parsing import Verdict, parse

Reading = Literal["strict", "tolerant"]


@dataclass(frozen=True, eq=False)
class LogTables:
    """What a log says, as tables of ``core.schemas``.

    Attributes:
        agents: the model, as a base of its own; its weights' type is ``hosted``.
        prompts: what was asked; ``text`` is the messages' contents, one a line.
        decisions: shares of the answers to every prompt.
        answers: every answer under both readings.
    """

    agents: pl.DataFrame
    prompts: pl.DataFrame
    decisions: pl.DataFrame
    answers: pl.DataFrame


def decisions_from_log(
    log: EvalLog | Path | str, *, agent: str | None = None, reading: Reading = "tolerant"
) -> LogTables:
    """The package's tables of what a model decided in a task of Inspect AI.

    Args:
        log: the log of ``moralscope/decisions``, with its samples, or where it lies.
        agent: how the tables call the model; its name in Inspect AI where nothing is given.
        reading: which answers are legal in ``decisions``: exactly an option, or naming one.

    Returns:
        Prompts in the order in which they were asked. Samples that ended in an error of the
        interface are left out.

    Raises:
        ConfigError: there is no such reading.
        TableError: the log cannot be read, is not of this task, or has no answer to a prompt.
    """
    if reading not in ("strict", "tolerant"):
        raise ConfigError(
            "There is no such reading of answers",
            seen=reading,
            allowed="strict, tolerant",
            remedy="choose one of them",
        )
    kept = log if isinstance(log, EvalLog) else _read(log)
    name = agent or kept.eval.model
    prompts: dict[str, Prompt] = {}
    answers: dict[str, list[dict[str, object]]] = {}
    for sample in _samples(kept):
        prompt = prompt_of(str(sample.id), sample.input, sample.metadata)
        prompts.setdefault(prompt.name, prompt)
        found = answers.setdefault(prompt.name, [])
        if sample.error is None:
            found.append(_answer(name, prompt, sample))
    return LogTables(
        agents=from_rows(
            "agents", [{"agent": name, "base": name, "kind": "base", "dtype": "hosted"}]
        ),
        prompts=from_rows("prompts", map(_described, prompts.values())),
        decisions=from_rows(
            "decisions", (_decided(name, p, answers[p.name], reading) for p in prompts.values())
        ),
        answers=from_rows("answers", (row for rows in answers.values() for row in rows)),
    )


def _read(path: Path | str) -> EvalLog:
    try:
        return read_eval_log(str(path))
    except (OSError, ValueError) as cause:
        raise TableError(
            "A log of Inspect AI cannot be read",
            seen=f"{path} ({cause})",
            allowed="a log that inspect eval has written, .eval or .json",
            remedy="check the path, or list the logs: inspect list logs",
        ) from cause


def _samples(log: EvalLog) -> list[EvalSample]:
    """The log's samples in the order of the dataset, epoch after epoch."""
    if not log.samples:
        raise TableError(
            "A log of Inspect AI has no samples",
            seen=f"{log.eval.task}, status {log.status}",
            allowed="a log whose samples were kept and read",
            remedy="read the whole log, not its header alone, and evaluate with samples logged",
        )
    asked = {name: place for place, name in enumerate(log.eval.dataset.sample_ids or ())}
    last = len(asked)
    return sorted(log.samples, key=lambda s: (asked.get(s.id, last), s.epoch))


def _described(prompt: Prompt) -> dict[str, object]:
    """A row of ``prompts``."""
    told = prompt.decision
    text = "\n".join(message.content for message in told.messages)
    system = "\n".join(message.content for message in told.messages if message.role == "system")
    return {
        "prompt": prompt.name,
        "game": prompt.game,
        "scenario": prompt.scenario,
        "family": prompt.family,
        "template": prompt.template,
        "labels": prompt.labels,
        "option_order": prompt.option_order,
        "answer_order": prompt.answer_order,
        "table_order": prompt.table_order,
        "stem": told.stem,
        "system": system,
        "chat_template": told.chat_template,
        "own_previous": prompt.own_previous,
        "opponent_previous": prompt.opponent_previous,
        "others_cooperated": prompt.others_cooperated,
        "text": text,
        "sha256": sha256_text(text),
        "positive": told.positive.canonical,
        "negative": told.negative.canonical,
    }


def _answer(agent: str, prompt: Prompt, sample: EvalSample) -> dict[str, object]:
    """A row of ``answers``."""
    answer = sample.output.completion
    read = parse(prompt.decision, answer)
    return {
        "agent": agent,
        "prompt": prompt.name,
        "sample": sample.epoch - 1,
        "answer": answer,
        "strict": read.strict,
        "tolerant": read.tolerant,
        "finished": sample.output.stop_reason == "stop",
        "log_p": None,
        "n_tokens": sample.output.usage.output_tokens if sample.output.usage else None,
    }


def _decided(
    agent: str, prompt: Prompt, answers: Sequence[Mapping[str, object]], reading: Reading
) -> dict[str, object]:
    """A row of ``decisions``."""
    if not answers:
        raise TableError(
            "A prompt has no answer in the log",
            seen=f"{prompt.name}: every sample ended in an error",
            allowed="one answer to every prompt or more",
            remedy="run the failed samples again: inspect eval-retry LOG",
        )

    def count(verdict: Verdict) -> int:
        return sum(answer[reading] == verdict for answer in answers)

    n, positive, negative = len(answers), count("positive"), count("negative")
    legal = positive + negative
    return {
        "agent": agent,
        "prompt": prompt.name,
        "game": prompt.game,
        "scenario": prompt.scenario,
        "log_odds": None,
        "p_positive": positive / n,
        "p_negative": negative / n,
        "legal_mass": legal / n,
        "p_positive_given_legal": positive / legal if legal else None,
        "fingerprint_log_odds": None,
    }
