"""What else did a fine-tune change? An agent beside its base, away from its task.

On neutral texts (``neutral``), for text i with tokens t = 1 .. T_i after its first,

    kl_i = mean_t KL( p_agent(. | x_<t) || p_base(. | x_<t) )      nats per token
    perplexity = exp( mean_i mean_t -log p(x_t | x_<t) )

and of answers to everyday questions, drawn at temperature 1 with the same numbers for both:
*length* in tokens, *repetition* (share of 4-grams of tokens that stood there before), *distinct*
(different 2-grams per 2-gram) and *finished* (share that the model ended itself, the others being
cut). Answers too short to have such runs, of either of the two, are left out of those measures.
*unrelated_decisions* is the mean absolute change of log-odds on choices without moral content.

Intervals are 95% t intervals over texts, questions or choices: of the change from base, or of the
value where it compares the two already. The interval of a perplexity is computed in nats and turned
into a change from the base's perplexity on these texts.

What it does not do: no benchmark of ability is run; a fine-tune that keeps the perplexity of
neutral prose may have lost other things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from moralscope.behaviour.speaking.neutral import QUESTIONS, TEXTS, everyday_choices
from moralscope.core.decision import Decision, Message, Option
from moralscope.core.errors import ConfigError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import Interval, cluster_t
from moralscope.evidence.statistics.resampling import Array
from moralscope.models.divergence import read_text
from moralscope.models.generating import FloatArray, end_tokens, generate
from moralscope.models.rendering import encode_all, read_tokens
from moralscope.models.roster import Roster
from moralscope.models.scoring import MAX_NODES, score
from moralscope.models.tree import Tokens

FREE_TOKENS = 80
"""Tokens at which a free answer is cut unless told otherwise."""

GRAM = 4
"""Length of the runs of tokens whose repetition is counted."""

Row = dict[str, object]


@dataclass(frozen=True)
class _Spoken:
    """What one agent said.

    Attributes:
        answers: tokens of the answer to each question, without the one that ends it.
        finished: whether it ended each.
        log_odds: on each choice, nats.
    """

    answers: tuple[Tokens, ...]
    finished: tuple[bool, ...]
    log_odds: Array


def side_effects_table(
    roster: Roster,
    name: str,
    base: str,
    *,
    texts: Sequence[str] = TEXTS,
    questions: Sequence[str] = QUESTIONS,
    max_new_tokens: int = FREE_TOKENS,
    seed: int = 0,
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``side_effects`` of one agent.

    Args:
        roster: models and adapters.
        name: the agent.
        base: the agent that it is compared with; may be the agent itself, which then has values
            and no changes.
        texts: neutral prose, of two tokens or more each.
        questions: answered freely.
        max_new_tokens: at which a free answer is cut.
        seed: of the draws, not negative.
        max_nodes: largest tree of questions that is run at once, answers included.
        progress: told as texts are read and agents have spoken.

    Raises:
        AgentError: there is no such agent.
        ConfigError: there is nothing to read or to answer, or a text is of one token.
    """
    tokens = _tokenised(roster, texts)
    if not questions or max_new_tokens < 1:
        raise ConfigError(
            "There are no free answers to compare",
            seen=f"{len(questions)} questions, max_new_tokens {max_new_tokens}",
            allowed="one question or more, one token or more",
            remedy="leave both at what is shipped",
        )
    task, agents = f"side effects {name}", tuple(dict.fromkeys((name, base)))
    total = len(tokens) + len(agents)
    nats: list[tuple[float, ...]] = []
    divergences: list[float] = []
    for number, text in enumerate(tokens, start=1):
        found, divergence = read_text(roster, agents, text)
        nats.append(found)
        divergences.append(divergence)
        progress(ProgressEvent(task, number, total))
    draws = np.array([stream(seed, "question", q).random(max_new_tokens) for q in questions])
    spoken: list[_Spoken] = []
    for number, agent in enumerate(agents, start=1):
        spoken.append(_speak(roster, agent, questions, draws, max_nodes))
        progress(ProgressEvent(task, len(tokens) + number, total))
    rows = [_perplexity(np.array(nats)), *_free_answers(spoken)]
    if len(agents) == 2:
        moved = np.abs(spoken[0].log_odds - spoken[1].log_odds)
        rows = [_between("kl", "nats per token", np.array(divergences)), *rows]
        rows.append(_between("unrelated_decisions", "nats", moved))
    return from_rows("side_effects", ({"agent": name, **row} for row in rows))


