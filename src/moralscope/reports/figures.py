"""Which figures does a run have? All of them, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_controls import label_control
from moralscope.reports.figure_lens import lens_trajectories
from moralscope.reports.figure_policy import cooperation_by_game, memory_one
from moralscope.reports.figure_sites import attribution_heatmap, patching_heatmap
from moralscope.reports.figure_training import training_curves
from moralscope.reports.run import Run

FIGURES: tuple[Callable[[Run, dict[str, str]], Figure | Absent], ...] = (
    memory_one,
    label_control,
    cooperation_by_game,
    training_curves,
    lens_trajectories,
    attribution_heatmap,
    patching_heatmap,
)


def make_figures(run: Run, colours: dict[str, str]) -> tuple[Figure | Absent, ...]:
    """Every figure of a run, or why it is absent."""
    return tuple(make(run, colours) for make in FIGURES)
