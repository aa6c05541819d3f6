"""Do figures that only some runs have show their tables, and only where that was asked for?"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest
from report_reading import read_page, spec_rows
from synthetic_run import Size, sites

from moralscope.core.tables import read_table
from moralscope.mechanisms.lens.stabilisation import compare_agent
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_across import patching_across
from moralscope.reports.figure_approximations import approximations
from moralscope.reports.figure_changes import attribution_parts
from moralscope.reports.figure_circuits import circuit_curves
from moralscope.reports.figure_settling import aligned_curves, lens_settling
from moralscope.reports.figures import FIGURES, FURTHER, make_figures, makers_of
from moralscope.reports.figures_inside import INSIDE
from moralscope.reports.run import Run, read_run, run_of

NAMES = (
    "lens_settling", "attribution_parts", "patching_across", "approximations", "circuits",
    "targeting", "course", "depths",
)  # fmt: skip
OWN = (
    "lens_settling", "attribution_parts", "random_directions", "patching_across",
    "approximations", "circuit_curves", "targeting_curve", "course_of_training", "depth_profiles",
)  # fmt: skip
COLOURS = {"base": "#6b7280", "game": "#d55e00", "utilitarian": "#0072b2"}


def rows_of(run: Path, table: str) -> list[dict[str, object]]:
    return list(read_table(table, run / "tables").iter_rows(named=True))


def drawn(made: Figure | Absent) -> Figure:
    assert isinstance(made, Figure), made
    return made


def replaced(run: Path, **tables: pl.DataFrame | None) -> Run:
    """The run with tables replaced, or left out where None."""
    found = {**read_run(run).tables, **tables}
    return run_of({name: table for name, table in found.items() if table is not None})


def site_of(row: dict[str, object]) -> str:
    part = "mlp" if row["component"] == "MLP" else f"h{row['component']}"
    return f"L{row['layer']}.{part}"


def test_a_run_that_asked_for_nothing_further_mentions_nothing_further(reported: Path) -> None:
    lean = read_table("attribution", reported / "tables").filter(pl.col("part") == "whole")
    closer = tuple(make for _, asked, make in INSIDE if asked(read_run(reported)))
    found = makers_of(replaced(reported, attribution=lean))
    assert tuple(make for make in found if make not in closer) == FIGURES


def test_further_figures_stand_behind_what_they_go_on_from(further: Path) -> None:
    order = [figure.name for figure in make_figures(read_run(further), COLOURS)]
    assert order[4:] == [
        "lens", "lens_settling", "final_preferences", "attribution", "attribution_parts",
        "attribution_top", "attribution_maps", "attribution_mlps", "patching",
        "random_directions", "patching_across", "approximations", "patching_scenarios",
        "patching_consistency", "circuits", "targeting", "course", "depths",
    ]  # fmt: skip
    shown = [element.attributes["id"] for element in read_page(further).all("figure")]
    assert sorted(shown) == sorted(f"figure-{name}" for name in order)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_drawn_from_numbers_within_the_page(further: Path, name: str) -> None:
    svg = ET.fromstring((further / "figures" / f"{name}.svg").read_text())  # noqa: S314 - our own
    assert float(svg.attrib["width"]) < 1200
    assert any(element.tag.endswith("path") for element in svg.iter())
    assert '"url"' not in (further / "figures" / f"{name}.json").read_text()


@pytest.mark.parametrize(
    "entry",
    [e for e in FURTHER if e[2].__name__ in OWN],
    ids=lambda entry: entry[2].__name__,
)
def test_what_was_asked_for_and_is_empty_is_absent_with_its_reason(further, entry) -> None:
    _, asked, make = entry
    present = drawn(make(read_run(further), COLOURS))
    table = present.tables[0]
    empty = replaced(further, **{table: read_table(table, further / "tables").clear()})
    absent = make(empty, COLOURS)
    assert isinstance(absent, Absent)
    assert absent.reason == f"The table {table} of this run has no rows."
    assert (absent.name, absent.title) == (present.name, present.title)
    assert asked(read_run(further))
    assert not asked(replaced(further, **{table: None}))
    assert make(replaced(further, **{table: None}), COLOURS).reason == (
        f"The table {table} is not in this run."
    )


# Lens and controls


def test_bands_are_those_of_the_stabilisation_summary(further: Path) -> None:
    lens, controls = (read_table(n, further / "tables") for n in ("lens", "lens_controls"))
    shown = spec_rows(further, "lens_settling", "series", "value")
    for agent in COLOURS:
        expected = compare_agent(lens, controls, agent)
        assert set(expected) == {"random_pair", "unrelated_prompt"}
        for name, words in (("random_pair", "random option"), ("unrelated_prompt", "unrelated")):
            own = [r for r in shown if r["agent"] == agent]
            band = sorted(
                (r["depth"], r["low"], r["high"]) for r in own if str(r["series"]).startswith(words)
            )
            line = sorted((r["depth"], r["value"]) for r in own if r["series"] == "the decision")
            assert [x[0] for x in band] == [x[0] for x in line] == [0, 0.5, 1, 1.5, 2]
            found = expected[name]
            assert [x[1] for x in band] == pytest.approx(found.low.tolist(), abs=1e-12)
            assert [x[2] for x in band] == pytest.approx(found.high.tolist(), abs=1e-12)
            assert [x[1] for x in line] == pytest.approx(found.decision.tolist(), abs=1e-12)
            assert min(h - low for _, low, h in band) > 0.01


def test_a_control_of_one_draw_has_no_band(further: Path) -> None:
    controls = read_table("lens_controls", further / "tables")
    one = controls.filter((pl.col("control") == "random_pair") | (pl.col("draw") == 0))
    assert aligned_curves(replaced(further, lens_controls=one))["series"].unique().sort().to_list(
    ) == ["decision", "random_pair"]  # fmt: skip


def test_settling_quotes_depth_interval_and_controls(further: Path) -> None:
    shows = drawn(lens_settling(read_run(further), COLOURS)).shows
    interval = (
        "settles at depth 1.2 of 2 (95% interval 0.0 to 1.8, cut at the ends of the model, "
        "4 scenarios)"
    )
    assert "one more of 5 random option pairs and one more of 3 unrelated prompts" in shows
    assert (
        "base settles at depth 1.2 of 2 (no interval, 4 scenarios) and exceeds random pairs from "
        "depth 0.5 on and unrelated prompts from depth 1.5 on." in shows
    )
    assert (
        f"game {interval} and exceeds random pairs from depth 1.0 on but does not exceed "
        "unrelated prompts at the last depth." in shows
    )
    assert (
        f"utilitarian {interval} and exceeds neither random pairs nor unrelated prompts at "
        "the last depth." in shows
    )


def test_settling_without_a_summary_or_a_settled_prompt_says_so(further: Path) -> None:
    without = drawn(lens_settling(replaced(further, stabilisation_summary=None), COLOURS))
    assert without.shows.endswith("Where decisions settle was not summarised.")
    assert without.tables == ("lens_controls", "lens")
    none = read_table("stabilisation_summary", further / "tables").with_columns(
        depth=pl.lit(None, pl.Float64)
    )
    figure = drawn(lens_settling(replaced(further, stabilisation_summary=none), COLOURS))
    assert "game settles on no prompt and exceeds random pairs" in figure.shows


# Parts of a change


def test_parts_are_means_over_prompts_side_by_side(further: Path) -> None:
    values: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for r in rows_of(further, "attribution"):
        values[r["agent"], r["part"], r["site"]].append(r["contribution"])
    shown = spec_rows(further, "attribution_parts", "component", "value")
    assert len(shown) == 2 * 2 * len(sites(Size()))
    words = {"own new weights": "weights", "other inputs": "input"}
    for r in shown:
        agent, part = str(r["panel"]).split("\n")[0].split(": ")
        mean = statistics.fmean(values[agent, words[part], site_of(r)])
        assert r["value"] == pytest.approx(mean, abs=1e-12)
    panels = json.loads((further / "figures" / "attribution_parts.json").read_text())["facet"]
    assert [str(p).split("\n")[0] for p in panels["sort"]] == [
        f"{agent}: {part}" for agent in ("game", "utilitarian") for part in words
    ]


def test_parts_name_the_layers_whose_weights_changed(further: Path) -> None:
    table = read_table("attribution", further / "tables")
    for layers, said in (
        ([1], "own weights change 4 of 8 heads and MLPs, in layer 1;"),
        ([0, 1], "own weights change 8 of 8 heads and MLPs, in layers 0 to 1;"),
        ([], "own weights change no head and no MLP;"),
    ):
        still = (pl.col("part") == "weights") & ~pl.col("layer").is_in(layers)
        value = pl.when(still).then(0.0).otherwise("contribution")
        run = replaced(further, attribution=table.with_columns(contribution=value))
        assert f"game: {said} largest by own new weights L" in drawn(
            attribution_parts(run, COLOURS)
        ).shows.replace(" (0.00)", "")  # fmt: skip


def test_parts_are_not_drawn_where_only_wholes_are(further: Path) -> None:
    whole = read_table("attribution", further / "tables").filter(pl.col("part") == "whole")
    made = attribution_parts(replaced(further, attribution=whole), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "The table attribution has no rows of the part weights."


# Patches across prompts


def test_the_map_on_one_prompt_leaves_changed_prompts_out(further: Path, reported: Path) -> None:
    shown = spec_rows(further, "patching", "component", "value")
    assert shown == spec_rows(reported, "patching", "component", "value")
    assert len(shown) > 0


def test_changes_in_opposite_directions_have_panels_of_their_own(further: Path) -> None:
    effects: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for r in rows_of(further, "patching"):
        if r["prompt"] != r["source_prompt"]:
            change = "D into C" if ".CC." in str(r["prompt"]) else "C into D"
            pair = (
                r["target"] if r["source"] == r["target"] else f"{r['source']} into {r['target']}"
            )
            effects[f"{pair}, opponent previous {change}", r["site"]].append(r["effect"])
    shown = spec_rows(further, "patching_across", "component", "value")
    assert len(shown) == 3 * 2 * len(sites(Size()))
    for r in shown:
        label = str(r["panel"]).split("\n")[0]
        mean = statistics.fmean(effects[label, site_of(r)])
        assert r["value"] == pytest.approx(mean, abs=1e-12)
        assert abs(mean) > 1.0  # both directions together would be about zero
    spec = json.loads((further / "figures" / "patching_across.json").read_text())
    assert str(spec["facet"]["sort"][0]).startswith("game, opponent previous")


def test_a_change_is_named_by_what_differs(further: Path) -> None:
    prompts = read_table("prompts", further / "tables")
    across = read_table("patching", further / "tables").filter(
        pl.col("prompt") != pl.col("source_prompt")
    )
    here = prompts.get_column("prompt").item(0)
    source = across.filter(pl.col("prompt") == here).get_column("source_prompt").item(0)
    for column, value, said in (
        ("labels", "x/y", "game, other labels"),
        ("text", "else", "game, from other words"),
        (None, None, "game, from another prompt"),
    ):
        one = prompts.filter(pl.col("prompt") == here)
        other = one.with_columns(prompt=pl.lit(source))
        if column is not None:
            other = other.with_columns(pl.lit(value).alias(column))
        pair = pl.concat([one, other]) if column is not None else one
        run = replaced(further, prompts=pair, patching=across)
        assert f"Largest: {said} L" in drawn(patching_across(run, COLOURS)).shows
    figure = drawn(patching_across(replaced(further, prompts=None, patching=across), COLOURS))
    assert "game, from another prompt L" in figure.shows
    assert figure.tables == ("patching",)


def test_many_changes_are_drawn_up_to_eight(further: Path) -> None:
    patching = read_table("patching", further / "tables")
    across = patching.filter(pl.col("prompt") != pl.col("source_prompt"))
    more = [across.with_columns(target=pl.lit(f"t{i}")) for i in range(2)]
    figure = drawn(patching_across(replaced(further, patching=pl.concat([across, *more])), COLOURS))
    assert figure.shows.endswith("Of 14 such panels the first 8 are drawn.")


def test_streams_alone_make_no_map_across_prompts(further: Path) -> None:
    streams = read_table("patching", further / "tables").with_columns(kind=pl.lit("resid_pre"))
    made = patching_across(replaced(further, patching=streams), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "No single head or MLP was patched across prompts."


# Approximations


def test_correlations_are_those_of_the_table_without_undefined_ones(further: Path) -> None:
    shown = {
        (r["pair"], r["row"], str(r["measure"]).split("(")[1][:-1].lower()): r["value"]
        for r in spec_rows(further, "approximations", "measure", "value")
    }
    words = {"attribution_patching": "Attribution patching", "relp": "RelP",
             "integrated_gradients": "Integrated gradients", "all": "all kinds"}  # fmt: skip
    expected = {
        (
            f"{r['source']} into {r['target']}",
            f"{words[str(r['method'])]} · {words.get(str(r['kind']), r['kind'])}",
            measure,
        ): r[measure]
        for r in rows_of(further, "agreement")
        for measure in ("pearson", "spearman")
        if r[measure] is not None
    }
    assert shown == expected
    assert len(shown) == 2 * (9 + 9 - 2)
    spec = (further / "figures" / "approximations.json").read_text()
    assert json.loads(spec)["spec"]["layer"][1]["encoding"]["x"]["scale"]["domain"] == [-0.25, 1.0]
    assert spec_rows(further, "approximations", "gate") == [{"gate": 0.8}]


def test_approximations_say_which_may_rank(further: Path) -> None:
    shows = drawn(approximations(read_run(further), COLOURS)).shows
    assert (
        "Attribution patching reaches 0.91 where it is worst (mlp) and passes the gate for 2 of 2 "
        "pairs. Integrated gradients reaches 0.72 where it is worst (head) and fails it for 2 of "
        "2 pairs. RelP reaches \u22120.25 where it is worst (head) and cannot be judged for 2 of "
        "2 pairs, for want of enough exact patches that vary. "
        "Exact patches compared: 40." in shows
    )


def test_approximations_never_compared_are_absent(further: Path) -> None:
    nothing = read_table("agreement", further / "tables").with_columns(
        n=pl.lit(0, pl.Int64), pearson=pl.lit(None, pl.Float64), spearman=pl.lit(None, pl.Float64)
    )
    made = approximations(replaced(further, agreement=nothing), COLOURS)
    assert isinstance(made, Absent)
    assert made.reason == "No approximation was compared with enough exact patches."


# Circuits


def test_curves_are_shares_and_random_sets_their_mean_and_range(further: Path) -> None:
    shares: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for r in rows_of(further, "circuit_curves"):
        pair = f"{r['source']} into {r['target']}"
        shares[pair, r["curve"], r["sets"], r["size"]].append(r["share"])
    shown = spec_rows(further, "circuits", "sets", "value")
    assert len(shown) == len(shares) == 2 * 2 * 3 * 3
    for r in shown:
        curve = str(r["panel"]).split(":")[0].lower()
        sets = {"circuit": "circuit", "whole layers": "layers"}.get(str(r["sets"]), "random")
        values = shares[r["pair"], curve, sets, r["size"]]
        assert r["value"] == pytest.approx(np.mean(values), abs=1e-12)
        ends = (min(values), max(values)) if sets == "random" else (None, None)
        assert (r["low"], r["high"]) == ends
        assert len(values) == (4 if sets == "random" else 1)


def test_circuits_say_size_redundancy_localisation_and_overlap(further: Path) -> None:
    figure = drawn(circuit_curves(read_run(further), COLOURS))
    overlap = "circuits of 2 wordings share 0.25 of their sites (0.05 by chance, p 0.04)."
    assert (
        "base into game: 2 sites (L1.mlp and L0.h2) of 8 reach 0.91 of the full swap (goal share "
        "of 0.80); 2 disjoint circuits reach that, each on its own; localisation: localised "
        f"(effects as of 2.50 of 8 sites, 4.50 by chance, p 0.01); {overlap}" in figure.shows
    )
    assert (
        "game into base: 2 sites (L1.mlp and L0.h2) of 8 reach 0.55 of the full swap (goal share "
        "of 0.80, less than was asked for); localisation: not identified by this design; "
        f"{overlap}" in figure.shows
    )
    assert figure.tables == ("circuits", "circuit_curves", "circuit_stability", "localisation")


def test_circuits_alone_say_what_they_can(further: Path) -> None:
    first = read_table("circuits", further / "tables").filter(pl.col("circuit") == "first")
    run = replaced(further, circuits=first.head(1), circuit_stability=None, localisation=None)
    figure = drawn(circuit_curves(run, COLOURS))
    assert "(goal share of 0.80); no second circuit without its sites was found. " in figure.shows
    assert "game into base: no circuit in the table circuits." in figure.shows
    assert figure.tables == ("circuits", "circuit_curves")


def test_ways_of_patching_one_pair_are_told_apart(further: Path) -> None:
    table = read_table("circuit_curves", further / "tables")
    other = table.with_columns(positions=pl.lit("all"), share=pl.col("share") + 5)
    run = replaced(further, circuit_curves=pl.concat([table, other]))
    figure = drawn(circuit_curves(run, COLOURS))
    assert "base into game (answer_span, write): 2 sites" in figure.shows
    assert "base into game (all, write): no circuit in the table circuits." in figure.shows


def test_many_pairs_are_drawn_up_to_six(further: Path) -> None:
    table = read_table("circuit_curves", further / "tables")
    many = pl.concat(table.with_columns(source=pl.lit(f"s{i}")) for i in range(4))
    figure = drawn(circuit_curves(replaced(further, circuit_curves=many), COLOURS))
    assert figure.shows.endswith("Of 8 pairs the first 6 are drawn.")
    assert "s3 into" not in figure.shows
