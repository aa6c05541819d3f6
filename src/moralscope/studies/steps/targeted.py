"""How are the parts chosen that are trained alone, and what do they keep?"""

from __future__ import annotations

import math
from typing import Any

import polars as pl
from safetensors import safe_open

from moralscope.behaviour.varying.kept import behaviour_kept
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.mechanisms.targeting.choosing import (
    Scores,
    alike,
    attribution_scores,
    band,
    highest,
    patching_scores,
    pathway_scores,
    sub_layers,
)
from moralscope.models.roster import WEIGHTS
from moralscope.studies.choices.derived import BANDS, Strategy, TargetedChoice, trained_members
from moralscope.studies.steps.context import Context, Step, gather
from moralscope.studies.study import Study, base_name, seed_of

TARGETS = "targets"
"""The stage that chooses."""


def chooser(study: Study, wanted: TargetedChoice) -> str:
    """The agent whose analysis chooses."""
    return wanted.chosen_on or trained_members(wanted.of, study.agents, "targeted.of")[0]


def choose(wanted: TargetedChoice, n_layers: int) -> Step:
    """Which sub-layers are trained, by every strategy, for every budget and seed."""

    def step(context: Context) -> None:
        study, tables = context.bench.study, gather(context.needs.values())
        agent = chooser(study, wanted)
        scores: dict[Strategy, Scores] = {}
        if "patching" in wanted.by:
            scores["patching"] = patching_scores(tables["patching"], agent, base_name(study))
        if "attribution" in wanted.by:
            scores["attribution"] = attribution_scores(tables["attribution"], agent)
        if "pathways" in wanted.by:
            scores["pathways"] = pathway_scores(tables["pathways"])
        rows: list[dict[str, object]] = []
        of_model = len(sub_layers(n_layers))
        for name in trained_members(wanted.of, study.agents, "targeted.of"):
            for budget in wanted.budgets:
                for by in wanted.by:
                    sites = _sites(by, budget, (scores, n_layers), study, name)
                    rows.extend(
                        {
                            "of": name,
                            "strategy": by,
                            "budget": budget,
                            "training_seed": seed_of(study, name),
                            "n_sub_layers": of_model,
                            "rank": rank,
                            "site": str(site),
                            "score": scores[by][site] if by in scores else None,
                        }
                        for rank, site in enumerate(sites)
                    )
        write_table("targets", from_rows("targets", rows), context.out)

    return step


def _sites(
    by: Strategy,
    budget: int,
    known: tuple[dict[Strategy, Scores], int],
    study: Study,
    name: str,
) -> tuple[Site, ...]:
    scores, n_layers = known
    if by in scores:
        return highest(scores[by], budget, by)
    if by in BANDS:
        return band(by, budget, n_layers)
    first = next(iter(scores), None)
    like = (
        band("middle", budget, n_layers) if first is None else highest(scores[first], budget, first)
    )
    rng = stream(study.seed, "targeted", budget, seed_of(study, name))
    return alike(like, n_layers, rng)


def chosen_sites(context: Context, name: str) -> tuple[str, ...] | None:
    """The sub-layers that an agent is trained in; None for one that is trained whole."""
    made = context.bench.study.agents[name].derived
    if made is None or made.by is None:
        return None
    targets = read_table("targets", context.needs[TARGETS])
    rows = targets.filter(
        (pl.col("of") == made.of)
        & (pl.col("strategy") == made.by)
        & (pl.col("budget") == made.budget)
    )
    return tuple(text.replace(".", " ") for text in rows.sort("rank").get_column("site"))


def keep(wanted: TargetedChoice) -> Step:
    """Parameters against behaviour kept, of every agent that was trained in parts."""

    def step(context: Context) -> None:
        study, tables = context.bench.study, gather(context.needs.values())
        base, chosen_on = base_name(study), chooser(study, wanted)
        sizes = {name: _parameters(context, name) for name in context.trained}
        rows: list[dict[str, object]] = []
        for of in trained_members(wanted.of, study.agents, "targeted.of"):
            parts = [n for n, e in study.agents.items() if e.derived and e.derived.of == of]
            for name in (of, *parts):
                made = study.agents[name].derived
                if made is not None and made.by is None:
                    continue
                kept = behaviour_kept(tables["prompts"], tables["decisions"], base, of, name)
                rows.append(
                    {
                        "agent": name,
                        "of": of,
                        "strategy": "all" if made is None else made.by,
                        "budget": _all(tables) if made is None else made.budget,
                        "training_seed": seed_of(study, name),
                        "chosen_here": of == chosen_on,
                        "parameters": sizes[name],
                        "share": sizes[name] / sizes[of],
                        "behaviour_kept": kept.share,
                        "low": kept.low,
                        "high": kept.high,
                        "n": kept.scenarios,
                    }
                )
        write_table("targeting", from_rows("targeting", rows), context.out)

    return step


def _all(tables: dict[str, pl.DataFrame]) -> int:
    """Sub-layers of the model."""
    return int(tables["targets"].get_column("n_sub_layers")[0])


def _parameters(context: Context, name: str) -> int:
    opened: Any = safe_open
    with opened(str(context.trained[name] / WEIGHTS), framework="numpy") as file:
        names: list[str] = list(file.keys())
        return sum(math.prod(file.get_slice(key).get_shape()) for key in names)
