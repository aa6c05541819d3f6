"""What would a study take? Forwards, time and disk of every stage, before any is run.

Work is counted in tree nodes: one node through the model costs about ``2 * parameters``
floating-point operations, so

    seconds = nodes * 2 * parameters / (measured matrix rate * efficiency)

with backward passes counted as two forwards and rows of patches as three quarters of a node: a
row enters at its layer, half-way up on average, and narrow passes reach less of the rate. The
rate is measured here and now; the efficiency is what the package reaches of it on the default
model. Stages that the cache holds cost nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moralscope.core.stage import StageCache, cache_folder
from moralscope.mechanisms.patching import MAX_ROW_TOKENS
from moralscope.models.libraries import transformers
from moralscope.models.loading import ModelSource
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.scoring import make_packs
from moralscope.studies.catalogue import all_prompts, fingerprint_prompts, mechanism_prompts
from moralscope.studies.plan import Plan, Task, make_plan
from moralscope.studies.steps import TRAIN
from moralscope.studies.study import Study, training_config
from moralscope.training.batches import draw_batch, training_prompts

_EFFICIENCY = 0.5
_BACKWARD = 3.0
_NARROW_SPEEDUP = 1.5
_ROW = 0.75
_BYTES_PER_ROW = 24


@dataclass(frozen=True)
class StageEstimate:
    """What one stage would take; nothing where the cache holds it.

    Attributes:
        name: the stage.
        cached: whether it is finished already.
        forwards: packed forward passes, passes of patched rows included.
        seconds: estimated wall time.
        disk_bytes: estimated size of its outputs.
    """

    name: str
    cached: bool
    forwards: int
    seconds: float
    disk_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a study would take."""

    stages: tuple[StageEstimate, ...]

    @property
    def forwards(self) -> int:
        """Packed forward passes of all stages that are not cached."""
        return sum(s.forwards for s in self.stages)

    @property
    def seconds(self) -> float:
        """Wall time of all stages that are not cached."""
        return sum(s.seconds for s in self.stages)

    @property
    def disk_bytes(self) -> int:
        """Size of everything that would be written."""
        return sum(s.disk_bytes for s in self.stages)


@dataclass(frozen=True)
class _Work:
    forwards: int = 0
    operations: float = 0.0
    disk_bytes: int = 0


@dataclass(frozen=True)
class _Shape:
    """Sizes of the model and of the prompt sets that stages run over."""

    layers: int
    heads: int
    parameters: int
    linear_sides: int
    encoded: tuple[EncodedPrompt, ...]
    fingerprinted: tuple[EncodedPrompt, ...]
    mechanisms: tuple[EncodedPrompt, ...]
    tokenizer: Any

    def operations(self, nodes: float) -> float:
        """Floating-point operations of that many tree nodes through the model."""
        return 2.0 * self.parameters * nodes


def estimate_study(study: Study, out: Path) -> Estimate:
    """Estimate a study without running it.

    Args:
        study: what would be run.
        out: where; the size of a run does not depend on it.

    Raises:
        MoralscopeError: as ``run_study`` would, for anything wrong with the study itself.
    """
    del out
    plan = make_plan(study)
    work = _works(plan, StageCache(cache_folder()))
    if not any(work.values()):
        return Estimate(tuple(StageEstimate(n, True, 0, 0.0, 0) for n in work))
    rate = _matrix_rate(study.device) * _EFFICIENCY
    return Estimate(
        tuple(
            StageEstimate(name, True, 0, 0.0, 0)
            if w is None
            else StageEstimate(name, False, w.forwards, w.operations / rate, w.disk_bytes)
            for name, w in work.items()
        )
    )


def work_shares(plan: Plan, cache: StageCache) -> dict[str, float]:
    """Each stage's share of the work that is left; they sum to 1, or are 0 if all is cached."""
    operations = {name: w.operations if w else 0.0 for name, w in _works(plan, cache).items()}
    total = sum(operations.values()) or 1.0
    return {name: value / total for name, value in operations.items()}


def _works(plan: Plan, cache: StageCache) -> dict[str, _Work | None]:
    """The work of each stage; None for what the cache holds."""
    left = {task.stage.name for task in plan if cache.record(task.stage) is None}
    shape = _shape(plan.study, plan.source) if left else None
    running: set[str] = set()  # agents whose clean run is in memory, for later stages to share
    works: dict[str, _Work | None] = {}
    for task in plan:
        name = task.stage.name
        if shape is None or name not in left:
            works[name] = None
        else:
            works[name] = _work_of(task, plan.study, shape, running)
    return works


