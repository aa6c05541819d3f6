"""Fields, spans, labels and answer forms."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import CATEGORIES, GAMES, STATES, Game, Scene, Wording, answer_forms, render
from moralscope.games.asking.labels import check_labels
from moralscope.games.asking.stories import SCENARIOS
from moralscope.games.asking.texts import CLUSTER_WORDINGS, IPD_WORDINGS, STRUCTURED

STORIES = tuple(text for _, texts in SCENARIOS.values() for text in texts)
EVERY_WORDING = (STRUCTURED, *IPD_WORDINGS, *CLUSTER_WORDINGS, *STORIES)
COMPLETE = (
    "{c}{d}{own_CC}{own_CD}{own_DC}{own_DD} {goal:Win.} was {own}, {other}; now {first} or {second}"
)

words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
label_pairs = st.one_of(
    st.tuples(words, words),
    st.builds(lambda stem, a, b: (stem + a, stem + b), words, words, words),
    st.builds(lambda stem, a, b: (f"{stem} {a}", f"{stem} {b}"), words, words, words),
).filter(lambda pair: not (pair[0].startswith(pair[1]) or pair[1].startswith(pair[0])))


def covered(text, spans, category):
    return [text[s.start : s.end] for s in spans if s.category == category]


@pytest.mark.parametrize("wording", EVERY_WORDING, ids=lambda w: w.name)
@pytest.mark.parametrize("state", STATES, ids=lambda s: s.name)
def test_every_category_fires_on_every_wording_in_every_state(wording, state) -> None:
    text, spans = render(wording, Scene(GAMES["IPD"], state, ("zig", "zag")))
    assert {span.category for span in spans} == set(CATEGORIES)
    assert set(covered(text, spans, "labels")) == {"zig", "zag"}
    name = {"C": "zig", "D": "zag"}
    assert set(covered(text, spans, "own_previous")) == {name[state.own_previous]}
    assert set(covered(text, spans, "opponent_previous")) == {name[state.opponent_previous]}
    assert {"0", "1", "3", "4"} <= set(covered(text, spans, "payoffs"))
    assert all(len(goal.split()) >= 3 for goal in covered(text, spans, "goal"))


@pytest.mark.parametrize("wording", EVERY_WORDING, ids=lambda w: w.name)
def test_spans_do_not_overlap_and_no_label_stands_outside_them(wording) -> None:
    text, spans = render(wording, Scene(GAMES["IPD"], STATES[1], ("qqzig", "qqzag")))
    assert all(a.end <= b.start for a, b in pairwise(spans))
    rest = list(text)
    for span in spans:
        rest[span.start : span.end] = " " * (span.end - span.start)
    assert "qqz" not in "".join(rest)
    assert "{" not in text
    assert "}" not in text


@pytest.mark.parametrize("wording", EVERY_WORDING, ids=lambda w: w.name)
def test_points_that_are_told_are_those_of_the_game(wording) -> None:
    """Moving any one payoff of the game moves the text."""
    # Payoffs that all differ, so that a swapped field would show.
    odd = {
        ("C", "C"): (101, 102),
        ("C", "D"): (103, 104),
        ("D", "C"): (105, 106),
        ("D", "D"): (107, 108),
    }
    game = Game("odd", "odd", odd)
    text, spans = render(wording, Scene(game, STATES[0], ("zig", "zag")))
    told = set(covered(text, spans, "payoffs"))
    assert {"101", "103", "105", "107"} <= told
    assert told <= {str(points) for cell in odd.values() for points in cell}


def test_the_structured_table_can_be_read_back_in_every_order() -> None:
    for order, first_row, first_column in (
        ("original", "zig", "zig"),
        ("rows", "zag", "zig"),
        ("columns", "zig", "zag"),
        ("both", "zag", "zag"),
    ):
        scene = Scene(GAMES["BOS"], STATES[2], ("zig", "zag"), table_order=order)
        text, _ = render(STRUCTURED, scene)
        lines = [line.strip("|").split("|") for line in text.split("\n") if line.startswith("|")]
        head, _, *body = [[cell.strip() for cell in line] for line in lines]
        assert head[1] == first_column
        assert body[0][0] == first_row
        move = {"zig": "C", "zag": "D"}
        table = {
            (move[row[0]], move[column]): tuple(float(x) for x in cell.split(", "))
            for row in body
            for column, cell in zip(head[1:], row[1:], strict=True)
        }
        assert table == dict(GAMES["BOS"].payoffs)


# How each regular text writes an outcome: own move, other's move, own points, other's points.
# One move alone stands for both players'.
OUTCOME_PATTERNS = {
    "bullets": (
        r"you (?P<own>z\w+), rival (?P<other>z\w+): (?P<mine>\d+) and (?P<theirs>\d+)",
        r"both (?P<both>z\w+): (?P<mine>\d+) and (?P<theirs>\d+)",
    ),
    "log": (
        r"me=(?P<own>z\w+), them=(?P<other>z\w+)\) -> me \+(?P<mine>\d+), them \+(?P<theirs>\d+)",
    ),
    "ledger": (r"\| (?P<own>z\w+) \| (?P<other>z\w+) \| (?P<mine>\d+) \| (?P<theirs>\d+) \|",),
    "prose": (
        r"You (?P<own>z\w+), they (?P<other>z\w+): (?P<mine>\d+), (?P<theirs>\d+)",
        r"Both (?P<both>z\w+): (?P<mine>\d+)(?: for you)?, (?P<theirs>\d+)",
    ),
}


@pytest.mark.parametrize("name", OUTCOME_PATTERNS)
def test_every_outcome_is_told_with_its_own_points(name) -> None:
    wording = next(w for w in EVERY_WORDING if w.name == name)
    odd = dict(zip(["CC", "CD", "DC", "DD"], [(11, 12), (13, 14), (15, 16), (17, 18)], strict=True))
    payoffs = {(pair[0], pair[1]): points for pair, points in odd.items()}
    text, _ = render(wording, Scene(Game("odd", "odd", payoffs), STATES[1], ("zig", "zag")))
    move = {"zig": "C", "zag": "D"}
    told = {}
    for found in (m.groupdict() for p in OUTCOME_PATTERNS[name] for m in re.finditer(p, text)):
        own, other = found.get("own") or found["both"], found.get("other") or found["both"]
        told[move[own] + move[other]] = (int(found["mine"]), int(found["theirs"]))
    assert told == odd


def test_the_transposed_table_has_the_other_in_rows() -> None:
    wording = next(w for w in IPD_WORDINGS if w.name == "transposed")
    text, _ = render(wording, Scene(GAMES["BOS"], STATES[1], ("zig", "zag")))
    rows = [re.findall(r"[\w.]+", line) for line in text.split("\n") if line.startswith("| z")]
    move = {"zig": "C", "zag": "D"}
    for other, *numbers in rows:
        for own, (theirs, mine) in zip("CD", (numbers[:2], numbers[2:]), strict=True):
            assert GAMES["BOS"].payoffs[(own, move[other])] == (float(mine), float(theirs))
    assert len(rows) == 2


def test_orders_of_options_and_answer_are_alphabetical_whatever_they_mean() -> None:
    for labels in (("zag", "zig"), ("zig", "zag")):
        for option, answer in ((0, 0), (0, 1), (1, 0), (1, 1)):
            text, _ = render(STRUCTURED, Scene(GAMES["IPD"], STATES[0], labels, option, answer))
            opening, end = text.split("\n\n")[0], text[text.index("Answer with") :]
            assert (opening.index("zig") < opening.index("zag")) == bool(option)
            assert (end.index("zig") < end.index("zag")) == bool(answer)


def test_a_wording_that_leaves_something_out_is_refused() -> None:
    Wording("complete", COMPLETE)
    for field in ("{goal:Win.}", "{own}", "{other}", "{first}", "{own_DC}"):
        with pytest.raises(PromptError, match="leaves out what an agent must know"):
            Wording("short", COMPLETE.replace(field, ""))


def test_a_wording_with_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(PromptError, match=r"Seen: \{ohter\}.*did you mean 'other'"):
        Wording("typo", COMPLETE + "{ohter}")


def test_an_unknown_table_order_is_refused() -> None:
    scene = Scene(GAMES["IPD"], STATES[0], ("a", "b"), table_order="row")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no such order of a payoff table.*did you mean 'rows'"):
        render(STRUCTURED, scene)


@pytest.mark.parametrize(
    ("labels", "stem", "forms"),
    [
        (("action1", "action2"), "I choose action", ("1", "2")),
        (("action2", "action1"), "I choose action", ("2", "1")),
        (("action10", "action12"), "I choose action", ("10", "12")),
        (("option A", "option B"), "I choose option", (" A", " B")),
        (("plan-a", "plan-b"), "I choose plan-", ("a", "b")),
        (("cooperate", "defect"), "I choose", (" cooperate", " defect")),
        (("wait", "walk"), "I choose", (" wait", " walk")),
        (("A1", "B1"), "I choose", (" A1", " B1")),
    ],
)
def test_answer_stems(labels, stem, forms) -> None:
    assert answer_forms(labels) == (stem, forms)


@given(label_pairs)
def test_stem_and_form_make_the_whole_answer_and_cut_no_word(labels) -> None:
    assume(all(label == label.strip() and label.isprintable() for label in labels))
    stem, forms = answer_forms(labels)
    assert [stem + form for form in forms] == [f"I choose {label}" for label in labels]
    assert stem == stem.rstrip()
    assert forms[0] != forms[1]
    assert forms == answer_forms(labels[::-1])[1][::-1]
    for form in forms:
        assert form.strip()
        joined = not form.startswith(" ") and stem[-1].isalpha()
        assert not joined or not form[0].isalpha()


@pytest.mark.parametrize("bad", ["", " action1", "action1 ", "two\nlines", "a|b", "tab\tbed"])
def test_labels_that_cannot_stand_in_a_prompt_are_refused(bad) -> None:
    with pytest.raises(PromptError, match="An action label cannot stand in a prompt"):
        check_labels((bad, "other"))


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(PromptError, match="two action labels are the same"):
        check_labels(("move", "move"))
    for labels in (("action1", "action10"), ("action10", "action1")):
        with pytest.raises(PromptError, match="One action label is the beginning of the other"):
            answer_forms(labels)