def _tokenised(roster: Roster, texts: Sequence[str]) -> list[Tokens]:
    """The texts as plain text, with what the tokenizer puts before any text."""
    tokenizer: Any = roster.tokenizer
    tokens = [tuple(int(t) for t in tokenizer(text)["input_ids"]) for text in texts]
    short = [text for text, read in zip(texts, tokens, strict=True) if len(read) < 2]
    if short or not tokens:
        raise ConfigError(
            "There is no text to predict",
            seen=repr(short[0]) if short else "no texts",
            allowed="one text or more, of two tokens or more each",
            remedy="leave the texts at what is shipped",
        )
    return tokens


def _speak(
    roster: Roster, agent: str, questions: Sequence[str], draws: FloatArray, max_nodes: int
) -> _Spoken:
    choices = encode_all(roster.tokenizer, list(everyday_choices()))
    asked = [read_tokens(roster.tokenizer, _asking(question)) for question in questions]
    with roster.speaking(agent) as model:
        ends = end_tokens(model, roster.tokenizer)
        found = generate(model, asked, draws, ends=ends, max_nodes=max_nodes)
        log_odds = score(model, choices, max_nodes=max_nodes).log_odds
    answers = tuple(a.tokens[:-1] if a.finished else a.tokens for a in found)
    return _Spoken(answers, tuple(a.finished for a in found), log_odds)


def _asking(question: str) -> Decision:
    """A question as a chat; the options of the decision are not used."""
    return Decision((Message("user", question),), "", Option("a", ("a",)), Option("b", ("b",)))


def _perplexity(nats: Array) -> Row:
    """From ``[texts, agents]`` nats per token, the agent first."""
    means = np.exp(nats.mean(axis=0))
    if nats.shape[1] == 1:
        return _row("perplexity", "one", float(means[0]), base=None, bounds=None, units=len(nats))
    bounds = cluster_t(nats[:, 0] - nats[:, 1])
    # exp is monotone: the ends of the interval in nats are those of the change.
    change = None if bounds is None else tuple(means[1] * np.expm1(bounds))
    return _row(
        "perplexity", "one", float(means[0]), base=float(means[1]), bounds=change, units=len(nats)
    )


def _free_answers(spoken: Sequence[_Spoken]) -> Iterator[Row]:
    measures: tuple[tuple[str, str, Callable[[Tokens], float | None]], ...] = (
        ("length", "tokens", lambda tokens: float(len(tokens))),
        ("repetition", "share", lambda tokens: _complement(different_runs(tokens, GRAM))),
        ("distinct", "share", lambda tokens: different_runs(tokens, 2)),
    )
    for measure, unit, of in measures:
        values = [[of(answer) for answer in agent.answers] for agent in spoken]
        defined = [pair for pair in zip(*values, strict=True) if None not in pair]
        if defined:
            yield _against(measure, unit, np.array(defined, dtype=np.float64))
    finished = np.array([agent.finished for agent in spoken], dtype=np.float64)
    yield _against("finished", "share", finished.T)


def different_runs(tokens: Tokens, length: int) -> float | None:
    """Different runs of so many tokens per run, in (0, 1]; None where there is no such run."""
    runs = [tokens[at : at + length] for at in range(len(tokens) - length + 1)]
    return len(set(runs)) / len(runs) if runs else None


def _complement(share: float | None) -> float | None:
    return None if share is None else 1.0 - share


def _against(measure: str, unit: str, values: Array) -> Row:
    """Means of ``[units, agents]``, the agent first, and the interval of their difference."""
    means = values.mean(axis=0)
    if values.shape[1] == 1:
        return _row(measure, unit, float(means[0]), base=None, bounds=None, units=len(values))
    bounds = cluster_t(values[:, 0] - values[:, 1])
    return _row(
        measure, unit, float(means[0]), base=float(means[1]), bounds=bounds, units=len(values)
    )


def _between(measure: str, unit: str, values: Array) -> Row:
    """The mean of what compares agent and base already."""
    return _row(
        measure, unit, float(values.mean()), base=None, bounds=cluster_t(values), units=len(values)
    )


def _row(
    measure: str,
    unit: str,
    value: float,
    *,
    base: float | None,
    bounds: Interval | None,
    units: int,
) -> Row:
    low, high = bounds or (None, None)
    return {
        "measure": measure,
        "unit": unit,
        "value": value,
        "base": base,
        "change": None if base is None else value - base,
        "low": low,
        "high": high,
        "n_units": units,
    }
