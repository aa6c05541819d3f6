"""Counts, balance, names and variety of the prompt sets."""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    CLUSTER_GAMES,
    GAMES,
    HELD_OUT,
    WORDINGS,
    balanced,
    clusters,
    counterpart,
    game_of,
    get_game,
    scenarios,
    structured,
    wordings,
)

SETS = {
    "structured": structured(),
    "rows": structured(table_order="rows"),
    "wordings": wordings(),
    "scenarios": scenarios(),
    "clusters": clusters(),
}
PROMPTS = [prompt for prompts in SETS.values() for prompt in prompts]


def text_of(prompt):
    return prompt.decision.messages[0].content


def fill(prompt):
    """What distinguishes prompts of one wording, taken out: labels and numbers."""
    text = re.sub(r"action\d", "X", text_of(prompt))
    return re.sub(r"\d+", "N", text)


def counts(prompts, *attributes):
    return Counter(tuple(getattr(p, a) for a in attributes) for p in prompts)


def test_sizes() -> None:
    assert {name: len(prompts) for name, prompts in SETS.items()} == {
        "structured": 32,
        "rows": 32,
        "wordings": 56,
        "scenarios": 40,
        "clusters": 160,
    }
    assert len(structured(assignments=("swapped",))) == 16
    assert len(clusters(assignments=("same",))) == 80


def test_all_sets_together_have_no_duplicate() -> None:
    assert len(PromptSet(tuple(PROMPTS))) == 320


@pytest.mark.parametrize("name", SETS)
def test_positive_is_to_defect_and_labels_read_cooperate_then_defect(name) -> None:
    for prompt in SETS[name]:
        cooperate, defect = prompt.labels.split("/")
        d = prompt.decision
        assert (d.positive.name, d.negative.name) == ("defect", "cooperate")
        assert d.stem + d.positive.canonical == f"I choose {defect}"
        assert d.stem + d.negative.canonical == f"I choose {cooperate}"


def test_the_text_says_what_the_labels_mean() -> None:
    """Independent reading of the payoff table against the game, for every tabular prompt."""
    read = 0
    for prompt in PROMPTS:
        if prompt.template not in ("structured", "table"):
            continue
        cooperate, defect = prompt.labels.split("/")
        lines = [
            [c.strip() for c in line.strip("|").split("|")]
            for line in text_of(prompt).split("\n")
            if line.startswith("|")
        ]
        columns = lines[0][1:]
        for row in lines[2:]:
            for column, cell in zip(columns, row[1:], strict=True):
                move = {cooperate: "C", defect: "D"}
                own, other = (float(x) for x in cell.split(", "))
                pair = (move[row[0]], move[column])
                assert GAMES[prompt.game].payoffs[pair] == (own, other)
                read += 1
    assert read == 4 * (32 + 32 + 80)


def test_the_memory_that_is_told_is_that_of_the_prompt() -> None:
    for prompt in PROMPTS:
        label = dict(zip("CD", prompt.labels.split("/"), strict=True))
        for category in ("own_previous", "opponent_previous"):
            told = {
                text_of(prompt)[s.start : s.end]
                for s in prompt.decision.spans
                if s.category == category
            }
            assert told == {label[getattr(prompt, category)]}


def test_orders_are_those_of_the_text() -> None:
    """The first label span tells the option order wherever no payoff stands before it."""
    for prompt in SETS["structured"]:
        opening = text_of(prompt).split("\n\n")[0]
        end = text_of(prompt)[text_of(prompt).index("Answer with") :]
        assert (opening.index("action1") > opening.index("action2")) == prompt.option_order
        assert (end.index("action1") > end.index("action2")) == prompt.answer_order
    for prompt in [*SETS["wordings"], *SETS["scenarios"], *SETS["clusters"]]:
        pair = re.findall(
            r"(action\d)(?: or |, | or with | or to | and )(action\d)", text_of(prompt)
        )
        named = {p for p in pair if p[0] != p[1]}
        expected = ("action2", "action1") if prompt.option_order else ("action1", "action2")
        assert expected in named or re.search(rf"bid {expected[0]} or bid {expected[1]}",
                                              text_of(prompt).lower())  # fmt: skip


