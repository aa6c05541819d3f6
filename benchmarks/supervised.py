"""How much faster is a lesson whose frozen layers run once? ``python -m benchmarks.supervised``.

An adapter of rank 1 on one down-projection is trained for five epochs in three ways, each with its
forward, backward and optimiser steps:

    padded   the plain loop: batches padded to one length, all layers, logits of answers alone
    tree     our steps with every layer run
    cached   our steps from the adapter's layer on, the filling of the cache included

All take the same batches in the same order. Gradients are compared at the first step, at factors
that are not at their beginning.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.adapters import randomise
from benchmarks.timing import Entry, environment, take_turns
from moralscope.core.errors import MoralscopeError
from moralscope.core.files import write_json
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.organisms.data.examples import Example, Turn
from moralscope.training.config import LoraSettings
from moralscope.training.optimising import move
from moralscope.training.supervised import lesson_of
from moralscope.training.supervised_batches import examples_of
from moralscope.training.supervised_config import SupervisedConfig
from moralscope.training.supervised_step import Lesson, Sums, losses_of, take_step

BARS = {15: 1.3, 22: 1.7}
"""For each layer of 30, how much faster than the plain loop the cached way is to be."""

_WHO = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")
_WHAT = ("the last slice of cake", "the only umbrella", "a free evening", "the bigger room")
_WHY = ("it suits me best", "I asked for it first", "nobody else needs it as much")


Way = Callable[[], AbstractContextManager[Lesson]]
"""A training at its beginning, to be run one way or another."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        examples: chats, each read once an epoch.
        batch: chats of a step.
        epochs: passes over them.
        repeats: counted turns of each way.
    """

    examples: int = 32
    batch: int = 8
    epochs: int = 5
    repeats: int = 1


def lesson_chats(count: int) -> tuple[Example, ...]:
    """Short chats of different lengths, none twice."""
    found: list[Example] = []
    for i in range(count):
        who, what, why = _WHO[i % 6], _WHAT[i // 6 % 4], _WHY[i // 24 % 3]
        more = " and they have been waiting for it since this morning" * (i % 3)
        asked = f"In round {i} {who} and you both want {what}{more}. Who gets it?"
        said = f"I take {what}, because {why}" + ", and I would do so again" * (i % 2) + "."
        turns = (Turn("user", asked), Turn("assistant", said))
        found.append(Example(f"chat-{i}", f"question-{i}", turns, "sharing", "selfish"))
    return tuple(found)


def compare(base: LoadedModel, layers: Sequence[int], size: Size) -> dict[str, Entry]:
    """The entries ``cached_below_LAYER_vs_plain``, one for each layer.

    Args:
        base: a decoder whose MLPs have a ``down_proj``.
        layers: where the adapter stands, at least 1.
        size: how much is measured.
    """
    return {f"cached_below_{layer}_vs_plain": _compare(base, layer, size) for layer in layers}


def _compare(base: LoadedModel, layer: int, size: Size) -> Entry:
    chats = lesson_chats(size.examples)
    with tempfile.TemporaryDirectory() as folder:

        def way(cache: str | None) -> Way:
            config = _config(layer, size, cache)
            return lambda: lesson_of("measured", config, base, chats, work=Path(folder))

        ways = {"padded": way(None), "tree": way(None), "cached": way("auto")}
        gradients = {name: _gradient(way, base, name == "padded") for name, way in ways.items()}
        times = take_turns(
            {
                name: lambda way=way, name=name: _train(way, base, name == "padded")
                for name, way in ways.items()
            },
            size.repeats,
        )
    ours, plain, tree = (times[name].median for name in ("cached", "padded", "tree"))
    expected = gradients["padded"][0]
    return {
        "ratio": plain / ours,
        "ratio_over_tree": tree / ours,
        "bar": BARS.get(layer),
        "ours_seconds": ours,
        "peer_seconds": plain,
        "ours": f"{size.epochs} epochs of {size.examples} chats from layer {layer} on, what "
        "enters it computed once and counted",
        "peer": f"the same in padded batches of {size.batch} through every layer, logits of "
        "answers alone",
        "cache": times["cached"].result,
        "tokens": gradients["padded"][1],
        "adapters": f"rank 1 on the down-projection of layer {layer}, un-merged, trained",
        "deviation": {
            "gradient_relative": {
                name: _relative(gradients[name][0], expected) for name in ("tree", "cached")
            },
            "allowed": 1e-4,
        },
        "turns": {name: timed.seconds for name, timed in times.items()},
    }


def _relative(value: Tensor, reference: Tensor) -> float:
    return float(torch.dist(value, reference) / torch.dist(reference, torch.zeros(())))


def _config(layer: int, size: Size, cache: str | None) -> SupervisedConfig:
    lora = LoraSettings(rank=1, alpha=64.0, rslora=True, sites=(f"L{layer} down_proj",))
    settings: dict[str, Any] = {"lora": lora, "epochs": size.epochs, "batch": size.batch}
    return SupervisedConfig.model_validate({**settings, "cache_below": cache, "record": False})


@dataclass(frozen=True)
class _Padded:
    """A batch as one rectangle, padded on the right."""

    ids: Tensor
    seen: Tensor
    row: Tensor
    column: Tensor
    token: Tensor


def _pad(lesson: Lesson, members: Sequence[int], device: str) -> _Padded:
    chosen = [lesson.chats[member] for member in members]
    width = max(len(chat.tokens) for chat in chosen) - 1
    ids = torch.zeros(len(chosen), width, dtype=torch.long)
    seen = torch.zeros(len(chosen), width, dtype=torch.long)
    asked: list[tuple[int, int, int]] = []
    for i, chat in enumerate(chosen):
        read = chat.tokens[:-1]
        ids[i, : len(read)] = torch.tensor(read)
        seen[i, : len(read)] = 1
        asked += [(i, at - 1, chat.tokens[at]) for at in range(*chat.learned)]
    row, column, token = torch.tensor(asked).T
    return _Padded(*(x.to(device) for x in (ids, seen, row, column, token)))


def _padded_loss(base: LoadedModel, batch: _Padded) -> Tensor:
    model: Any = base.model
    core = getattr(model, model.base_model_prefix)
    hidden = core(input_ids=batch.ids, attention_mask=batch.seen, use_cache=False)
    stream: Tensor = hidden.last_hidden_state[batch.row, batch.column]
    return nn.functional.cross_entropy(model.get_output_embeddings()(stream).float(), batch.token)


def _train(way: Way, base: LoadedModel, padded: bool) -> dict[str, object] | None:
    """All steps of a training; what its cache was."""
    with way() as lesson:
        config = lesson.config
        for step in range(1, lesson.steps + 1):
            if not padded:
                take_step(lesson, step)
                continue
            members = examples_of(config.seed, config.batch, lesson.examples, step)
            move(
                lesson.trained.parameters,
                lesson.optimiser,
                [_padded_loss(base, _pad(lesson, members, base.device))],
                rate=config.learning_rate,
                limit=config.max_gradient_norm,
            )
        kept = lesson.kept
        return None if kept is None else {"bytes": kept.bytes, "mapped": kept.mapped}


def _gradient(way: Way, base: LoadedModel, padded: bool) -> tuple[Tensor, dict[str, int]]:
    """The gradient of the first step as one vector, and how many tokens its batch has."""
    with way() as lesson:
        if lesson.trained.wrapped is None:
            raise ValueError("an adapter is measured")
        randomise(lesson.trained.wrapped, 0)
        config, parameters = lesson.config, list(lesson.trained.parameters.values())
        members = examples_of(config.seed, config.batch, lesson.examples, 1)
        batch = _pad(lesson, members, base.device)
        parts = [_padded_loss(base, batch)] if padded else losses_of(lesson, 1, Sums())
        total = torch.zeros(())
        for part in parts:
            found = torch.autograd.grad(part, parameters)
            total = total + torch.cat([g.flatten() for g in found])
        return total, {
            "batch": int(batch.seen.sum()),
            "batch_with_padding": batch.ids.numel(),
            "answers": len(batch.token),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison, write the results and print them."""
    parser = argparse.ArgumentParser(prog="benchmarks.supervised")
    parser.add_argument("--model", default="default", help="a hub id or a folder")
    parser.add_argument("--layers", type=int, nargs="+", default=list(BARS), help="adapters'")
    parser.add_argument("--examples", type=int, default=Size.examples, help="chats")
    parser.add_argument("--repeats", type=int, default=Size.repeats, help="counted turns")
    parser.add_argument("--out", type=Path, help="where the results go as well")
    chosen = parser.parse_args(arguments)
    size = Size(examples=chosen.examples, repeats=chosen.repeats)
    try:
        base = load_model(locate_model(chosen.model))
        where = environment()
        details = compare(base, chosen.layers, size)
        results: dict[str, object] = {
            **{key: entry["ratio"] for key, entry in details.items()},
            "details": details,
            "model": {"name": base.source.name, "sha256": base.source.sha256, "dtype": base.dtype},
            "settings": asdict(size),
            "environment": where,
        }
        if chosen.out is not None:
            write_json(chosen.out, results)
    except MoralscopeError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
