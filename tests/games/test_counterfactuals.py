"""Pairs of prompts: one thing changes, the rest stands, and rewards follow the change."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.decision import Decision, Message, Option, Prompt, PromptSet
from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    CHANGES,
    GAMES,
    LABELS,
    MIRRORED,
    MOVES,
    PAIRS,
    REWARDS,
    WORDINGS,
    Pair,
    clusters,
    counterfactual_pairs,
    counterpart,
    declared_pairs,
    exchanged,
    game_of,
    get_game,
    pair_indices,
    pair_round,
    read_prompts,
    scenarios,
    structured,
    with_sources,
    wordings,
)

STATED = [
    *structured(),
    *structured(table_order="both"),
    *wordings(names=(*WORDINGS, *MIRRORED)),
    *clusters(),
]
PROMPTS = [*STATED, *scenarios(), *structured(labels=("left", "right"))]
FLIP = {"C": "D", "D": "C"}


def pieces(prompt: Prompt) -> tuple[list[str], list[tuple[str, str]]]:
    """The text cut at its spans: what lies between them, and each span's category and words."""
    text, between, spans, at = prompt.decision.messages[0].content, [], [], 0
    for span in sorted(prompt.decision.spans, key=lambda s: s.start):
        between.append(text[at : span.start])
        spans.append((span.category, text[span.start : span.end]))
        at = span.end
    return [*between, text[at:]], spans


def own_prompt(name: str, text: str = "Refund?", **fields) -> Prompt:
    decision = Decision(
        (Message("user", f"{text} {name}"),), "", Option("yes", (" y",)), Option("no", (" n",))
    )
    return Prompt(name, decision, "user", name, "user", "user", "no/yes", **fields)


def changeable(change: str) -> st.SearchStrategy[Prompt]:
    return st.sampled_from(PROMPTS if change == "labels" else [
        p for p in PROMPTS if p.family != "scenarios"
    ])  # fmt: skip


cases = st.sampled_from(CHANGES).flatmap(lambda c: st.tuples(st.just(c), changeable(c)))


@given(cases)
def test_a_change_undoes_itself_and_leaves_another_prompt(case) -> None:
    change, prompt = case
    other = counterpart(prompt, change)
    assert other.decision.messages != prompt.decision.messages
    assert other.name != prompt.name
    assert counterpart(other, change) == prompt


@given(cases)
def test_only_what_is_changed_and_what_follows_from_it_differs(case) -> None:
    change, prompt = case
    between, spans = pieces(prompt)
    others_between, others_spans = pieces(counterpart(prompt, change))
    assert others_between == between
    assert [category for category, _ in others_spans] == [category for category, _ in spans]
    differing = {a[0] for a, b in zip(spans, others_spans, strict=True) if a != b}
    if change == "payoffs":
        assert differing == {"payoffs"}
    elif change == "labels":
        assert differing <= {"labels", "own_previous", "opponent_previous"}
        assert {"own_previous", "opponent_previous"} <= differing
    else:
        # Points of the last round follow from the moves that were played.
        assert change in differing
        assert differing <= {change, "payoffs"}


@given(changeable("payoffs"), st.sampled_from(["opponent_previous", "own_previous"]))
def test_the_other_move_is_told_and_the_points_that_it_led_to(prompt, change) -> None:
    other = counterpart(prompt, change)
    moves = {"own_previous": prompt.own_previous, "opponent_previous": prompt.opponent_previous}
    moves[change] = FLIP[moves[change]]
    assert (other.own_previous, other.opponent_previous) == tuple(moves.values())
    label = dict(zip("CD", other.labels.split("/"), strict=True))
    told = dict(pieces(other)[1])
    assert told["own_previous"] == label[other.own_previous]
    assert told["opponent_previous"] == label[other.opponent_previous]
    if prompt.family == "structured":
        text = other.decision.messages[0].content
        own, opponent = get_game("IPD").payoffs[(other.own_previous, other.opponent_previous)]
        assert f"so you got {own} points and A got {opponent}." in text


