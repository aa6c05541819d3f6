"""The public-goods prompts: what is told is true, every span covers what it says, counts, names."""

from __future__ import annotations

import re
import sys
from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from moralscope.core.errors import ConfigError, PromptError
from moralscope.games import (
    GROUP_TEXTS,
    GroupScene,
    GroupState,
    GroupWording,
    PublicGoods,
    counterpart,
    public_goods_prompts,
    read_prompts,
    render_group,
    structured,
    wordings,
    write_prompts,
)
from moralscope.games.asking.group_texts import GROUP_WORDINGS
from moralscope.models.rendering import encode
from moralscope.models.tables import prompts_table

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import tiny_base

# Points, endowment and multiplier all differ, so that a field in another's place would show.
GAME = PublicGoods(4, 40, 1.7)
ORDERS = ("original", "rows", "columns", "both")
PROMPTS = public_goods_prompts(GAME, ("zig", "zag"), table_orders=ORDERS)
STATED = public_goods_prompts(GAME)


def text_of(prompt) -> str:
    return prompt.decision.messages[0].content


def covered(prompt, category: str) -> list[str]:
    text = text_of(prompt)
    return [text[s.start : s.end] for s in prompt.decision.spans if s.category == category]


def told(points: float) -> str:
    return str(round(points, 2)).removesuffix(".0")


def test_counts_states_and_places() -> None:
    # 2 N states; 4 order combinations in the structured text, 1 in each other.
    assert len(STATED) == 2 * 8 * (4 + len(GROUP_TEXTS) - 1)
    assert len(PROMPTS) == 2 * 8 * (4 * 4 + len(GROUP_TEXTS) - 1)
    assert GROUP_TEXTS[0] == "structured"
    assert len(GROUP_TEXTS) >= 3
    states = Counter((p.own_previous, p.others_cooperated, p.scenario) for p in STATED)
    assert set(states) == {(own, k, f"PGG4x1.7_e40.{own}{k}") for own in "CD" for k in range(4)}
    assert len(set(states.values())) == 1
    for prompt in STATED:
        assert prompt.opponent_previous is None
        assert (prompt.game, prompt.family) == (GAME.name, "public-goods")
        assert prompt.table_order == ("original" if prompt.template == "structured" else "none")


def test_no_prompt_is_asked_twice_and_all_go_into_one_set() -> None:
    other = public_goods_prompts(PublicGoods(3, 4, 2))
    bare = public_goods_prompts(GAME, stem=False)
    together = PROMPTS + STATED + other + bare + structured() + wordings()
    assert len({text_of(p) for p in PROMPTS}) == len(PROMPTS)
    assert len(together) == sum(map(len, (PROMPTS, STATED, other, bare))) + 32 + 56


def test_option_orders_go_with_no_single_factor() -> None:
    for prompts in (STATED, public_goods_prompts(PublicGoods(3, 4, 2))):
        for factor in ("own_previous", "others_cooperated", "labels", "template"):
            seen = Counter((getattr(p, factor), p.option_order) for p in prompts)
            for level in {level for level, _ in seen}:
                assert seen[level, 0] == seen[level, 1], (factor, level)
    crossed = Counter(
        (p.scenario, p.labels, p.option_order, p.answer_order)
        for p in STATED
        if p.template == "structured"
    )
    assert len(crossed) == 8 * 2 * 4
    assert set(crossed.values()) == {1}


@pytest.mark.parametrize("name", GROUP_TEXTS)
def test_spans_cover_what_they_say_and_nothing_else_is_told(name) -> None:
    for prompt in PROMPTS.where(lambda p: p.template == name):
        label = dict(zip("CD", prompt.labels.split("/"), strict=True))
        assert set(covered(prompt, "own_previous")) == {label[prompt.own_previous]}
        assert covered(prompt, "opponent_previous") == [str(prompt.others_cooperated)]
        assert set(covered(prompt, "labels")) == {"zig", "zag"}
        assert len(covered(prompt, "goal")) == 1
        every = {told(GAME.points(own, k)) for own in "CD" for k in range(4)} | {"40", "1.7"}
        assert set(covered(prompt, "payoffs")) <= every
        spans = prompt.decision.spans
        assert all(a.end <= b.start for a, b in pairwise(spans))
        rest = list(text_of(prompt))
        for span in spans:
            rest[span.start : span.end] = " " * (span.end - span.start)
        outside = "".join(rest)
        assert "zig" not in outside
        assert "zag" not in outside
        assert "{" not in outside
        # What numbers stand outside of spans: the players and the headings of outcomes.
        assert set(re.findall(r"\d+", outside)) <= {"0", "1", "2", "3", "4"}