def _shape(study: Study, source: ModelSource) -> _Shape:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(source.folder), local_files_only=True
    )
    whole = transformers.AutoConfig.from_pretrained(str(source.folder), local_files_only=True)
    config = whole.get_text_config()
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or width // heads)
    kv = int(getattr(config, "num_key_value_heads", None) or heads) * head_dim
    layers = int(config.num_hidden_layers)
    linear = [(width, heads * head_dim), (width, kv), (width, kv), (heads * head_dim, width)]
    linear += [(width, inner), (width, inner), (inner, width)]
    return _Shape(
        layers=layers,
        heads=heads,
        parameters=layers * sum(a * b for a, b in linear),
        linear_sides=layers * sum(a + b for a, b in linear),
        encoded=encode_all(tokenizer, tuple(all_prompts(study))),
        fingerprinted=encode_all(tokenizer, tuple(fingerprint_prompts(study))),
        mechanisms=encode_all(tokenizer, tuple(mechanism_prompts(study))),
        tokenizer=tokenizer,
    )


def _matrix_rate(device: str) -> float:
    """Floating-point operations a second of a float32 matrix product on this machine."""
    a = torch.ones(1024, 576, device=device)
    b = torch.ones(576, 1536, device=device)
    best = 0.0
    for _ in range(20):  # the first rounds wake the threads; the best one counts
        started = time.perf_counter()
        products = [a @ b for _ in range(4)]
        float(products[-1][0, 0].item())  # waits for the device
        best = max(best, 4 * 2 * a.numel() * b.shape[1] / (time.perf_counter() - started))
    return best


def _nodes(prompts: tuple[EncodedPrompt, ...], max_nodes: int) -> tuple[int, int]:
    packs = make_packs(prompts, max_nodes)
    return len(packs), sum(len(p.tree) for p in packs)


def _work_of(task: Task, study: Study, shape: _Shape, running: set[str]) -> _Work:
    name = task.stage.name
    if name.startswith(TRAIN):
        return _training_work(name.removeprefix(TRAIN), study, shape)
    packs, nodes = _nodes(shape.encoded, study.max_nodes)
    if name.startswith("decide-"):
        return _Work(packs, shape.operations(nodes), len(shape.encoded) * _BYTES_PER_ROW * 2)
    agents = _agents_of(name)
    if agents:
        return _mechanism_work(agents, study, shape, running)
    return _Work(0, 0.0, len(shape.encoded) * 200)


def _agents_of(name: str) -> tuple[str, ...]:
    """Whose clean runs a stage needs: one agent's to explain it, two to patch."""
    if name.startswith("explain-"):
        return (name.removeprefix("explain-"),)
    if name.startswith("patch-"):
        source, _, target = name.removeprefix("patch-").partition(">")
        return (source, target)
    return ()


def _mechanism_work(
    agents: tuple[str, ...], study: Study, shape: _Shape, running: set[str]
) -> _Work:
    sites = shape.layers * (shape.heads + 1)
    packs, nodes = _nodes(shape.mechanisms, study.max_nodes)
    new = len(set(agents) - running)
    running |= set(agents)
    count = len(shape.mechanisms)
    if len(agents) == 1:
        rows = count * (sites + 2 + 2 * shape.layers)
        return _Work(new * packs, shape.operations(new * nodes), rows * _BYTES_PER_ROW)
    if agents[0] == agents[1]:
        count = min(count, study.mechanisms.self_patch_prompts)
    passes, tokens = 0, 0
    for prompt in shape.mechanisms[:count]:
        # The answer span: the last prompt token, and all but the last token of every form.
        span = 1 + sum(len(form) - 1 for form in (*prompt.positive, *prompt.negative))
        passes += -(-(sites + 1) // max(1, MAX_ROW_TOKENS // span - 1))
        tokens += (sites + 2) * span
    operations = shape.operations(new * nodes + tokens * _ROW)
    return _Work(new * packs + passes, operations, count * sites * _BYTES_PER_ROW)


def _training_work(name: str, study: Study, shape: _Shape) -> _Work:
    config = training_config(study, name)
    if config is None:
        return _Work()
    prompts = tuple(training_prompts(config))
    encoded = encode_all(shape.tokenizer, prompts)
    batch = tuple(encoded[i] for i in draw_batch(config, prompts, 1))
    packs, nodes = _nodes(batch, study.max_nodes)
    once = _nodes(encoded, study.max_nodes)
    fingerprint = _nodes((*encoded, *shape.fingerprinted), study.max_nodes)
    cost = _BACKWARD / (_NARROW_SPEEDUP if config.compute_dtype == "bfloat16" else 1.0)
    return _Work(
        forwards=config.steps * packs + once[0] + fingerprint[0],
        operations=shape.operations(config.steps * nodes * cost + once[1] + fingerprint[1]),
        # Factors A and B of every linear layer, in float32, in the cache and in the run.
        disk_bytes=2 * 4 * config.lora.rank * shape.linear_sides,
    )
