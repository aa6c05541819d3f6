"""Which figures tell of weight updates? Sizes, spectra, shared directions, the decision's axis."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure_sites import patching_heatmap
from moralscope.reports.figure_weights import has_updates, update_map, update_spectra
from moralscope.reports.figure_weights_compared import (
    has_directions,
    has_overlaps,
    update_directions,
    update_overlaps,
)
from moralscope.reports.figures_behaviour import Maker
from moralscope.reports.run import Run

WEIGHTS: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (patching_heatmap, has_updates, update_map),
    (patching_heatmap, has_updates, update_spectra),
    (patching_heatmap, has_overlaps, update_overlaps),
    (patching_heatmap, has_directions, update_directions),
)
"""After which figure each stands, whether the run asked for it, and how it is drawn."""
