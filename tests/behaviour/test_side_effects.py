"""Side effects equal plain forwards, the library's own loss and torch's own divergence."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny import never_narrowed, plain_log_odds, plain_logits, tiny_roster

from moralscope.behaviour.speaking import neutral, side_effects
from moralscope.behaviour.speaking.side_effects import different_runs, side_effects_table
from moralscope.core.errors import AgentError, ConfigError
from moralscope.models import generating
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster

TEXTS = ("A comet is a ball of ice.", "Bread needs time.", "The harbour freezes, they say.")
QUESTIONS = ("How does ice form?", "What is bread?", "Why is it dark?", "Where do swifts sleep?")


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    return tiny_roster(tmp_path_factory.mktemp("side"), adapters=("game",))


@pytest.fixture(scope="module")
def table(roster: Roster) -> pl.DataFrame:
    found: list[Any] = []
    made = side_effects_table(
        roster, "game", "base", texts=TEXTS, questions=QUESTIONS, max_new_tokens=12, seed=1,
        progress=found.append,
    )  # fmt: skip
    assert [(event.done, event.total) for event in found] == [(k, 5) for k in range(1, 6)]
    return made


def row(table: pl.DataFrame, measure: str) -> dict[str, Any]:
    return table.filter(pl.col("measure") == measure).row(0, named=True)


def t_interval(values: Any) -> tuple[float, float]:
    found = stats.ttest_1samp(values, 0).confidence_interval()
    return found.low, found.high


def logits_of(roster: Roster, agent: str, text: str) -> torch.Tensor:
    with roster.speaking(agent) as model:
        return plain_logits(model, roster.tokenizer(text)["input_ids"])[:-1]


def test_the_measures_in_order(table: pl.DataFrame) -> None:
    assert table.get_column("measure").to_list() == [
        "kl", "perplexity", "length", "repetition", "distinct", "finished", "unrelated_decisions",
    ]  # fmt: skip
    assert set(table.get_column("agent")) == {"game"}


def test_the_divergence_is_torchs_own(roster: Roster, table: pl.DataFrame) -> None:
    values = []
    for text in TEXTS:
        agent, base = (
            torch.distributions.Categorical(logits=logits_of(roster, name, text))
            for name in ("game", "base")
        )
        values.append(float(torch.distributions.kl_divergence(agent, base).mean()))
    found = row(table, "kl")
    assert found["value"] == pytest.approx(np.mean(values), rel=1e-9)
    assert found["value"] > 0.01
    assert (found["low"], found["high"]) == pytest.approx(t_interval(values), rel=1e-9)
    assert found["base"] is found["change"] is None
    assert (found["unit"], found["n_units"]) == ("nats per token", 3)


def test_the_perplexity_is_that_of_the_librarys_own_loss(
    roster: Roster, table: pl.DataFrame
) -> None:
    losses: dict[str, list[float]] = {}
    for name in ("game", "base"):
        with roster.speaking(name) as model, never_narrowed():
            for text in TEXTS:
                ids = torch.tensor([roster.tokenizer(text)["input_ids"]])
                losses.setdefault(name, []).append(float(model(input_ids=ids, labels=ids).loss))
    found = row(table, "perplexity")
    assert found["value"] == pytest.approx(math.exp(np.mean(losses["game"])), rel=1e-6)
    assert found["base"] == pytest.approx(math.exp(np.mean(losses["base"])), rel=1e-6)
    assert found["change"] == pytest.approx(found["value"] - found["base"])
    low, high = t_interval(np.subtract(losses["game"], losses["base"]))
    expected = [found["base"] * (math.exp(bound) - 1) for bound in (low, high)]
    assert [found["low"], found["high"]] == pytest.approx(expected, rel=1e-5)
    assert found["low"] < found["change"] < found["high"]


def test_choices_are_scored_one_by_one(roster: Roster, table: pl.DataFrame) -> None:
    choices = encode_all(roster.tokenizer, list(neutral.everyday_choices()))
    odds: dict[str, list[float]] = {}
    for name in ("game", "base"):
        with roster.speaking(name) as model:
            odds[name] = [plain_log_odds(model, choice) for choice in choices]
    moved = np.abs(np.subtract(odds["game"], odds["base"]))
    found = row(table, "unrelated_decisions")
    assert found["value"] == pytest.approx(moved.mean(), rel=1e-8)
    assert (found["low"], found["high"]) == pytest.approx(t_interval(moved), rel=1e-8)
    assert found["n_units"] == 16


def test_free_answers_are_counted_as_they_were_drawn(
    roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "game": [(5, 6, 5, 6, 5, 6, 1), (7, 7), (8, 9, 8, 9), (3, 1)],
        "base": [(5, 6, 7, 8, 9, 2, 3), (4, 4, 4), (1,), (2, 3, 4, 5, 6)],
    }
    answers = iter([said["game"], said["base"]])

    def spoken(_model: Any, asked: Any, uniforms: Any, **settings: Any) -> Any:
        assert settings["ends"] == {1}
        assert uniforms.shape == (4, 7)
        texts = [roster.tokenizer.decode(list(tokens)) for tokens in asked]
        expected = [f"<|user|>{question}</s><|assistant|>" for question in QUESTIONS]
        assert texts == expected
        return tuple(
            generating.Generated(tokens, (-1.0,) * len(tokens), tokens[-1] == 1)
            for tokens in next(answers)
        )

    monkeypatch.setattr(side_effects, "generate", spoken)
    found = side_effects_table(
        roster, "game", "base", texts=TEXTS[:2], questions=QUESTIONS, max_new_tokens=7
    )
    length = row(found, "length")
    assert (length["value"], length["base"]) == ((6 + 2 + 4 + 1) / 4, (7 + 3 + 0 + 5) / 4)
    expected = t_interval([6 - 7, 2 - 3, 4 - 0, 1 - 5])
    assert (length["low"], length["high"]) == pytest.approx(expected)
    repetition = row(found, "repetition")  # of the first question alone: others are too short
    assert (repetition["value"], repetition["base"]) == pytest.approx((1 - 2 / 3, 0.0))
    assert (repetition["n_units"], repetition["low"]) == (1, None)
    distinct = row(found, "distinct")
    assert (distinct["value"], distinct["base"]) == pytest.approx(((2 / 5 + 1) / 2, (1 + 0.5) / 2))
    finished = row(found, "finished")
    assert (finished["value"], finished["base"]) == (0.5, 0.25)


def test_equal_seeds_give_equal_answers_and_a_base_has_no_changes(
    roster: Roster, table: pl.DataFrame
) -> None:
    settings: dict[str, Any] = {"texts": TEXTS, "questions": QUESTIONS, "max_new_tokens": 12}
    again = side_effects_table(roster, "game", "base", **settings, seed=1)
    assert again.equals(table)
    other = side_effects_table(roster, "game", "base", **settings, seed=3)
    assert not other.equals(table)
    assert row(other, "kl") == row(table, "kl")
    alone = side_effects_table(roster, "base", "base", **settings, seed=1)
    assert alone.get_column("measure").to_list() == [
        "perplexity", "length", "repetition", "distinct", "finished",
    ]  # fmt: skip
    for name in ("base", "change", "low", "high"):
        assert alone.get_column(name).null_count() == alone.height
    for measure in ("perplexity", "length", "distinct"):
        assert row(alone, measure)["value"] == pytest.approx(row(table, measure)["base"])


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 5))
def test_runs_are_counted_as_written(tokens: list[int], length: int) -> None:
    found = different_runs(tuple(tokens), length)
    text = "".join(str(token) for token in tokens)
    seen: list[str] = []
    repeated = 0
    for at in range(len(text) - length + 1):
        repeated += text[at : at + length] in seen
        seen.append(text[at : at + length])
    if not seen:
        assert found is None
    else:
        assert found == pytest.approx(1 - repeated / len(seen))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": ()}, "no text to predict.*no texts"),
        ({"texts": ("Fine words.", "a")}, "no text to predict.*'a'.*two tokens or more"),
        ({"questions": ()}, "no free answers to compare.*0 questions"),
        ({"max_new_tokens": 0}, "no free answers to compare.*max_new_tokens 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    roster: Roster, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        side_effects_table(roster, "game", "base", **changes)


def test_a_stranger_is_refused(roster: Roster) -> None:
    with pytest.raises(AgentError, match="no agent 'bse'"):
        side_effects_table(roster, "game", "bse", texts=TEXTS)


def test_the_neutral_material_is_what_it_says() -> None:
    assert len(set(neutral.TEXTS)) == 24
    assert all(70 <= len(text.split()) <= 80 for text in neutral.TEXTS)
    assert len(set(neutral.QUESTIONS)) == 12
    choices = list(neutral.everyday_choices())
    assert len(choices) == len({choice.scenario for choice in choices}) == 16
    for choice in choices:
        said = choice.decision.messages[0].content
        first, second = choice.decision.positive.name, choice.decision.negative.name
        assert said.index(first) < said.index(second)
        assert choice.labels == f"{second}/{first}"
