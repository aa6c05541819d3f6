"""What would controls take? The base once more, and a few more rows of every patched pair."""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.core.site import Site
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import plan_passes
from moralscope.mechanisms.patching.planted import PLANTED_PROMPTS, PLANTED_SIZES, planted_kinds
from moralscope.mechanisms.patching.sweeps import segments_for
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.steps.controls import controlled, replica_prompts
from moralscope.studies.study import Study


def replica_work(name: str, study: Study, shape: Shape) -> Work | None:
    """The work of measuring the base once more, by the stage's name; None for any other stage."""
    if not name.startswith("replicate-"):
        return None
    prompts = shape.encode(replica_prompts(study))
    packs, nodes = nodes_of(prompts, study.max_nodes)
    times = study.controls.kernel + (study.controls.dtype and study.dtype != "nf4")
    rows = times * len(prompts)
    return Work((1 + times) * packs, shape.operations((1 + times) * nodes), rows * BYTES_PER_ROW)


def control_work(study: Study, shape: Shape, sites: Sequence[Site]) -> Work:
    """What controls of one patched pair take beyond its clean runs.

    Args:
        study: what would be run.
        shape: its sizes.
        sites: all that are patched.
    """
    own, memory = shape.mechanisms, study.mechanisms.memory_mib << 20
    wanted = controlled(study, tuple(sites))
    work = Work()
    if wanted.draws:
        asked = [Intervention((site,)) for site in wanted.sites for _ in range(wanted.draws)]
        segments = segments_for(own, own, wanted.pairs, wanted.positions)
        plan = plan_passes(shape.sizes, segments, asked, memory_bytes=memory)
        rows = len(wanted.pairs) * len(asked)
        work += Work(len(plan.passes), plan.operations, rows * BYTES_PER_ROW)
    kinds = planted_kinds(wanted.sites)
    if wanted.planted and kinds:
        # Which site of a kind changes most is not known before; the first stands for it.
        first = [next(site for site in wanted.sites if site.kind == kind) for kind in kinds]
        asked = [Intervention((site,)) for site in first for _ in PLANTED_SIZES]
        pairs = wanted.pairs[:PLANTED_PROMPTS]
        segments = segments_for(own, own, pairs, wanted.positions)
        plan = plan_passes(shape.sizes, segments, asked, memory_bytes=memory)
        packs, nodes = nodes_of([own.prompts[member] for member, _ in pairs], study.max_nodes)
        rows = len(pairs) * len(asked)
        work += Work(len(plan.passes), plan.operations, rows * BYTES_PER_ROW)
        work += Work(len(asked) * packs, shape.operations(len(asked) * nodes))
    return work
