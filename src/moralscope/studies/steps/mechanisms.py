"""How are the mechanism stages computed? One short function per kind of stage.

They take the context of ``steps.context``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import polars as pl

from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.core.tables import read_table, write_table
from moralscope.games import pair_indices, with_sources
from moralscope.mechanisms.approximation.tables import agreement_table, approximation_table
from moralscope.mechanisms.attribution.change import base_attributions, change_table
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.circuits.curves import curves, curves_table
from moralscope.mechanisms.circuits.effects import Goal, set_effects
from moralscope.mechanisms.circuits.localisation import localisation, localisation_table
from moralscope.mechanisms.circuits.search import circuits_table, disjoint, forward_backward
from moralscope.mechanisms.circuits.stability import pairs_by_wording, stability, stability_table
from moralscope.mechanisms.clean import CleanPack, CleanRun, run_clean, with_every_token
from moralscope.mechanisms.lens.controls import lens_controls_table
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.mechanisms.lens.stabilisation import stabilisation_tables
from moralscope.mechanisms.lens.unrelated import unrelated_names, unrelated_prompts
from moralscope.mechanisms.patching.tables import directions_table, patching_table
from moralscope.mechanisms.paths.tables import direct_to_decision, patch_paths
from moralscope.models.anatomy import Anatomy
from moralscope.models.roster import Roster
from moralscope.studies.catalogue import changed_pairs, mechanism_prompts
from moralscope.studies.steps.context import Context, Step
from moralscope.studies.study import base_name

LENS_DRAWS = 40
"""Random option pairs of the lens's control."""

ESTIMATED = ("head", "attn", "mlp")
"""Kinds of site whose effects have approximations."""

CIRCUIT_CANDIDATES = 30
"""Sites that a search for circuits chooses from: those with the largest single effects."""

CIRCUIT_DRAWS = 10
"""Random sequences of sets that a circuit's curves are compared with."""


def explain(name: str) -> Step:
    """One agent's lens and attribution."""

    def step(context: Context) -> None:
        roster = context.bench.roster([name], context.trained)
        run = context.bench.clean_run(name, context.trained)
        methods = context.bench.study.mechanisms.methods
        if "lens" in methods:
            _lens(context, roster, run)
        if {"attribution", "attribution_change"} & set(methods):
            with roster.speaking(name):
                whole, completeness = attribution_tables(roster.anatomy(name), run)
            found = [whole]
            if "attribution_change" in methods and name != base_name(context.bench.study):
                found.append(_change(context, roster, run))
            write_table("attribution", pl.concat(found), context.out)
            write_table("completeness", completeness, context.out)

    return step


def _lens(context: Context, roster: Roster, run: CleanRun) -> None:
    """The lens, what it shows of other options and on other prompts, and where it settles."""
    study, name = context.bench.study, run.agent
    asked = tuple(mechanism_prompts(study))
    neutral = tuple(unrelated_prompts(asked))
    with roster.speaking(name) as model:
        anatomy = roster.anatomy(name)
        encoded = context.bench.encoded(neutral)
        elsewhere = run_clean(
            name, model, anatomy, encoded, max_nodes=study.max_nodes, keep_cache=False
        )
        lens = lens_table(anatomy, run)
        controls = lens_controls_table(
            anatomy,
            run,
            # Not the study's seed: the control of one agent must not depend on how another trained.
            rng=stream(0, "lens-controls"),
            draws=LENS_DRAWS,
            elsewhere=elsewhere,
            names=unrelated_names(asked, neutral),
        )
    scenarios = {prompt.name: prompt.scenario for prompt in asked}
    settled, summary = stabilisation_tables(lens, scenarios, seed=0, controls=controls)
    write_table("lens", lens, context.out)
    write_table("lens_controls", controls, context.out)
    write_table("stabilisation", settled, context.out)
    write_table("stabilisation_summary", summary, context.out)


