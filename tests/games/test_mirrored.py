"""Mirrored wordings: the same game, with the other move spoken of first."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    GAMES,
    MIRRORED,
    STATES,
    TABLE_ORDERS,
    WORDINGS,
    Game,
    Scene,
    State,
    Wording,
    get_game,
    mirrored,
    render,
    wordings,
)
from moralscope.games.asking.stories import SCENARIOS
from moralscope.games.asking.texts import CLUSTER_WORDINGS, IPD_WORDINGS, STRUCTURED

STORIES = tuple(text for _, texts in SCENARIOS.values() for text in texts)
EVERY_WORDING = (STRUCTURED, *IPD_WORDINGS, *CLUSTER_WORDINGS, *STORIES)
NO_MIRROR = {
    "letter",  # "should we both send D only ..."
    "whisper",  # "Both of you played C in the round before"
    "auction",  # "If it stays at C"
    "transcript",  # "<- one point more than before"
    "fishing",  # "Keeping to C, as when your boat went out"
    "diary",  # "at the cost of the one with C"
    "border",  # "the betrayed bank"
    "feud",  # "Had it been C from both"
}
MIRRORING = tuple(wording for wording in EVERY_WORDING if wording.name not in NO_MIRROR)
IPD = get_game("IPD")
FLIP = {"C": "D", "D": "C"}
# Points that all differ, so that a misplaced one shows.
ODD = Game(
    "odd",
    "odd",
    {("C", "C"): (11, 12), ("C", "D"): (13, 14), ("D", "C"): (15, 16), ("D", "D"): (17, 18)},
)
SYMMETRIC = get_game("matrix(R=11, S=12, T=13, P=14)")
scenes = st.builds(
    Scene,
    st.sampled_from([IPD, GAMES["BOS"], ODD]),
    st.sampled_from(STATES),
    st.sampled_from([("zig", "zag"), ("zag", "zig"), ("action1", "action2"), ("plan C", "plan D")]),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from(TABLE_ORDERS),
)


def pieces(wording: Wording, scene: Scene):
    """The text cut at its spans: what lies between them, and each span's category and words."""
    text, spans = render(wording, scene)
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
    cut = [text[a:b] for a, b in pairwise(edges)]
    return cut[::2], list(zip((span.category for span in spans), cut[1::2], strict=True))


def renamed_world(scene: Scene) -> Scene:
    """The same scene with C and D themselves exchanged, in payoffs, memory and labels."""
    payoffs = {(FLIP[a], FLIP[b]): points for (a, b), points in scene.game.payoffs.items()}
    memory = FLIP[scene.state.own_previous], FLIP[scene.state.opponent_previous]
    return replace(
        scene,
        game=Game("renamed", "renamed", payoffs),
        state=State(*memory),
        labels=scene.labels[::-1],
    )


@given(st.sampled_from(MIRRORING), scenes)
def test_a_mirror_is_what_the_text_itself_says_when_c_and_d_change_names(wording, scene) -> None:
    """Who calls C what others call D plays the same game and is told it the other way round."""
    assert render(mirrored(wording), scene) == render(wording, renamed_world(scene))


@given(st.sampled_from(MIRRORING), scenes)
def test_only_moves_and_their_points_change_places(wording, scene) -> None:
    (prose, told), (mirror_prose, mirror_told) = (
        pieces(text, scene) for text in (wording, mirrored(wording))
    )
    assert mirror_prose == prose
    assert told != mirror_told
    assert [category for category, _ in mirror_told] == [category for category, _ in told]
    for category in ("own_previous", "opponent_previous", "goal"):
        assert [t for t in mirror_told if t[0] == category] == [t for t in told if t[0] == category]
    points, mirror_points = (
        Counter(words for category, words in found if category == "payoffs")
        for found in (told, mirror_told)
    )
    assert mirror_points == points


@given(st.sampled_from(MIRRORING), scenes)
def test_the_other_move_is_spoken_of_first_throughout_the_payoffs(wording, scene) -> None:
    named, mirror_named = (
        [words for category, words in pieces(text, scene)[1] if category == "labels"]
        for text in (wording, mirrored(wording))
    )
    # The options stand first in these two, last in all others; structured has both.
    before = 2 if wording.name in ("structured", "cards") else 0
    after = len(named) - (0 if wording.name == "cards" else 2)
    other = dict(zip(scene.labels, scene.labels[::-1], strict=True))
    assert set(named[before:after]) == set(scene.labels)
    assert mirror_named[before:after] == [other[label] for label in named[before:after]]
    assert mirror_named[:before] + mirror_named[after:] == named[:before] + named[after:]


