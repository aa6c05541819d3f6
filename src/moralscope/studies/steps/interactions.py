"""How are the stages of component interactions computed? One short function per kind of stage.

Each agent's writes, all networks compared, and the pathways of a pair patched: ``evidence`` chooses
them from tables, ``mechanisms`` computes. They take the context of ``steps.context``.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from moralscope.core.decision import PromptSet
from moralscope.core.site import Edge, parse_site
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.evidence.ledger import Setting
from moralscope.evidence.pairs import Pair
from moralscope.evidence.units import checked
from moralscope.evidence.wired import compare_all, prompts_needed
from moralscope.evidence.wired_tables import (
    changes_table,
    choose_pathways,
    interactions_table,
    networks_table,
    pathways_table,
)
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.interactions.writes import writes_of, writes_tables
from moralscope.mechanisms.paths.tables import patch_paths
from moralscope.studies.catalogue import inference_prompts
from moralscope.studies.steps.context import Context, Step, gather
from moralscope.studies.study import Study, compared, inside

NETWORKS = "wiring"
"""The stage that compares all networks."""


def interaction_prompts(study: Study) -> PromptSet:
    """Prompts that correlations are over: as many as power demands, in turn over scenarios.

    ``evidence.wired.prompts_needed`` says how many; where there are fewer, all that claims rest on.
    """
    asked = tuple(inference_prompts(study))
    needed = prompts_needed(study.mechanisms.interactions.difference, study.evidence.alpha)
    if len(asked) <= needed:
        return PromptSet(asked)
    seen: dict[str, int] = {}
    turns: list[int] = []
    for prompt in asked:
        turns.append(seen.get(prompt.scenario, 0))
        seen[prompt.scenario] = turns[-1] + 1
    # Within a turn by the order of the prompts, and then back into that order.
    first = sorted(range(len(asked)), key=lambda index: (turns[index], index))[:needed]
    return PromptSet(tuple(asked[index] for index in sorted(first)))


def compared_inside(study: Study) -> tuple[Pair, ...]:
    """The pairs whose networks are compared one by one."""
    names = set(inside(study))
    return tuple(p for p in compared(study) if p.tested and set(p.agents) <= names)


def traced_pairs(study: Study) -> tuple[tuple[str, str], ...]:
    """The pairs whose pathways are patched, both ways; each two agents once."""
    chosen = study.mechanisms.interactions
    kept = [pair for pair in compared_inside(study) if pair.kind in chosen.traced]
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in kept if chosen.pathways else ():
        found.setdefault(frozenset(pair.agents), pair.agents)
    return tuple(found.values())


def interact(name: str) -> Step:
    """One agent's writes on every prompt, and their correlations."""

    def step(context: Context) -> None:
        bench = context.bench
        roster = bench.roster([name], context.trained)
        prompts = bench.encoded(tuple(interaction_prompts(bench.study)))
        with roster.speaking(name) as model:
            anatomy = roster.anatomy(name)
            run = run_clean(
                name, model, anatomy, prompts, max_nodes=bench.study.max_nodes, keep_cache=False
            )
            norms, projections = writes_tables(writes_of(anatomy, run))
        asked = read_table("prompts", context.needs["prompts"])
        tables = {"prompts": asked, "norms": norms, "projections": projections}
        found = [interactions_table(tables)]
        if bench.study.mechanisms.interactions.level == "head":
            # Pairs of MLPs are in both.
            found.append(interactions_table(tables, heads=True))
        key = ["agent", "site_a", "site_b", "measure"]
        every = pl.concat(found).unique(key, keep="first", maintain_order=True)
        write_table("norms", norms, context.out)
        write_table("projections", projections, context.out)
        write_table("interactions", every, context.out)

    return step


def compare_wiring(context: Context) -> None:
    """All networks of the study compared, and every pair of sites in them."""
    study = context.bench.study
    rows = [
        {
            "comparison": pair.comparison,
            "kind": pair.kind,
            "agent_a": pair.first,
            "agent_b": pair.second,
            "tested": pair.tested,
        }
        for pair in compared_inside(study)
    ]
    tables = checked({
        **gather(context.needs.values()), "comparisons": from_rows("comparisons", rows)
    })  # fmt: skip
    # The claims are made from the same tables, so with the same level, seed and draws.
    setting = Setting(tables, {}, study.evidence.alpha, study.seed, study.evidence.draws, None)
    found = compare_all(setting)
    difference = study.mechanisms.interactions.difference
    write_table("interaction_networks", networks_table(setting, found, difference), context.out)
    write_table("interaction_changes", changes_table(setting, found), context.out)


def follow(first: str, second: str) -> Step:
    """The pathways of a pair of agents, patched from each into the other."""

    def step(context: Context) -> None:
        bench, study = context.bench, context.bench.study
        chosen = study.mechanisms
        roster = bench.roster([first, second], context.trained)
        pair = [first, second]
        changes = read_table("interaction_changes", context.needs[NETWORKS]).filter(
            pl.col("agent_a").is_in(pair) & pl.col("agent_b").is_in(pair)
        )
        pathways = choose_pathways(
            changes,
            stream(study.seed, "pathways", first, second),
            count=chosen.interactions.pathways,
            parallel=roster.anatomy(first).parallel,
        )
        edges = _edges(pathways)
        found: list[pl.DataFrame] = []
        for source, target in ((first, second), (second, first)):
            donor = bench.clean_run(source, context.trained)
            receiver = bench.clean_run(target, context.trained)
            with roster.speaking(target) as model:
                found.append(
                    patch_paths(
                        model,
                        roster.anatomy(target),
                        donor,
                        receiver,
                        edges,
                        write=chosen.write,
                        memory_bytes=chosen.memory_mib << 20,
                        progress=context.progress,
                    )
                )
        table = pl.concat(found)
        prompts = read_table("prompts", context.needs["prompts"])
        write_table("edges", table, context.out)
        write_table("pathways", pathways_table(pathways, table, prompts), context.out)

    return step


def _edges(pathways: pl.DataFrame) -> Sequence[Edge]:
    """Each pathway once, whichever measures and comparisons chose it."""
    rows = pathways.select("sender", "receiver").unique(maintain_order=True)
    return [Edge(parse_site(a), parse_site(b)) for a, b in rows.iter_rows()]
