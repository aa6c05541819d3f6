"""Run it all: study file, plan, content-addressed stages, run directory.

Names are resolved when they are used, so that reading a study file needs no model stack.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moralscope.studies.demo import demo_study
    from moralscope.studies.estimating.estimate import Estimate, StageEstimate, estimate_study
    from moralscope.studies.plan import Plan, make_plan
    from moralscope.studies.runner import RunSummary, run_study
    from moralscope.studies.study import Study, read_study

_HOMES = {
    "Estimate": "estimating.estimate",
    "StageEstimate": "estimating.estimate",
    "estimate_study": "estimating.estimate",
    "Plan": "plan",
    "make_plan": "plan",
    "RunSummary": "runner",
    "run_study": "runner",
    "Study": "study",
    "demo_study": "demo",
    "read_study": "study",
}

_WITH_MODELS = {"estimating.estimate", "runner"}

__all__ = [
    "Estimate",
    "Plan",
    "RunSummary",
    "StageEstimate",
    "Study",
    "demo_study",
    "estimate_study",
    "make_plan",
    "read_study",
    "run_study",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home in _WITH_MODELS:
        importlib.import_module("moralscope.models")  # says how to install what is missing
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
