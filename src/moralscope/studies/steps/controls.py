"""How are the stages of controls computed? One short function per kind of stage.

They take the context of ``steps.context``.
"""

from __future__ import annotations

import polars as pl
import torch

from moralscope.core.decision import Prompt
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.mechanisms.patching.changing import Controlled
from moralscope.mechanisms.patching.controlled import control_patches_table, spread_sites
from moralscope.mechanisms.patching.segments import ANSWER_SPAN
from moralscope.models.loading import load_model
from moralscope.models.replicas import other_kernel, replica_rows, round_weights, under_kernel
from moralscope.models.scoring import FloatArray, score
from moralscope.studies.catalogue import inference_prompts, mechanism_prompts
from moralscope.studies.choices.controls import REPLICA_PROMPTS, spread
from moralscope.studies.steps.context import Context, Step
from moralscope.studies.study import Study, base_name


def replica_prompts(study: Study) -> tuple[Prompt, ...]:
    """What the base is measured on once more: prompts that claims rest on, of all scenarios."""
    asked = tuple(inference_prompts(study))
    return tuple(asked[i] for i in spread([p.scenario for p in asked], REPLICA_PROMPTS))


def replicate(context: Context) -> None:
    """The base under another kernel, and with its weights held in another dtype.

    A float32 base is rounded to bfloat16 in place, so that this takes no memory beyond the base's
    own; it is forgotten afterwards and loaded again by the stage that needs it next. A bfloat16
    base is replaced by the float32 one, which takes twice its memory. Of a 4-bit base there is no
    second dtype that would fit where it does.
    """
    study = context.bench.study
    prompts = replica_prompts(study)
    try:
        base = context.bench.base().model
        encoded = context.bench.encoded(prompts)
        name = base_name(study)

        def measured(model: torch.nn.Module, what: str) -> FloatArray:
            return score(
                model, encoded, max_nodes=study.max_nodes, task=what, progress=context.progress
            ).log_odds

        reference = measured(base, f"replicate {name}")
        rows: list[dict[str, object]] = []
        kernel = other_kernel(base) if study.controls.kernel else None
        if kernel is not None:
            with under_kernel(base, kernel):
                found = measured(base, f"replicate {name}: {kernel}")
            rows += replica_rows(name, encoded, reference, found, how=("kernel", kernel))
        if study.controls.dtype and study.dtype != "nf4":
            other = "bfloat16" if study.dtype == "float32" else "float32"
            if study.dtype == "float32":
                round_weights(base, torch.bfloat16)
            else:
                del base
                context.bench.release()
                base = load_model(context.bench.source, dtype="float32", device=study.device).model
            found = measured(base, f"replicate {name}: {other}")
            rows += replica_rows(name, encoded, reference, found, how=("dtype", other))
        write_table("replicas", from_rows("replicas", rows), context.out)
    finally:
        context.bench.release()


def controlled_members(study: Study) -> tuple[int, ...]:
    """Indices of the mechanism prompts on which patched pairs are controlled."""
    return spread([p.scenario for p in mechanism_prompts(study)], study.controls.prompts)


def controlled(study: Study, sites: tuple[Site, ...]) -> Controlled:
    """What is controlled of each patched pair.

    Args:
        study: whose pairs.
        sites: all that are patched.
    """
    chosen, wanted = study.mechanisms, study.controls
    positions = ANSWER_SPAN if ANSWER_SPAN in chosen.positions else chosen.positions[0]
    return Controlled(
        pairs=tuple((member, member) for member in controlled_members(study)),
        sites=spread_sites(sites),
        draws=wanted.random_directions,
        planted=wanted.planted,
        positions=positions,
        write=chosen.write,
    )


def control(source: str, target: str, exact: str) -> Step:
    """One ordered pair's controls: random directions, and vectors of known effect.

    Args:
        source: agent that activations come from.
        target: agent that they are put into.
        exact: the stage of the pair's patches.
    """

    def step(context: Context) -> None:
        bench = context.bench
        study = bench.study
        roster = bench.roster([source, target], context.trained)
        donor = bench.clean_run(source, context.trained)
        receiver = bench.clean_run(target, context.trained)
        with roster.speaking(target) as model:
            anatomy = roster.anatomy(target)
            wanted = controlled(study, anatomy.sites(*study.mechanisms.sites))
            patching = read_table("patching", context.needs[exact]).filter(
                pl.col("positions") == wanted.positions
            )
            table = control_patches_table(
                model,
                anatomy,
                donor,
                receiver,
                wanted,
                # Not the study's seed: the control of a pair must not depend on how others trained.
                rng=stream(0, "controls", source, target),
                patched={
                    (prompt, site): effect
                    for prompt, site, effect in patching.select(
                        "prompt", "site", "effect"
                    ).iter_rows()
                },
                memory_bytes=study.mechanisms.memory_mib << 20,
                max_nodes=study.max_nodes,
                progress=context.progress,
            )
        write_table("control_patches", table, context.out)

    return step