# How each text says which points follow which moves: own move and points, other's move and points.
# ``both`` is both players' move; where one player's move is left out, it is the other one.
PATTERNS = {
    "rounds": (
        r"lone (?P<own>z\w+) takes (?P<mine>\d+) .* (?P<theirs>\d+) for .* moved (?P<other>z\w+)\.",
        r"both move (?P<both>z\w+), each (?:of them )?takes (?P<mine>\d+)",
    ),
    "bullets": (
        r"you (?P<own>z\w+), rival (?P<other>z\w+): (?P<mine>\d+) and (?P<theirs>\d+)",
        r"both (?P<both>z\w+): (?P<mine>\d+) and (?P<theirs>\d+)",
    ),
    "market": (
        r"With (?P<both>z\w+) in both shops each earns (?P<mine>\d+) thousand",
        r"neighbour runs (?P<other>z\w+), they earn (?P<theirs>\d+) .* you earn (?P<mine>\d+);",
        r"you run (?P<own>z\w+), you earn (?P<mine>\d+) thousand and they earn (?P<theirs>\d+)",
    ),
    "log": (
        r"me=(?P<own>z\w+), them=(?P<other>z\w+)\) -> me \+(?P<mine>\d+), them \+(?P<theirs>\d+)",
    ),
    "cards": (
        r"wo (?P<both>z\w+) cards pay (?P<mine>\d+)",
        r"(?P<own>z\w+) side is paid (?P<mine>\d+) and the (?P<other>z\w+) side (?P<theirs>\d+)",
    ),
    "ledger": (r"\| (?P<own>z\w+) \| (?P<other>z\w+) \| (?P<mine>\d+) \| (?P<theirs>\d+) \|",),
}


def read_points(name: str, text: str):
    """(own move, other's move) to (own points, other's), as a reader of the text finds them."""
    move, opposite = {"zig": "C", "zag": "D"}, {"zig": "zag", "zag": "zig"}
    told = {}
    for found in (m.groupdict() for p in PATTERNS[name] for m in re.finditer(p, text)):
        both = found.get("both")
        own = both or found.get("own") or opposite[found["other"]]
        other = both or found.get("other") or opposite[own]
        mine = int(found["mine"])
        told[move[own], move[other]] = mine, int(found.get("theirs") or mine)
    # A text that says only who of two different players gets what says it of both.
    for (own, other), (mine, theirs) in list(told.items()):
        told.setdefault((other, own), (theirs, mine))
    return told


@pytest.mark.parametrize("name", PATTERNS)
def test_a_reader_finds_the_same_points_in_original_and_mirror(name) -> None:
    wording = next(w for w in IPD_WORDINGS if w.name == name)
    scene = Scene(SYMMETRIC, STATES[1], ("zig", "zag"))
    texts = [render(w, scene)[0] for w in (wording, mirrored(wording))]
    assert texts[0] != texts[1]
    for text in texts:
        assert read_points(name, text) == dict(SYMMETRIC.payoffs)


@pytest.mark.parametrize("wording", [STRUCTURED, IPD_WORDINGS[-1]], ids=lambda w: w.name)
def test_a_reader_finds_the_same_points_in_a_mirrored_table(wording) -> None:
    found = []
    for told in (wording, mirrored(wording)):
        text, _ = render(told, Scene(ODD, STATES[2], ("zig", "zag")))
        lines = [re.findall(r"\w+", line) for line in text.split("\n") if line.startswith("| ")]
        head, *rows = lines
        cells = {
            (row, column): (int(numbers[2 * i]), int(numbers[2 * i + 1]))
            for row, *numbers in rows
            for i, column in enumerate(head)
        }
        move = {"zig": "C", "zag": "D"}
        if wording is STRUCTURED:
            read = {(move[row], move[column]): points for (row, column), points in cells.items()}
        else:
            # The other player has the rows, and their points stand first.
            read = {
                (move[column], move[row]): points[::-1] for (row, column), points in cells.items()
            }
        assert read == dict(ODD.payoffs)
        found.append((head[0], rows[0][0]))
    assert found == [("zig", "zig"), ("zag", "zag")]


@pytest.mark.parametrize("wording", MIRRORING, ids=lambda w: w.name)
def test_the_mirror_of_a_mirror_is_the_original(wording) -> None:
    mirror = mirrored(wording)
    assert mirror.name == f"{wording.name}-mirrored"
    assert mirror.text != wording.text
    assert (mirror.table, mirror.symmetric_only) == (wording.table, wording.symmetric_only)
    assert mirrored(mirror) == wording


