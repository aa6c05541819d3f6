"""Which figures tell of representations? Likeness of changes, directions, subspaces."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure_directions import (
    direction_effects,
    has_direction_effects,
    has_separations,
    separations,
)
from moralscope.reports.figure_representations import (
    has_representations,
    representation_similarity,
)
from moralscope.reports.figure_sites import patching_heatmap
from moralscope.reports.figure_subspaces import has_subspaces, subspaces
from moralscope.reports.figures_behaviour import Maker
from moralscope.reports.run import Run

REPRESENTATIONS: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (patching_heatmap, has_representations, representation_similarity),
    (patching_heatmap, has_separations, separations),
    (patching_heatmap, has_direction_effects, direction_effects),
    (patching_heatmap, has_subspaces, subspaces),
)
"""After which figure each stands, whether the run asked for it, and how it is drawn."""
