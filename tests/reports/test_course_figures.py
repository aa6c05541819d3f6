"""Trainings in parts, on their way, and of other models: drawn as their tables say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_further import LEFT, checkpoints, course, depths, members, targeting

from moralscope.core.tables import from_rows
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_course import course_of_training, has_course
from moralscope.reports.figure_depths import depth_profiles, has_depths
from moralscope.reports.figure_targeting import has_targeting, targeting_curve
from moralscope.reports.figures import FURTHER
from moralscope.reports.look import styled
from moralscope.reports.run import Run, run_of

Row = dict[str, Any]
Maker = Callable[[Run, dict[str, str]], Figure | Absent]


def agents() -> list[Row]:
    kinds = [("base", "base", None)]
    kinds += [(f"game-{k}", "adapter", "game") for k in range(3)]
    kinds += [("own", "adapter", "hybrid")]
    return [
        {"agent": name, "base": "tiny", "kind": kind, "reward": reward, "training_seed": 0,
         "dtype": "float32"}
        for name, kind, reward in kinds
    ]  # fmt: skip


def run_with(**rows: list[Row]) -> Run:
    tables = {"agents": agents(), **rows}
    return run_of({name: from_rows(name, found) for name, found in tables.items()})


WAY = {"course": course(), "checkpoints": checkpoints()}


def layers_of(figure: Figure | Absent) -> list[Row]:
    """Every mark of a chart with its rows and the title of its panel."""
    assert isinstance(figure, Figure), figure
    spec: Row = styled(figure.chart)
    found: list[Row] = []

    def walk(part: Row, title: str) -> None:
        title = part.get("title", title)
        for key in ("vconcat", "hconcat", "layer"):
            for child in part.get(key, []):
                walk(child, title)
        if "mark" in part:
            found.append(part | {"rows": spec["datasets"][part["data"]["name"]], "panel": title})

    walk(spec, "")
    return found


def marks(figure: Figure | Absent, kind: str) -> list[Row]:
    return [layer for layer in layers_of(figure) if layer["mark"]["type"] == kind]


def test_single_trainings_are_those_of_the_table_from_start_to_end() -> None:
    figure = course_of_training(run_with(**WAY), {})
    single = {
        (layer["panel"], r["of"], r["step"]): r["remaining"]
        for layer in marks(figure, "line") for r in layer["rows"] if "of" in r
    }  # fmt: skip
    expected = {(r["level"], r["of"], r["step"]): r["remaining"] for r in course()
                if r["measure"] != "second"}  # fmt: skip
    assert {at: value for at, value in single.items() if at[2] not in (0, 20)} == expected
    assert {value for at, value in single.items() if at[2] == 0} == {1.0}
    assert {value for at, value in single.items() if at[2] == 20} == {0.0}


def test_means_have_intervals_over_trainings_or_over_the_scenarios_of_one() -> None:
    figure = course_of_training(run_with(**WAY), {})
    bands = {(layer["panel"], r["reward"], r["step"]): (r["mean"], r["low"], r["high"])
             for layer in marks(figure, "area") for r in layer["rows"]}  # fmt: skip
    values = np.array([LEFT["behaviour", 10] + 0.02 * k for k in range(3)])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert bands["behaviour", "game", 10] == pytest.approx((values.mean(), low, high), abs=1e-12)
    own = next(r for r in course() if (r["of"], r["level"], r["step"]) == ("own", "behaviour", 10))
    assert bands["behaviour", "hybrid", 10] == (own["remaining"], own["low"], own["high"])
    assert ("weights", "hybrid", 10) not in bands  # no sample, and a single training


def test_the_course_says_when_half_of_the_way_is_behind() -> None:
    figure = course_of_training(run_with(**WAY), {})
    assert isinstance(figure, Figure)
    assert "is behind, on average, in behaviour by step 10 and weights by step 20." in figure.shows
    early = [row | {"remaining": 0.9} for row in course()]
    slow = course_of_training(run_with(course=early), {})
    assert isinstance(slow, Figure)
    assert "1 at the start and 0 at the end by definition. Less than half at every" in slow.shows
    assert slow.tables == ("course",)


def test_rewards_have_the_colours_of_their_agents() -> None:
    colours = {"game-0": "#d55e00", "own": "#d55e00"}
    layer = marks(course_of_training(run_with(**WAY), colours), "line")[0]
    scale = layer["encoding"]["color"]["scale"]
    assert scale["domain"] == ["game", "hybrid"]
    assert scale["range"] == ["#d55e00", "#0072b2"]


def test_parts_are_means_over_seeds_and_every_training_is_a_dot() -> None:
    run = run_with(targeting=targeting())
    figure = targeting_curve(run, {})
    line = {(r["way"], r["sub_layers"]): r for r in marks(figure, "line")[0]["rows"]}
    kept = np.array([r["behaviour_kept"] for r in targeting()
                     if (r["strategy"], r["budget"]) == ("patching", 4)])  # fmt: skip
    low, high = stats.t.interval(0.95, len(kept) - 1, kept.mean(), stats.sem(kept))
    mean = line["chosen by patching", 4]
    assert (mean["mean"], mean["low"], mean["high"]) == pytest.approx((kept.mean(), low, high))
    dots = {layer["mark"]["filled"]: {r["agent"] for r in layer["rows"]}
            for layer in marks(figure, "point")}  # fmt: skip
    assert dots[False] == {r["agent"] for r in targeting() if r["chosen_here"]}
    assert len(dots[True] | dots[False]) == len(targeting())
    assert isinstance(figure, Figure)
    assert "With 4 sub-layers: 0.800 chosen by patching, 0.300 drawn at random." in figure.shows
    nothing = [row | {"behaviour_kept": None} for row in targeting()]
    absent = targeting_curve(run_with(targeting=nothing), {})
    assert isinstance(absent, Absent)
    assert absent.reason == "The whole training changed nothing that could be kept."


def test_depths_of_models_of_any_size_integrate_to_one() -> None:
    figure = depth_profiles(run_with(depths=depths(), members=members()), {})
    lines = marks(figure, "line")
    assert [layer["panel"] for layer in lines] == ["attribution", "patching"]
    for layer in lines:
        for member, count in (("small", 2), ("large", 4)):
            own = [r["density"] for r in layer["rows"] if r["member"] == member]
            assert len(own) == count
            assert sum(own) / count == pytest.approx(1.0)
    assert isinstance(figure, Figure)
    assert "attribution: small 0.625 and large 0.625; patching: small 0.500" in figure.shows
    assert figure.tables == ("depths", "members")


@pytest.mark.parametrize(
    ("make", "asked", "table"),
    [
        (course_of_training, has_course, "course"),
        (targeting_curve, has_targeting, "targeting"),
        (depth_profiles, has_depths, "depths"),
    ],
)
def test_they_are_registered_and_absent_without_their_table(
    make: Maker, asked: Callable[[Run], bool], table: str
) -> None:
    assert any(entry[1:] == (asked, make) for entry in FURTHER)
    absent = make(run_of({}), {})
    assert isinstance(absent, Absent)
    assert absent.reason == f"The table {table} is not in this run."
    assert not asked(run_of({}))
