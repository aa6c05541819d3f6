"""A summary states numbers with unit and sign, ranks as told, and nothing in it can act."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from moralscope.core.errors import ConfigError
from moralscope.explaining import Agents, Explanation, ask, explain
from moralscope.explaining.ranking import rank
from moralscope.explaining.showing import WIDTH, as_html, as_text, visible
from moralscope.explaining.summary import Block, Summary

HOSTILE = "<script>alert(1)</script>\x1b[31m&\u202eq"


@pytest.fixture(scope="module")
def found(agents: Agents) -> Explanation:
    prompts = [
        ask(f"Round {n}: choose {HOSTILE}", positive=f" {HOSTILE}", negative=" action1", name=name)
        for n, name in ((1, HOSTILE), (2, "two"), (3, "three"))
    ]
    return explain(agents, prompts)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_hostile_texts_are_shown_and_cannot_act(found: Explanation):
    html = found._repr_html_()
    reader = Reader()
    reader.feed(html)
    assert set(reader.tags) <= {
        "div", "style", "h3", "h4", "p", "table", "thead", "tbody", "tr", "th", "td", "bdi",
        "figure", "img",
    }  # fmt: skip
    assert HOSTILE in "".join(reader.text)
    assert {name for name, _ in reader.attributes} == {"class", "alt", "src"}
    sources = [value for name, value in reader.attributes if name == "src"]
    assert len(sources) == 3
    for source in sources:
        kind, _, data = str(source).partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert b"<script" not in base64.b64decode(data)
    html.encode()


def test_text_holds_no_character_that_acts_on_the_terminal(found: Explanation):
    text = repr(found)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31m" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert visible("a\ud800\n") == "a\\ud800\\n"


def test_a_summary_says_the_numbers_of_its_tables(found: Explanation):
    text = repr(found)
    assert "in nats; + is towards the positive answer" in text
    full = found.tables["patching"].filter(site="all")["effect"].mean()
    assert isinstance(full, float)
    sign = "+" if full > 0 else "\N{MINUS SIGN}"
    assert f"Full swap {sign}{abs(full):.2f} nats" in text
    best = found.top(1).row(0, named=True)
    assert re.search(rf"^  {best['site']} +[+−]{abs(best['effect']):.2f} ", text, re.MULTILINE)
    assert "every site written must give the source" in text
    assert "they are no evidence about others" in text
    for word in ("significant", "discover", "finding"):
        assert word not in text.lower()


def test_the_two_renderings_say_the_same(found: Explanation):
    reader = Reader()
    reader.feed(found._repr_html_())
    shown = " ".join("".join(reader.text).split())
    for heading in ("Decisions", "Patching base into game, at the answer", "Controls"):
        assert heading in shown
        assert heading in repr(found)


def test_rare_answers_are_pointed_out(found: Explanation):
    assert found.decisions["legal_mass"].max() < 0.05
    assert "less than 5% of the probability" in repr(found)


def test_top_is_the_plain_mean_over_prompts(found: Explanation):
    table = found.tables["patching"]
    sites = table.filter(table["kind"] != "all")["site"].unique().to_list()
    effects = {site: table.filter(site=site)["effect"].to_numpy() for site in sites}
    whole = float(np.mean(table.filter(site="all")["effect"].to_numpy()))
    order = sorted(sites, key=lambda site: -abs(effects[site].mean()))
    top = found.top(4)
    assert top["site"].to_list() == order[:4]
    for row in top.iter_rows(named=True):
        own = effects[row["site"]]
        assert row["effect"] == pytest.approx(own.mean())
        assert row["share"] == pytest.approx(own.mean() / whole)
        assert row["prompts"] == 3
        assert row["same_sign"] == sum(np.sign(own) == np.sign(own.mean()))
        assert (row["smallest"], row["largest"]) == (own.min(), own.max())


def test_changes_of_attribution_are_ranked_with_their_parts(found: Explanation):
    ranked = rank(found.tables, "attribution")
    assert set(ranked["agent"]) == {"game"}
    total = ranked["change"].sum()
    assert ranked["share"].sum() == pytest.approx(1.0)
    assert (ranked["weights"] + ranked["input"]).to_list() == pytest.approx(
        ranked["change"].to_list()
    )
    whole = found.tables["attribution"].filter(token=-1, part="whole")
    means = [whole.filter(agent=agent)["contribution"].sum() / 3 for agent in ("game", "base")]
    assert total == pytest.approx(means[0] - means[1])
    assert abs(total) > 1e-2


def test_a_share_of_next_to_nothing_is_null(found: Explanation):
    table = found.tables["patching"]
    assert rank({"patching": table}, "patching")["share"].null_count() == 0
    small = table.with_columns(table["effect"] * 1e-4)
    ranked = rank({"patching": small}, "patching")
    assert ranked["share"].null_count() == ranked.height


def test_what_cannot_be_ranked_is_refused(found: Explanation):
    with pytest.raises(ConfigError, match="did you mean 'patching'"):
        found.top(method="patchin")
    with pytest.raises(ConfigError, match="Sites cannot be ranked by 'ablation' here"):
        found.top(method="ablation")
    with pytest.raises(ConfigError, match="This is not a number of sites. Seen: 0"):
        found.top(0)


def test_figures_are_charts_in_the_style_of_the_report(found: Explanation):
    charts = found.figures
    assert list(charts) == ["lens", "attribution", "patching"]
    for chart in charts.values():
        assert isinstance(chart, alt.TopLevelMixin)
        spec = chart.to_dict()
        assert spec["background"] == "white"
        assert "Roboto" in spec["config"]["font"]


def test_sites_without_a_head_are_drawn_by_depth(agents: Agents):
    prompts = [ask(f"Round {n}", positive=" action2", negative=" action1") for n in (1, 2)]
    sites = ["attn", "resid_pre"]
    found = explain(agents, prompts, methods="patching", sites=sites, positions="all")
    assert list(found.figures) == ["patching-depth"]
    spec = found.figures["patching-depth"].to_dict()
    (rows,) = spec["datasets"].values()
    effects = found.tables["patching"].filter(site="L1.attn")["effect"]
    drawn = [row["effect"] for row in rows if (row["kind"], row["layer"]) == ("attn", 1)]
    assert drawn == pytest.approx([effects.mean()])
    assert len(rows) == 6
    assert "patching-depth" not in explain(agents, prompts, methods="patching").figures


def test_a_map_says_where_patches_act(agents: Agents):
    prompts = [ask(f"Round {n}", positive=" action2", negative=" action1") for n in (1, 2)]
    found = explain(
        agents, prompts, methods="patching", sites="mlp", positions="all", pairs=[("q1", "q2")]
    )
    assert "A pair is patched at every token, across prompts." in found._repr_html_()


def test_lines_are_wrapped_and_columns_aligned():
    block = Block("What", ("word " * 60,), ("name", "value"), (("a", "+1.00"), ("bcd", "−10.00")))
    lines = as_text(Summary("Title", "Lead.", (block,), "End.")).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[lines.index("  name   value") :][:3] == [
        "  name   value",
        "  a      +1.00",
        "  bcd   −10.00",
    ]
    assert "<td class='number'><bdi>+1.00</bdi></td>" in as_html(
        Summary("Title", "Lead.", (block,), "End."), ()
    )
