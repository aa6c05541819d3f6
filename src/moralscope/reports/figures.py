"""Which figures does a run have? All of them, in the order of the page.

``FIGURES`` belong to every run: one that cannot be drawn is on the page with its reason.
``FURTHER`` belong to runs that asked for what they show, and are not mentioned in others.
"""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_across import has_changes, patching_across
from moralscope.reports.figure_approximations import approximations, has_approximations
from moralscope.reports.figure_cascade import cascade, has_cascade
from moralscope.reports.figure_changes import attribution_parts, has_parts
from moralscope.reports.figure_circuits import circuit_curves, has_circuits
from moralscope.reports.figure_controls import label_control
from moralscope.reports.figure_course import course_of_training, has_course
from moralscope.reports.figure_depths import depth_profiles, has_depths
from moralscope.reports.figure_learning import learning_curves
from moralscope.reports.figure_lens import lens_trajectories
from moralscope.reports.figure_policy import cooperation_by_game, memory_one
from moralscope.reports.figure_random_directions import has_random_directions, random_directions
from moralscope.reports.figure_settling import has_lens_controls, lens_settling
from moralscope.reports.figure_sites import attribution_heatmap, patching_heatmap
from moralscope.reports.figure_targeting import has_targeting, targeting_curve
from moralscope.reports.figures_attention import ATTENTION
from moralscope.reports.figures_behaviour import BEHAVIOUR, Maker
from moralscope.reports.figures_inside import INSIDE
from moralscope.reports.figures_representations import REPRESENTATIONS
from moralscope.reports.figures_weights import WEIGHTS
from moralscope.reports.figures_wiring import WIRING
from moralscope.reports.run import Run

FIGURES: tuple[Maker, ...] = (
    memory_one,
    label_control,
    cooperation_by_game,
    learning_curves,
    lens_trajectories,
    attribution_heatmap,
    patching_heatmap,
)

FURTHER: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    *BEHAVIOUR,
    (lens_trajectories, has_lens_controls, lens_settling),
    (attribution_heatmap, has_parts, attribution_parts),
    (patching_heatmap, has_random_directions, random_directions),
    (patching_heatmap, has_changes, patching_across),
    (patching_heatmap, has_approximations, approximations),
    *INSIDE,
    (patching_heatmap, has_circuits, circuit_curves),
    *ATTENTION,
    *WIRING,
    *WEIGHTS,
    *REPRESENTATIONS,
    (patching_heatmap, has_targeting, targeting_curve),
    (patching_heatmap, has_course, course_of_training),
    (patching_heatmap, has_depths, depth_profiles),
    (patching_heatmap, has_cascade, cascade),
)
"""After which figure it stands, whether the run asked for it, and how it is drawn."""


def makers_of(run: Run) -> tuple[Maker, ...]:
    """The figures that the page of this run mentions, drawn or absent."""
    return tuple(
        make
        for place in FIGURES
        for make in (place, *(m for after, asked, m in FURTHER if after is place and asked(run)))
    )


def make_figures(run: Run, colours: dict[str, str]) -> tuple[Figure | Absent, ...]:
    """Every figure of a run, or why it is absent."""
    return tuple(make(run, colours) for make in makers_of(run))
