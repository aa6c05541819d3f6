"""What would the stages of representations take? Forwards, and searches in the later layers."""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.decision import Prompt
from moralscope.mechanisms.representations.directions import RANDOM as DRAWN
from moralscope.mechanisms.representations.similarity import MEASURES
from moralscope.studies.catalogue import mechanism_prompts
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.steps import representations as steps
from moralscope.studies.study import Study, inside

_BACKWARD = 3.0
"""Cost of a forward and backward pass in forwards."""

_PROPERTIES = 5
"""Properties of prompts that are probed, at most."""


def representation_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of a stage of representations by its name; None for any other stage.

    Args:
        name: of the stage.
        study: what would be run.
        shape: its sizes.
    """
    kind, _, agent = name.partition("-")
    if kind == "represent":
        searched = agent in steps.searched_agents(study)
        work = _streams(study, shape, steps.extra_prompts(study, searched=searched))
        if searched:
            for _ in steps.exchanged(study):
                work += _searching(study, shape)
            for _ in range(_PROPERTIES):
                work += _pushing(study, shape)
        return work
    if name == steps.RANDOM:
        return _streams(study, shape, steps.extra_prompts(study, searched=True))
    if kind == "align":
        return _streams(study, shape, ()) + _searching(study, shape) + _pushing(study, shape)
    if name != steps.COMPARED:
        return None
    pairs, depths = len(steps.compared_streams(study)), 1 + shape.sizes.n_layers
    rows = pairs * depths * (len(shape.mechanisms.prompts) + len(MEASURES))
    rows += 2 * steps.chosen(study).depths * (len(inside(study)) * (_PROPERTIES + 1) + pairs)
    return Work(0, 0.0, rows * BYTES_PER_ROW)


def _streams(study: Study, shape: Shape, more: Sequence[Prompt]) -> Work:
    """The mechanism prompts and further ones, and their streams on disk."""
    every = shape.encode((*mechanism_prompts(study), *more))
    packs, nodes = nodes_of(every, study.max_nodes)
    stored = 4 * len(every) * (1 + shape.sizes.n_layers) * shape.sizes.width
    return Work(packs, shape.operations(nodes), stored)


def _after(study: Study, shape: Shape) -> float:
    """Layers that all searched depths together leave to be run, as a share of the model."""
    layers = shape.sizes.n_layers
    depths = steps.searched_layers(layers, steps.chosen(study).searched)
    return sum(layers - 1 - depth for depth in depths) / layers


def _searching(study: Study, shape: Shape) -> Work:
    how, prompts = steps.chosen(study), len(shape.mechanisms.prompts)
    bases = len(how.dimensions)
    # Half of the prompts are learned from, each with and without arbitrary sides.
    tokens = how.steps * _BACKWARD * (prompts / 2) * 2 * bases + prompts * 7 * bases
    rows = how.searched * prompts * 6 * bases
    passes = how.searched * (how.steps + 3) * len(shape.mechanisms.layouts)
    return Work(passes, shape.operations(tokens * _after(study, shape)), rows * BYTES_PER_ROW)


def _pushing(study: Study, shape: Shape) -> Work:
    how, prompts = steps.chosen(study), len(shape.mechanisms.prompts)
    tokens = (how.random_directions + 2) * prompts / 2
    passes = how.searched * len(shape.mechanisms.layouts)
    rows = how.searched * (DRAWN + 1)
    return Work(passes, shape.operations(tokens * _after(study, shape)), rows * BYTES_PER_ROW)
