"""Two runs, compared: equal ones are equal, and whatever is changed is found and shown."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from moralscope.core.errors import ConfigError, TableError
from moralscope.core.files import write_json
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.reports.differing.comparing import compare_runs, flat
from moralscope.reports.differing.page import render, twin, write_difference

STUDY = {"name": "s", "seed": 0, "agents": {"base": {}, "game": {"reward": "game"}}}
MANIFEST = {
    "moralscope": "1.0", "versions": {"numpy": "2.1"}, "seconds_total": 3.0,
    "stages": [{"name": "decide-base", "key": "a"}, {"name": "train-game", "key": "b"}],
}  # fmt: skip


def claim(name: str, estimate: float | None = 1.0, **changes: object) -> dict[str, object]:
    return {
        "id": name, "statement": f"{name} is so.", "estimate": estimate, "low": 0.5, "high": 1.5,
        "unit": "nats", "n_units": 8, "test": "sign flips", "p": 0.01, "p_adjusted": 0.02,
        "p_floor": 0.01, "q": 0.03, "n_tests": 2, "detectable": 0.4, "gates": "none applies",
        "registered": False, "outcome": None, "verdict": "supported", "reason": "It is.",
        "replicate": "scenarios", "query": "SELECT 1", **changes,
    }  # fmt: skip


def decisions(n: int) -> pl.DataFrame:
    odds = np.linspace(-2, 2, n)
    p = 1 / (1 + np.exp(-odds))
    return pl.DataFrame(
        {
            "agent": ["base"] * n, "prompt": [f"p{i}" for i in range(n)], "game": ["IPD"] * n,
            "scenario": ["s"] * n, "log_odds": odds, "p_positive": p, "p_negative": 1 - p,
            "legal_mass": np.ones(n), "p_positive_given_legal": p,
        }
    )  # fmt: skip


def training(seconds: float) -> pl.DataFrame:
    row: dict[str, object] = {
        "agent": "game", "training_seed": 0, "step": 1, "phase": 1, "reward": "game",
        "visitation": "uniform", "learning_rate": 0.1, "reward_mean": 1.0, "cooperation": 0.5,
        "legal_mass": 1.0, "kl": 0.0, "kl_coefficient": 0.1, "loss": 1.0, "gradient_norm": 1.0,
        "adapter_norm": 1.0, "seconds": seconds,
    }  # fmt: skip
    return from_rows("training", [row])


def write_run(folder: Path, *, n: int = 20) -> Path:
    for name, table in (
        ("decisions", decisions(n)), ("training", training(1.0)),
        ("claims", from_rows("claims", [claim("one"), claim("two"), claim("three", None)])),
    ):  # fmt: skip
        write_table(name, table, folder / "tables")
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    write_json(folder / "manifest.json", MANIFEST)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    first = write_run(tmp_path / "first")
    shutil.copytree(first, tmp_path / "second")
    return first, tmp_path / "second"


def replace(run: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    write_table(name, change(read_table(name, run / "tables")), run / "tables")


def test_a_run_is_equal_to_itself_and_to_its_copy(pair: tuple[Path, Path]) -> None:
    for other in pair:
        found = compare_runs(pair[0], other)
        assert found.equal
        assert found.claims_equal == 3
        assert set(found.tables_equal) == {"training", "decisions"}
        assert found.circumstances == found.stages == ()


def test_wall_times_are_not_compared(pair: tuple[Path, Path]) -> None:
    write_table("training", training(99.0), pair[1] / "tables")
    write_json(pair[1] / "manifest.json", MANIFEST | {"seconds_total": 1e5})
    assert compare_runs(*pair).equal
    replace(pair[1], "training", lambda t: t.with_columns(loss=pl.lit(2.0)))
    (table,) = compare_runs(*pair).tables
    assert [(c.column, c.largest) for c in table.columns] == [("loss", 1.0)]


def test_settings_are_compared_key_by_key(pair: tuple[Path, Path]) -> None:
    changed = STUDY | {"seed": 1, "agents": {"base": {}, "game": {"reward": "hybrid"}}, "new": [1]}
    (pair[1] / "study.yaml").write_text(yaml.safe_dump(changed))
    found = compare_runs(*pair)
    assert not found.equal
    assert {(c.name, c.first, c.second) for c in found.settings} == {
        ("seed", "0", "1"), ("agents.game.reward", '"game"', '"hybrid"'), ("new", None, "[1]"),
    }  # fmt: skip


def test_versions_and_stages_are_told_and_are_no_difference(pair: tuple[Path, Path]) -> None:
    stages = [{"name": "decide-base", "key": "x"}, {"name": "patch", "key": "c"}]
    write_json(
        pair[1] / "manifest.json", MANIFEST | {"versions": {"numpy": "2.2"}, "stages": stages}
    )
    found = compare_runs(*pair)
    assert found.equal
    assert [(c.name, c.first, c.second) for c in found.circumstances] == [
        ("versions.numpy", '"2.1"', '"2.2"')
    ]
    assert [(c.name, c.first, c.second) for c in found.stages] == [
        ("decide-base", "a", "x"), ("train-game", "b", None), ("patch", None, "c"),
    ]  # fmt: skip


def test_each_claim_is_listed_under_what_happened_to_it(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    write_table(
        "claims",
        from_rows(
            "claims", [claim(n) for n in ("gone", "same", "worse", "moved", "said", "fewer")]
        ),
        first / "tables",
    )
    after = [
        claim("same"), claim("worse", verdict="artefact", reason="A gate failed."),
        claim("moved", 1.25, statement="moved is more so."), claim("said", test="other words"),
        claim("fewer", n_units=5), claim("new", None),
    ]  # fmt: skip
    write_table("claims", from_rows("claims", after), second / "tables")
    found = compare_runs(first, second)
    kinds = {claim.id: claim.kind for claim in found.claims}
    assert kinds == {
        "gone": "vanished", "worse": "verdict", "moved": "numbers", "said": "words",
        "fewer": "numbers", "new": "appeared",
    }  # fmt: skip
    assert found.claims_equal == 1
    moved = found.claims_of("numbers")[0]
    assert (moved.shift, moved.half_widths) == (0.25, 0.5)  # the interval reaches 0.5 either way
    assert moved.columns == ("statement", "estimate")
    worse = found.claims_of("verdict")[0]
    assert (worse.verdict_first, worse.verdict_second) == ("supported", "artefact")


def test_without_an_interval_there_is_no_relative_shift(pair: tuple[Path, Path]) -> None:
    for run, estimate in zip(pair, (1.0, 3.0), strict=True):
        rows = [claim("one", estimate, low=None, high=None)]
        write_table("claims", from_rows("claims", rows), run / "tables")
    (changed,) = compare_runs(*pair).claims
    assert (changed.shift, changed.half_widths) == (2.0, None)


def test_tables_are_compared_row_by_row(pair: tuple[Path, Path]) -> None:
    replace(
        pair[1],
        "decisions",
        lambda t: t.slice(1).with_columns(
            log_odds=pl.when(pl.col("prompt") == "p7").then(9.0).otherwise(pl.col("log_odds"))
        ),
    )
    (pair[1] / "tables" / "training.parquet").unlink()
    found = compare_runs(*pair)
    (table,) = found.tables
    assert (table.only_first, table.only_second) == (1, 0)
    assert table.example_first == {"agent": "base", "prompt": "p0"}
    (column,) = table.columns
    assert (column.column, column.rows, column.first) == ("log_odds", 1, np.linspace(-2, 2, 20)[7])
    assert found.only_first == ("training",)


def test_many_rows_in_another_order_take_seconds(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    table = decisions(200_000)
    write_table("decisions", table, first / "tables")
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=0).with_columns(
        log_odds=pl.col("log_odds") + (pl.col("prompt") == "p999")
    )
    write_table("decisions", shuffled, second / "tables")
    started = time.perf_counter()
    (found,) = compare_runs(first, second).tables
    assert time.perf_counter() - started < 30
    assert [(c.column, c.rows, c.largest) for c in found.columns] == [("log_odds", 1, 1.0)]


class Reader(HTMLParser):
    """What is on the page: its tags and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_what_differs_and_hostile_text_stays_text(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    (second / "study.yaml").write_text(yaml.safe_dump(STUDY | {"name": evil}))
    write_table(
        "claims", from_rows("claims", [claim(evil, 2.0, statement=evil)]), second / "tables"
    )
    replace(second, "decisions", lambda t: t.with_columns(game=pl.lit(evil)))
    found = compare_runs(first, second)
    page = write_difference(found, tmp_path / "out")
    html = page.read_text()
    reader = Reader()
    reader.feed(html)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "img", "iframe", "link"}
    assert not re.search(r'(?:href|src)="(?!#)', html)
    assert reader.text.count(evil) >= 3
    assert {"Claims that appeared (1)", "Claims that vanished (3)"} <= {
        line.strip() for line in reader.text.splitlines()
    }
    ids = {attrs["id"] for _, attrs in reader.tags if attrs.get("id")}
    assert (
        {a["href"] for tag, a in reader.tags if tag == "a"} == {"#main"} <= {f"#{i}" for i in ids}
    )
    told = json.loads((tmp_path / "out" / "difference.json").read_text())
    assert told == json.loads(json.dumps(twin(found)))
    assert (told["equal"], told["tables"][0]["columns"][0]["second"]) == (False, evil)


