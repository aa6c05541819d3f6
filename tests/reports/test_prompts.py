"""Is a page of thousands of prompts small, fair, and honest about what it leaves out?"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_reading import Element, read_page
from synthetic_run import Size, write_run

from moralscope.core.tables import read_table, write_table
from moralscope.reports import build_report
from moralscope.reports.fitting import fair_shares
from moralscope.reports.look import AGENT_COLOURS, BASE_COLOUR, agent_colours
from moralscope.reports.prompts import CHARACTERS, PromptFamily, prompt_families
from moralscope.reports.run import read_run, run_of

NO_FIGURES = (
    "policy", "cooperation", "transfer", "training", "lens", "attribution", "patching",
)  # fmt: skip
FAMILIES, WORDINGS = 9, 7
COSTS = st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=6)


@given(COSTS, st.integers(0, 400))
def test_shares_fit_and_each_group_has_one(costs: list[list[int]], bound: int) -> None:
    shares = fair_shares(costs, bound)
    spent = sum(sum(own[:n]) for own, n in zip(costs, shares, strict=True))
    first = sum(own[0] for own in costs if own)
    assert spent <= max(bound, first)
    assert all((n >= 1) == bool(own) for own, n in zip(costs, shares, strict=True))
    assert all(n <= len(own) for own, n in zip(costs, shares, strict=True))
    if sum(map(sum, costs)) <= bound:
        assert shares == [len(own) for own in costs]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 80))
def test_groups_of_equal_entries_have_equal_shares(sizes: list[int], bound: int) -> None:
    shares = fair_shares([[1] * size for size in sizes], bound)
    most = max(shares)
    assert all(n >= most - 1 or n == size for n, size in zip(shares, sizes, strict=True))
    assert sum(shares) == max(len(sizes), min(bound, sum(sizes)))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1816 prompts of some 1200 letters in ten families, five agents, the last one scripted."""
    run = write_run(
        tmp_path_factory.mktemp("large") / "run",
        Size(trained=4, cluster_prompts=1808, claims=1),
        leave_out=NO_FIGURES,
    )
    place = pl.int_range(pl.len())
    drawn = pl.col("family") == "clusters"
    prompts = read_table("prompts", run / "tables").with_columns(
        family=pl.when(drawn).then(pl.format("family {}", place % FAMILIES)).otherwise("family"),
        template=pl.format("wording {}", place // FAMILIES * WORDINGS // 202),
        text=pl.concat_str("text", pl.lit(" <word>" * 100)),
    )
    write_table("prompts", prompts, run / "tables")
    agents = read_table("agents", run / "tables").with_columns(
        pl.when(pl.col("agent") == "game").then(pl.lit("policy")).otherwise("kind").alias("kind"),
    )
    write_table("agents", agents, run / "tables")
    decisions = read_table("decisions", run / "tables")
    scripted, illegal = pl.col("agent") == "game", pl.col("agent") == "hybrid"
    decisions = decisions.with_columns(
        log_odds=pl.when(scripted | illegal).then(None).otherwise("log_odds"),
        legal_mass=pl.when(illegal).then(0.0).otherwise("legal_mass"),
        p_positive=pl.when(illegal).then(0.0).otherwise("p_positive"),
        p_negative=pl.when(illegal).then(0.0).otherwise("p_negative"),
        p_positive_given_legal=pl.when(illegal).then(None).otherwise("p_positive_given_legal"),
    )
    write_table("decisions", decisions, run / "tables")
    build_report(run)
    return run


@pytest.fixture(scope="module")
def page(large: Path) -> Element:
    return read_page(large)


def test_a_page_of_1816_prompts_stays_small_and_names_the_rest(page: Element, large: Path) -> None:
    assert (large / "report.html").stat().st_size < 100_000
    size = (large / "report" / "prompts.html").stat().st_size
    assert 0.6 * CHARACTERS < size < 1.4 * CHARACTERS
    families = page.one("section", id="prompts").all("details", class_="family")
    table = read_table("prompts", large / "tables")
    totals = dict(table.group_by("family").len().iter_rows())
    assert len(families) == len(totals) == FAMILIES + 1
    for family in families:
        name = family.all("bdi")[0].words
        shown = len(family.all("details", class_="prompt"))
        words = family.all("summary")[0].words
        if totals[name] == 8:  # A small family is whole.
            assert words == f"{name} 8 prompts"
            assert not family.all("p", class_="rest")
            continue
        assert words == f"{name} {totals[name]} prompts, {shown} of them here"
        assert 2 * WORDINGS < shown < totals[name]
        rest = family.one("p", class_="rest")
        assert rest.words == (
            f"{totals[name] - shown} more prompts of this family are in tables/prompts.parquet, "
            "and the answers in tables/decisions.parquet."
        )
        assert [a.attributes["href"] for a in rest.all("a")] == [
            "tables/prompts.parquet",
            "tables/decisions.parquet",
        ]


@pytest.mark.parametrize("column", ["template", "game", "labels", "table_order"])
def test_a_family_that_varies_in_one_way_shows_all_of_it(large: Path, column: str) -> None:
    table = read_table("prompts", large / "tables").filter(family="family 0").head(120)
    fixed = [pl.lit("same").alias(c) for c in ("template", "game", "labels", "table_order")]
    # The last twelve prompts are the only ones of their kind.
    kinds = pl.when(pl.int_range(pl.len()) < 108).then(pl.lit("first")).otherwise(
        pl.format("kind {}", pl.int_range(pl.len()))
    )  # fmt: skip
    table = table.with_columns(*fixed).with_columns(kinds.alias(column))
    bound = 14 * (900 + max(table.get_column("text").str.len_chars()) * 2)
    (family,) = prompt_families(run_of({"prompts": table}), bound)
    names = {entry.name for entry in family.entries}
    assert set(table.get_column("prompt").tail(12)) <= names
    assert len(names) < 40


def test_what_is_shown_is_of_every_kind_and_in_the_order_of_the_table(large: Path) -> None:
    table = read_table("prompts", large / "tables")
    order = {name: i for i, name in enumerate(table.get_column("prompt"))}
    for family in prompt_families(read_run(large)):
        rows = table.filter(family=family.name)
        for column in ("template", "game", "labels"):
            shares = Counter(getattr(entry, column) for entry in family.entries)
            assert len(shares) == rows.get_column(column).n_unique()
            assert max(shares.values()) <= 2 * min(shares.values())
        places = [order[entry.name] for entry in family.entries]
        assert places == sorted(places)
        assert family.total == rows.height


def test_choosing_prompts_takes_no_time(large: Path) -> None:
    run = read_run(large)
    begun = time.process_time()
    found = prompt_families(run)
    assert sum(len(family.entries) for family in found) > 100
    assert time.process_time() - begun < 2


def shown(families: tuple[PromptFamily, ...]) -> list[int]:
    return [len(family.entries) for family in families]


def test_any_bound_shows_one_of_each_family(large: Path) -> None:
    run = read_run(large)
    assert shown(prompt_families(run, 0)) == [1] * (FAMILIES + 1)
    assert sum(shown(prompt_families(run, 10**9))) == 1816
    assert prompt_families(run_of({})) == ()


def test_the_twin_says_what_is_shown_and_what_there_is(page: Element, large: Path) -> None:
    twin = json.loads((large / "report.json").read_text())
    assert sum(twin["prompts"].values()) == 1816
    section = page.one("section", id="prompts")
    names = [e.one("summary").one("bdi").words for e in section.all("details", class_="prompt")]
    listed = [name for family in twin["prompts_shown"].values() for name in family]
    assert sorted(listed) == sorted(names)
    assert len(listed) < 1816


def test_answers_without_any_legal_mass_are_dashes(page: Element) -> None:
    entry = page.all("details", class_="prompt")[0]
    rows = {row.one("bdi").words: [td.words for td in row.all("td")] for row in
            entry.one("tbody").all("tr")}  # fmt: skip
    assert rows["hybrid"] == ["0", "0", "0", "–"]
    assert rows["game"][-1] == "–"
    assert rows["base"][-1] not in ("–", "")
    # No dot for what is undefined; the scripted policy has one.
    assert len(entry.one("svg").all("circle")) == 4


def test_a_scripted_policy_is_introduced_as_one_after_the_models(
    page: Element, large: Path
) -> None:
    cards = page.all("article")
    names = [card.all("bdi")[0].words for card in cards]
    assert names == ["base", "utilitarian", "deontological", "hybrid", "game"]
    words = cards[-1].one("p", class_="small").words
    assert words == "scripted: exact probabilities, no log-odds"
    assert "scripted" not in cards[1].words
    hybrid = cards[3].all("tbody")[0].all("tr")[0]
    assert [td.words for td in hybrid.all("td")] == ["–", "0"]
    agent = read_run(large).agents[-1]
    assert (agent.kind, agent.reference) == ("policy", None)


def test_long_lists_of_families_are_folded_on_the_card(page: Element) -> None:
    card = page.all("article")[0]
    fold = card.one("details")
    assert fold.one("summary").words == "4 more families"
    assert len(fold.one("tbody").all("tr")) == 4
    assert len(card.all("tbody")[0].all("tr")) == 6


def test_names_tell_a_scripted_policy_where_no_table_does(large: Path) -> None:
    decisions = read_table("decisions", large / "tables").with_columns(
        pl.col("agent").replace({"utilitarian": "policy:grim"})
    )
    agents = run_of({"decisions": decisions}).agents
    assert [(a.name, a.kind, a.reference) for a in agents] == [
        ("base", "base", None),
        ("game", "", "base"),
        ("deontological", "", "base"),
        ("hybrid", "", "base"),
        ("policy:grim", "policy", None),
    ]


def test_policies_have_colours_after_the_trained_and_leave_theirs_alone() -> None:
    names = ["base", "a", "b", "policy:x"]
    found = agent_colours(names, frozenset({"base"}), {}, frozenset({"policy:x"}))
    assert list(found.values()) == [BASE_COLOUR, *AGENT_COLOURS[:3]]
    seeds = {f"s{i}": "game" if i < 5 else "utilitarian" for i in range(10)}
    grouped = agent_colours([*seeds, "policy:x"], frozenset(), seeds, frozenset({"policy:x"}))
    assert set(grouped.values()) == set(AGENT_COLOURS[:3])
    assert grouped["policy:x"] == AGENT_COLOURS[2]
