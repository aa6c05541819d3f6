"""What changed inside? Lens, attribution, patching, paths, approximations, ablation, steering.

Names are resolved when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moralscope.mechanisms.ablation import ablate
    from moralscope.mechanisms.ablation_effects import ablation_table
    from moralscope.mechanisms.approximation import (
        agreement_table,
        approximation_table,
        sample_sites,
    )
    from moralscope.mechanisms.attribution import attribution_tables
    from moralscope.mechanisms.attribution_change import base_attributions, change_table
    from moralscope.mechanisms.clean import CleanRun, run_clean
    from moralscope.mechanisms.donors import Write
    from moralscope.mechanisms.edits import Intervention
    from moralscope.mechanisms.lens import lens_table
    from moralscope.mechanisms.lens_controls import lens_controls_table
    from moralscope.mechanisms.patching import directions_table, patching_table
    from moralscope.mechanisms.paths import direct_to_decision, patch_paths
    from moralscope.mechanisms.plans import SweepPlan, plan_sweep
    from moralscope.mechanisms.site_values import (
        SiteValues,
        mean_activations,
        prompt_activations,
        resampled,
    )
    from moralscope.mechanisms.stabilisation import stabilisation_tables
    from moralscope.mechanisms.steering import direction_between, orthonormal, project_out, steer
    from moralscope.mechanisms.sweeps import Sweep, sweep
    from moralscope.mechanisms.unrelated import unrelated_names, unrelated_prompts

_HOMES = {
    "ablation": "ablate",
    "ablation_effects": "ablation_table",
    "approximation": "agreement_table approximation_table sample_sites",
    "attribution": "attribution_tables",
    "attribution_change": "base_attributions change_table",
    "clean": "CleanRun run_clean",
    "donors": "Write",
    "edits": "Intervention",
    "lens": "lens_table",
    "lens_controls": "lens_controls_table",
    "patching": "directions_table patching_table",
    "paths": "direct_to_decision patch_paths",
    "plans": "SweepPlan plan_sweep",
    "site_values": "SiteValues mean_activations prompt_activations resampled",
    "stabilisation": "stabilisation_tables",
    "steering": "direction_between orthonormal project_out steer",
    "sweeps": "Sweep sweep",
    "unrelated": "unrelated_names unrelated_prompts",
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "CleanRun",
    "Intervention",
    "SiteValues",
    "Sweep",
    "SweepPlan",
    "Write",
    "ablate",
    "ablation_table",
    "agreement_table",
    "approximation_table",
    "attribution_tables",
    "base_attributions",
    "change_table",
    "direct_to_decision",
    "direction_between",
    "directions_table",
    "lens_controls_table",
    "lens_table",
    "mean_activations",
    "orthonormal",
    "patch_paths",
    "patching_table",
    "plan_sweep",
    "project_out",
    "prompt_activations",
    "resampled",
    "run_clean",
    "sample_sites",
    "stabilisation_tables",
    "steer",
    "sweep",
    "unrelated_names",
    "unrelated_prompts",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module("moralscope.models")  # says how to install what is missing
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