def test_a_long_list_is_cut_on_the_page_and_whole_in_its_twin(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    many = [claim(f"c{i}") for i in range(400)]
    write_table("claims", from_rows("claims", many), second / "tables")
    found = compare_runs(first, second)
    assert "and 100 more, in difference.json" in render(found)
    assert len([c for c in found.claims if c.kind == "appeared"]) == 400


def test_equal_runs_have_a_page_that_says_so(pair: tuple[Path, Path]) -> None:
    assert "<h1>The two runs are equal</h1>" in render(compare_runs(*pair))


def test_nested_settings_are_flattened() -> None:
    nested = {"a": {"b": {"c": None}, "d": {}}, "e": [{"f": 1}]}
    assert flat(nested) == {"a.b.c": "null", "a.d": "{}", "e": '[{"f": 1}]'}


def test_bad_input_is_refused_in_words(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="This folder is not a run"):
        compare_runs(pair[0], tmp_path / "nowhere")
    (pair[1] / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"manifest\.json is not what a run writes"):
        compare_runs(*pair)
    (pair[1] / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match=r"manifest\.json cannot be read") as caught:
        compare_runs(*pair)
    assert "moralscope verify" in caught.value.remedy
    (pair[1] / "manifest.json").unlink()
    (pair[1] / "study.yaml").write_text("")
    assert compare_runs(*pair).settings != ()
    (pair[1] / "tables" / "decisions.parquet").write_bytes(b"no")
    with pytest.raises(TableError, match="cannot be read"):
        compare_runs(*pair)