@pytest.mark.parametrize("name", ["structured", "rows"])
def test_structured_is_fully_crossed(name) -> None:
    cells = counts(
        SETS[name], "labels", "own_previous", "opponent_previous", "option_order", "answer_order"
    )
    assert len(cells) == 32
    assert {p.table_order for p in SETS[name]} == {"original" if name == "structured" else "rows"}
    assert counts(SETS[name], "scenario") == {(f"IPD.{s}",): 8 for s in ("CC", "CD", "DC", "DD")}


def test_exchanged_rows_change_the_table_alone() -> None:
    for one, other in zip(SETS["structured"], SETS["rows"], strict=True):
        a, b = text_of(one).split("\n"), text_of(other).split("\n")
        assert sorted(a) == sorted(b)
        assert a != b
        assert other.name == f"{one.name}.rows"


def test_clusters_are_fully_crossed() -> None:
    prompts = SETS["clusters"]
    assert len(counts(prompts, "scenario")) == 20
    assert set(counts(prompts, "scenario", "template", "option_order", "labels").values()) == {1}
    assert {p.game for p in prompts} == set(CLUSTER_GAMES)
    for prompt in prompts:
        memory = f"{prompt.own_previous}{prompt.opponent_previous}"
        assert prompt.scenario == f"{prompt.game}.{memory}"


def test_wordings_have_every_state_and_balanced_orders() -> None:
    prompts = SETS["wordings"]
    assert len(WORDINGS) >= 6
    assert set(counts(prompts, "template", "labels", "scenario").values()) == {1}
    assert set(counts(prompts, "template", "labels", "option_order").values()) == {2}
    # No single factor goes with the order of the options.
    for factor in ("own_previous", "opponent_previous", "labels", "scenario", "template"):
        assert (
            len(set(counts(prompts, factor, "option_order").values())) == 1 or factor == "scenario"
        )
    assert set(counts(prompts, "template", "own_previous", "option_order").values()) == {2}


def test_scenarios_have_four_texts_each_and_balanced_orders() -> None:
    prompts = SETS["scenarios"]
    states = {p.scenario: (p.own_previous, p.opponent_previous) for p in prompts}
    assert states == {
        "CC_continue": ("C", "C"),
        "CC_temptation": ("C", "C"),
        "CD_punished": ("C", "D"),
        "DC_exploited": ("D", "C"),
        "DD_trapped": ("D", "D"),
    }
    assert len({p.template for p in prompts}) == 20
    assert set(counts(prompts, "scenario", "labels", "option_order").values()) == {2}
    assert set(counts(prompts, "template", "option_order").values()) == {1}


def test_held_out_wordings_are_wordings() -> None:
    assert len(set(HELD_OUT)) >= 3
    assert set(HELD_OUT) < set(WORDINGS)
    chosen = wordings(names=HELD_OUT)
    assert {p.template for p in chosen} == set(HELD_OUT)
    assert chosen == SETS["wordings"].where(lambda p: p.template in HELD_OUT)


def test_wordings_are_genuinely_different() -> None:
    """Labels and numbers masked, no two texts are near in characters or in runs of words."""
    texts = {
        (p.family, p.template): fill(p)
        for p in PROMPTS
        if p.table_order != "rows" and p.labels == "action1/action2"
    }
    assert len(texts) == 1 + len(WORDINGS) + 20 + 2
    for (one, a), (other, b) in combinations(texts.items(), 2):
        ratio = SequenceMatcher(None, a, b, autojunk=False).ratio()
        shared = trigrams(a) & trigrams(b)
        overlap = len(shared) / min(len(trigrams(a)), len(trigrams(b)))
        assert ratio < 0.55, (one, other, ratio)
        assert overlap < 0.3, (one, other, shared)


def trigrams(text):
    tokens = re.findall(r"\w+", text.lower())
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


def test_cluster_prompts_share_their_beginning() -> None:
    """Prompts of a game, wording and assignment differ only after the payoffs."""
    groups = {}
    for prompt in SETS["clusters"]:
        key = (prompt.game, prompt.template, prompt.labels)
        groups.setdefault(key, []).append(text_of(prompt))
    for texts in groups.values():
        assert len(texts) == 8
        same = next(i for i, column in enumerate(zip(*texts, strict=False)) if len(set(column)) > 1)
        assert same > 0.6 * len(texts[0])