@given(changeable("payoffs"))
def test_rewards_follow_the_change(prompt) -> None:
    def earned(name, who):
        return [
            REWARDS[name].value(
                pair_round(game_of(who), (own, move), (who.own_previous, who.opponent_previous))
            )
            for own, move in product(MOVES, MOVES)
        ]

    betrayed = counterpart(prompt, "opponent_previous")
    norm = {earned("deontological", p)[2] for p in (prompt, betrayed)}
    assert norm == {0.0, -3.0}
    assert earned("game", betrayed) == earned("game", prompt)
    repented = counterpart(prompt, "own_previous")
    assert all(earned(name, repented) == earned(name, prompt) for name in REWARDS)
    swapped = counterpart(prompt, "payoffs")
    cooperate, defect = earned("game", prompt)[:2], earned("game", prompt)[2:]
    assert earned("game", swapped) == defect + cooperate
    renamed = counterpart(prompt, "labels")
    assert all(earned(name, renamed) == earned(name, prompt) for name in REWARDS)
    assert renamed.decision.positive.name == "defect"
    assert renamed.labels == "/".join(prompt.labels.split("/")[::-1])


def test_the_table_tells_the_exchanged_payoffs() -> None:
    other = counterpart(structured().prompts[0], "payoffs")
    assert other.name == "structured.CC.o0.a0.same.IPD-swapped"
    assert (other.game, other.scenario) == ("IPD-swapped", "IPD-swapped.CC")
    assert (
        "| | action1 | action2 |\n|-|-|-|\n| action1 | 4, 4 | 1, 3 |\n| action2 | 3, 1 | 0, 0 |\n"
    ) in other.decision.messages[0].content


@pytest.mark.parametrize("name", GAMES)
def test_exchanging_payoffs_exchanges_each_players_own_actions(name) -> None:
    game, other = GAMES[name], exchanged(GAMES[name])
    for own, opponent in PAIRS:
        assert other.payoffs[(own, opponent)][0] == game.payoffs[(FLIP[own], opponent)][0]
        assert other.payoffs[(own, opponent)][1] == game.payoffs[(own, FLIP[opponent])][1]
    symmetric = all(game.payoffs[(a, b)] == game.payoffs[(b, a)][::-1] for a, b in PAIRS)
    assert symmetric == (name != "BOS")
    if symmetric:
        assert all(other.payoffs[(a, b)] == other.payoffs[(b, a)][::-1] for a, b in PAIRS)
    assert exchanged(other) == game


@pytest.mark.parametrize(
    ("build", "found"),
    [(structured, {"opponent_previous", "own_previous", "labels"}),
     (clusters, {"opponent_previous", "own_previous", "labels"}),
     (wordings, set())],
)  # fmt: skip
@pytest.mark.parametrize("change", CHANGES)
def test_counterparts_come_from_the_set_where_they_are_there(build, found, change) -> None:
    prompts = build()
    pairs = counterfactual_pairs(prompts, change)
    assert tuple(pair.target for pair in pairs) == prompts.prompts
    assert {pair.change for pair in pairs} == {change}
    assert all((pair.source in set(prompts)) == (change in found) for pair in pairs)
    joined = with_sources(prompts, pairs)
    assert len(joined) == len(prompts) * (1 if change in found else 2)
    for pair, (target, source) in zip(pairs, pair_indices(joined.prompts, pairs), strict=True):
        assert (joined.prompts[target], joined.prompts[source]) == (pair.target, pair.source)


def test_a_counterpart_is_found_by_what_it_asks_whatever_it_is_called() -> None:
    one, other = structured().prompts[0], structured().prompts[4]
    renamed = replace(other, name="mine", scenario="mine", counterfactual_of=one.name,
                      change="opponent_previous")  # fmt: skip
    assert counterfactual_pairs(PromptSet((one, renamed)), "opponent_previous") == (
        Pair(one, renamed, "opponent_previous"),
    )
    (pair,) = counterfactual_pairs(PromptSet((one,)), "opponent_previous")
    assert pair.source == other
    kept = replace(other, counterfactual_of=one.name)
    assert counterpart(kept, "opponent_previous") == one


