"""Corresponding tokens of two prompts, against the trees that they span; and where they differ."""

import re
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.decision import Decision, Message, Option, Prompt, Span
from moralscope.core.errors import PromptError
from moralscope.models.alignment import ALL, ANSWER_SPAN, align
from moralscope.models.rendering import EncodedPrompt, encode

TOKENIZER = tiny.tiny_tokenizer(chat=False)

# Few tokens, so that forms begin alike often, and few lengths, so that prompts often correspond.
forms = st.lists(
    st.lists(st.integers(0, 1), min_size=1, max_size=3).map(tuple), min_size=1, max_size=2
).map(tuple)


@st.composite
def prompts(draw) -> EncodedPrompt:
    tokens = tuple(draw(st.lists(st.integers(5, 9), min_size=3, max_size=4)))
    span = draw(st.sets(st.integers(0, len(tokens) - 1), max_size=2))
    spans = (("x", tuple(sorted(span))),) if span else ()
    return EncodedPrompt("p", "", tokens, draw(forms), draw(forms), spans)


def by_trees(target: EncodedPrompt, source: EncodedPrompt, every: bool):
    """Pairs of token sequences up to each edited token, or nothing if a token has two of them."""
    sides = [(target.positive, source.positive), (target.negative, source.negative)]
    if any(len(mine) != len(theirs) for mine, theirs in sides):
        return None
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for mine, theirs in zip(target.continuations, source.continuations, strict=True):
        starts = (1, 1) if every else (len(target.tokens), len(source.tokens))
        if len(mine) - starts[0] != len(theirs) - starts[1]:
            return None
        for step in range(len(mine) - starts[0] + 1):
            path = mine[: starts[0] + step]
            if found.setdefault(path, theirs[: starts[1] + step]) != theirs[: starts[1] + step]:
                return None
    return found


@settings(max_examples=300)
@given(prompts(), prompts(), st.booleans())
def test_tokens_are_paired_as_the_trees_of_both_prompts_allow(target, source, every) -> None:
    expected = by_trees(target, source, every)
    if every and len(target.tokens) != len(source.tokens):
        expected = None
    # Lengths may make up for each other; prompts and forms have to correspond one by one.
    lengths = [[len(f) for f in p.positive + p.negative] for p in (target, source)]
    if expected is None or lengths[0] != lengths[1]:
        with pytest.raises(PromptError, match="do not align token by token"):
            align(target, source, ALL if every else ANSWER_SPAN)
        return
    found = align(target, source, ALL if every else ANSWER_SPAN)
    paired = {target.tokens[: t + 1]: source.tokens[: s + 1] for t, s in found.prompt}
    for form, step in found.forms:
        mine, theirs = ((p.positive + p.negative)[form][: step + 1] for p in (target, source))
        paired[target.tokens + mine] = source.tokens + theirs
    assert paired == expected
    assert list(found.prompt) == sorted(set(found.prompt))


@given(prompts(), prompts())
def test_a_span_pairs_its_tokens_in_order(target, source) -> None:
    spans = [dict(p.spans).get("x") for p in (target, source)]
    if None in spans:
        with pytest.raises(PromptError, match="A span is absent from prompt"):
            align(target, source, "x")
    elif len(spans[0]) != len(spans[1]):
        with pytest.raises(PromptError, match="do not align token by token"):
            align(target, source, "x")
    else:
        found = align(target, source, "x")
        assert found.prompt == tuple(zip(*spans, strict=True))
        assert found.forms == ()


@given(prompts())
def test_a_prompt_aligns_with_itself(prompt) -> None:
    n = len(prompt.tokens)
    assert align(prompt, prompt, ALL).prompt == tuple((i, i) for i in range(n))
    assert align(prompt, prompt, ANSWER_SPAN).prompt == ((n - 1, n - 1),)
    forms = prompt.positive + prompt.negative
    assert len(align(prompt, prompt, ALL).forms) == sum(len(f) - 1 for f in forms)


def ask(name: str, text: str, *, named: str = "", yes: tuple[str, ...] = (" action2",),
        no: tuple[str, ...] = (" action1",)) -> EncodedPrompt:  # fmt: skip
    spans = [Span("move", 0, text.index(named), text.index(named) + len(named))] if named else []
    decision = Decision(
        (Message("user", text),), "I choose", Option("d", yes), Option("c", no), tuple(spans)
    )
    return encode(TOKENIZER, Prompt(name, decision, "IPD", "s", "user", "t", "a/b"))