def test_names_say_what_a_prompt_is() -> None:
    assert SETS["structured"].prompts[0].name == "structured.CC.o0.a0.same"
    names = {p.name for p in PROMPTS}
    assert {
        "structured.CC.o0.a1.same",
        "structured.DC.o1.a0.swapped.rows",
        "clusters.IPD.CC.table.o0.swapped",
        "scenarios.DD_trapped.manual.o1.same",
    } <= names
    other = structured(labels=("action3", "action4"), assignments=("same",))
    assert other.prompts[0].name == "structured.CC.o0.a0.same.action3-action4"
    assert len(SETS["structured"] + other) == 48


def test_balanced_takes_one_of_each_scenario_and_template_with_everything_rotated() -> None:
    chosen = balanced(SETS["clusters"])
    assert len(chosen) == 40
    assert set(counts(chosen, "scenario", "template").values()) == {1}
    assert set(counts(chosen, "template", "option_order", "labels").values()) == {5}
    assert set(counts(chosen, "option_order", "labels").values()) == {10}
    assert set(counts(chosen, "option_order").values()) == {20}
    # Nothing stands still with a state or a game either.
    for factor in ("game", "own_previous", "opponent_previous"):
        cells = counts(chosen, factor, "option_order", "labels")
        sizes = {k[0] for k in cells}
        assert len(cells) == 4 * len(sizes)
    # The two texts of a scenario differ in both order and labels.
    for one, other in combinations(chosen, 2):
        if one.scenario == other.scenario:
            assert one.option_order != other.option_order
            assert one.labels != other.labels


def test_balanced_covers_other_crossed_sets() -> None:
    chosen = balanced(SETS["structured"])
    assert len(chosen) == 4
    assert len(counts(chosen, "option_order", "answer_order", "labels")) == 4
    one_assignment = balanced(clusters(assignments=("same",)))
    assert set(counts(one_assignment, "template", "option_order").values()) == {10}


@given(st.sets(st.sampled_from(sorted({p.scenario for p in SETS["clusters"]})), min_size=1))
def test_balanced_is_as_even_as_the_number_of_scenarios_allows(kept) -> None:
    chosen = balanced(SETS["clusters"].where(lambda p: p.scenario in kept))
    assert len(chosen) == 2 * len(kept)
    for template in ("table", "prose"):
        cells = counts((p for p in chosen if p.template == template), "option_order", "labels")
        sizes = [
            cells[(o, lab)] for o, lab in product((0, 1), ("action1/action2", "action2/action1"))
        ]
        assert max(sizes) - min(sizes) <= 1


