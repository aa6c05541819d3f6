"""Is a run shown in a notebook as it is in its report, and safely?"""

from __future__ import annotations

from pathlib import Path

import pytest
from report_reading import read_html
from synthetic_run import HOSTILE

import moralscope
from moralscope.core.errors import ConfigError
from moralscope.core.tables import read_table
from moralscope.reports import OpenedRun, open_run


@pytest.fixture(scope="module")
def opened(reported: Path) -> OpenedRun:
    return open_run(str(reported))


def test_it_is_part_of_the_public_interface(opened: OpenedRun) -> None:
    assert moralscope.open_run is open_run
    assert isinstance(opened, moralscope.OpenedRun)


def test_claims_and_tables_are_those_of_the_run(opened: OpenedRun, reported: Path) -> None:
    claims = read_table("claims", reported / "tables")
    assert opened.claims.equals(claims)
    assert opened.agents == ("base", "game", "utilitarian")
    assert opened.questions == ()
    shown = read_html(opened._repr_html_())  # pyright: ignore[reportPrivateUsage]
    counts = claims.get_column("verdict").value_counts()
    for verdict, count in counts.iter_rows():
        assert [h for h in shown.all("h4") if h.words.endswith(f"{verdict} ({count})")]
        assert verdict in repr(opened)
    assert len(shown.all("tr")) == claims.height + len(counts)


def test_hostile_statements_are_text(opened: OpenedRun) -> None:
    shown = read_html(opened._repr_html_())  # pyright: ignore[reportPrivateUsage]
    assert not shown.all("script")
    assert not shown.all("img")
    assert HOSTILE in shown.text


def test_a_figure_displays_itself_with_its_caption(opened: OpenedRun) -> None:
    assert "memory_one" in opened.figures
    figure = opened.figure("memory_one")
    shown = read_html(figure._repr_html_())  # pyright: ignore[reportPrivateUsage]
    source = shown.one("img").attributes["src"] or ""
    assert source.startswith("data:image/svg+xml;base64,")
    assert str(figure) == shown.one("img").attributes["alt"]
    assert shown.one("figcaption").words.startswith("Shows. ")
    assert figure.chart.to_dict()["$schema"]


def test_wrong_names_are_refused_with_the_nearest(opened: OpenedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no figure of this name.*did you mean 'lens'"):
        opened.figure("lenz")
    with pytest.raises(ConfigError, match="not a run"):
        open_run(tmp_path)


def test_a_figure_without_its_table_says_so(reported: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    name = "claims.parquet"
    (tmp_path / "tables" / name).write_bytes((reported / "tables" / name).read_bytes())
    alone = open_run(tmp_path)
    assert alone.figures == ()
    with pytest.raises(ConfigError, match=r"cannot be drawn.*The table lens is not in this run"):
        alone.figure("lens")
