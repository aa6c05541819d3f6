"""What would the mechanism stages take? Their sweeps are planned as they will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moralscope.core.site import Site, every_site
from moralscope.games import pair_indices, with_sources
from moralscope.mechanisms.approximation.integrated import STEPS
from moralscope.mechanisms.lens.unrelated import unrelated_prompts
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.plans import plan_passes
from moralscope.mechanisms.patching.segments import ALL, ANSWER_SPAN, PackedPrompts
from moralscope.mechanisms.patching.sweeps import Pairs, segments_for
from moralscope.studies.catalogue import changed_pairs, mechanism_prompts
from moralscope.studies.estimating.attention import attention_work
from moralscope.studies.estimating.controls import control_work
from moralscope.studies.estimating.interactions import interaction_work
from moralscope.studies.estimating.representations import representation_work
from moralscope.studies.estimating.shape import BYTES_PER_ROW, Shape, Work, nodes_of
from moralscope.studies.estimating.weights import weight_work
from moralscope.studies.steps.mechanisms import (
    CIRCUIT_CANDIDATES,
    CIRCUIT_DRAWS,
    ESTIMATED,
    LENS_DRAWS,
)
from moralscope.studies.study import Study, base_name

Running = set[tuple[str, str]]
"""Agents whose clean run on some prompts is in memory."""

WORKS: tuple[Callable[[str, Study, Shape], Work | None], ...] = (
    attention_work,
    interaction_work,
    weight_work,
    representation_work,
)
"""The work of methods with a module of their own, by a stage's name; None for other stages."""

_BACKWARD = 3.0
"""Cost of a forward and backward pass in forwards."""


def mechanism_work(name: str, study: Study, shape: Shape, running: Running) -> Work | None:
    """The work of a mechanism stage by its name; None for any other stage.

    Args:
        name: of the stage.
        study: what would be run.
        shape: its sizes.
        running: clean runs that earlier stages leave in memory; this stage's are added.
    """
    kind, _, rest = name.partition("-")
    source, _, target = rest.partition(">")
    agents = (source, target)
    if kind == "explain":
        return _explaining(rest, study, shape, running)
    if kind == "cross":
        return _crossing(agents, study, shape, running)
    if kind in ("patch", "approximate", "trace", "circuits", "control"):
        clean = _clean(agents, "", shape.mechanisms, shape, running)
        return clean + _paired(kind, agents, study, shape)
    return next((work for of in WORKS if (work := of(name, study, shape)) is not None), None)


def _paired(kind: str, agents: tuple[str, str], study: Study, shape: Shape) -> Work:
    """What a pair of agents takes beyond its clean runs."""
    own = shape.mechanisms
    if kind == "circuits":
        return _searching(own, shape)
    if kind == "control":
        return control_work(study, shape, _sites(shape, *study.mechanisms.sites))
    if kind == "trace":
        rows = len(own.prompts) * len(_sites(shape, "head", "mlp"))
        return Work(0, 0.0, rows * BYTES_PER_ROW)
    if kind == "patch":
        count = len(own.prompts)
        itself = agents[0] == agents[1]
        if itself:
            count = min(count, study.mechanisms.self_patch_prompts)
        pairs = [(member, member) for member in range(count)]
        return _sweeps(own, pairs, study, shape, stored=not itself)
    packs, nodes = nodes_of(own.prompts, study.max_nodes)
    passes = STEPS + 2
    kinds = [kind for kind in study.mechanisms.sites if kind in ESTIMATED]
    rows = 3 * len(own.prompts) * len(_sites(shape, *kinds))
    operations = shape.operations(passes * nodes * _BACKWARD)
    return Work(passes * packs, operations, rows * BYTES_PER_ROW)


def _sites(shape: Shape, *kinds: str) -> tuple[Site, ...]:
    return every_site(
        *kinds,  # pyright: ignore[reportArgumentType]
        n_layers=shape.sizes.n_layers,
        n_heads=shape.sizes.n_heads,
        n_kv_heads=shape.n_kv_heads,
    )