def test_balancing_a_set_that_is_not_crossed_is_refused() -> None:
    with pytest.raises(PromptError, match="is not fully crossed"):
        balanced(SETS["scenarios"])
    with pytest.raises(PromptError, match=r"IPD\.CC.*is not fully crossed"):
        balanced(SETS["clusters"].where(lambda p: p.name != "clusters.IPD.CC.table.o0.swapped"))
    twice = SETS["structured"] + SETS["rows"]
    with pytest.raises(PromptError, match=r"Seen: structured\.CC\.o0\.a0\.same and .*rows"):
        balanced(twice)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no wording of this name.*did you mean 'ledger'"):
        wordings(names=("leger",))
    with pytest.raises(ConfigError, match=r"no label assignment.*did you mean 'swapped'"):
        clusters(assignments=("swaped",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'rows'"):
        structured(table_order="row")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="the same"):
        structured(labels=("a", "a"))


@given(st.sampled_from([("action3", "action4"), ("left", "right"), ("option B", "option A")]))
def test_other_labels_leave_everything_else_as_it_was(labels) -> None:
    for build in (structured, wordings, scenarios, clusters):
        prompts = build(labels)
        for prompt in prompts:
            text = text_of(prompt)
            assert "action1" not in text
            assert all(label in text for label in labels)
            assert "/".join(labels) == prompt.labels or "/".join(labels[::-1]) == prompt.labels


OTHER_GAMES = [
    GAMES["ISH"],
    GAMES["BOS"],
    GAMES["BOS"].mirrored,
    get_game("matrix(R=2.5, S=-1, T=1234567, P=0)"),
    get_game("matrix(CC=3:2, CD=-1:0.5, DC=0:7, DD=2:3)"),
]
BOTH_TOLD = ("bullets", "log", "ledger", "transposed")


@pytest.mark.parametrize("game", OTHER_GAMES, ids=lambda g: g.name)
def test_the_structured_text_tells_any_game(game) -> None:
    prompts = structured(game=game)
    assert len(prompts) == 32
    for prompt, known in zip(prompts, SETS["structured"], strict=True):
        assert prompt.name == f"{known.name}.{game.name}"
        assert prompt.scenario == f"{game.name}.{known.scenario.removeprefix('IPD.')}"
        assert prompt.game == game.name
        assert game_of(prompt) == game
        move = dict(zip(prompt.labels.split("/"), "CD", strict=True))
        table = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text_of(prompt).split("\n")
            if line.startswith("|")
        ]
        for row in table[2:]:
            for column, cell in zip(table[0][1:], row[1:], strict=True):
                points = tuple(float(x) for x in cell.split(", "))
                assert points == game.payoffs[(move[row[0]], move[column])]
        got = re.search(r"you got (\S+) points and A got (\S+)\. ", text_of(prompt))
        assert got is not None
        last = prompt.own_previous, prompt.opponent_previous
        assert (float(got[1]), float(got[2])) == game.payoffs[last]


def test_wordings_tell_any_symmetric_game_and_those_with_both_points_any() -> None:
    for game in OTHER_GAMES:
        told = wordings(game=game, names=BOTH_TOLD if not game.is_symmetric else None)
        assert {p.game for p in told} == {game.name}
        for prompt in told:
            spans = prompt.decision.spans
            payoffs = {text_of(prompt)[s.start : s.end] for s in spans if s.category == "payoffs"}
            assert {float(x) for x in payoffs} == {
                x for cell in game.payoffs.values() for x in cell
            }
    assert wordings(game=GAMES["IPD"]) == SETS["wordings"]
    together = SETS["wordings"] + wordings(game=GAMES["ISH"])
    assert len(together) == 112


@pytest.mark.parametrize("name", sorted(set(WORDINGS) - set(BOTH_TOLD)))
def test_a_wording_of_one_players_points_refuses_a_game_that_is_not_symmetric(name) -> None:
    with pytest.raises(PromptError) as caught:
        wordings(game=GAMES["BOS"], names=[name])
    assert caught.value.problem == f"Wording {name!r} tells one player's points for both"
    assert caught.value.seen.startswith("BOS")
    assert all(other in caught.value.remedy for other in ("structured", *BOTH_TOLD))


def test_an_answer_without_a_stem_is_the_whole_label() -> None:
    bare = structured(stem=False) + wordings(stem=False) + structured(game=GAMES["ISH"], stem=False)
    begun = SETS["structured"] + SETS["wordings"] + structured(game=GAMES["ISH"])
    for prompt, known in zip(bare, begun, strict=True):
        d = prompt.decision
        assert prompt.name == f"{known.name}.nostem"
        assert (d.messages, d.spans) == (known.decision.messages, known.decision.spans)
        assert d.stem == ""
        assert (d.negative.forms, d.positive.forms) == tuple(
            (word,) for word in prompt.labels.split("/")
        )
    assert len(bare + begun) == 2 * len(begun)


@pytest.mark.parametrize("change", ["opponent_previous", "own_previous", "payoffs", "labels"])
def test_prompts_of_other_games_have_counterparts(change) -> None:
    bare = structured(stem=False).prompts[0]
    for prompt in (bare, *(structured(game=game).prompts[1] for game in OTHER_GAMES)):
        other = counterpart(prompt, change)
        assert other.decision.messages != prompt.decision.messages
        assert other.decision.stem == prompt.decision.stem
        assert counterpart(other, change) == prompt
