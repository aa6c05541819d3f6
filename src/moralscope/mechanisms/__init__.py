"""What changed inside? Lens, attribution, patching, paths, approximations, circuits, interventions.

Names are resolved when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moralscope.mechanisms.activations.capturing import capture_agents
    from moralscope.mechanisms.activations.exporting import hook_names
    from moralscope.mechanisms.activations.reading import StoredActivations, read_activations
    from moralscope.mechanisms.approximation.tables import (
        agreement_table,
        approximation_table,
        sample_sites,
    )
    from moralscope.mechanisms.attribution.change import base_attributions, change_table
    from moralscope.mechanisms.attribution.contributions import attribution_tables
    from moralscope.mechanisms.circuits.curves import curves, curves_table
    from moralscope.mechanisms.circuits.effects import Goal, SetEffects, set_effects
    from moralscope.mechanisms.circuits.localisation import localisation, localisation_table
    from moralscope.mechanisms.circuits.search import (
        Circuit,
        circuits_table,
        disjoint,
        exhaustive,
        forward_backward,
    )
    from moralscope.mechanisms.circuits.stability import (
        pairs_by_wording,
        stability,
        stability_table,
    )
    from moralscope.mechanisms.clean import CleanRun, run_clean
    from moralscope.mechanisms.intervening.ablation import ablate
    from moralscope.mechanisms.intervening.effects import ablation_table
    from moralscope.mechanisms.intervening.steering import (
        direction_between,
        orthonormal,
        project_out,
        steer,
    )
    from moralscope.mechanisms.intervening.values import (
        SiteValues,
        mean_activations,
        prompt_activations,
        resampled,
    )
    from moralscope.mechanisms.lens.controls import lens_controls_table
    from moralscope.mechanisms.lens.reading import lens_table
    from moralscope.mechanisms.lens.stabilisation import stabilisation_tables
    from moralscope.mechanisms.lens.unrelated import unrelated_names, unrelated_prompts
    from moralscope.mechanisms.patching.donors import Write
    from moralscope.mechanisms.patching.edits import Intervention
    from moralscope.mechanisms.patching.plans import SweepPlan, plan_sweep
    from moralscope.mechanisms.patching.sweeps import Sweep, sweep
    from moralscope.mechanisms.patching.tables import directions_table, patching_table
    from moralscope.mechanisms.paths.tables import direct_to_decision, patch_paths

_HOMES = {
    "activations.capturing": "capture_agents",
    "activations.exporting": "hook_names",
    "activations.reading": "StoredActivations read_activations",
    "approximation.tables": "agreement_table approximation_table sample_sites",
    "attribution.change": "base_attributions change_table",
    "attribution.contributions": "attribution_tables",
    "circuits.curves": "curves curves_table",
    "circuits.effects": "Goal SetEffects set_effects",
    "circuits.localisation": "localisation localisation_table",
    "circuits.search": "Circuit circuits_table disjoint exhaustive forward_backward",
    "circuits.stability": "pairs_by_wording stability stability_table",
    "clean": "CleanRun run_clean",
    "intervening.ablation": "ablate",
    "intervening.effects": "ablation_table",
    "intervening.steering": "direction_between orthonormal project_out steer",
    "intervening.values": "SiteValues mean_activations prompt_activations resampled",
    "lens.controls": "lens_controls_table",
    "lens.reading": "lens_table",
    "lens.stabilisation": "stabilisation_tables",
    "lens.unrelated": "unrelated_names unrelated_prompts",
    "patching.donors": "Write",
    "patching.edits": "Intervention",
    "patching.plans": "SweepPlan plan_sweep",
    "patching.sweeps": "Sweep sweep",
    "patching.tables": "directions_table patching_table",
    "paths.tables": "direct_to_decision patch_paths",
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Circuit",
    "CleanRun",
    "Goal",
    "Intervention",
    "SetEffects",
    "SiteValues",
    "StoredActivations",
    "Sweep",
    "SweepPlan",
    "Write",
    "ablate",
    "ablation_table",
    "agreement_table",
    "approximation_table",
    "attribution_tables",
    "base_attributions",
    "capture_agents",
    "change_table",
    "circuits_table",
    "curves",
    "curves_table",
    "direct_to_decision",
    "direction_between",
    "directions_table",
    "disjoint",
    "exhaustive",
    "forward_backward",
    "hook_names",
    "lens_controls_table",
    "lens_table",
    "localisation",
    "localisation_table",
    "mean_activations",
    "orthonormal",
    "pairs_by_wording",
    "patch_paths",
    "patching_table",
    "plan_sweep",
    "project_out",
    "prompt_activations",
    "read_activations",
    "resampled",
    "run_clean",
    "sample_sites",
    "set_effects",
    "stabilisation_tables",
    "stability",
    "stability_table",
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
