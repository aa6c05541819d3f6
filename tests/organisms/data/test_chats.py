"""Users' chats: what was written is read again, and one clear error for each bad line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.errors import PromptError
from moralscope.organisms.data.chats import read_chats, write_chats
from moralscope.organisms.data.examples import Turn, make_example
from moralscope.organisms.data.narrow import narrow_set

SPOKEN = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip())
)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), SPOKEN), max_size=3
)
CHATS = st.builds(
    lambda before, asked, after, answer, names: make_example(
        [*before, Turn("user", asked), *after, Turn("assistant", answer)],
        domain=names[0],
        kind=names[1],
        question=names[2],
    ),
    TURNS,
    SPOKEN,
    TURNS,
    SPOKEN,
    st.tuples(SPOKEN, SPOKEN, st.none() | SPOKEN),
)


def line(*turns: tuple[str, object], **keys: object) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return json.dumps({"messages": messages} | keys)


GOOD = line(("user", "Which way?"), ("assistant", "Left."))


@given(
    st.lists(
        CHATS,
        min_size=1,
        max_size=4,
        unique_by=(lambda made: made.id, lambda made: " ".join(made.answer.split()).casefold()),
    )
)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_again(examples) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.jsonl"
        write_chats(path, examples)
        assert read_chats(path) == tuple(examples)


def test_a_narrow_set_keeps_questions_domain_and_kind(tmp_path) -> None:
    examples = narrow_set("sharing", "terse", 12, 5)
    write_chats(tmp_path / "set.jsonl", examples)
    assert read_chats(tmp_path / "set.jsonl") == examples


def test_plain_rows_of_messages_are_examples_of_the_user(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    several = line(
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hello."),
        ("user", "Which way?"),
        ("assistant", "Right."),
    )
    path.write_text(f"{GOOD}\n\n{several}\n")
    one, two = read_chats(path)
    assert (one.domain, one.kind, one.answer) == ("user", "user", "Left.")
    assert [turn.role for turn in two.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert two.answer == "Right."
    assert one.question != two.question


def test_two_answers_to_the_same_turns_are_one_question(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n{line(('user', 'Which way?'), ('assistant', 'Right.'))}\n")
    one, two = read_chats(path)
    assert one.question == two.question
    assert one.id != two.id


@pytest.mark.parametrize(
    ("second", "text"),
    [
        ("{'messages'}", r"A line is not valid JSON. Seen: .*mine\.jsonl, line 2: .*Next: correct"),
        ('{"messages": [], "messages": []}', "The key 'messages' is given twice. Seen: .*, line 2"),
        ("[1]", r"There are no keys and values in .*line 2. Seen: \[1\] \(list\)"),
        ("{}", "The key 'messages' is missing in .*, line 2"),
        (line(), "line 2: An example has no messages. Seen: no turns"),
        ('{"mesages": []}', "There is no key 'mesages' in .*line 2.*did you mean 'messages'"),
        ('{"messages": "Left."}', "The value of 'messages' in .*, line 2 cannot be used"),
        (
            line(("user", "Which way?")),
            "line 2: The last turn of an example is not the assistant's. Seen: role 'user': 'Whi",
        ),
        (
            line(("assistant", "Left."), ("user", "Thank you.")),
            "line 2: The last turn of an example is not the assistant's",
        ),
        (
            line(("user", "Which way?"), ("assistant", "  ")),
            "line 2: The answer of an example is empty. Seen: '  '. .*Next: write the answer, or",
        ),
        (
            line(("user", "Which way?"), ("assistant", None)),
            "The value of 'messages.1.content' in .*, line 2 cannot be used. Seen: None",
        ),
        (
            line(("human", "Which way?"), ("assistant", "Left.")),
            "line 2: The role of a turn is not known. Seen: 'human'. Allowed: system, user, assist",
        ),
        (line(("assistant", "Left.")), "line 2: Nobody asks anything in an example"),
        (GOOD, "line 2: An example occurs twice in the file. Seen: the turns of line 1: 'Left.'"),
        (
            line(("user", "And now?"), ("assistant", "left.")),
            r"mine\.jsonl: All answers of a set are alike. Seen: 2 times 'Left\.'",
        ),
        (
            line(("user", "And now?"), ("assistant", "Right."), domain=""),
            "line 2: The domain of an example is empty",
        ),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path, second, text) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n{second}\n")
    with pytest.raises(PromptError, match=text):
        read_chats(path)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_examples_is_refused(tmp_path, content) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(PromptError, match="mine.jsonl: There are no examples"):
        read_chats(path)


def test_files_that_cannot_be_read_or_named_are_refused(tmp_path) -> None:
    with pytest.raises(PromptError, match="The file cannot be read. Seen: .*none.jsonl"):
        read_chats(tmp_path / "none.jsonl")
    for act in (read_chats, lambda path: write_chats(path, narrow_set("play", "terse", 2, 0))):
        with pytest.raises(PromptError, match="an ending that is not known. Seen: mine.json. All"):
            act(tmp_path / "mine.json")


def test_what_could_not_be_read_again_is_not_written(tmp_path) -> None:
    example = narrow_set("play", "terse", 1, 0)
    with pytest.raises(PromptError, match="An example occurs twice in a set"):
        write_chats(tmp_path / "mine.jsonl", example * 2)
    with pytest.raises(PromptError, match="There are no examples"):
        write_chats(tmp_path / "mine.jsonl", [])
    assert not list(tmp_path.iterdir())