def _change(context: Context, roster: Roster, run: CleanRun) -> pl.DataFrame:
    """The change of attribution from the base, split into weights and input."""
    name = base_name(context.bench.study)
    roster = context.bench.roster([name], context.trained)
    base = context.bench.clean_run(name, context.trained)
    with roster.speaking(name):
        found = base_attributions(roster.anatomy(name), base)
    with roster.speaking(run.agent) as model:
        return change_table(
            model,
            roster.anatomy(run.agent),
            run,
            base,
            found,
            everywhere=_whole_packs(roster, name, base.packs),
        )


def _whole_packs(roster: Roster, name: str, packs: Iterable[CleanPack]) -> Iterator[CleanPack]:
    """The base's packs with every token, one at a time: together they would not fit."""
    for part in packs:
        if part.everywhere is not None:
            yield part
        else:
            with roster.speaking(name) as model:
                whole = with_every_token(model, roster.anatomy(name), part)
            yield whole


def _both(context: Context, source: str, target: str) -> tuple[Roster, CleanRun, CleanRun]:
    """The roster with both agents of a pair, and their clean runs."""
    roster = context.bench.roster([source, target], context.trained)
    donor = context.bench.clean_run(source, context.trained)
    return roster, donor, context.bench.clean_run(target, context.trained)


def patch(source: str, target: str) -> Step:
    """One ordered pair's sweeps; an agent patched into itself is a control on few prompts."""

    def step(context: Context) -> None:
        bench = context.bench
        roster, donor, receiver = _both(context, source, target)
        chosen = bench.study.mechanisms
        itself = source == target
        few = range(min(chosen.self_patch_prompts, len(receiver.prompts)))
        with roster.speaking(target) as model:
            anatomy = roster.anatomy(target)
            swept = [
                patching_table(
                    model,
                    anatomy,
                    donor,
                    receiver,
                    sites=_sites(anatomy, context),
                    members=few if itself else None,
                    positions=positions,
                    write=chosen.write,
                    memory_bytes=chosen.memory_mib << 20,
                    progress=context.progress,
                )
                for positions in chosen.positions
            ]
        if not itself:
            write_table("patching", pl.concat(table for table, _ in swept), context.out)
        controls = _worst(pl.concat(table for _, table in swept))
        if "checkpoint" in {roster.specs[name].kind for name in (source, target)}:
            # Full checkpoints may differ in what no site writes: final norm and unembedding.
            controls = controls.filter(pl.col("control") != "write_all")
        write_table("controls", controls, context.out)

    return step


def _worst(controls: pl.DataFrame) -> pl.DataFrame:
    """One row for each control, subject and prompt: the largest deviation over positions."""
    key = ["control", "subject", "prompt"]
    return controls.group_by(key, maintain_order=True).agg(pl.col("value").max())


def _sites(anatomy: Anatomy, context: Context) -> tuple[Site, ...]:
    return anatomy.sites(*context.bench.study.mechanisms.sites)


def cross(source: str, target: str) -> Step:
    """One ordered pair's sweeps from counterparts of the prompts."""

    def step(context: Context) -> None:
        bench = context.bench
        roster = bench.roster([source, target], context.trained)
        chosen = bench.study.mechanisms
        asked = mechanism_prompts(bench.study)
        swept: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        for change in chosen.changes:
            pairs = changed_pairs(bench.study, change)
            prompts = with_sources(asked, pairs)
            donor = bench.clean_run(source, context.trained, prompts)
            receiver = bench.clean_run(target, context.trained, prompts)
            with roster.speaking(target) as model:
                anatomy = roster.anatomy(target)
                swept += [
                    patching_table(
                        model,
                        anatomy,
                        donor,
                        receiver,
                        sites=_sites(anatomy, context),
                        pairs=pair_indices(tuple(prompts), pairs),
                        positions=positions,
                        write=chosen.write,
                        memory_bytes=chosen.memory_mib << 20,
                        progress=context.progress,
                    )
                    for positions in chosen.positions
                ]
        key = ["source", "target", "prompt", "source_prompt", "site", "positions", "write"]
        patching = pl.concat(table for table, _ in swept).unique(key, maintain_order=True)
        write_table("patching", patching, context.out)
        write_table("controls", _worst(pl.concat(table for _, table in swept)), context.out)

    return step


