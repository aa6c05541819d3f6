"""What would component interactions take? One forward an agent, and a few paths a pair."""

from __future__ import annotations

from moralscope.core.site import Kind, Site, every_site
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import plan_passes
from moralscope.mechanisms.patching.segments import ANSWER_SPAN
from moralscope.mechanisms.patching.sweeps import segments_for
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.steps.interactions import (
    NETWORKS,
    compared_inside,
    interaction_prompts,
    traced_pairs,
)
from moralscope.studies.study import Study

_MEASURES = 2
_EARLIER = {"lens", "attribution", "attribution_change"}
"""Methods whose stages come before and run every agent over the same prompts."""


def interaction_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of a stage of interactions by its name; None for any other stage.

    Args:
        name: of the stage.
        study: what would be run.
        shape: its sizes.
    """
    kind, _, _ = name.partition("-")
    layers = _sites(shape, "attn", "mlp")
    pairs = len(layers) * (len(layers) - 1) // 2
    if kind == "interact":
        prompts = shape.encode(tuple(interaction_prompts(study)))
        packs, nodes = nodes_of(prompts, study.max_nodes)
        sites = len(_sites(shape, "head", "attn", "mlp"))
        rows = _MEASURES * (len(prompts) * sites + pairs)
        return Work(packs, shape.operations(nodes), rows * BYTES_PER_ROW)
    if name == NETWORKS:
        return Work(0, 0.0, _MEASURES * pairs * len(compared_inside(study)) * BYTES_PER_ROW)
    return _following(name, study, shape) if kind == "follow" else None


def _following(name: str, study: Study, shape: Shape) -> Work:
    """Both ways; which pathways are chosen is not known before, so receivers are spread evenly."""
    own, chosen = shape.mechanisms, study.mechanisms
    every = _sites(shape, "attn", "mlp")[1:]
    count = 2 * _MEASURES * chosen.interactions.pathways
    edges = [Intervention((every[i * len(every) // count],)) for i in range(count)]
    members = [(member, member) for member in range(len(own.prompts))]
    segments = segments_for(own, own, members, ANSWER_SPAN)
    plan = plan_passes(shape.sizes, segments, edges, memory_bytes=chosen.memory_mib << 20)
    packs, nodes = nodes_of(own.prompts, study.max_nodes)
    fresh = _fresh(name, study)
    return Work(
        fresh * packs + 2 * len(plan.passes),
        fresh * shape.operations(nodes) + 2 * plan.operations,
        2 * len(members) * count * BYTES_PER_ROW,
    )


def _fresh(name: str, study: Study) -> int:
    """Agents of a pair whose clean run is not in memory from an earlier stage."""
    if _EARLIER & set(study.mechanisms.methods):
        return 0
    seen: set[str] = set()
    for first, second in traced_pairs(study):
        if name == f"follow-{first}>{second}":
            return len({first, second} - seen)
        seen |= {first, second}
    return 0


def _sites(shape: Shape, *kinds: Kind) -> tuple[Site, ...]:
    return every_site(
        *kinds,
        n_layers=shape.sizes.n_layers,
        n_heads=shape.sizes.n_heads,
        n_kv_heads=shape.n_kv_heads,
    )