def test_users_pairs_come_from_their_file(tmp_path) -> None:
    entry = {"positive": {"name": "y", "forms": [" y"]}, "negative": {"name": "n", "forms": [" n"]}}
    entries = [
        {"name": "b", "text": "late?", "counterfactual_of": "a", "change": "deadline", **entry},
        {"name": "a", "text": "early?", **entry},
        {"name": "c", "text": "later?", "counterfactual_of": "a", **entry},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)))
    prompts = read_prompts(path)
    b, a, c = prompts.prompts
    assert declared_pairs(prompts) == (Pair(a, b, "deadline"), Pair(a, c, "own"))
    assert declared_pairs(prompts, "own") == (Pair(a, c, "own"),)
    assert counterfactual_pairs(prompts, "deadline") == (Pair(a, b, "deadline"),)
    assert declared_pairs(structured()) == ()
    assert with_sources(prompts, declared_pairs(prompts)) == prompts


def test_pairs_of_the_user_and_of_the_package_stand_together() -> None:
    first, second = structured().prompts[:2]
    mine = own_prompt("mine", counterfactual_of=second.name, change="labels")
    pairs = counterfactual_pairs(PromptSet((mine, first, second)), "labels")
    assert pairs == (
        Pair(first, counterpart(first, "labels"), "labels"),
        Pair(second, mine, "labels"),
    )


def test_a_prompt_without_a_memory_is_refused() -> None:
    for change in ("opponent_previous", "own_previous"):
        with pytest.raises(PromptError, match=f"Prompt 'p' has no {change} that could") as caught:
            counterpart(own_prompt("p"), change)
        assert caught.value.remedy == (
            f"choose another change than {change}, or prompts with a memory"
        )


@pytest.mark.parametrize(
    "prompt",
    [
        own_prompt("p", own_previous="C", opponent_previous="C"),
        replace(PROMPTS[0], scenario="elsewhere"),
        replace(PROMPTS[0], name="p"),
        replace(PROMPTS[0], option_order=7),
        replace(PROMPTS[0], game="chess"),
        replace(PROMPTS[0], decision=own_prompt("p").decision),
        replace(PROMPTS[0], own_previous="D"),
    ],
)
def test_a_text_that_is_not_the_packages_is_refused(prompt) -> None:
    with pytest.raises(PromptError, match="its text is not one of the package's own") as caught:
        counterpart(prompt, "payoffs")
    assert f"with counterfactual_of: {prompt.name}" in str(caught.value)


def test_a_story_that_would_contradict_itself_is_refused() -> None:
    story = scenarios().prompts[0]
    for change in ("opponent_previous", "own_previous", "payoffs"):
        with pytest.raises(PromptError, match=f"Changing {change} would contradict the story"):
            counterpart(story, change)
    renamed = counterpart(story, "labels")
    assert renamed.labels == "/".join(reversed(LABELS))
    assert renamed.scenario == story.scenario


def test_unknown_changes_and_absent_prompts_are_refused() -> None:
    with pytest.raises(ConfigError, match="no change of this name.*did you mean 'payoffs'"):
        counterpart(PROMPTS[0], "payofs")  # type: ignore[arg-type]
    mine = PromptSet((own_prompt("a"), own_prompt("b", counterfactual_of="a", change="deadline")))
    with pytest.raises(ConfigError, match=r"Seen: dedline.*labels, deadline.*mean 'deadline'"):
        counterfactual_pairs(mine, "dedline")
    with pytest.raises(PromptError, match=r"Prompt 'b' is the counterfactual of .*not there"):
        declared_pairs(mine.where(lambda p: p.name == "b"))
    pairs = declared_pairs(mine)
    with pytest.raises(PromptError, match=r"not among the prompts. Seen: b\."):
        pair_indices(mine.prompts[:1], pairs)
