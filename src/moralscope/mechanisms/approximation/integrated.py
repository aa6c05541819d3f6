"""How does the full swap divide among the sites? Gradients integrated from target to source.

At share ``a`` every sub-layer's output at the answer span, and the embedding there, is

    w_s(a) = (1 - a) own_s(x(a)) + a source_s,

its own recomputed from what precedes it. At 0 this is the target, at 1 everything is written by the
source. With ``g_s(a)`` the total gradient of the log-odds with respect to that output,

    contribution_s = integral over a of g_s(a) . (source_s - own_s(x(a)))

is exactly the part of ``d log_odds / da`` that comes in at ``s``, so embedding, attention layers
and MLPs sum to the full-swap effect; the heads of a layer sum to that layer where both agents have
the same output bias. Integrated gradients: Sundararajan et al. 2017; on activations of
transformers: Hanna et al. 2024, arXiv 2403.17806; the path through recomputed outputs is derived
here. The integral is a Gauss-Legendre sum. Cost: one forward and one backward pass a step.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import nn

from moralscope.core.errors import ConfigError
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    SpanActivity,
    project,
    slopes,
    span_groups,
    total_of,
)
from moralscope.mechanisms.clean import CleanRun
from moralscope.models.anatomy import Anatomy

STEPS = 8
"""Steps unless told otherwise; the error of a smooth path falls exponentially with them."""


def integrated_gradients(
    model: nn.Module,
    anatomy: Anatomy,
    target: CleanRun,
    index: int,
    source: SpanActivity,
    *,
    steps: int = STEPS,
    positions: Collection[int] | None = None,
) -> Estimates:
    """Divide the full-swap effect on the prompts of one pack among all sites.

    Args:
        model: the target, its weights in force.
        anatomy: its parts.
        target: its clean run.
        index: which of its packs.
        source: what goes in, at the pack's kept nodes.
        steps: of the integral, 1 or more.
        positions: which prompts of the pack; all unless given.

    Raises:
        ConfigError: there is no step.
    """
    if steps < 1:
        raise ConfigError(
            "An integral needs steps",
            seen=steps,
            allowed="1 or more",
            remedy=f"leave it out for {STEPS}, or take more and watch the sum of contributions",
        )
    points, weights = np.polynomial.legendre.leggauss(steps)
    pack = target.packs[index].pack
    parts: list[Estimates] = []
    for group in span_groups(pack, positions):
        rows = torch.as_tensor(group.rows, device=source.embed.device)
        theirs = source.at(rows)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            found = slopes(
                model, anatomy, pack, group,
                source=theirs, share=(point + 1.0) / 2.0, out_weights=target.out_weights,
            )  # fmt: skip
            parts.append(project(anatomy, found, theirs).times(weight / 2.0))
    return total_of(parts)
