"""What is every library asked to patch? Cells, and the activations that go in, as a job on disk.

Source and target are full float32 models, because un-merged adapters cannot be loaded everywhere:
the target is the base, the source a copy into which the first agent's adapter was merged. What the
source computes is kept by plain hooks, not by the capture that the libraries are compared with.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from benchmarks.plain import keep_by_hooks
from benchmarks.sampling import Sampled
from moralscope.core.files import write_bytes
from moralscope.core.site import Site
from moralscope.mechanisms.patching.segments import ALL
from moralscope.models.anatomy import Anatomy, dissect
from moralscope.models.libraries import peft, renamed_properties_tolerated, safetensors_torch
from moralscope.models.rendering import EncodedPrompt


@dataclass(frozen=True)
class FullModels:
    """Source and target without adapters, of one anatomy.

    Attributes:
        source: a copy of the base with an adapter merged into it.
        target: the base.
        folder: where the target's weights lie, for others to load.
    """

    source: nn.Module
    target: nn.Module
    folder: Path

    @property
    def anatomy(self) -> Anatomy:
        """The parts of the target."""
        return dissect(self.target)

    @property
    def source_anatomy(self) -> Anatomy:
        """The parts of the source."""
        return dissect(self.source)


def full_models(plain: nn.Module, adapter: Path, folder: Path) -> FullModels:
    """The two models that every library can load.

    Args:
        plain: the base, without adapters around its layers; it stays as it is.
        adapter: folder of the adapter to merge.
        folder: where the base's weights lie.
    """
    with renamed_properties_tolerated():
        wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(plain), str(adapter))
        source: nn.Module = wrapped.merge_and_unload().eval().requires_grad_(False)
    return FullModels(source, plain, folder)


def single_tokens(prompt: EncodedPrompt) -> bool:
    """Whether each form of the prompt's options is one token, which the drivers read."""
    return all(len(form) == 1 for form in prompt.positive + prompt.negative)


@dataclass(frozen=True)
class Sweeping:
    """A sweep of every prompt, and the sample of it that others run.

    Attributes:
        sites: what is patched, one at a time.
        cells: the sample.
        positions: ``answer_span`` or ``all``.
    """

    sites: tuple[Site, ...]
    cells: tuple[Sampled, ...]
    positions: str


def write_job(
    models: FullModels,
    prompts: Sequence[EncodedPrompt],
    members: Sequence[int],
    sweeps: Sequence[Sweeping],
    *,
    threads: int,
    folder: Path,
) -> Path:
    """Write the job file and the activations that it needs; returns the file.

    Args:
        models: source and target.
        prompts: all prompts.
        members: those that are written, of which every cell is one.
        sweeps: what is patched.
        threads: how many the libraries may use.
        folder: where to write.
    """
    anatomy = models.source_anatomy
    kept = {i: keep_by_hooks(models.source, anatomy, prompts[i].tokens) for i in members}
    donors: dict[str, Tensor] = {}
    cells: dict[str, list[dict[str, object]]] = {s.positions: [] for s in sweeps}
    for sweeping in sweeps:
        for cell in sweeping.cells:
            site, length = sweeping.sites[cell.site], len(prompts[cell.prompt].tokens)
            layer, head, key = site.layer or 0, site.head or 0, f"cell-{len(donors)}"
            value = kept[cell.prompt][site.kind][layer]
            if site.kind == "head":
                value = value.view(length, anatomy.n_heads, -1)[:, head]
            first = 0 if sweeping.positions == ALL else length - 1
            donors[key] = value[first:].clone()
            cells[sweeping.positions].append(
                {"prompt": list(members).index(cell.prompt), "kind": site.kind, "layer": layer,
                 "head": head, "first": first, "donor": key}
            )  # fmt: skip
    job = {
        "model": str(models.folder),
        "threads": threads,
        "donors": "donors.safetensors",
        "prompts": [
            {
                "tokens": list(prompts[index].tokens),
                "positive": [form[0] for form in prompts[index].positive],
                "negative": [form[0] for form in prompts[index].negative],
            }
            for index in members
        ],
        "cells": cells,
    }
    write_bytes(folder / "donors.safetensors", safetensors_torch.save(donors))
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path