def refusal(target: EncodedPrompt, source: EncodedPrompt, positions: str) -> PromptError:
    with pytest.raises(PromptError) as caught:
        align(target, source, positions)
    assert caught.value.problem == (
        f"Prompts {target.name!r} and {source.name!r} do not align token by token"
    )
    return caught.value


def test_prompts_of_different_length_are_refused_where_they_fall_out_of_step() -> None:
    one = ask("one", "0 choose action1 or action2 1")
    other = ask("other", "9 choose action1 xor action2 1")
    error = refusal(one, other, ALL)
    n = len(one.tokens)
    # The first token differs and corresponds; the inserted one does not.
    said = [one.text[a:b] for a, b in one.offsets]
    at = said.index(" or")
    assert error.seen == (
        f"{n} tokens against {len(other.tokens)}, out of step from token {at} "
        f"({''.join(said[at - 4 : at + 5])!r}) and token {at} "
        f"({''.join(other.text[a:b] for a, b in other.offsets[at - 4 : at + 5])!r})"
    )
    assert error.remedy == (
        "use words of equally many tokens, or patch at positions='answer_span' or a named span"
    )
    assert align(one, other, ANSWER_SPAN).prompt == ((n - 1, len(other.tokens) - 1),)


def test_where_the_text_is_not_known_tokens_are_told_by_number() -> None:
    one = EncodedPrompt("one", "", (5, 6, 7), ((1,),), ((2,),))
    error = refusal(one, replace(one, name="other", tokens=(5, 6, 8, 7)), ALL)
    assert error.seen == (
        "3 tokens against 4, out of step from token 2 (tokens 5, 6, 7) and token 2 "
        "(tokens 5, 6, 8, 7)"
    )


def test_spans_of_different_length_are_refused() -> None:
    one = ask("one", "you action1 me", named=" action1")
    other = ask("other", "you xyz me", named=" xyz")
    mine, theirs = (len(p.spans[0][1]) for p in (one, other))
    assert mine != theirs
    assert refusal(one, other, "move").seen == (
        f"span 'move': {mine} tokens (' action1') against {theirs} (' xyz'), out of step from "
        f"its token {min(mine, theirs) - 1}"
    )
    gapped = EncodedPrompt("g", "abcde", (1, 2, 3, 4, 5), ((1,),), ((2,),), (("move", (0, 1, 4)),),
                           ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5)))  # fmt: skip
    short = replace(gapped, name="s", spans=(("move", (0, 2, 3, 4)),))
    assert "out of step from its token 0" in str(refusal(gapped, short, "move").seen)
    seen = str(refusal(gapped, short, "move").seen)
    assert "3 tokens ('ab ... e') against 4 ('a ... cde')" in seen


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"yes": (" action2", " ab")}, "1 forms of the positive option against 2"),
        ({"no": (" ab", " action1")}, "1 forms of the negative option against 2"),
        ({"no": (" zzz",)}, r"form 0 of the negative option: \d tokens against \d"),
    ],
)
def test_options_that_do_not_correspond_are_refused(changes, seen) -> None:
    one, other = ask("one", "go"), ask("other", "go", **changes)
    for positions in (ANSWER_SPAN, ALL):
        error = refusal(one, other, positions)
        assert re.fullmatch(seen, str(error.seen))
        assert error.remedy.startswith("give both prompts forms that tokenise alike")


def test_forms_that_share_tokens_in_the_target_alone_are_refused() -> None:
    shared = EncodedPrompt("one", "", (5, 6), ((1, 2, 3),), ((1, 2, 4),))
    apart = replace(shared, name="two", negative=((1, 7, 4),))
    assert refusal(shared, apart, ANSWER_SPAN).seen == (
        "form 0 of the positive option and form 0 of the negative option begin with the same 2 "
        "tokens in the target, and with 1 in the source"
    )
    # The other way round each token of the target has one counterpart.
    assert align(apart, shared, ANSWER_SPAN).forms == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_an_absent_span_names_every_position_that_is_known() -> None:
    one = ask("one", "you action1 me", named=" action1")
    bare = ask("bare", "you action1 me")
    for target, source, name in ((one, bare, "move"), (bare, one, "move")):
        with pytest.raises(PromptError, match="A span is absent from prompt 'bare'"):
            align(target, source, name)
    with pytest.raises(PromptError) as caught:
        align(one, one, "answer_spam")
    assert caught.value.allowed == "move, answer_span, all"
    assert caught.value.remedy == "did you mean 'answer_span'"
