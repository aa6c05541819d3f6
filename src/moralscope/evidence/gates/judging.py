"""May anything be concluded at all? Checks of the measurement itself, before any inference.

Each gate states what it measured, the threshold, and what to do: *liveness* (does the agent still
do what it did when it was trained), *undefined values*, *resolution* (more than rounding),
*duplicates* (prompts, scenarios, seeds, rows and sites that are copies), *trained labels* (asked as
it was trained), *completeness* (do the parts sum to the whole), *noise floor* (what happens when
nothing changes), *position* (can a patch act on what is scored), *dead sites* and *dead channel*
(never reached, never fired), *update* (did any weight change), *degenerate correlations*,
*approximation* (do estimates agree with exact patches), *metric agreement* (do sampled answers
follow the log-odds) and *control* (what the tests find where the truth is known). A gate that
cannot be judged has ``passed`` null: not available is not passed. One module for each kind.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.controls.gates import judge_control_results
from moralscope.evidence.gates.agreement import judge_agreement
from moralscope.evidence.gates.approximation import judge_approximations
from moralscope.evidence.gates.channels import judge_channels
from moralscope.evidence.gates.completeness import judge_completeness
from moralscope.evidence.gates.copies import judge_prompts, judge_rows, judge_seeds
from moralscope.evidence.gates.decisions import judge_decisions
from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.gates.interactions import judge_interactions
from moralscope.evidence.gates.labels import judge_labels
from moralscope.evidence.gates.liveness import judge_liveness
from moralscope.evidence.gates.noise import judge_noise
from moralscope.evidence.gates.positions import judge_positions
from moralscope.evidence.gates.replicas import judge_replicas
from moralscope.evidence.gates.sites import judge_sites
from moralscope.evidence.gates.updates import judge_updates
from moralscope.evidence.units import checked

__all__ = ["Gate", "judge_gates"]


def judge_gates(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """All gates that the tables present allow.

    Args:
        tables: result tables by name, any subset of the documented ones.

    Returns:
        The ``gates`` table, one row per gate and subject.

    Raises:
        TableError: a table does not follow its schema, has two different rows for the same thing,
            or a sweep lacks sites on some prompts.
    """
    known = checked(tables)
    gates = [
        *judge_liveness(known),
        *judge_decisions(known),
        *judge_rows(tables, known),
        *judge_prompts(known),
        *judge_seeds(known),
        *judge_labels(known),
        *judge_completeness(known),
        *judge_noise(known),
        *judge_replicas(known),
        *judge_positions(known),
        *judge_channels(known),
        *judge_interactions(known),
        *judge_updates(known),
        *judge_control_results(known),
    ]
    rows = [gate.row() for gate in gates]
    rows += [*judge_sites(known), *judge_approximations(known), *judge_agreement(known)]
    return from_rows("gates", rows)
