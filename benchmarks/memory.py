"""What do many agents on one base cost in memory? Bytes of weights, and of the process.

    storage_overhead  = distinct storages / (base + adapters) - 1
    resident_overhead = growth with all agents / (growth with the base alone + adapters) - 1

where storages are those of parameters and buffers, and growth is that of the resident memory of a
process of its own. With the base it also grows by the tokenizer and what the libraries set up when
they first compute: ``resident_over_weights`` counts that as well, ``growth / (base + adapters) -
1``. An agent that copied or merged weights would add a base.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import torch
from torch import nn

from benchmarks.adapters import SOURCE, agents
from benchmarks.peer_process import ROOT
from moralscope.core.agents import AgentSpec
from moralscope.models.forward import run_tree
from moralscope.models.loading import load_model, locate_model
from moralscope.models.roster import Roster
from moralscope.models.tree import grow_tree

BASE = "base"
TOKENS = tuple(range(2, 34))
"""Read once by every agent, so that all of its weights have been in memory."""


def storages(model: nn.Module) -> dict[int, tuple[str, int]]:
    """Name and bytes of every distinct storage of parameters and buffers, by its address.

    A storage that two names share, such as tied embeddings, is there once.
    """
    found: dict[int, tuple[str, int]] = {}
    for name, tensor in _tensors(model):
        storage = tensor.untyped_storage()
        found.setdefault(storage.data_ptr(), (name, storage.nbytes()))
    return found


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def divide(before: Mapping[int, tuple[str, int]], roster: Roster) -> dict[str, int]:
    """Bytes of a roster's weights: the base's, the adapters', and all else.

    Args:
        before: storages of the base before agents were added.
        roster: the agents; those with checkpoints count as all else.
    """
    parts = {"base": 0, "adapters": 0, "rest": 0}
    now: dict[int, tuple[str, int]] = {}
    for name in roster.specs:
        with roster.speaking(name) as model:
            now.update(storages(model))
    for address, (name, size) in now.items():
        part = "base" if address in before else "adapters" if ".lora_" in name else "rest"
        parts[part] += size
    return parts


def resident() -> int:
    """Bytes of this process in memory, after what is free was given back."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    return psutil.Process().memory_info().rss


def _report(parts: Mapping[str, int], count: int, grown: Mapping[str, int]) -> dict[str, object]:
    needed = parts["base"] + parts["adapters"]
    return {
        "agents": count,
        "storage_bytes": dict(parts),
        "storage_overhead": sum(parts.values()) / needed - 1,
        "resident_bytes": dict(grown),
        "resident_overhead": sum(grown.values()) / (grown["base"] + parts["adapters"]) - 1,
        "resident_over_weights": sum(grown.values()) / needed - 1,
        "in_copies_of_the_base": sum(parts.values()) / parts["base"],
    }


def measure_here(model: str, adapters: Sequence[Path]) -> dict[str, object]:
    """Load a base and agents on it in this process, let each read something, and measure.

    Args:
        model: a name as ``locate_model`` takes it.
        adapters: PEFT adapter folders, one an agent.

    Returns:
        ``agents``; ``storage_bytes`` of base, adapters and rest; ``resident_bytes`` by which the
        process grew for the base and for the agents; the overheads, as shares; and all weights
        in copies of the base.
    """
    empty = resident()
    loaded = load_model(locate_model(model))
    roster = Roster(loaded, {BASE: AgentSpec(name=BASE, base=model)})
    _speak(roster)
    before, with_base = storages(loaded.model), resident()
    for number, folder in enumerate(adapters):
        roster.add(AgentSpec(name=f"agent-{number}", base=model, adapter=str(folder)))
    _speak(roster)
    grown = {"base": with_base - empty, "agents": resident() - with_base}
    return _report(divide(before, roster), len(adapters), grown)


@torch.no_grad()
def _speak(roster: Roster) -> None:
    tree = grow_tree([TOKENS])
    keep = tree.paths[0][-1:]
    for name in roster.specs:
        with roster.speaking(name) as model:
            run_tree(model, tree, keep)


def measure(
    model: str = "default", *, adapters: Sequence[Path] = (), count: int = 5, rank: int = 64
) -> dict[str, object]:
    """``measure_here`` in a process of its own, where nothing else was loaded before.

    Args:
        model: a name as ``locate_model`` takes it.
        adapters: PEFT adapter folders; if there are none, a random one is made, and loaded for
            each agent as if it were its own.
        count: how many agents these are.
        rank: of the adapter.
    """
    with tempfile.TemporaryDirectory() as place:
        if not adapters:
            agents(load_model(locate_model(model)), rank, Path(place), count=1)
            adapters = [Path(place) / SOURCE] * count
        command = [sys.executable, "-m", "benchmarks.memory", "--model", model]
        answer = subprocess.run(
            [*command, *map(str, adapters)], cwd=ROOT, check=True, capture_output=True, text=True
        )
    return json.loads(answer.stdout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what adapters cost in this process; without adapters, measure random ones."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description="What agents cost.")
    parser.add_argument("--model", default="default", help="a hub id or a folder")
    parser.add_argument("adapters", nargs="*", type=Path, help="PEFT adapter folders")
    chosen = parser.parse_args(arguments)
    found = (measure_here if chosen.adapters else measure)(chosen.model, adapters=chosen.adapters)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