def _clean(
    agents: Sequence[str], what: str, prompts: PackedPrompts, shape: Shape, running: Running
) -> Work:
    """Clean runs that are not in memory yet."""
    new = {(agent, what) for agent in agents} - running
    running |= new
    nodes = sum(len(pack.tree) for pack in prompts.layouts)
    return Work(len(new) * len(prompts.layouts), shape.operations(len(new) * nodes))


def _explaining(agent: str, study: Study, shape: Shape, running: Running) -> Work:
    own, methods = shape.mechanisms, study.mechanisms.methods
    work = _clean((agent,), "", own, shape, running)
    depths = 1 + 2 * shape.sizes.n_layers
    components = len(_sites(shape, "head", "mlp")) + 2
    if "lens" in methods:
        neutral = tuple(unrelated_prompts(mechanism_prompts(study)))
        packs, nodes = nodes_of(shape.encode(neutral), study.max_nodes)
        draws = LENS_DRAWS + 10
        rows = len(own.prompts) * depths * (1 + draws)
        work += Work(packs, shape.operations(nodes), rows * BYTES_PER_ROW // 3)
    if {"attribution", "attribution_change"} & set(methods):
        work += Work(0, 0.0, len(own.prompts) * components * BYTES_PER_ROW)
        if "attribution_change" in methods and agent != base_name(study):
            work += _clean((base_name(study),), "", own, shape, running)
            # The agent's layers on the base's inputs, which are run again where not kept.
            again = 1 if study.mechanisms.everywhere else 2
            nodes = again * sum(len(pack.tree) for pack in own.layouts)
            rows = 2 * len(own.prompts) * components
            passes = again * len(own.layouts)
            work += Work(passes, shape.operations(nodes), rows * BYTES_PER_ROW)
    return work


def _searching(own: PackedPrompts, shape: Shape) -> Work:
    """A search for circuits, supposing that they have ten sites: how many is not known before."""
    sites = [Intervention((site,)) for site in _sites(shape, "head", "mlp")]
    pairs = [(member, member) for member in range(len(own.prompts))]
    segments = segments_for(own, own, pairs, ANSWER_SPAN)
    once = plan_passes(shape.sizes, segments, sites)
    sets = 10 * CIRCUIT_CANDIDATES + 20 * CIRCUIT_DRAWS + 3 * shape.sizes.n_layers
    # Sets begin at their first site, so they cost more than single sites, half-way up on average.
    searches = 3 * (1 + 1.5 * sets / len(sites))
    return Work(round(searches * len(once.passes)), searches * once.operations, 200 * BYTES_PER_ROW)


def _crossing(agents: Sequence[str], study: Study, shape: Shape, running: Running) -> Work:
    work = Work()
    asked = mechanism_prompts(study)
    for change in study.mechanisms.changes:
        pairs = changed_pairs(study, change)
        prompts = with_sources(asked, pairs)
        packed = shape.packed(tuple(prompts))
        work += _clean(agents, f"{change}: {len(prompts)}", packed, shape, running)
        indices = pair_indices(tuple(prompts), pairs)
        work += _sweeps(packed, indices, study, shape, stored=True)
    return work


def _sweeps(
    prompts: PackedPrompts, pairs: Pairs, study: Study, shape: Shape, *, stored: bool
) -> Work:
    """Sweeps of one ordered pair of agents at every position that the study asks for."""
    chosen = study.mechanisms
    singles = [Intervention((site,)) for site in _sites(shape, *chosen.sites)]
    everything = Intervention((Site("embed"), *_sites(shape, "head", "mlp")))
    work = Work()
    for positions in chosen.positions:
        asked = [*singles, everything] if positions in (ANSWER_SPAN, ALL) else singles
        segments = segments_for(prompts, prompts, pairs, positions)
        plan = plan_passes(shape.sizes, segments, asked, memory_bytes=chosen.memory_mib << 20)
        rows = len(pairs) * (len(singles) + 1) * stored
        work += Work(len(plan.passes), plan.operations, rows * BYTES_PER_ROW)
    return work
