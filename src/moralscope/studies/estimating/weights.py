"""What would weight updates take? Decompositions and products of factors, no forward at all."""

from __future__ import annotations

from moralscope.mechanisms.weights.directions import PAIRS
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work
from moralscope.studies.steps.weights import COMPARED, overlapped, updated
from moralscope.studies.study import Study, training_config

_LAYERS = 7
"""Linear layers of a decoder layer where queries, keys and values are apart."""

_UNKNOWN_RANK = 64
"""Of adapters that were trained elsewhere, whose files are not read for an estimate."""

_DECOMPOSING = 10.0
"""Operations of a thin orthogonal decomposition for each entry and column, roughly."""


def weight_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of a stage of weights by its name; None for any other stage.

    Args:
        name: of the stage.
        study: what would be run.
        shape: its sizes.
    """
    kind, _, agent = name.partition("-")
    linear = _LAYERS * shape.sizes.n_layers
    if kind == "weigh":
        spectrum = min(study.mechanisms.weights.spectrum, _rank(study, agent, shape))
        rows = linear * (2 + spectrum) + 2 * PAIRS
        return Work(0, _decomposed(study, agent, shape), rows * BYTES_PER_ROW)
    if name != COMPARED:
        return None
    pairs = overlapped(study)
    found = Work()
    for agent in updated(study):
        found += Work(0, _decomposed(study, agent, shape), 0)
    products = sum(
        2.0 * _rank(study, a, shape) * _rank(study, b, shape) * shape.linear_sides for a, b in pairs
    )
    rows = len(pairs) * linear * (1 + 2 * len(study.mechanisms.weights.tops))
    return found + Work(0, products, rows * BYTES_PER_ROW)


def _rank(study: Study, agent: str, shape: Shape) -> int:
    """Directions of an update: an adapter's rank, or as many as a checkpoint's layers have."""
    config = training_config(study, agent)
    if config is not None:
        return config.lora.rank
    return _UNKNOWN_RANK if study.agents[agent].checkpoint is None else shape.sizes.width


def _decomposed(study: Study, agent: str, shape: Shape) -> float:
    """Operations of taking one agent's updates apart."""
    return _DECOMPOSING * _rank(study, agent, shape) ** 2 * shape.linear_sides