def approximate(source: str, target: str, exact: str) -> Step:
    """One ordered pair's effects in a few passes, and how well they agree with exact patches.

    Args:
        source: agent that activations would come from.
        target: agent that they would be put into.
        exact: the stage of the pair's exact patches.
    """

    def step(context: Context) -> None:
        roster, donor, receiver = _both(context, source, target)
        with roster.speaking(target) as model:
            anatomy = roster.anatomy(target)
            # Only what is patched exactly as well can be compared, and so be ranked.
            sites = [site for site in _sites(anatomy, context) if site.kind in ESTIMATED]
            table = approximation_table(
                model, anatomy, donor, receiver, sites=sites, progress=context.progress
            )
        write_table("approximations", table, context.out)
        patching = read_table("patching", context.needs[exact])
        write_table("agreement", agreement_table(table, patching), context.out)

    return step


def trace(source: str, target: str) -> Step:
    """One ordered pair's paths from every head and MLP straight to the decision."""

    def step(context: Context) -> None:
        bench = context.bench
        roster, donor, receiver = _both(context, source, target)
        with roster.speaking(target) as model:
            anatomy = roster.anatomy(target)
            table = patch_paths(
                model,
                anatomy,
                donor,
                receiver,
                [direct_to_decision(anatomy, site) for site in anatomy.component_sites],
                write=bench.study.mechanisms.write,
                memory_bytes=bench.study.mechanisms.memory_mib << 20,
                progress=context.progress,
            )
        write_table("edges", table, context.out)

    return step


def find_circuits(source: str, target: str) -> Step:
    """One ordered pair's circuits: how few sites suffice, how well, how often, in other words."""

    def step(context: Context) -> None:
        bench = context.bench
        roster, donor, receiver = _both(context, source, target)
        asked = tuple(mechanism_prompts(bench.study))
        chosen = bench.study.mechanisms
        goal = Goal("share", chosen.circuit_share)
        search = partial(forward_backward, top_k=CIRCUIT_CANDIDATES)
        rng = stream(bench.study.seed, "circuits", source, target)
        with roster.speaking(target) as model:
            measured = partial(
                set_effects,
                model,
                roster.anatomy(target),
                donor,
                receiver,
                write=chosen.write,
                memory_bytes=chosen.memory_mib << 20,
                progress=context.progress,
            )
            effects = measured()
            packing = disjoint(effects, goal, search=search)
            found = dict(zip(_names(len(packing.circuits)), packing.circuits, strict=True))
            if packing.left is not None and not found:
                found = {"first": packing.left}
            write_table("circuits", circuits_table(effects, found), context.out)
            name, first = next(iter(found.items()))
            curved = curves(effects, first.sites, rng, draws=CIRCUIT_DRAWS)
            write_table("circuit_curves", curves_table(effects, {name: curved}), context.out)
            units = [prompt.scenario for prompt in asked]
            local = localisation(effects, rng, units=units, share=chosen.circuit_share)
            table = localisation_table(effects, local, unit="scenario")
            write_table("localisation", table, context.out)
            by_wording = pairs_by_wording(
                [prompt.name for prompt in asked], {p.name: p.template for p in asked}
            )
            if len(by_wording) > 1:
                wordings = {word: measured(pairs=pairs) for word, pairs in by_wording.items()}
                stable = stability(wordings, rng, goal, search=search)
                write_table("circuit_stability", stability_table(wordings, stable), context.out)

    return step


def _names(count: int) -> list[str]:
    """How the table calls disjoint circuits: the first, and those that do without its sites."""
    return ["first", *(f"disjoint-{index}" for index in range(2, count + 1))][:count]


def compare_directions(context: Context) -> None:
    """Both directions of every pair that was patched in both."""
    parts = [
        read_table("patching", folder)
        for folder in context.needs.values()
        if (folder / "patching.parquet").is_file()
    ]
    write_table("directions", directions_table(pl.concat(parts)), context.out)
