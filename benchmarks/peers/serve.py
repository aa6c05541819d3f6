"""How is another library asked for patched forwards? Requests and answers as lines of JSON.

A job file says what to load and what to patch; activations to put in lie beside it as
safetensors. Then each line on standard input asks for one turn, and one line answers:

    {"do": "patch", "cells": "answer_span", "reads": "every"}  one forward for each cell
    {"do": "clean", "reads": "last"}                           one for each prompt
    {"seconds": [...], "log_odds": [...]}                      the answer

``reads`` is ``every`` (the library's ordinary call, which computes the logits of every token) or
``last`` (of the last token only, as far as the library passes that wish on to the model). Each
forward is timed by itself. Between turns the program waits and uses no processor.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """One patch: a site of one prompt, from a position on.

    Attributes:
        kind: ``head`` (its activation, before the output projection), ``attn`` or ``mlp`` (what
            the sub-layer writes).
        layer, head: where; ``head`` is zero for sites without.
        first: the first token that is patched; all that follow are, too.
        donor: what goes in, ``(tokens, dim)``.
    """

    kind: str
    layer: int
    head: int
    first: int
    donor: Tensor


class Driver(Protocol):
    """What a library has to be able to do."""

    def patched(self, tokens: Tensor, cell: Cell, *, last_only: bool) -> Tensor:
        """Logits of the last token ``(vocabulary,)`` with one cell patched."""
        ...

    def clean(self, tokens: Tensor, *, last_only: bool) -> Tensor:
        """The same without a patch, keeping what patches put in: heads and MLPs everywhere."""
        ...


def log_odds(logits: Tensor, positive: list[int], negative: list[int]) -> float:
    """Log-odds of two sets of single tokens; the normaliser cancels."""
    wide = logits.double()
    return float(wide[positive].logsumexp(0) - wide[negative].logsumexp(0))


@torch.no_grad()
def _turn(driver: Driver, job: dict[str, Any], donors: dict[str, Tensor], asked: dict[str, Any]):
    last_only = asked["reads"] == "last"
    prompts = [torch.tensor([prompt["tokens"]]) for prompt in job["prompts"]]
    runs: list[tuple[int, Callable[[], Tensor]]] = []
    if asked["do"] == "clean":
        for index, tokens in enumerate(prompts):
            runs.append((index, lambda t=tokens: driver.clean(t, last_only=last_only)))
    else:
        for told in job["cells"][asked["cells"]]:
            cell = Cell(
                told["kind"], told["layer"], told["head"], told["first"], donors[told["donor"]]
            )
            tokens = prompts[told["prompt"]]
            runs.append(
                (
                    told["prompt"],
                    lambda t=tokens, c=cell: driver.patched(t, c, last_only=last_only),
                )
            )
    seconds: list[float] = []
    found: list[float] = []
    for index, run in runs:
        started = time.perf_counter()
        logits = run()
        seconds.append(time.perf_counter() - started)
        prompt = job["prompts"][index]
        found.append(log_odds(logits, prompt["positive"], prompt["negative"]))
    return {"seconds": seconds, "log_odds": found}


def serve(load: Callable[[str], Driver], libraries: tuple[str, ...]) -> None:
    """Load the model of the job file named on the command line, then answer requests.

    Args:
        load: makes the driver of a model folder, in float32 on the processor.
        libraries: distributions to name the versions of.
    """
    # What libraries print must not get among the answers.
    answers: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    path = Path(sys.argv[1])
    job: dict[str, Any] = json.loads(path.read_text())
    torch.set_num_threads(job["threads"])
    donors = load_file(path.parent / job["donors"])
    driver = load(job["model"])
    versions = {name: importlib.metadata.version(name) for name in ("torch", *libraries)}
    answer({"versions": versions, "threads": torch.get_num_threads()})
    for line in sys.stdin:
        answer(_turn(driver, job, donors, json.loads(line)))
