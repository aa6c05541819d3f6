"""The tables prompts, agents and decisions, recomputed from what they themselves say."""

from pathlib import Path

import polars as pl
import pytest
import tiny
import torch

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.core.hashing import sha256_text
from moralscope.models.fingerprint import make_fingerprint, write_fingerprint
from moralscope.models.rendering import encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import score
from moralscope.models.tables import agents_table, decisions_table, prompts_table

WORDS = tiny.worded_prompts(4)
READ = encode_all(tiny.tiny_tokenizer(), WORDS)


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    return tiny.tiny_roster(tmp_path)


def test_prompts_are_kept_as_the_model_reads_them():
    table = prompts_table(WORDS, READ)
    assert table["prompt"].to_list() == ["w0", "w1", "w2", "w3"]
    assert table["text"][2].endswith("Round 2: choose action1 or action2.</s><|assistant|>I choose")
    assert table["sha256"].to_list() == [sha256_text(text) for text in table["text"]]
    assert set(table["positive"]) == {" action2"}
    assert set(table["negative"]) == {" action1"}
    assert set(table["scenario"]) == {"IPD_0", "IPD_1"}


def test_decisions_can_be_recomputed_from_the_prompts_table(roster: Roster):
    tokenizer = roster.tokenizer
    prompts = prompts_table(WORDS, READ)
    for name in ("base", "game"):
        table = decisions_table(roster, name, WORDS, READ).join(
            prompts.select("prompt", "text", "positive", "negative"), on="prompt"
        )
        assert table.height == 4
        for row in table.rows(named=True):
            tokens = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            values: list[float] = []
            with roster.speaking(name) as model:
                for option in ("positive", "negative"):
                    whole = tokenizer(row["text"] + row[option], add_special_tokens=False)
                    form = whole["input_ids"][len(tokens) :]
                    values.append(tiny.plain_log_probability(model, tokens, form))
            assert row["log_odds"] == pytest.approx(values[0] - values[1], abs=1e-10)
            p = torch.tensor(values).exp()
            assert row["p_positive"] == pytest.approx(float(p[0]), rel=1e-5)
            assert row["p_negative"] == pytest.approx(float(p[1]), rel=1e-5)
            assert row["legal_mass"] == pytest.approx(float(p.sum()), rel=1e-5)
            assert row["p_positive_given_legal"] == pytest.approx(float(p[0] / p.sum()), rel=1e-5)
            assert row["fingerprint_log_odds"] is None


def test_agents_are_described(roster: Roster, tmp_path: Path):
    roster.add(
        AgentSpec(
            name="greedy",
            base="tiny",
            adapter=str(tmp_path / "game"),
            reward="game",
            opponent="tit-for-tat",
            training_seed=3,
        )
    )
    table = agents_table(roster)
    assert table["agent"].to_list() == ["base", "game", "moral", "greedy"]
    assert table["kind"].to_list() == ["base", "adapter", "adapter", "adapter"]
    assert table["adapter_sha256"].null_count() == 1
    (greedy,) = table.filter(agent="greedy").rows(named=True)
    assert (greedy["reward"], greedy["training_seed"]) == ("game", 3)
    assert greedy["adapter_sha256"] == table.filter(agent="game")["adapter_sha256"][0]
    assert set(table["dtype"]) == {"float64"}


def fingerprinted(roster: Roster, folder: Path, shift: float) -> None:
    with roster.speaking("game") as model:
        log_odds = score(model, READ).log_odds
    stored = make_fingerprint(
        roster.base, str(roster.weights_sha256("game")), READ[:3], log_odds[:3] + shift
    )
    write_fingerprint(folder / "game", stored)


def test_a_stored_fingerprint_is_shown_beside_the_measurement(roster: Roster, tmp_path: Path):
    fingerprinted(roster, tmp_path, 0.0)
    table = decisions_table(roster, "game", WORDS, READ)
    pairs = table.select("log_odds", "fingerprint_log_odds").head(3)
    assert pairs.filter(pl.col("log_odds") == pl.col("fingerprint_log_odds")).height == 3
    assert table["fingerprint_log_odds"][3] is None


def test_an_agent_that_acts_otherwise_is_refused_by_name(roster: Roster, tmp_path: Path):
    fingerprinted(roster, tmp_path, 0.3)
    with pytest.raises(AgentError, match="Agent 'game' does not act as it did"):
        decisions_table(roster, "game", WORDS, READ)
