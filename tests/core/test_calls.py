"""A name with settings reads as what it says, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moralscope.core.calls import Call, parse_call, split_outside
from moralscope.core.errors import ConfigError

NAMES = st.from_regex(r"\A[a-z][a-z0-9:-]{0,6}( [a-z0-9]{1,3})?\Z").filter(
    lambda name: name not in {"nan", "inf", "infinity"}
)
NUMBERS = st.integers(-999, 999).map(lambda n: n / 8)
CALLS = st.recursive(
    st.builds(Call, NAMES),
    lambda inner: st.builds(
        Call,
        NAMES,
        st.lists(inner | NUMBERS, max_size=3).map(tuple),
        st.lists(st.tuples(NAMES, inner | NUMBERS), max_size=2).map(tuple),
    ),
    max_leaves=5,
)


@given(CALLS)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(call: Call) -> None:
    assert parse_call(str(call)) == call


def test_places_names_and_nesting() -> None:
    assert parse_call(" noisy( grim ,flip = .25) ") == Call(
        "noisy", (Call("grim"),), (("flip", 0.25),)
    )
    assert parse_call("axelrod(Tit For 2 Tats)").arguments == (Call("Tit For 2 Tats"),)
    assert parse_call("grim()") == Call("grim")


@pytest.mark.parametrize(
    "text", ["", "a(", "a)", "a(b", "a(b))", "(b)", "a(,)", "a(k=1, 2)", "a(b) c", "a=b", "a, b"]
)
def test_what_is_no_call_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a name with settings.*noisy\\(tit-for-tat"):
        parse_call(text)


def test_parts_are_divided_outside_parentheses_only() -> None:
    assert split_outside("a(b + c) + d", " + ") == ["a(b + c)", "d"]
    assert split_outside("a", ",") == ["a"]
    with pytest.raises(ConfigError, match="parentheses matched"):
        split_outside("a(b", ",")
