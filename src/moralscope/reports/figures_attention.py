"""Which figures tell where agents look? Those of the tables of attention."""

from __future__ import annotations

from collections.abc import Callable

from moralscope.reports.figure_attention import (
    attention_change,
    attention_mass,
    attention_uses,
    has_attention,
    has_edits,
)
from moralscope.reports.figure_attention_heads import attention_heads
from moralscope.reports.figure_attention_tokens import attention_tokens, has_attention_tokens
from moralscope.reports.figure_sites import patching_heatmap
from moralscope.reports.figures_behaviour import Maker
from moralscope.reports.run import Run

ATTENTION: tuple[tuple[Maker, Callable[[Run], bool], Maker], ...] = (
    (patching_heatmap, has_attention, attention_mass),
    (patching_heatmap, has_attention, attention_change),
    (patching_heatmap, has_attention, attention_heads),
    (patching_heatmap, has_attention_tokens, attention_tokens),
    (patching_heatmap, has_edits, attention_uses),
)
"""After which figure it stands, whether the run asked for it, and how it is drawn."""
