"""What will a sweep cost? Passes cut to a memory budget, and their operations, before running.

A pass holds as many rows as fit. Its arithmetic, for a row that enters at layer ``e``, is

    tokens * (layers - e) * (2 * weights of a layer + 4 * heads * head_dim * keys)

multiply-adds counted as two operations; ``keys`` are the frozen tokens and the tokens of the row.
For rows of one prompt that is the *arithmetic floor*: what no implementation of single patches
through the model's own layers can do without. Prompts that share rows count each other's keys too,
which the mask hides. Memory is estimated from the sizes of the largest tensors that live at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from moralscope.core.errors import ResourceError
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.segments import Segment
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import compute_dtype

MAX_ROW_TOKENS = 1024
"""Tokens of rows in one pass unless told otherwise; more cost memory and save nothing."""

DEFAULT_MEMORY_BYTES = 2 << 30
"""What a pass may use beyond the model and its clean runs, unless told otherwise."""

_LOGITS_BYTES = 3 * (32 << 20)
"""Logits, their log-softmax and its temporary, as ``readings`` cuts them."""


@dataclass(frozen=True)
class Pass:
    """Rows that are run together.

    Attributes:
        segment: index of its segment.
        interventions: indices of the interventions.
        bytes: estimated peak memory.
        operations: floating-point operations.
    """

    segment: int
    interventions: tuple[int, ...]
    bytes: int
    operations: float


@dataclass(frozen=True)
class SweepPlan:
    """A sweep cut into passes.

    Attributes:
        passes: in the order in which they run.
        patches: interventions times prompts.
    """

    passes: tuple[Pass, ...]
    patches: int

    @property
    def bytes(self) -> int:
        """Estimated peak memory of the largest pass, beyond the model and its clean runs."""
        return max((p.bytes for p in self.passes), default=0)

    @property
    def operations(self) -> float:
        """Floating-point operations of all passes."""
        return sum(p.operations for p in self.passes)

    def seconds(self, operations_per_second: float, efficiency: float = 0.5) -> float:
        """Estimated time on a machine of a measured matrix rate."""
        return self.operations / (operations_per_second * efficiency)


@dataclass(frozen=True)
class Sizes:
    """What the cost of a pass depends on.

    Attributes:
        n_layers, n_heads, head_dim, width, mlp_width: of the decoder.
        layer_weights: matrix entries that every token of a layer meets, adapters left out.
        element_bytes: of the arithmetic.
        masks: kinds of attention layer.
        eager: whether attention scores are held in memory.
    """

    n_layers: int
    n_heads: int
    head_dim: int
    width: int
    mlp_width: int
    layer_weights: int
    element_bytes: int
    masks: int
    eager: bool


def sizes_of(model: nn.Module, anatomy: Anatomy) -> Sizes:
    """The sizes of a live model."""
    config: Any = model.config
    return Sizes(
        n_layers=anatomy.n_layers,
        n_heads=anatomy.n_heads,
        head_dim=anatomy.head_dim,
        width=anatomy.width,
        mlp_width=anatomy.mlp_width,
        layer_weights=sum(
            parameter.numel()
            for name, parameter in anatomy.blocks[0].layer.named_parameters()
            if parameter.ndim == 2 and "lora_" not in name
        ),
        element_bytes=compute_dtype(model).itemsize,
        masks=2 if getattr(config, "sliding_window", None) else 1,
        eager=getattr(config, "_attn_implementation", "sdpa") == "eager",
    )


def plan_sweep(
    model: nn.Module,
    anatomy: Anatomy,
    segments: Sequence[Segment],
    interventions: Sequence[Intervention],
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
) -> SweepPlan:
    """``plan_passes`` for a live model."""
    return plan_passes(
        sizes_of(model, anatomy),
        segments,
        interventions,
        memory_bytes=memory_bytes,
        max_row_tokens=max_row_tokens,
    )


def plan_passes(
    sizes: Sizes,
    segments: Sequence[Segment],
    interventions: Sequence[Intervention],
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    max_row_tokens: int = MAX_ROW_TOKENS,
) -> SweepPlan:
    """Cut a sweep into passes that fit a memory budget.

    Args:
        sizes: of the target.
        segments: the prompts, from ``segments.group_cases``.
        interventions: what is patched on each of them.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        max_row_tokens: largest pass in tokens; one row is always allowed.

    Raises:
        ResourceError: not even one row fits.
    """
    # Rows of like depth together, so that a pass starts as late as it can.
    order = sorted(range(len(interventions)), key=lambda i: interventions[i].entry)
    passes: list[Pass] = []
    for index, segment in enumerate(segments):
        length = max(1, len(segment.nodes))
        count = max(1, min(len(order), max_row_tokens // length - 1))
        while count > 1 and _bytes(sizes, segment, count) > memory_bytes:
            count = max(1, count * 3 // 4)
        needed = _bytes(sizes, segment, count)
        if needed > memory_bytes:
            raise ResourceError(
                "Not even one row of a patching sweep fits the memory budget",
                seen=f"{memory_bytes / 2**20:.0f} MiB for rows of {length} tokens",
                allowed=f"{needed / 2**20:.0f} MiB or more",
                remedy="raise the budget, patch at positions='answer_span', or use smaller packs "
                "(max_nodes)",
            )
        for start in range(0, len(order), count):
            chosen = tuple(order[start : start + count])
            operations = _operations(sizes, segment, [interventions[i].entry for i in chosen])
            passes.append(Pass(index, chosen, _bytes(sizes, segment, len(chosen)), operations))
    cases = sum(len(segment.cases) for segment in segments)
    return SweepPlan(tuple(passes), cases * len(interventions))


def _operations(sizes: Sizes, segment: Segment, entries: Sequence[int]) -> float:
    length, keys = len(segment.nodes), len(segment.frozen) + len(segment.nodes)
    attention = 4 * sizes.n_heads * sizes.head_dim * keys
    layer = length * (2 * sizes.layer_weights + attention)
    return float(sum((sizes.n_layers - min(e, sizes.n_layers)) * layer for e in entries))


def _bytes(sizes: Sizes, segment: Segment, rows: int) -> int:
    """Estimated peak memory of a pass."""
    wide = sizes.element_bytes
    tokens = (rows + 1) * len(segment.nodes)
    keys = len(segment.frozen) + tokens
    inner = sizes.n_heads * sizes.head_dim
    # Booleans, two arrays of distances in eight bytes, and the additive masks.
    mask = tokens * keys * (3 + 16 + sizes.masks * wide)
    if sizes.eager:
        # Scores, their soft-capped or widened copies and the probabilities, of every head.
        mask += 4 * sizes.n_heads * tokens * keys * max(4, wide)
    streams = tokens * wide * (8 * sizes.width + 4 * sizes.mlp_width + 6 * inner)
    # Keys and values of every query head, joined to the prefix.
    attended = 4 * keys * inner * wide
    donors = rows * len(segment.edited) * sizes.width * 8
    return int(mask + streams + attended + donors + _LOGITS_BYTES)
