"""Do the figures show the numbers of the tables? Checked in the data of their specifications."""

from __future__ import annotations

import json
import re
import statistics
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
from report_reading import spec_rows
from synthetic_run import HOSTILE, LABELS, Size, sites, write_run

from moralscope.core.errors import MoralscopeError
from moralscope.core.tables import read_table, write_table
from moralscope.reports.export import render
from moralscope.reports.figure import Absent, Figure, listing
from moralscope.reports.figure_controls import label_control
from moralscope.reports.figure_policy import memory_one
from moralscope.reports.figure_sites import attribution_heatmap, patching_heatmap, saturation
from moralscope.reports.figures import FIGURES, make_figures
from moralscope.reports.look import agent_colours
from moralscope.reports.run import Run, read_run

NAMES = (
    "memory_one", "label_control", "cooperation", "learning_curves", "lens", "attribution",
    "attribution_parts", "patching",
)  # fmt: skip
COLOURS = {"base": "#6b7280", "game": "#d55e00", "utilitarian": "#0072b2"}


def rows_of(run: Path, table: str) -> list[dict[str, object]]:
    return list(read_table(table, run / "tables").iter_rows(named=True))


def drawn(made: Figure | Absent) -> Figure:
    assert isinstance(made, Figure)
    return made


def changed(run: Path, tmp_path: Path, name: str, frame: pl.DataFrame) -> Run:
    """The run with one table replaced."""
    for path in (run / "tables").iterdir():
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / path.name).write_bytes(path.read_bytes())
    write_table(name, frame, tmp_path / "tables")
    return read_run(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_written_in_four_forms(reported: Path, name: str) -> None:
    folder = reported / "figures"
    spec = json.loads((folder / f"{name}.json").read_text())
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/v6")
    assert spec["description"]
    png = (folder / f"{name}.png").read_bytes()
    svg = ET.fromstring((folder / f"{name}.svg").read_text())  # noqa: S314 - our own output
    width, height = struct.unpack(">II", png[16:24])
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    pdf = (folder / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    page = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert page is not None
    assert float(page[1]) / float(page[2]) == pytest.approx(width / height, rel=0.02)
    assert b"/FontFile" in pdf or b"/FontDescriptor" in pdf
    assert width == pytest.approx(2 * float(svg.attrib["width"]), abs=2)
    assert height == pytest.approx(2 * float(svg.attrib["height"]), abs=2)
    kinds = {element.tag.split("}")[1] for element in svg.iter()}
    assert kinds <= {"svg", "g", "path", "text", "tspan", "rect", "line", "defs", "clipPath",
                     "linearGradient", "stop", "title"}  # fmt: skip
    assert "text" in kinds
    for element in svg.iter():
        for key, value in element.attrib.items():
            assert "href" not in key
            assert "url(" not in value or value.startswith("url(#")


def test_no_specification_loads_data_from_elsewhere(reported: Path) -> None:
    for name in NAMES:
        text = (reported / "figures" / f"{name}.json").read_text()
        assert '"url"' not in text
        assert "expr" not in text or "labelExpr" in text


def test_memory_one_cells_are_the_policy_in_the_original_table_order(reported: Path) -> None:
    shown = {
        (r["agent"], r["wording"], r["own_previous"], r["opponent_previous"]): r
        for r in spec_rows(reported, "memory_one", "p_cooperate")
    }
    policy = [r for r in rows_of(reported, "policy") if r["table_order"] == "original"]
    assert len(shown) == len(policy) == 3 * 2 * 4
    for row in policy:
        wording = f"C = {str(row['labels']).split('/')[0]}"
        cell = shown[row["agent"], wording, row["own_previous"], row["opponent_previous"]]
        assert cell["p_cooperate"] == row["p_cooperate"]
        assert cell["cell"] == f"{row['p_cooperate']:.2f}"
        assert cell["note"] == f"legal {row['legal_mass']:.2f}"


def test_memory_one_takes_the_table_order_there_is(reported: Path, tmp_path: Path) -> None:
    policy = read_table("policy", reported / "tables").filter(pl.col("table_order") == "rows")
    figure = memory_one(changed(reported, tmp_path, "policy", policy), COLOURS)
    assert len(_data(figure, "cell")) == 3 * 2 * 4


def test_memory_one_without_structured_prompts_says_so(reported: Path, tmp_path: Path) -> None:
    policy = read_table("policy", reported / "tables").with_columns(family=pl.lit("clusters"))
    figure = memory_one(changed(reported, tmp_path, "policy", policy), COLOURS)
    assert isinstance(figure, Absent)
    assert figure.reason == "The table policy has no rows of the family structured."


def _data(figure: Figure | Absent, column: str) -> list[dict[str, object]]:
    spec = json.loads(render(drawn(figure)).spec)
    return [r for rows in spec["datasets"].values() for r in rows if column in r]


def test_label_control_shows_every_change_and_its_interval(reported: Path) -> None:
    shown = {
        (r["agent"], r["row"], r["value"]): (r["low"], r["high"])
        for r in spec_rows(reported, "label_control", "value")
    }
    table = rows_of(reported, "transfer")
    assert len(shown) == len(table)
    for r in table:
        key = (r["agent"], f"{r['template']} · {r['labels']}", r["change_log_odds"])
        assert shown[key] == (r["low"], r["high"])


def test_label_control_counts_rows_in_words(reported: Path) -> None:
    flags = [r["keeps_sign"] for r in rows_of(reported, "transfer") if r["control"] != "trained"]
    shows = drawn(label_control(read_run(reported), COLOURS)).shows
    assert (
        f"Of {len(flags)} control rows, {flags.count(True)} keep the sign of training, "
        f"{flags.count(False)} reverse it and {flags.count(None)} have an interval"
    ) in shows


def test_label_control_axis_holds_every_interval_and_zero(reported: Path) -> None:
    spec = (reported / "figures" / "label_control.json").read_text()
    domains = {
        tuple(map(float, d))
        for d in re.findall(r'"domain": \[\s*(-?[\d.]+),\s*(-?[\d.]+)\s*\]', spec)
    }
    assert len(domains) == 1
    low, high = domains.pop()
    table = rows_of(reported, "transfer")
    assert low < min(0.0, *(r["low"] for r in table))
    assert high > max(0.0, *(r["high"] for r in table))


def test_cooperation_shows_intervals_and_says_where_there_is_none(reported: Path) -> None:
    shown = {
        (r["agent"], r["row"], r["value"]): (r["low"], r["high"])
        for r in spec_rows(reported, "cooperation", "value")
    }
    table = rows_of(reported, "cooperation")
    assert len(shown) == len(table) == 3 * 6
    for r in table:
        assert shown[r["agent"], r["game"], r["p_cooperate"]] == (r["low"], r["high"])
    figure = next(f for f in make_figures(read_run(reported), COLOURS) if f.name == "cooperation")
    assert "3 points rest on one scenario" in drawn(figure).shows


@pytest.mark.parametrize(
    ("column", "measure", "labels"),
    [
        ("p_defect_same", "p_defect", "as given"),
        ("p_defect_swapped", "p_defect", "exchanged"),
        ("reward_mean", "reward", "not told apart"),
        ("legal_mass", "legal_mass", "not told apart"),
        ("kl", "kl", "not told apart"),
    ],
)
def test_learning_curves_hold_every_step(
    reported: Path, column: str, measure: str, labels: str
) -> None:
    shown = {
        (r["group"], r["step"]): r["mean"]
        for r in spec_rows(reported, "learning_curves", "group", "mean")
        if (r["measure"], r["labels"]) == (measure, labels)
    }
    assert shown == {(r["agent"], r["step"]): r[column] for r in rows_of(reported, "training")}


def test_lens_curves_are_quartiles_over_prompts(reported: Path) -> None:
    read_outs: dict[tuple[object, float], list[float]] = defaultdict(list)
    for r in rows_of(reported, "lens"):
        if not r["is_branch"]:
            continue
        within = {"embed": 1, "attn": 0.5, "mlp": 1}[str(r["sublayer"])]
        read_outs[r["agent"], r["layer"] + within].append(r["logit_diff"])
    shown = spec_rows(reported, "lens", "median")
    assert {(r["panel"], r["agent"]) for r in shown} == {
        ("game", "base"), ("game", "game"), ("utilitarian", "base"),
        ("utilitarian", "utilitarian"),
    }  # fmt: skip
    depths = [0, 0.5, 1, 1.5, 2]
    assert sorted({r["depth"] for r in shown}) == depths
    for r in shown:
        quartiles = np.percentile(read_outs[r["agent"], r["depth"]], [25, 50, 75])
        assert [r["low"], r["median"], r["high"]] == pytest.approx(quartiles.tolist(), abs=1e-12)


def test_attribution_map_is_the_mean_paired_change_from_base(reported: Path) -> None:
    whole = {
        (r["agent"], r["prompt"], r["site"]): r["contribution"]
        for r in rows_of(reported, "attribution")
        if r["part"] == "whole"
    }
    prompts = {prompt for _, prompt, _ in whole}
    shown = spec_rows(reported, "attribution", "component", "value")
    assert len(shown) == 2 * len(sites(Size()))
    for r in shown:
        agent = str(r["panel"]).split("\n")[0]
        site = (
            f"L{r['layer']}.mlp" if r["component"] == "MLP" else f"L{r['layer']}.h{r['component']}"
        )
        changes = [whole[agent, p, site] - whole["base", p, site] for p in prompts]
        assert r["value"] == pytest.approx(statistics.fmean(changes), abs=1e-12)
    for heading in {str(r["panel"]) for r in shown}:
        agent = heading.split("\n")[0]
        total = sum(
            (1 if a == agent else -1) * c / len(prompts)
            for (a, _, _), c in whole.items()
            if a in (agent, "base")
        )
        assert f"{abs(total):.2f} nats" in heading


def test_attribution_sums_tokens_unless_their_sum_is_stored(reported: Path, tmp_path: Path) -> None:
    table = read_table("attribution", reported / "tables")
    two = pl.concat([table, table.with_columns(token=pl.lit(1, pl.Int64))])
    summed = pl.concat([two, table.with_columns(token=pl.lit(-1, pl.Int64))])
    once = _site_values(attribution_heatmap(read_run(reported), COLOURS))
    (tmp_path / "two").mkdir()
    (tmp_path / "sum").mkdir()
    twice = _site_values(
        attribution_heatmap(changed(reported, tmp_path / "two", "attribution", two), COLOURS)
    )
    stored = _site_values(
        attribution_heatmap(changed(reported, tmp_path / "sum", "attribution", summed), COLOURS)
    )
    assert twice == pytest.approx([2 * v for v in once], abs=1e-12)
    assert stored == pytest.approx(once, abs=1e-12)


def _site_values(figure: Figure | Absent) -> list[float]:
    rows = _data(figure, "component")
    ordered = sorted(
        rows, key=lambda r: (str(r["panel"]).split("\n")[0], r["layer"], r["component"])
    )
    return [float(str(r["value"])) for r in ordered]


def test_attribution_without_a_base_is_absent(reported: Path, tmp_path: Path) -> None:
    agents = read_table("agents", reported / "tables").filter(pl.col("kind") != "base")
    figure = attribution_heatmap(changed(reported, tmp_path, "agents", agents), COLOURS)
    assert isinstance(figure, Absent)
    assert figure.reason == "The table attribution holds no agent together with its base."


def test_patching_map_is_the_mean_effect_with_its_ceiling_and_flips(reported: Path) -> None:
    table = rows_of(reported, "patching")
    shown = spec_rows(reported, "patching", "component", "value")
    pairs = {("base", "game"), ("base", "utilitarian"), ("game", "utilitarian"),
             ("utilitarian", "game")}  # fmt: skip
    assert {_pair(r) for r in shown} == pairs
    assert len(shown) == len(pairs) * len(sites(Size()))
    for r in shown:
        site = (
            f"L{r['layer']}.mlp" if r["component"] == "MLP" else f"L{r['layer']}.h{r['component']}"
        )
        effects = [t["effect"] for t in table if (t["source"], t["target"], t["site"])
                   == (*_pair(r), site)]  # fmt: skip
        assert r["value"] == pytest.approx(statistics.fmean(effects), abs=1e-12)
    for heading in {str(r["panel"]) for r in shown}:
        own = [t for t in table if (t["source"], t["target"]) == _pair({"panel": heading})]
        full = [t for t in own if t["site"] == "all"]
        single = [t for t in own if t["site"] != "all"]
        ceiling = statistics.fmean(t["effect"] for t in full)
        assert f"full swap {ceiling:+.2f} nats".replace("-", "\u2212") in heading
        assert f"flips {sum(t['flipped'] for t in full)} of {len(full)}" in heading
        assert f"patches flip {sum(t['flipped'] for t in single)} of {len(single)}" in heading


def _pair(row: dict[str, object]) -> tuple[str, str]:
    source, target = str(row["panel"]).split("\n")[0].split(" into ")
    return source, target


def test_patching_names_the_largest_site_of_each_pair(reported: Path) -> None:
    means: dict[tuple[object, object], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for t in rows_of(reported, "patching"):
        if t["site"] != "all":
            means[t["source"], t["target"]][str(t["site"])].append(t["effect"])
    shows = drawn(patching_heatmap(read_run(reported), COLOURS)).shows
    for (source, target), effects in means.items():
        top = max(effects, key=lambda site: abs(statistics.fmean(effects[site])))
        assert f"{source} into {target} {top} (" in shows


def test_patching_without_a_full_swap_says_there_is_no_ceiling(
    reported: Path, tmp_path: Path
) -> None:
    table = read_table("patching", reported / "tables").filter(pl.col("site") != "all")
    figure = drawn(patching_heatmap(changed(reported, tmp_path, "patching", table), COLOURS))
    assert "no full swap was run, so there is no ceiling" in figure.shows


def test_patching_prefers_the_sources_own_write(reported: Path, tmp_path: Path) -> None:
    table = read_table("patching", reported / "tables")
    other = table.with_columns(write=pl.lit("z"), effect=pl.col("effect") + 100)
    both = changed(reported, tmp_path, "patching", pl.concat([table, other]))
    assert _site_values(patching_heatmap(both, COLOURS)) == _site_values(
        patching_heatmap(read_run(reported), COLOURS)
    )


@pytest.mark.parametrize("name", ["attribution", "patching"])
def test_heat_maps_are_centred_at_zero(reported: Path, name: str) -> None:
    spec = json.loads((reported / "figures" / f"{name}.json").read_text())
    domain = spec["spec"]["encoding"]["color"]["scale"]["domain"]
    assert domain == pytest.approx([-d for d in reversed(domain)], abs=1e-12)
    values = np.abs([r["value"] for r in spec_rows(reported, name, "component", "value")])
    assert domain[-1] == np.quantile(values, 0.99, method="higher")


def test_saturation_is_positive_even_where_nothing_happens() -> None:
    assert saturation(pl.Series([0.0, 0.0])) == 1.0
    assert saturation(pl.Series([], dtype=pl.Float64)) == 1.0


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_a_missing_or_empty_table_makes_a_figure_absent(
    reported: Path, tmp_path: Path, make: Callable[[Run, dict[str, str]], Figure | Absent]
) -> None:
    present = drawn(make(read_run(reported), COLOURS))
    table = present.tables[0]
    frame = read_table(table, reported / "tables")
    empty = changed(reported, tmp_path, table, frame.clear())
    assert make(empty, COLOURS).reason == f"The table {table} of this run has no rows."
    (tmp_path / "tables" / f"{table}.parquet").unlink()
    gone = make(read_run(tmp_path), COLOURS)
    assert gone.reason == f"The table {table} is not in this run."
    assert (gone.name, gone.title) == (present.name, present.title)


def test_figures_of_a_large_model_stay_within_the_page(tmp_path: Path) -> None:
    size = Size(trained=1, layers=80, heads=64, cluster_prompts=1)
    run = read_run(write_run(tmp_path, size))
    for figure in (attribution_heatmap(run, COLOURS), patching_heatmap(run, COLOURS)):
        picture = render(drawn(figure))
        width = float(ET.fromstring(picture.svg).attrib["width"])  # noqa: S314 - our own
        assert width < 1200
    assert len(_data(figure, "component")) == 80 * 65


def test_hostile_agent_names_are_text_in_pictures(tmp_path: Path, reported: Path) -> None:
    policy = read_table("policy", reported / "tables").with_columns(
        agent=pl.when(pl.col("agent") == "game").then(pl.lit(HOSTILE)).otherwise("agent")
    )
    colours = {"base": "#6b7280", HOSTILE: "#d55e00", "utilitarian": "#0072b2"}
    figure = drawn(memory_one(changed(reported, tmp_path, "policy", policy), colours))
    svg = render(figure).svg
    assert "<script" not in svg
    assert "<img" not in svg
    ET.fromstring(svg)  # noqa: S314 - our own output


def test_the_same_run_gives_the_same_pictures(reported: Path) -> None:
    run = read_run(reported)
    for figure in make_figures(run, agent_colours(["base", "game", "utilitarian"],
                                                  frozenset({"base"}), {})):  # fmt: skip
        again = render(drawn(figure))
        assert again.svg == (reported / "figures" / f"{figure.name}.svg").read_text()
        assert again.spec == (reported / "figures" / f"{figure.name}.json").read_text()
        assert "gradient_0" in again.svg or "gradient" not in again.svg


def test_two_label_assignments_make_two_rows_of_memory_one_tables(reported: Path) -> None:
    wordings = {r["wording"] for r in spec_rows(reported, "memory_one", "wording")}
    assert wordings == {f"C = {labels.split('/')[0]}" for labels in LABELS}


def test_listing_joins_names_and_counts_the_rest() -> None:
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcd"), at_most=2) == "a, b and 2 more"


def test_a_damaged_table_is_an_error_and_not_a_gap(reported: Path, tmp_path: Path) -> None:
    changed(reported, tmp_path, "lens", read_table("lens", reported / "tables"))
    (tmp_path / "tables" / "lens.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(MoralscopeError, match=r"Table 'lens' cannot be read.*Parquet file.*again"):
        read_run(tmp_path)