def test_the_table_can_be_read_back_in_every_order() -> None:
    read, first = 0, {}
    for prompt in PROMPTS.where(lambda p: p.template == "structured"):
        move = dict(zip(prompt.labels.split("/"), "CD", strict=True))
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text_of(prompt).split("\n")
            if line.startswith("|")
        ]
        head, ruler, *rows = lines
        assert len(head) == len(ruler) == 5
        first.setdefault(prompt.table_order, set()).add((move[rows[0][0]], head[1]))
        for row in rows:
            for k, cell in zip(head[1:], row[1:], strict=True):
                assert cell == told(GAME.points(move[row[0]], int(k)))
                read += 1
        got = re.search(r"so you got ([\d.]+) points", text_of(prompt))
        assert got is not None
        points = GAME.points(prompt.own_previous, prompt.others_cooperated)
        assert got[1] == told(points)
    assert read == 8 * 2 * 8 * 4 * 4
    assert first == {
        "original": {("C", "0")},
        "rows": {("D", "0")},
        "columns": {("C", "3")},
        "both": {("D", "3")},
    }


def test_the_list_and_the_extremes_can_be_read_back() -> None:
    for prompt in PROMPTS.where(lambda p: p.template in ("tally", "office")):
        cooperate, defect = prompt.labels.split("/")
        text = text_of(prompt)
        if prompt.template == "tally":
            pattern = rf"(\d): ([\d.]+) for {defect}, ([\d.]+) for {cooperate}"
            found = [(int(k), d, c) for k, d, c in re.findall(pattern, text)]
            assert [k for k, _, _ in found] == [0, 1, 2, 3]
        else:
            pattern = (
                rf"take home ([\d.]+) by {defect} and ([\d.]+) by {cooperate}; "
                r"with none of them doing so, ([\d.]+) and ([\d.]+)\."
            )
            ((d_all, c_all, d_none, c_none),) = re.findall(pattern, text)
            found = [(3, d_all, c_all), (0, d_none, c_none)]
        for k, d, c in found:
            assert (d, c) == (told(GAME.points("D", k)), told(GAME.points("C", k)))


def test_fractions_are_told_to_two_decimals() -> None:
    (wording,) = (w for w in GROUP_WORDINGS if w.name == "tally")
    scene = GroupScene(PublicGoods(3, 4, 2), GroupState("C", 1), ("zig", "zag"))
    text, _ = render_group(wording, scene)
    # 2 * 4 / 3 = 2.666...: alone among contributors.
    assert "0: 4 for zag, 2.67 for zig" in text


def test_positive_is_to_keep_and_the_answer_may_go_without_a_stem() -> None:
    for prompt in STATED:
        d, (contribute, keep) = prompt.decision, prompt.labels.split("/")
        assert (d.positive.name, d.negative.name) == ("defect", "cooperate")
        assert d.stem + d.positive.canonical == f"I choose {keep}"
        assert d.stem + d.negative.canonical == f"I choose {contribute}"
    for prompt, begun in zip(public_goods_prompts(GAME, stem=False), STATED, strict=True):
        d = prompt.decision
        assert d.stem == ""
        assert f"{d.negative.canonical}/{d.positive.canonical}" == prompt.labels
        assert prompt.name == f"{begun.name}.nostem"
        assert d.messages == begun.decision.messages


def test_orders_are_those_of_the_text() -> None:
    for prompt in STATED:
        pairs = re.findall(r"(action\d)(?: or | / )(action\d)", text_of(prompt))
        opening, ending = pairs[0], pairs[-1]
        assert (opening == ("action2", "action1")) == prompt.option_order
        assert (ending == ("action2", "action1")) == prompt.answer_order


def test_names_say_what_a_prompt_is() -> None:
    names = {p.name for p in public_goods_prompts(PublicGoods(), table_orders=("original", "rows"))}
    assert {
        "public-goods.PGG4x2.C0.structured.o0.a0.same",
        "public-goods.PGG4x2.D3.structured.o1.a0.swapped.rows",
        "public-goods.PGG4x2.C2.well.o0.swapped",
    } <= names
    assert PROMPTS.prompts[0].name.endswith(".same.zig-zag")


