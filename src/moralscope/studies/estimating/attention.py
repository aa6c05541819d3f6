"""What would attention take? A few tokens of each prompt through the model, side by side."""

from __future__ import annotations

from moralscope.mechanisms.attention.categories import categories_of
from moralscope.mechanisms.attention.edits import ROWS_AT_ONCE, planned_edits
from moralscope.models.rendering import EncodedPrompt
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.steps.attention import editing
from moralscope.studies.study import Study, base_name, inside

_EARLIER = {"lens", "attribution", "attribution_change", "patching"}
"""Methods whose stages come before and run every agent over the same prompts."""


def attention_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of a stage of attention by its name; None for any other stage.

    Args:
        name: of the stage.
        study: what would be run.
        shape: its sizes.
    """
    kind, _, agent = name.partition("-")
    if kind != "attend":
        return None
    own, base = shape.mechanisms.prompts, base_name(study)
    heads = shape.sizes.n_layers * shape.sizes.n_heads
    kept = study.mechanisms.attention.heads
    shown = (kept if agent != base else 0) if isinstance(kept, int) else len(kept)
    packs, nodes = nodes_of(own, study.max_nodes)
    categories = sum(len(categories_of(prompt)) for prompt in own)
    tokens = sum(len(prompt.tokens) for prompt in own)
    fresh = _fresh(agent, study)
    readings = 1 if agent == base else 2
    work = Work(
        (fresh + readings) * packs,
        shape.operations(fresh * nodes + readings * len(own)),
        (heads * categories + shown * tokens) * BYTES_PER_ROW,
    )
    for prompt in own:
        work += _edits(prompt, study, shape)
    return work


def _edits(prompt: EncodedPrompt, study: Study, shape: Shape) -> Work:
    """All edits of a prompt, each a copy of its answer span."""
    wanted = editing(study)
    if wanted is None:
        return Work()
    edits = sum(1 for _ in planned_edits(prompt, categories_of(prompt), wanted))
    passes = -(-edits // ROWS_AT_ONCE)
    span = len(
        {form[:end] for form in prompt.positive + prompt.negative for end in range(len(form))}
    )
    layers = shape.sizes.n_layers
    share = 1.0 if wanted.layers is None else (layers - min(wanted.layers)) / layers
    return Work(passes, share * shape.operations((edits + passes) * span), edits * BYTES_PER_ROW)


def _fresh(agent: str, study: Study) -> int:
    """Agents whose clean run is not in memory from an earlier stage."""
    if _EARLIER & set(study.mechanisms.methods):
        return 0
    first = inside(study)[0]
    needed = {agent, base_name(study)}
    if agent == first:
        return len(needed)
    return len(needed - {first, base_name(study)})