@pytest.mark.parametrize("name", sorted(NO_MIRROR))
def test_a_text_whose_prose_says_which_move_is_which_has_no_mirror(name) -> None:
    wording = next(w for w in EVERY_WORDING if w.name == name)
    with pytest.raises(PromptError) as caught:
        mirrored(wording)
    assert caught.value.problem == f"Wording {name!r} has no mirror"
    assert caught.value.seen == "prose that is only true of the moves as they stand"
    assert caught.value.remedy == "mirror another text, such as rounds"


def test_braces_and_letters_of_the_prose_are_not_mirrored() -> None:
    fields = "{c}{d}{own_CC}{own_CD}{own_DC}{own_DD} {own}, {other}: {first} or {second}"
    plain = Wording("plain", "{{c}} C12 own_CD {{own_12}} {goal:Win C, not D.} " + fields)
    text, _ = render(mirrored(plain), Scene(ODD, STATES[0], ("zig", "zag")))
    assert text == "{c} C12 own_CD {own_12} Win C, not D. zagzig17151311 zig, zig: zag or zig"
    assert mirrored(mirrored(plain)) == plain


def test_prompts_of_a_mirror_are_those_of_the_original_in_all_but_the_text() -> None:
    assert tuple(f"{name}-mirrored" for name in WORDINGS) == MIRRORED
    originals, mirrors = wordings(), wordings(names=MIRRORED)
    assert {prompt.template for prompt in originals} == set(WORDINGS)
    assert mirrors.prompts[0].name == "wordings.rounds-mirrored.CC.o0.same"
    for original, mirror in zip(originals, mirrors, strict=True):
        template = f"{original.template}-mirrored"
        assert mirror.decision.messages != original.decision.messages
        assert mirror == replace(
            original,
            name=original.name.replace(original.template, template),
            template=template,
            decision=replace(
                original.decision,
                messages=mirror.decision.messages,
                spans=mirror.decision.spans,
            ),
        )
    # Names and texts are all different, or the set would be refused.
    assert len(originals + mirrors) == 112
    assert set(wordings(names=("log-mirrored", "market"))) == {
        prompt
        for prompt in originals + mirrors
        if prompt.template in ("log-mirrored", "market")
    }  # fmt: skip


def test_a_rule_of_position_answers_a_text_and_its_mirror_with_different_moves() -> None:
    """The finding that mirrors are for: swapped labels alone do not tell such a rule from a move.

    The rule takes whichever move the payoffs speak of last. Under the original texts it keeps to
    one move whatever the labels are, like an agent that has learned a move.
    """
    for name, labels in product(WORDINGS, ("same", "swapped")):
        taken = {}
        for asked in (name, f"{name}-mirrored"):
            prompts = wordings(assignments=(labels,), names=(asked,))
            taken[asked] = {mentioned_last(prompt) for prompt in prompts}
            assert len(taken[asked]) == 1
        assert taken[name] != taken[f"{name}-mirrored"]
        if labels == "same":
            under_same = taken
        else:
            assert taken == under_same


def mentioned_last(prompt) -> str:
    """Which move's first mention among the payoffs comes second: C or D."""
    text = prompt.decision.messages[0].content
    named = [
        text[span.start : span.end] for span in prompt.decision.spans if span.category == "labels"
    ]
    first = named[2 if prompt.template.startswith("cards") else 0]
    cooperate, _ = prompt.labels.split("/")
    return "D" if first == cooperate else "C"


def test_names_of_mirrors_are_checked_as_those_of_wordings_are() -> None:
    with pytest.raises(ConfigError, match=r"no wording of this name.*'rounds-mirrored'"):
        wordings(names=("rounds-mirorred",))
    with pytest.raises(ConfigError, match=r"Seen: structured-mirrored.*Allowed: .*log-mirrored"):
        wordings(names=("structured-mirrored",))
    assert {p.game for p in wordings(names=("log-mirrored",), game=GAMES["BOS"])} == {"BOS"}
    with pytest.raises(PromptError, match="'cards-mirrored' tells one player's points for both"):
        wordings(names=("cards-mirrored",), game=GAMES["BOS"])


@pytest.mark.parametrize("name", ["rounds", "rounds-mirrored"])
def test_the_documented_example_is_what_prompts_say(name) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/games.md").read_text()
    (said,) = re.findall(rf"^\| `{name}` \| (.*) \|$", page, re.MULTILINE)
    prompts = wordings(("left", "right"), ("same",), names=(name,))
    assert said.startswith("A lone")
    assert all(f" {said} In the round" in p.decision.messages[0].content for p in prompts)
