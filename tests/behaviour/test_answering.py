"""What an agent says is drawn from its own distribution, read by both rules, and kept as it was."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny import plain_logits, tiny_roster, worded_prompts

from moralscope.behaviour.speaking.agreement import agreement_table
from moralscope.behaviour.speaking.answering import FOLLOW_UPS, held_conversations, sampled_answers
from moralscope.core.decision import Option, Prompt
from moralscope.core.errors import AgentError, ConfigError
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.models.tables import decisions_table, prompts_table

FEW = {"samples": 5, "max_new_tokens": 3}


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    return tiny_roster(tmp_path_factory.mktemp("answering"), adapters=("game",))


@pytest.fixture(scope="module")
def prompts() -> tuple[Prompt, ...]:
    """Decisions whose options have forms that the random models happen to say often."""
    options = {
        "positive": Option("defect", ("+", "Rou", " action")),
        "negative": Option("cooperate", ("X", ")", "6")),
    }
    return tuple(replace(p, decision=replace(p.decision, **options)) for p in worded_prompts(6))


@pytest.fixture(scope="module")
def encoded(roster: Roster, prompts: Sequence[Prompt]) -> tuple[EncodedPrompt, ...]:
    return encode_all(roster.tokenizer, prompts)


def test_equal_seeds_give_equal_answers_whatever_else_is_asked(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    whole = sampled_answers(roster, "game", prompts, encoded, **FEW, seed=3)
    assert whole.height == 6 * 5
    some = sampled_answers(
        roster, "game", prompts[3:1:-1], encoded[3:1:-1], samples=2, max_new_tokens=3, seed=3,
        max_nodes=40,
    )  # fmt: skip
    kept = some.join(whole, on=["prompt", "sample"], suffix="_of_whole")
    assert kept.height == 4
    for column in ("answer", "strict", "tolerant", "finished", "n_tokens"):
        assert kept.get_column(column).to_list() == kept.get_column(f"{column}_of_whole").to_list()
    other = sampled_answers(roster, "game", prompts, encoded, **FEW, seed=4)
    assert other.get_column("answer").to_list() != whole.get_column("answer").to_list()
    base = sampled_answers(roster, "base", prompts, encoded, **FEW, seed=3)
    assert base.get_column("log_p").to_list() != whole.get_column("log_p").to_list()


def test_an_answer_has_the_probability_that_plain_forwards_give_it(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    table = sampled_answers(roster, "game", prompts[:2], encoded[:2], samples=4, max_new_tokens=1)
    with roster.speaking("game") as model:
        for row in table.iter_rows(named=True):
            read = next(e for e in encoded if e.name == row["prompt"])
            log_p = plain_logits(model, read.tokens)[-1].log_softmax(-1)
            texts = [roster.tokenizer.decode([t], skip_special_tokens=True) for t in range(320)]
            same = [float(log_p[t]) for t, text in enumerate(texts) if text == row["answer"]]
            assert min(abs(value - row["log_p"]) for value in same) < 1e-9


def test_sampling_agrees_with_scoring_through_the_whole_chain(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    answers = sampled_answers(roster, "game", prompts, encoded, samples=200, max_new_tokens=1)
    decisions = decisions_table(roster, "game", prompts, encoded)
    described = prompts_table(prompts, encoded)
    row = agreement_table(described, decisions, answers).row(0, named=True)
    assert row["legal_observed"] > 0.05
    assert row["legal_observed"] == pytest.approx(row["legal_expected"], abs=0.03)
    assert row["p"] > 0.001
    assert row["low"] < 0.0 < row["high"]
    # The base's answers are another agent's: as the agent's they are refuted.
    foreign = sampled_answers(roster, "base", prompts, encoded, samples=200, max_new_tokens=1)
    named = foreign.with_columns(agent=pl.lit("game"))
    assert agreement_table(described, decisions, named).row(0, named=True)["p"] < 1e-3


def test_the_strict_rule_reads_no_further_than_the_longest_option(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    short = sampled_answers(roster, "base", prompts, encoded, samples=40, max_new_tokens=1)
    long = sampled_answers(roster, "base", prompts, encoded, samples=40, max_new_tokens=4)
    assert short.get_column("strict").to_list() == long.get_column("strict").to_list()
    assert set(long.get_column("strict")) == {"positive", "negative", "illegal"}
    legal = long.filter(pl.col("strict") != "illegal")
    assert legal.get_column("strict").to_list() == legal.get_column("tolerant").to_list()
    assert long.filter(pl.col("answer").str.len_chars() > 6).height > 0
    named = (long.get_column("tolerant") != "illegal").sum()
    assert named >= legal.height


def test_an_answer_that_the_model_ends_is_finished(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ends = [1, *(form[0] for form in encoded[0].positive)]
    monkeypatch.setattr(roster.base.model.generation_config, "eos_token_id", ends)
    table = sampled_answers(roster, "base", prompts, encoded, samples=40, max_new_tokens=2)
    ended = table.filter(pl.col("finished"))
    assert 0 < ended.height < table.height
    assert ended.filter(pl.col("n_tokens") == 1).height > 0
    assert table.filter(~pl.col("finished")).get_column("n_tokens").unique().to_list() == [2]


@pytest.mark.parametrize("templated", [True, False])
def test_a_conversation_is_kept_turn_by_turn(
    roster: Roster, prompts: Sequence[Prompt], templated: bool
) -> None:
    asked = [replace(p, decision=replace(p.decision, chat_template=templated)) for p in prompts[:3]]
    table = held_conversations(roster, "game", asked, max_new_tokens=2, follow_up_tokens=5, seed=2)
    assert table.get_column("turn").to_list() == [*range(7)] * 3
    first = table.head(7)
    assert first.get_column("role").to_list() == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    topics = ["decision"] * 3 + ["why"] * 2 + ["strategy"] * 2
    assert first.get_column("topic").to_list() == topics
    texts = first.get_column("text").to_list()
    assert texts[:2] == [m.content for m in asked[0].decision.messages]
    assert (texts[3], texts[5]) == (FOLLOW_UPS[0][1], FOLLOW_UPS[1][1])
    assert texts[2].startswith("I choose")
    for row in table.iter_rows(named=True):
        assert bool(row["tokens"]) == (row["role"] == "assistant")
    with roster.speaking("game") as model:
        _check_probabilities(roster, model, first, templated)


def _check_probabilities(roster: Roster, model: Any, first: pl.DataFrame, templated: bool) -> None:
    """The text is built anew by the template's own rule; a forward gives each token's chance."""
    before = ""
    for row in first.iter_rows(named=True):
        if row["role"] != "assistant":
            shown = f"<|{row['role']}|>{row['text']}</s>" if templated else row["text"] + "\n"
            before += shown
            continue
        stem = "I choose" if row["topic"] == "decision" else ""
        read = before + ("<|assistant|>" if templated else "") + stem
        ids = roster.tokenizer(read, add_special_tokens=False)["input_ids"]
        texts, p = json.loads(row["tokens"]), json.loads(row["probabilities"])
        assert len(texts) == len(p) > 0
        chance = plain_logits(model, ids)[-1].softmax(-1).numpy()
        names = [roster.tokenizer.decode([t]) for t in range(320)]
        same = [chance[t] for t, text in enumerate(names) if text == texts[0]]
        assert min(abs(x - p[0]) / p[0] for x in same) < 1e-5
        before += f"<|assistant|>{row['text']}</s>" if templated else row["text"] + "\n"


def test_the_decision_of_a_conversation_is_the_first_sample(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    answers = sampled_answers(roster, "game", prompts, encoded, **FEW, seed=5)
    talks = held_conversations(
        roster, "game", prompts, max_new_tokens=3, follow_up_tokens=1, seed=5
    )
    said = talks.filter(pl.col("topic") == "decision", pl.col("role") == "assistant")
    first = answers.filter(pl.col("sample") == 0)
    expected = ["I choose" + text for text in first.get_column("answer")]
    assert said.get_column("text").to_list() == expected
    assert len(set(expected)) > 1
    total = [np.log(json.loads(p)).sum() for p in said.get_column("probabilities")]
    assert np.allclose(total, first.get_column("log_p").to_numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "nothing to draw: samples is below one"),
        ({"max_new_tokens": 0}, "cut before an option is complete.*of 1 or more"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt],
    changes: dict[str, int], message: str,
) -> None:  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        sampled_answers(roster, "game", prompts, encoded, **(FEW | changes))


def test_a_stranger_and_an_empty_answer_are_refused(
    roster: Roster, prompts: Sequence[Prompt], encoded: Sequence[EncodedPrompt]
) -> None:
    with pytest.raises(AgentError, match="no agent 'gmae'.*did you mean 'game'"):
        sampled_answers(roster, "gmae", prompts, encoded)
    with pytest.raises(ConfigError, match="follow_up_tokens is below one"):
        held_conversations(roster, "game", prompts, follow_up_tokens=0)
