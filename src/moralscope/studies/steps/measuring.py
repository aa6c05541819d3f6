"""Who is asked what, and what is decided? The stages of prompts, training, agents and behaviour."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from moralscope.behaviour import cooperation_table, learned_table, policy_table, transfer_table
from moralscope.behaviour.learning.training_sets import (
    REFERENCE_FAMILY,
    TrainedOn,
    trained_on,
    trained_on_table,
    with_unknown,
)
from moralscope.behaviour.learning.transfer_states import transfer_states_table
from moralscope.behaviour.scripted import scripted_decisions
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.models.tables import agents_table, decisions_table, prompts_table
from moralscope.studies.catalogue import asked_prompts, fingerprint_prompts
from moralscope.studies.steps.context import Context, Step, gather
from moralscope.studies.steps.targeted import chosen_sites
from moralscope.studies.study import (
    Study,
    compared,
    known_training,
    loaded_adapters,
    training_config,
)
from moralscope.training.batches import training_prompts
from moralscope.training.diagnostics import diagnosed
from moralscope.training.loop import train_agent


def ask(context: Context) -> None:
    """The prompts as the model reads them, counterparts for patching across prompts included."""
    prompts = tuple(asked_prompts(context.bench.study))
    write_table("prompts", prompts_table(prompts, context.bench.encoded(prompts)), context.out)


def train(name: str) -> Step:
    """One agent's training."""

    def step(context: Context) -> None:
        study = context.bench.study
        config = training_config(study, name)
        if config is None:
            raise ValueError(f"{name} is not trained here")
        sites = chosen_sites(context, name)
        if sites is not None:
            config = config.model_copy(
                update={"lora": config.lora.model_copy(update={"sites": sites})}
            )
        table = train_agent(
            name,
            config,
            context.bench.base(),
            out=context.out,
            # Removed at the end, and what was produced lies beside it.
            work=context.work / "training",
            fingerprint_prompts=tuple(fingerprint_prompts(study)),
            max_nodes=study.max_nodes,
            progress=context.progress,
        )
        write_table("diagnostics", diagnosed(name, config, table), context.out)

    return step


def enrol(context: Context) -> None:
    """Who is measured, and how those were trained that come from elsewhere, where they say it."""
    study = context.bench.study
    roster = context.bench.roster(study.agents, context.trained)
    scripted = [name for name, agent in study.agents.items() if agent.policy is not None]
    write_table("agents", agents_table(roster, scripted), context.out)
    for name in ("training", "plays"):
        told = [
            read_table(name, folder).with_columns(agent=pl.lit(agent))
            for agent, folder in loaded_adapters(study).items()
            if (folder / f"{name}.parquet").is_file()
        ]
        if told:
            write_table(name, pl.concat(told), context.out)


def compare(context: Context) -> None:
    """Which pairs of agents the study compares, and which agents are states of one training."""
    rows = [
        {
            "comparison": pair.comparison,
            "kind": pair.kind,
            "agent_a": pair.first,
            "agent_b": pair.second,
            "tested": pair.tested,
        }
        for pair in compared(context.bench.study)
    ]
    write_table("comparisons", from_rows("comparisons", rows), context.out)
    study = context.bench.study
    states: list[dict[str, object]] = [
        {
            "agent": name,
            "of": made.of,
            "step": made.step,
            "steps": config.steps,
            "training_seed": config.seed,
        }
        for name, entry in study.agents.items()
        if (made := entry.derived) is not None
        and made.step is not None
        and (config := training_config(study, made.of)) is not None
    ]
    if states:
        write_table("checkpoints", from_rows("checkpoints", states), context.out)


def decide(name: str) -> Step:
    """One agent's decisions on every prompt."""

    def step(context: Context) -> None:
        bench = context.bench
        prompts = tuple(bench.prompts())
        policy = bench.study.agents[name].policy
        if policy is not None:
            write_table("decisions", scripted_decisions(name, policy, prompts), context.out)
            return
        roster = bench.roster([name], context.trained)
        table = decisions_table(
            roster,
            name,
            prompts,
            bench.encoded(prompts),
            max_nodes=bench.study.max_nodes,
            progress=context.progress,
        )
        write_table("decisions", table, context.out)

    return step


def behave(context: Context) -> None:
    """Policies, cooperation, and the control label, layout, order or move."""
    study = context.bench.study
    tables = gather(context.needs.values())
    trained = trained_sets(study, tables)
    prompts, decisions = tables["prompts"], tables["decisions"]
    write_table("policy", policy_table(prompts, decisions), context.out)
    write_table("cooperation", cooperation_table(prompts, decisions), context.out)
    if trained:
        write_table("trained_on", trained_on_table(trained), context.out)
        transfer = transfer_table(prompts, decisions, tables["agents"], trained)
        states = transfer_states_table(prompts, decisions, tables["agents"], trained)
        write_table("transfer", transfer, context.out)
        write_table("transfer_states", states, context.out)
        write_table("learned", learned_table(transfer, states), context.out)


def trained_sets(study: Study, tables: Mapping[str, pl.DataFrame]) -> dict[str, TrainedOn]:
    """What each adapter and checkpoint was trained on, or what stands in for it.

    Without the structured text nothing can stand in, and agents of unknown training are left out.
    So are agents with undefined log-odds: a gate says which.
    """
    undefined = tables["decisions"].filter(pl.col("log_odds").is_null()).get_column("agent")
    scored = [name for name in study.agents if name not in set(undefined)]
    configs = {name: known_training(study, name) for name in scored}
    known = {
        name: trained_on(training_prompts(config))
        for name, config in configs.items()
        if config is not None
    }
    prompts = tables["prompts"]
    if prompts.filter(pl.col("family") == REFERENCE_FAMILY).is_empty():
        return known
    return with_unknown(tables["agents"].filter(pl.col("agent").is_in(scored)), prompts, known)