def test_texts_are_genuinely_different() -> None:
    """Among themselves and from those of two players; the two structured texts are akin."""
    texts = [
        next(p for p in prompts if p.template == name)
        for prompts in (STATED, wordings())
        for name in dict.fromkeys(p.template for p in prompts)
    ]
    masked = [re.sub(r"[\d.]+", "N", re.sub(r"action\d", "X", text_of(p))) for p in texts]
    for (i, a), (j, b) in combinations(enumerate(masked), 2):
        if i < len(GROUP_TEXTS):
            ratio = SequenceMatcher(None, a, b, autojunk=False).ratio()
            assert ratio < 0.55, (texts[i].template, texts[j].template, ratio)
            shared = trigrams(a) & trigrams(b)
            least = min(len(trigrams(a)), len(trigrams(b)))
            assert len(shared) < 0.3 * least, (texts[i].template, texts[j].template, shared)


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_prompts_are_read_as_tokens_and_come_back_from_files_and_tables(tmp_path) -> None:
    tokenizer = tiny_base.make_tokenizer()
    for stem, answers in ((True, 1), (False, None)):
        prompts = public_goods_prompts(PublicGoods(), stem=stem)
        encoded = [encode(tokenizer, p) for p in prompts]
        for prompt, read in zip(prompts, encoded, strict=True):
            assert len(read.tokens) < len(text_of(prompt))
            assert len(read.positive[0]) == len(read.negative[0])
            assert answers in (None, len(read.positive[0]))
        path = tmp_path / f"{stem}.jsonl"
        write_prompts(path, prompts)
        assert read_prompts(path) == prompts
        table = prompts_table(tuple(prompts), encoded)
        assert table["others_cooperated"].to_list() == [p.others_cooperated for p in prompts]
        assert table["opponent_previous"].null_count() == len(prompts)
    path.write_text(path.read_text().replace('"others_cooperated": 0', '"others_cooperated": -1'))
    with pytest.raises(PromptError, match="others_cooperated"):
        read_prompts(path)
    two = structured()
    assert prompts_table(two.prompts, [encode(tokenizer, p) for p in two])[
        "others_cooperated"
    ].null_count() == len(two)


def test_some_texts_of_some_games() -> None:
    chosen = public_goods_prompts(GAME, assignments=("swapped",), names=("tally", "well"))
    assert len(chosen) == 16
    assert {p.template for p in chosen} == {"tally", "well"}
    assert {p.labels for p in chosen} == {"action2/action1"}
    least, most = (public_goods_prompts(PublicGoods(n, 4, 1.5)) for n in (2, 10))
    assert len(least) * 5 == len(most)


@pytest.mark.parametrize("change", ["opponent_previous", "own_previous", "payoffs", "labels"])
def test_a_group_has_no_counterparts(change) -> None:
    with pytest.raises(PromptError, match=r"about more than two players.*others_cooperated 0"):
        counterpart(STATED.prompts[0], change)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"names": ("wel",)}, ConfigError, r"no text of this name.*Seen: wel.*mean 'well'"),
        ({"names": ("rounds",)}, ConfigError, r"Allowed: structured, well, office, tally"),
        ({"names": ()}, PromptError, "prompt set is empty"),
        ({"table_orders": ("row",)}, ConfigError, r"no such order.*Seen: row\.*.*mean 'rows'"),
        ({"table_orders": ("rows", "rows")}, PromptError, "Two prompts share a name"),
        ({"labels": ("give", "given")}, PromptError, "is the beginning of the other"),
        ({"assignments": ("both",)}, ConfigError, "no label assignment of this name"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, error, text) -> None:
    with pytest.raises(error, match=text):
        public_goods_prompts(GAME, **settings)


GOOD = "{players} {endowment} {multiplier} {c} {own} {cooperated} {goal:Win.} {first} {second}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "{opponent}", r"unknown field. Seen: \{opponent\}"),
        (GOOD + "{each:{own_3}}", r"unknown field. Seen: \{own_3\}.*mean 'own_"),
        (GOOD + "{own_C}", r"unknown field. Seen: \{own_C\}"),
        (GOOD.replace("{cooperated}", ""), r"leaves out .* Seen: no field cooperated"),
        (GOOD.replace("{goal:Win.}", ""), r"leaves out .* Seen: no field goal"),
        (GOOD.replace("{multiplier}", ""), r"leaves out .* Seen: no field multiplier"),
        (GOOD.replace("{multiplier}", "{each:{count} {own_C}}"), r"no field multiplier"),
    ],
)
def test_a_wording_tells_all_that_is_needed(text, problem) -> None:
    with pytest.raises(PromptError, match=problem):
        GroupWording("mine", text)


def test_a_wording_may_tell_outcomes_instead_of_the_rule() -> None:
    text = GOOD.replace("{multiplier}", "{each:[{count} {own_C} {own_D} {c}]}")
    scene = GroupScene(PublicGoods(2, 4, 1.5), GroupState("D", 1), ("zig", "zag"), 1)
    filled, spans = render_group(GroupWording("mine", text), scene)
    assert filled == "2 4 [0 3 4 zig][1 6 7 zig] zig zag 1 Win. zig zag"
    found = [(s.category, filled[s.start : s.end]) for s in spans]
    assert found[:4] == [("payoffs", "4"), ("payoffs", "3"), ("payoffs", "4"), ("labels", "zig")]
    assert ("opponent_previous", "1") in found
