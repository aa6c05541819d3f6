"""How is behaviour evaluated beyond policies and the controls? The steps of the suite.

Like the other steps, each reads the tables of earlier stages, calls one package and writes tables
into its own folder. Only ``answer`` and ``affect`` ask a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from moralscope.behaviour.playing.pairs import (
    CLASSICS,
    exploitability_table,
    play_table,
    price_of_morality_table,
)
from moralscope.behaviour.playing.protocol import replayed
from moralscope.behaviour.playing.regret import action_shares_table, regret_table
from moralscope.behaviour.playing.spreading import dynamics_table, fixation_table
from moralscope.behaviour.playing.tournaments import (
    FIELD,
    matches_table,
    play_tournaments,
    standings_table,
)
from moralscope.behaviour.presentations import Presented, presented
from moralscope.behaviour.speaking.agreement import agreement_table
from moralscope.behaviour.speaking.answering import held_conversations, sampled_answers
from moralscope.behaviour.speaking.side_effects import side_effects_table
from moralscope.behaviour.varying.contrasts import contrasts_table
from moralscope.behaviour.varying.generalisation import generalisation_table
from moralscope.behaviour.varying.nearest import nearest_table
from moralscope.behaviour.varying.robustness import robustness_table
from moralscope.behaviour.varying.similarity import similarity_table
from moralscope.behaviour.varying.variance import variance_table
from moralscope.core.tables import write_table
from moralscope.games import get_game, get_opponent
from moralscope.studies.choices.evaluation import answer_prompts, conversation_prompts
from moralscope.studies.steps.context import Context, Step, gather
from moralscope.studies.study import Study, base_name

Named = tuple[str, pl.DataFrame]
"""A table and its name."""


def evaluate(context: Context) -> None:
    """Everything about behaviour that needs no player but the agent and one opponent."""
    study = context.bench.study
    tables = gather(context.needs.values())
    found: dict[str, list[pl.DataFrame]] = {}
    for name, table in (*_in_games(study, tables), *_in_words(study, tables)):
        found.setdefault(name, []).append(table)
    for name, parts in found.items():
        write_table(name, pl.concat(parts), context.out)


def _in_games(study: Study, tables: Mapping[str, pl.DataFrame]) -> Iterator[Named]:
    """What the structured text of every game tells."""
    wanted = study.evaluation
    prompts, decisions = tables["prompts"], tables["decisions"]
    policies = _policies(study, tables)
    if wanted.wants("generalisation"):
        yield "generalisation", generalisation_table(prompts, decisions, tables["agents"])
    if wanted.wants("regret"):
        yield "regret", regret_table(policies, wanted.opponents)
        yield "action_shares", action_shares_table(policies, wanted.opponents)
    if wanted.wants("paper"):
        paper = replayed(policies, games=wanted.paper_games, seed=study.seed)
        yield "moves", paper.moves
        yield "regret", paper.regret
        yield "action_shares", paper.action_shares


def _policies(study: Study, tables: Mapping[str, pl.DataFrame]) -> tuple[Presented, ...]:
    """Every agent's policy in the games that are played, under the labels that they are played in.

    Robustness asks about more labels, in one game and fewer orders.
    """
    wanted = study.evaluation
    labels = {frozenset(pair) for pair in (study.prompts.words, *wanted.labels)}
    games = {get_game(game).name for game in wanted.games}
    every = presented(tables["prompts"], tables["decisions"])
    return tuple(p for p in every if p.game in games and frozenset(p.labels.split("/")) in labels)


def _split(decisions: pl.DataFrame) -> pl.DataFrame:
    """The agents whose decisions are all defined: a variance has no split with holes in it."""
    holes = decisions.filter(pl.col("p_positive_given_legal").is_null()).get_column("agent")
    return decisions.filter(~pl.col("agent").is_in(holes.unique().to_list()))


def _in_words(study: Study, tables: Mapping[str, pl.DataFrame]) -> Iterator[Named]:
    """What one game in many wordings tells, and answers in the agents' own words."""
    wanted = study.evaluation
    prompts, decisions = tables["prompts"], tables["decisions"]
    if wanted.wants("contrasts"):
        yield "contrasts", contrasts_table(prompts, decisions, tables["agents"])
        yield "nearest", nearest_table(prompts, decisions)
    if wanted.wants("robustness"):
        labels = "/".join(study.prompts.words)
        yield "robustness", robustness_table(prompts, decisions, labels=labels)
        yield "variance", variance_table(prompts, _split(decisions), labels=labels)
    if wanted.wants("similarity"):
        yield "similarity", similarity_table(prompts, decisions, margin=wanted.margin)
    if wanted.wants("answers"):
        yield "metric_agreement", agreement_table(prompts, decisions, tables["answers"])


def play(context: Context) -> None:
    """Agents against each other and against strategies: exactly, in populations, in tournaments."""
    study = context.bench.study
    wanted = study.evaluation
    tables = gather(context.needs.values())
    policies = _policies(study, tables)
    asked = {
        get_opponent(expression).name: get_opponent(expression) for expression in wanted.opponents
    }
    classics = tuple({**{classic.name: classic for classic in CLASSICS}, **asked}.values())
    noise = wanted.noise
    made: dict[str, pl.DataFrame] = {}
    if wanted.wants("play"):
        made["play"] = play_table(policies, classics, noise)
        made["exploitability"] = exploitability_table(policies)
        made["price_of_morality"] = price_of_morality_table(policies, classics)
        made["dynamics"] = dynamics_table(policies, classics, noise)
        made["fixation"] = fixation_table(policies, classics, noise)
    if wanted.wants("tournament"):
        played = play_tournaments(
            policies,
            wanted.strategies or FIELD,
            rounds=wanted.rounds,
            repetitions=wanted.repetitions,
            seed=study.seed,
        )
        made["matches"] = matches_table(played)
        made["standings"] = standings_table(played)
    for name, table in made.items():
        write_table(name, table, context.out)


def answer(name: str) -> Step:
    """One agent's sampled answers, and conversations about its decisions."""

    def step(context: Context) -> None:
        study, bench = context.bench.study, context.bench
        wanted = study.evaluation
        roster = bench.roster([name], context.trained)
        # A prompt that another set asks too stands under that set's name.
        known = {prompt.decision.question: prompt for prompt in bench.prompts()}
        prompts = [known[p.decision.question] for p in answer_prompts(study.prompts.words)]
        sampled = sampled_answers(
            roster,
            name,
            prompts,
            bench.encoded(prompts),
            samples=wanted.answers,
            max_new_tokens=wanted.answer_tokens,
            seed=study.seed,
            max_nodes=study.max_nodes,
            progress=context.progress,
        )
        write_table("answers", sampled, context.out)
        held = held_conversations(
            roster,
            name,
            [known[p.decision.question] for p in conversation_prompts(study.prompts.words)],
            max_new_tokens=wanted.answer_tokens,
            follow_up_tokens=wanted.conversation_tokens,
            seed=study.seed,
            max_nodes=study.max_nodes,
            progress=context.progress,
        )
        write_table("transcripts", held, context.out)

    return step


def affect(name: str) -> Step:
    """What else the fine-tune of one agent changed."""

    def step(context: Context) -> None:
        study = context.bench.study
        base = base_name(study)
        roster = context.bench.roster([base, name], context.trained)
        table = side_effects_table(
            roster,
            name,
            base,
            seed=study.seed,
            max_nodes=study.max_nodes,
            progress=context.progress,
        )
        write_table("side_effects", table, context.out)

    return step
