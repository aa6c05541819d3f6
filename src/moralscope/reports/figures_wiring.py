"""Which figures tell of component interactions? Networks, differences, and what those carry."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure_sites import patching_heatmap
from moralscope.reports.figure_wiring import (
    has_changes,
    has_interactions,
    wiring_changes,
    wiring_matrices,
)
from moralscope.reports.figure_wiring_pathways import (
    has_pathways,
    wiring_distances,
    wiring_effects,
    wiring_pathways,
)
from moralscope.reports.figures_behaviour import Maker
from moralscope.reports.run import Run

WIRING: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (patching_heatmap, has_interactions, wiring_matrices),
    (patching_heatmap, has_changes, wiring_distances),
    (patching_heatmap, has_changes, wiring_changes),
    (patching_heatmap, has_changes, wiring_pathways),
    (patching_heatmap, has_pathways, wiring_effects),
)
"""After which figure each stands, whether the run asked for it, and how it is drawn."""
