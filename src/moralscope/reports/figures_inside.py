"""Which figures look closer at the inside? Each is drawn where its table has what it needs."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure_components import (
    component_maps,
    has_contributions,
    top_components,
)
from moralscope.reports.figure_consistency import (
    asymmetry_maps,
    has_directions,
    has_patches,
    patching_by_scenario,
    patching_consistency,
)
from moralscope.reports.figure_lens import lens_trajectories
from moralscope.reports.figure_mlps import mlp_contributions
from moralscope.reports.figure_preferences import final_preferences
from moralscope.reports.figure_sites import attribution_heatmap, patching_heatmap
from moralscope.reports.figures_behaviour import Maker
from moralscope.reports.run import Run


def _has_preferences(run: Run) -> bool:
    return run.lacks("decisions", "prompts", "lens") is None


INSIDE: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (lens_trajectories, _has_preferences, final_preferences),
    (attribution_heatmap, has_contributions, top_components),
    (attribution_heatmap, has_contributions, component_maps),
    (attribution_heatmap, has_contributions, mlp_contributions),
    (patching_heatmap, has_patches, patching_by_scenario),
    (patching_heatmap, has_patches, patching_consistency),
    (patching_heatmap, has_directions, asymmetry_maps),
)
"""After which figure it stands, whether the run asked for it, and how it is drawn."""
