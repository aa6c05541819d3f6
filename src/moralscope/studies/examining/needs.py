"""What would a study need of this machine? Files, packages, a device, memory, disk, time, seeds.

Each finding says what is needed, whether it is here, and what to do if not. A study that passes can
be run on this machine; how long it takes is an estimate.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moralscope.core.errors import MoralscopeError
from moralscope.core.stage import cache_folder
from moralscope.studies.catalogue import all_prompts, mechanism_prompts
from moralscope.studies.doctor import INSTALL_MODELS, Finding, memory_bytes, requirements
from moralscope.studies.examining.design import design_findings
from moralscope.studies.examining.memory import Needed, memory_needed, read_dimensions
from moralscope.studies.examining.sources import HERE, Files, find_files, gib, source_findings
from moralscope.studies.study import Study, training_config

if TYPE_CHECKING:  # they need the model stack
    from moralscope.studies.estimating.estimate import Estimate

_LETTERS_PER_NODE = 10
"""Letters of prompts per tree node: four to a token, and prompts share more than half of them."""


def examine_study(study: Study, out: Path) -> tuple[Finding, ...]:
    """Look at everything that a study needs.

    Args:
        study: what would be run.
        out: where; its disk is looked at.
    """
    base = find_files(study.model)
    return (
        _size(study),
        *source_findings(study, base),
        *_extras(study),
        *_device(study),
        *_memory(study, base),
        *_cost(study, base, out),
        *design_findings(study),
    )


def _size(study: Study) -> Finding:
    trained = sum(training_config(study, name) is not None for name in study.agents)
    methods = ", ".join(study.mechanisms.methods) or "no method"
    said = f"{len(study.agents)} agents, {trained} trained here; {methods}"
    try:
        said = f"{said}; {len(all_prompts(study))} prompts"
    except MoralscopeError as error:
        return Finding("study", said, ok=False, advice=f"{error.problem}: {error.remedy}")
    return Finding("study", said, ok=True)


def _extras(study: Study) -> Iterator[Finding]:
    """Packages beyond the model stack that this study asks for."""
    named = [*study.evaluation.strategies, *study.evaluation.opponents]
    named += [entry.opponent for entry in study.agents.values()]
    wanted = {
        "axelrod": any(name.startswith("axelrod(") for name in named),
        "bitsandbytes": study.dtype == "nf4",
    }
    for requirement in requirements():
        if not wanted.get(requirement.name) or requirement.extra == "dev":
            continue
        wanted[requirement.name] = False
        here = importlib.util.find_spec(requirement.module) is not None
        advice = "" if here else f'pip install "moralscope[{requirement.extra}]"'
        yield Finding(requirement.name, "installed" if here else "not installed", here, advice)


def _torch() -> Any:
    """The library, or None where it is missing or does not load."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError):
        return None


def _device(study: Study) -> Iterator[Finding]:
    if _torch() is None:
        yield Finding("device", f"{study.device}, unknown without torch", None, INSTALL_MODELS)
        return
    devices = importlib.import_module("moralscope.models.devices")
    try:
        devices.require_device(study.device)
    except MoralscopeError as error:
        advice = "use --set device=cpu, or a machine that has it"
        yield Finding("device", f"{study.device}: {error.seen}", ok=False, advice=advice)
    else:
        yield Finding("device", study.device, ok=True)


def _memory(study: Study, base: Files) -> Iterator[Finding]:
    sizes = None if base.folder is None else read_dimensions(base.folder)
    if sizes is None:
        advice = "known when the model's files are here"
        yield Finding("memory for it", "unknown", None, advice)
        return
    letters = sum(
        len(message.content) for p in mechanism_prompts(study) for message in p.decision.messages
    )
    needed = memory_needed(study, sizes, letters // _LETTERS_PER_NODE)
    total, where = _available(study)
    parts = _parts(needed)
    if total is None:
        yield Finding("memory for it", f"about {gib(needed.peak)} ({parts})", None)
        return
    enough = needed.peak <= total
    said = f"about {gib(needed.peak)} of {gib(total)} {where} ({parts})"
    advice = "" if enough else "lower mechanisms.memory_mib and max_nodes, or use another machine"
    yield Finding("memory for it", said, enough, advice)


def _parts(needed: Needed) -> str:
    parts = {
        "weights": needed.weights, "adapters": needed.adapters, "training": needed.training,
        "clean runs": needed.clean_runs, "a pass of patches": needed.patches,
    }  # fmt: skip
    return ", ".join(f"{name} {gib(count)}" for name, count in parts.items() if count)


def _available(study: Study) -> tuple[int | None, str]:
    """Bytes that the study's device has, and what they are called."""
    torch = _torch()
    if study.device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(study.device).total_memory), "of the GPU"
    return memory_bytes(), "of memory"


def _cost(study: Study, base: Files, out: Path) -> Iterator[Finding]:
    """Disk and time, from the plan; they need the model's files and the model stack."""
    if base.state != HERE or _torch() is None:
        advice = "known when the model's files and the model stack are here"
        yield Finding("disk for it", "unknown", None, advice)
        yield Finding("time", "unknown", None, advice)
        return
    estimating = importlib.import_module("moralscope.studies.estimating.estimate")
    try:
        estimate: Estimate = estimating.estimate_study(study, out)
    except MoralscopeError as error:
        yield Finding("plan", f"{error.problem}: {error.seen}", ok=False, advice=error.remedy)
        return
    place = next((p for p in (cache_folder(), *cache_folder().parents) if p.is_dir()), Path.cwd())
    free = shutil.disk_usage(place).free
    enough = estimate.disk_bytes <= free
    said = f"about {gib(estimate.disk_bytes)} of {gib(free)} free"
    advice = "" if enough else "free some space, or set MORALSCOPE_CACHE to another folder"
    yield Finding("disk for it", said, enough, advice)
    waiting = sum(not stage.cached for stage in estimate.stages)
    minutes = estimate.seconds / 60
    said = f"about {minutes:.0f} min for {waiting} stages" if waiting else "moments: all is cached"
    yield Finding("time", said, None, "--dry-run says it stage by stage" if waiting else "")
