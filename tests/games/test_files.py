"""A user's own prompts: round trip, and one clear error for each way to get a file wrong."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet, Span
from moralscope.core.errors import OutputError, PromptError
from moralscope.games import read_prompts, scenarios, structured, write_prompts
from moralscope.games.asking import files

ENTRY = {
    "name": "one",
    "text": "Grant the refund?",
    "stem": "My answer:",
    "positive": {"name": "grant", "forms": [" yes"]},
    "negative": {"name": "refuse", "forms": [" no"]},
}
filled = st.text(min_size=1, max_size=12).filter(str.strip)
small = st.text(min_size=1, max_size=6)


@st.composite
def drawn_sets(draw):
    prompts = []
    names_drawn = draw(st.lists(small, min_size=1, max_size=3, unique=True))
    for name in names_drawn:
        others = [None, *(other for other in names_drawn if other != name)]
        of = draw(st.sampled_from(others))
        roles = st.sampled_from(["system", "user", "assistant"])
        messages = draw(st.lists(st.builds(Message, roles, filled), min_size=1, max_size=3))
        # The name makes each text unique, whatever else is drawn.
        messages[-1] = Message(messages[-1].role, messages[-1].content + "|" + name)
        forms = draw(st.lists(small, min_size=2, max_size=4, unique=True))
        names = draw(st.lists(small, min_size=2, max_size=2, unique=True))
        spans = []
        for _ in range(draw(st.integers(0, 3))):
            index = draw(st.integers(0, len(messages) - 1))
            start = draw(st.integers(0, len(messages[index].content) - 1))
            end = draw(st.integers(start + 1, len(messages[index].content)))
            spans.append(Span(draw(small), index, start, end))
        moves = st.sampled_from([None, "C", "D"])
        prompts.append(
            Prompt(
                name=name,
                decision=Decision(
                    messages=tuple(messages),
                    stem=draw(st.text(max_size=5)),
                    positive=Option(names[0], tuple(forms[:1])),
                    negative=Option(names[1], tuple(forms[1:])),
                    spans=tuple(spans),
                    chat_template=draw(st.booleans()),
                ),
                game=draw(small),
                scenario=draw(small),
                family=draw(small),
                template=draw(small),
                labels=draw(small),
                option_order=draw(st.integers(0, 1)),
                answer_order=draw(st.integers(0, 1)),
                table_order=draw(small),
                own_previous=draw(moves),
                opponent_previous=draw(moves),
                others_cooperated=draw(st.none() | st.integers(0, 9)),
                counterfactual_of=of,
                change=None if of is None else draw(st.none() | small),
            )
        )
    return PromptSet(tuple(prompts))


@pytest.fixture
def written(tmp_path):
    def write(*entries, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
        return path

    return write


def refusal(path):
    with pytest.raises(PromptError) as caught:
        read_prompts(path)
    return caught.value


@settings(max_examples=60)
@given(drawn_sets())
def test_what_is_written_is_read_back(tmp_path_factory, prompts) -> None:
    path = tmp_path_factory.mktemp("round") / "set.jsonl"
    write_prompts(path, prompts)
    assert read_prompts(path) == prompts


@pytest.mark.parametrize("build", [structured, scenarios])
def test_the_sets_of_the_package_survive_the_round_trip(tmp_path, build) -> None:
    path = tmp_path / "set.jsonl"
    write_prompts(path, build())
    assert read_prompts(path) == build()
    assert len(path.read_text().splitlines()) == len(build())


def test_the_example_of_the_documentation_is_read(tmp_path) -> None:
    example = textwrap.dedent(files.__doc__.split("options:\n\n")[1].split("\n\n")[0])
    path = tmp_path / "mine.yaml"
    path.write_text(example)
    (prompt,) = read_prompts(path)
    text = "A customer asks for a refund after the deadline. Do you grant it?"
    start = text.index("after the deadline")
    assert prompt == Prompt(
        name="refund-1",
        decision=Decision(
            messages=(Message("user", text),),
            stem="My answer:",
            positive=Option("grant", (" yes",)),
            negative=Option("refuse", (" no",)),
            spans=(Span("deadline", 0, start, start + len("after the deadline")),),
        ),
        game="user",
        scenario="refund-1",
        family="user",
        template="user",
        labels="refuse/grant",
    )


def test_yaml_and_jsonl_say_the_same(written) -> None:
    a = read_prompts(written(ENTRY))
    assert read_prompts(written(json.dumps([ENTRY]), name="mine.yml")) == a


def test_blank_lines_are_skipped_and_line_numbers_still_right(written) -> None:
    bad = {**ENTRY, "name": "two", "text": " "}
    assert "mine.jsonl, line 4: A message is empty" in str(refusal(written("", ENTRY, "", bad)))


def test_spans_take_all_occurrences_or_the_one_that_is_counted(written) -> None:
    entry = {**ENTRY, "text": "aaa b aaa", "spans": [{"category": "x", "text": "aa"}]}
    (prompt,) = read_prompts(written(entry))
    assert [s.start for s in prompt.decision.spans] == [0, 1, 6, 7]
    entry["spans"] = [{"category": "x", "text": "aa", "occurrence": 2}]
    (prompt,) = read_prompts(written(entry))
    assert prompt.decision.spans == (Span("x", 0, 6, 8),)


@pytest.mark.parametrize(
    "span",
    [
        {"category": "x", "text": "absent"},
        {"category": "x", "text": "refund", "occurrence": 1},
        {"category": "x", "text": "refund", "occurrence": -1},
        {"category": "x", "text": "refund", "message": 1},
        {"category": "x", "text": "refund", "message": -1},
        {"category": "x", "text": ""},
    ],
)
def test_spans_that_are_nowhere_are_refused(written, span) -> None:
    error = refusal(written({**ENTRY, "spans": [span]}))
    assert "line 1: The words of span 'x' do not occur" in str(error)


@pytest.mark.parametrize(
    ("change", "problem", "remedy"),
    [
        ({"postive": {}}, "There is no key 'postive'", "did you mean 'positive'"),
        ({"positive": {"name": "a", "froms": ["b"], "forms": ["b"]}},
         "There is no key 'positive.froms'", "did you mean 'forms'"),
        ({"spans": [{"category": "a", "text": "refund", "occurence": 0}]},
         "There is no key 'spans.0.occurence'", "did you mean 'occurrence'"),
        ({"positive": {"name": "a"}}, "The key 'positive.forms' is missing",
         "add 'positive.forms'"),
        ({"positive": {"name": "a", "forms": [True]}},
         "The value of 'positive.forms.0' in", "put quotes around words such as yes"),
        ({"option_order": "1"}, "The value of 'option_order' in", "correct the value"),
        ({"own_previous": "c"}, "The value of 'own_previous' in", "correct the value"),
        ({"messages": [{"role": "user", "content": "x"}]},
         "An entry asks nothing or asks twice", "give one of the two"),
        ({"text": None}, "An entry asks nothing or asks twice", "give one of the two"),
        ({"text": None, "messages": []}, "A decision has no messages", "give the text"),
        ({"text": None, "messages": [{"role": "robot", "content": "x"}]},
         "The value of 'messages.0.role' in", "correct the value"),
        ({"positive": {"name": "grant", "forms": [" no"]}},
         "The two options are identical", "give each option its own name"),
        ({"positive": {"name": "refuse", "forms": [" yes"]}},
         "The two options are identical", "give each option its own name"),
        ({"positive": {"name": "grant", "forms": []}},
         "Option 'grant' has an empty surface form", "write the text"),
    ],
)  # fmt: skip
def test_bad_entries_are_refused_with_file_entry_and_remedy(
    written, change, problem, remedy
) -> None:
    error = refusal(written({**ENTRY, "name": "zero"}, {**ENTRY, **change}))
    assert problem in error.problem
    assert "mine.jsonl, line 2" in error.problem
    assert remedy in error.remedy


def test_a_missing_key_is_named_in_yaml_by_entry(written) -> None:
    short = {k: v for k, v in ENTRY.items() if k != "negative"}
    error = refusal(written(json.dumps([short]), name="mine.yaml"))
    assert error.problem.startswith("The key 'negative' is missing in ")
    assert error.problem.endswith("mine.yaml, entry 1")


def test_an_unquoted_yes_is_refused_with_a_hint(written) -> None:
    text = (
        "- {name: a, text: b, positive: {name: c, forms: [yes]}, negative: {name: d, forms: [x]}}"
    )
    error = refusal(written(text, name="mine.yaml"))
    assert "'positive.forms.0'" in error.problem
    assert error.seen == "True"
    assert "put quotes around" in error.remedy


def test_names_and_texts_may_not_repeat(written) -> None:
    error = refusal(written(ENTRY, ENTRY))
    assert "line 2: The name of an entry is taken" in error.problem
    assert "line 1" in str(error.seen)
    error = refusal(written(ENTRY, {**ENTRY, "name": "two"}))
    assert re.search(r"mine\.jsonl: Prompts 'one' and 'two' have the same text", error.problem)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("mine.jsonl", '{"name": "a", "name": "b"}',
         r"The key 'name' is given twice. Seen: .*mine\.jsonl, line 1\."),
        ("mine.yaml", "- name: a\n  name: b",
         r"The key 'name' is given twice. Seen: .*mine\.yaml, line 2\."),
        ("mine.jsonl", "{'name'}", r"A line is not valid JSON. Seen: .*mine\.jsonl, line 1: "),
        ("mine.jsonl", "[" * 100_000, r"A line is not valid JSON. Seen: .*mine\.jsonl, line 1: "),
        ("mine.jsonl", '{"option_order": ' + "1" * 5000 + "}", "A line is not valid JSON"),
        ("mine.yaml", "- name: [", r"The file is not valid YAML. Seen: .*mine\.yaml: "),
        ("mine.yaml", "- !!python/name:os.system x", "The file is not valid YAML"),
        ("mine.yaml", "- name: 2024-13-45", "The file is not valid YAML"),
        ("mine.yaml", "name: a", r"The prompt file does not hold a list. Seen: .*mine\.yaml: dict"),
        ("mine.yaml", "- just text",
         r"There are no keys and values in .*entry 1. Seen: 'just text' \(str\)"),
        ("mine.yaml", "[]", r"mine\.yaml: A prompt set is empty"),
        ("mine.jsonl", "", r"mine\.jsonl: A prompt set is empty"),
        ("mine.txt", "", "ending that is not known"),
    ],
)  # fmt: skip
def test_files_that_hold_no_entries_are_refused(written, name, text, problem) -> None:
    assert re.search(problem, str(refusal(written(text, name=name))))


def test_a_file_that_cannot_be_read_is_refused(tmp_path) -> None:
    with pytest.raises(PromptError, match=r"cannot be read. Seen: .*absent\.jsonl"):
        read_prompts(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(PromptError, match=r"latin\.jsonl.*a readable text file in UTF-8"):
        read_prompts(tmp_path / "latin.jsonl")


def test_writing_elsewhere_than_jsonl_or_into_a_file_is_refused(tmp_path) -> None:
    with pytest.raises(PromptError, match=r"Allowed: \.jsonl"):
        write_prompts(tmp_path / "set.yaml", structured())
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_prompts(tmp_path / "blocked" / "set.jsonl", structured())


def changed(name: str, **fields: object) -> dict[str, object]:
    return {**ENTRY, "name": name, "text": f"{ENTRY['text']} {name}", **fields}


def test_an_entry_may_be_the_counterfactual_of_another_wherever_that_stands(written) -> None:
    path = written(changed("a", counterfactual_of="b", change="late"), changed("b"))
    a, b = read_prompts(path)
    assert (a.counterfactual_of, a.change) == ("b", "late")
    assert (b.counterfactual_of, b.change) == (None, None)
    yaml = textwrap.dedent(files.__doc__).replace("\n", " ")
    assert "counterfactual_of: refund-1" in yaml
    assert "change: deadline" in yaml


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"counterfactual_of": "refnd"},
         (r"mine\.jsonl, line 2: Prompt 'two' is the counterfactual of a prompt that is not there. "
         r"Seen: counterfactual_of 'refnd'. .*did you mean 'refund'")),
        ({"counterfactual_of": "two"},
         (r"mine\.jsonl, line 2: Prompt 'two' is the counterfactual of itself. "
         r"Seen: counterfactual_of 'two'")),
        ({"change": "late"},
         (r"mine\.jsonl, line 2: Prompt 'two' says what was changed but not in which prompt. "
         r"Seen: change 'late' without counterfactual_of")),
        ({"counterfactual_of": ["refund"]}, "counterfactual_of"),
    ],
)  # fmt: skip
def test_counterfactuals_of_nothing_are_refused(written, fields, problem) -> None:
    path = written(changed("refund"), changed("two", **fields))
    assert re.search(problem, str(refusal(path)))


def test_a_lone_counterfactual_is_refused_on_reading_and_writing(written, tmp_path) -> None:
    lone = str(refusal(written(changed("a", counterfactual_of="b"))))
    assert "Next: add the prompt that this one is a changed version of" in lone
    both = read_prompts(written(changed("a", counterfactual_of="b"), changed("b")))
    with pytest.raises(PromptError, match="Prompt 'a' is the counterfactual of a prompt that is"):
        write_prompts(tmp_path / "part.jsonl", both.where(lambda p: p.name == "a"))
    assert not (tmp_path / "part.jsonl").exists()
