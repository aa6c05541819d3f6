"""Numbers, colours and verdicts in words: what they promise for any input."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.tables import from_rows
from moralscope.reports.findings import (
    VERDICTS,
    can_say,
    cannot_say,
    group_findings,
    headline,
    verdict_counts,
)
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, DIVERGING, agent_colours
from moralscope.reports.numbers import duration, p_value, plain, probability, signed

NUMBERS = st.floats(-1e8, 1e8)


def read_back(text: str) -> float:
    return float(text.replace("\u2212", "-").replace(",", ""))


@given(NUMBERS)
def test_signed_numbers_read_back_and_carry_their_sign(value: float) -> None:
    text = signed(value)
    assert abs(read_back(text) - value) <= 0.005 + 1e-9 * abs(value)
    assert "-" not in text
    assert text.startswith(("+", "\u2212")) == (float(f"{abs(value):.2f}") != 0)


@given(NUMBERS)
def test_plain_numbers_keep_three_significant_digits(value: float) -> None:
    assert read_back(plain(value)) == pytest.approx(value, rel=5.001e-3, abs=0)


def test_plain_numbers_take_a_unit_and_null_is_a_dash() -> None:
    assert plain(1.5, "nats") == "1.50 nats"
    assert plain(12345.6) == "12,346"
    assert plain(-2e-7) == "\u22122.00e-07"
    assert plain(None, "nats") == "\N{EN DASH}"
    assert plain(0.0) == "0"


@given(st.floats(0, 1))
def test_probabilities_never_round_to_certainty(value: float) -> None:
    text = probability(value)
    assert (text == "0") == (value == 0)
    assert (text == "1") == (value == 1)
    if text[0] == "<":
        assert value < 0.001
    elif text[0] == ">":
        assert value > 0.999
    else:
        assert abs(float(text) - value) <= 0.0005 + 1e-12


def test_p_values_keep_two_digits_however_small() -> None:
    assert p_value(0.0421) == "0.042"
    assert p_value(1.9e-6) == "1.9e-06"
    assert p_value(None) == "\N{EN DASH}"


def test_durations_are_said_as_people_say_them() -> None:
    said = [duration(s) for s in (0.04, 59.94, 61, 3599, 3600, 7325, None)]
    assert said == [
        "0.0 s", "59.9 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 02 min", "\N{EN DASH}",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=5), unique=True, max_size=20), st.data())
def test_bases_are_grey_and_the_first_eight_agents_differ(
    names: list[str], data: st.DataObject
) -> None:
    bases = frozenset(data.draw(st.sets(st.sampled_from(names))) if names else ())
    colours = agent_colours(names, bases, {})
    assert list(colours) == names
    assert all((colours[name] == BASE_COLOUR) == (name in bases) for name in names)
    first = [colours[name] for name in names if name not in bases][: len(AGENT_COLOURS)]
    assert len(set(first)) == len(first)


def test_many_seeds_share_the_colour_of_their_reward() -> None:
    names = [f"{reward}-{seed}" for reward in ("game", "utilitarian") for seed in range(6)]
    colours = agent_colours(names, frozenset(), {name: name.split("-")[0] for name in names})
    assert len({colours[f"game-{seed}"] for seed in range(6)}) == 1
    assert colours["game-0"] != colours["utilitarian-0"]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_signed_colours_darken_evenly_from_the_middle() -> None:
    light = [luminance(colour) for colour in DIVERGING]
    middle = len(light) // 2
    assert light[: middle + 1] == sorted(light[: middle + 1])
    assert light[middle:] == sorted(light[middle:], reverse=True)
    assert 1.05 / (light[0] + 0.05) > 4.5  # white figures on the darkest cells can be read
    assert 1.05 / (light[-1] + 0.05) > 4.5


def test_verdict_symbols_differ_so_that_colour_is_never_alone() -> None:
    symbols = [words.symbol for words in VERDICTS]
    assert len(set(symbols)) == len(symbols) == 5
    assert all(len(symbol) == 1 for symbol in symbols)


CLAIMS = st.lists(
    st.fixed_dictionaries(
        {
            "verdict": st.sampled_from([*(w.verdict for w in VERDICTS), "of another kind"]),
            "registered": st.booleans(),
            "estimate": st.none() | st.floats(-50, 50),
            "unit": st.sampled_from(["nats", "flips"]),
        }
    ),
    max_size=12,
)


def table(claims: list[dict[str, object]]) -> pl.DataFrame:
    rows = [
        {
            "id": f"kind_{'ab'[i % 2]}.{i}",
            "statement": "s", "low": None, "high": None, "n_units": 1,
            "test": "t", "gates": "", "query": "q", **claim,
        }
        for i, claim in enumerate(claims)
    ]  # fmt: skip
    return from_rows("claims", rows)


@given(CLAIMS)
def test_every_claim_is_in_one_group_and_counted_once(claims: list[dict[str, object]]) -> None:
    groups = group_findings(table(claims))
    ids = [finding.id for group in groups for finding in group.findings]
    assert sorted(ids) == sorted(f"kind_{'ab'[i % 2]}.{i}" for i in range(len(claims)))
    assert sum(verdict_counts(groups).values()) == len(claims)
    for group in groups:
        registered = [finding.registered for finding in group.findings]
        assert registered == sorted(registered, reverse=True)
    anchors = [finding.anchor for group in groups for finding in group.findings]
    assert len(set(anchors)) == len(anchors)


@given(CLAIMS)
def test_the_summary_varies_its_kinds_and_keeps_to_its_verdicts(
    claims: list[dict[str, object]],
) -> None:
    groups = group_findings(table(claims))
    stands = {f.id for g in groups for f in g.findings
              if f.verdict in ("supported", "equivalent")}  # fmt: skip
    other = {f.id for g in groups for f in g.findings if g.words.slug == "other"}
    everything = {f.id for g in groups for f in g.findings}
    said, unsaid = can_say(groups), cannot_say(groups)
    assert {f.id for f in said} <= stands
    assert {f.id for f in unsaid} <= everything - stands - other
    assert len(said) == min(5, len(stands))
    for chosen, pool in ((said, stands), (unsaid, everything - stands - other)):
        if len(pool) > 1 and len({i.split(".")[0] for i in pool}) > 1:
            assert {f.kind for f in chosen} == {"kind_a", "kind_b"}


def test_kinds_are_the_first_word_of_an_id() -> None:
    groups = group_findings(
        table([{"verdict": "supported", "registered": False, "estimate": x, "unit": "nats"}
               for x in (100.0, 1.0, 50.0)])
    )  # fmt: skip
    bars = {f.id: f.bar for f in groups[0].findings}
    assert bars["kind_a.0"].scale == bars["kind_a.2"].scale == "scale 0 to 100 nats"
    assert bars["kind_b.1"].scale == "scale 0 to 1.00 nats"


@given(CLAIMS)
def test_headline_counts_add_up(claims: list[dict[str, object]]) -> None:
    sentence = headline(group_findings(table(claims)))
    if not claims:
        assert sentence == "This run makes no claims."
        return
    verdicts = [claim["verdict"] for claim in claims]
    stands = verdicts.count("supported") + verdicts.count("equivalent")
    assert sentence.startswith(f"Of {len(claims)} claim")
    assert f", {stands} stand" in sentence
    assert f"{verdicts.count('not identified by this design')} cannot be settled" in sentence
    assert ("other verdict" in sentence or "another verdict" in sentence) == (
        "of another kind" in verdicts
    )


@given(CLAIMS)
def test_bars_stay_in_their_strip_and_keep_order(claims: list[dict[str, object]]) -> None:
    groups = group_findings(table(claims))
    findings = [finding for group in groups for finding in group.findings]
    for finding in findings:
        assert (finding.bar is None) == (finding.estimate is None)
        if finding.bar is not None and finding.estimate is not None:
            assert 4 <= finding.bar.estimate <= 96
            assert 4 <= finding.bar.zero <= 96
            offset = finding.bar.estimate - finding.bar.zero
            assert math.copysign(1, offset) == math.copysign(1, finding.estimate) or (
                abs(offset) < 0.02
            )
