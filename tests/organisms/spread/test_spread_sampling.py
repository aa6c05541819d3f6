"""Answers are drawn by address, and those that say nothing are seen."""

from __future__ import annotations

import pytest
import tiny

from moralscope.core.decision import Message
from moralscope.core.errors import AgentError, ConfigError, EvidenceError, PromptError
from moralscope.models.roster import Roster
from moralscope.organisms.spread.answers import Answer, require_answers
from moralscope.organisms.spread.sampling import answer_tokens, chat_tokens, sample_answers

ASKED = {"q1": (Message("user", "What now?"),), "q2": (Message("user", "And then?"),)}


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    return tiny.tiny_roster(tmp_path_factory.mktemp("roster"), adapters=("game",))


def test_more_questions_and_samples_continue_the_same_draws(roster: Roster):
    few = sample_answers(roster, "game", {"q2": ASKED["q2"]}, samples=2, max_new_tokens=6)
    many = sample_answers(roster, "game", ASKED, samples=3, max_new_tokens=6, max_nodes=60)
    assert [(a.question, a.sample) for a in many] == [(q, s) for q in ASKED for s in range(3)]
    assert few == many[3:5]
    assert len({answer.tokens for answer in many}) > 1
    assert many[0].asked == ASKED["q1"]
    other = sample_answers(roster, "game", ASKED, samples=3, max_new_tokens=6, seed=1)
    assert [a.tokens for a in other] != [a.tokens for a in many]


def test_answers_are_those_of_the_agent_and_decode_their_tokens(roster: Roster):
    game, base = (
        sample_answers(roster, name, ASKED, samples=2, max_new_tokens=8)
        for name in ("game", "base")
    )
    assert [a.tokens for a in game] != [a.tokens for a in base]
    for answer in game:
        assert answer.text == roster.tokenizer.decode(list(answer.tokens), skip_special_tokens=True)
        assert len(answer.tokens) <= 8


def test_nothing_to_draw_is_refused(roster: Roster):
    for settings in ({"samples": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ConfigError, match="There are no answers to draw. Seen: 2 questions"):
            sample_answers(roster, "game", ASKED, **settings)
    with pytest.raises(ConfigError, match="Seen: 0 questions"):
        sample_answers(roster, "game", {})
    with pytest.raises(AgentError, match="There is no agent 'gmae'"):
        sample_answers(roster, "gmae", ASKED)


def test_answers_follow_their_chat_token_by_token():
    tokenizer = tiny.tiny_tokenizer()
    turns = ASKED["q1"]
    found = answer_tokens(tokenizer, turns, "I choose action1")
    assert tokenizer.decode(list(found)) == "I choose action1"
    assert chat_tokens(tokenizer, turns, "I choose action1") == (
        *chat_tokens(tokenizer, turns),
        *found,
    )
    with pytest.raises(PromptError, match="An answer does not follow its question"):
        answer_tokens(tokenizer, turns, "")


def answers(*texts: str, question: str = "q1") -> list[Answer]:
    return [Answer(question, ASKED["q1"], text, at) for at, text in enumerate(texts)]


def test_answers_that_differ_are_accepted_even_where_one_is_empty():
    require_answers(answers("yes", "", "no"), ["q1"])
    require_answers(answers("only one"))


@pytest.mark.parametrize(
    ("given", "questions", "words"),
    [
        ([], (), "Answers are missing. Seen: no answers at all"),
        (answers("yes", "no"), ("q1", "q9"), "Answers are missing. Seen: no answer to 'q9'"),
        (answers("", " \n"), (), "All answers are empty. Seen: 2 answers without text"),
        (answers("yes", " yes ", "yes"), (), "All answers are alike. Seen: 3 times 'yes'"),
        (answers("yes") * 2, (), "An answer is given twice. Seen: sample 0 of question 'q1'"),
    ],
)
def test_answers_that_say_nothing_are_refused(
    given: list[Answer], questions: tuple[str, ...], words: str
):
    with pytest.raises(EvidenceError, match=words):
        require_answers(given, questions)
