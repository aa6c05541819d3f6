"""How are the stages of representations computed? Streams, their comparison, searches by pair.

They take the context of ``steps.context``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from moralscope.core.decision import Prompt
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, write_table
from moralscope.evidence.pairs import Pair
from moralscope.games import Pair as Counterparts
from moralscope.games.asking.framing import framings
from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.representations.directions import (
    Direction,
    direction_effects,
    mean_difference,
    save_directions,
)
from moralscope.mechanisms.representations.exchanging import Speaking
from moralscope.mechanisms.representations.probes import Asked, blocks_of, centred
from moralscope.mechanisms.representations.random_model import random_like
from moralscope.mechanisms.representations.similarity import pairs_table, similarity_table
from moralscope.mechanisms.representations.streams import (
    Streams,
    joined,
    read_streams,
    save_streams,
    streams_of,
)
from moralscope.mechanisms.representations.subspaces import (
    LEAST_BLOCKS,
    Readings,
    Search,
    search_subspaces,
    split_blocks,
)
from moralscope.mechanisms.representations.tables import (
    AGENTS,
    Question,
    agent_separation_rows,
    agents_asked,
    answerable,
    change_question,
    framing_question,
    questions,
    readings_of,
    separation_rows,
    subspace_tables,
)
from moralscope.models.anatomy import dissect
from moralscope.studies.catalogue import changed_pairs, mechanism_prompts
from moralscope.studies.choices.representations import RepresentationChoice
from moralscope.studies.steps.context import Context, Step
from moralscope.studies.study import Study, base_name, compared, inside

COMPARED = "representations"
"""The stage that compares all streams."""

RANDOM = "represent:random"
"""The stage that runs a model with random weights; no agent's name has a colon."""

MOST_REPLICATES = 6
"""Pairs of seeds whose separation is the control of that of other agents."""


def chosen(study: Study) -> RepresentationChoice:
    """The settings."""
    return study.mechanisms.representations


def framed(study: Study) -> tuple[Prompt, ...]:
    """One text in a neutral and in a moral frame; none of it for prompts of the user's own."""
    frames = chosen(study).framing
    if frames is None or not study.prompts.games:
        return ()
    return tuple(framings(study.prompts.words, names=frames))


def exchanged(study: Study) -> dict[str, tuple[Counterparts, ...]]:
    """By change, the prompts whose streams are exchanged; only changes with scenarios enough."""
    if not study.prompts.games:
        return {}
    found = {change: changed_pairs(study, change) for change in chosen(study).changes}
    return {
        change: pairs
        for change, pairs in found.items()
        if len({frozenset((p.target.scenario, p.source.scenario)) for p in pairs}) >= LEAST_BLOCKS
    }


def searched_pairs(study: Study) -> tuple[Pair, ...]:
    """The pairs of agents whose streams are exchanged: those that a named comparison judges."""
    scenarios = {prompt.scenario for prompt in mechanism_prompts(study)}
    if len(scenarios) < LEAST_BLOCKS:
        return ()
    known = set(inside(study))
    pairs = [p for p in compared(study) if p.kind == "named" and p.tested]
    return tuple(p for p in pairs if set(p.agents) <= known)


def searched_agents(study: Study) -> tuple[str, ...]:
    """The agents in which changes of the prompt are searched: the base, and those of the pairs."""
    names = [base_name(study), *(name for pair in searched_pairs(study) for name in pair.agents)]
    return tuple(dict.fromkeys(names))


def asked_questions(study: Study) -> list[Question]:
    """What is told apart: how prompts are written, what they are about, how they are framed."""
    found = questions(tuple(mechanism_prompts(study)))
    for change, pairs in exchanged(study).items():
        both = {p.name: p for pair in pairs for p in (pair.target, pair.source)}
        found.append(change_question(change, tuple(both.values())))
    if framed(study):
        second = (chosen(study).framing or ("", ""))[1]
        found.append(framing_question(framed(study), second))
    return [question for question in found if question.answerable]


def probed_layers(layers: int, count: int) -> list[int]:
    """Layers spread over a model, the last among them."""
    return sorted({round((i + 1) * layers / count) - 1 for i in range(count)} - {-1})


def searched_layers(layers: int, count: int) -> list[int]:
    """Layers spread over the later two thirds of a model, the last left out."""
    share = [0.4 + 0.55 * i / max(1, count - 1) for i in range(count)]
    return sorted({min(layers - 1, round(s * (layers - 1))) for s in share})


def extra_prompts(study: Study, *, searched: bool) -> tuple[Prompt, ...]:
    """Prompts that are run beside the mechanism prompts: framed ones, and counterparts."""
    there = {prompt.name for prompt in mechanism_prompts(study)}
    found = {prompt.name: prompt for prompt in framed(study)}
    for pairs in exchanged(study).values() if searched else ():
        found |= {p.source.name: p.source for p in pairs if p.source.name not in there}
    return tuple(found.values())


def represent(name: str) -> Step:
    """One agent's streams, and the subspaces and directions of what its prompts differ in."""

    def step(context: Context) -> None:
        bench = context.bench
        study = bench.study
        run = bench.clean_run(name, context.trained)
        parts = [streams_of(run)]
        extra = extra_prompts(study, searched=name in searched_agents(study))
        with bench.roster([name], context.trained).speaking(name) as model:
            anatomy = bench.roster([name], context.trained).anatomy(name)
            if extra:
                encoded = bench.encoded(extra)
                more = run_clean(
                    name, model, anatomy, encoded, max_nodes=study.max_nodes, keep_cache=False
                )
                parts.append(streams_of(more))
            streams = joined(parts)
            save_streams(streams, context.out)
            if name in searched_agents(study):
                agent = Speaking(model, anatomy, run)
                _search_changes(context, agent, streams)

    return step


def _search_changes(context: Context, agent: Speaking, streams: Streams) -> None:
    """Subspaces of each change, and what adding the direction of a property does."""
    study = context.bench.study
    place = {prompt.name: index for index, prompt in enumerate(agent.run.prompts)}
    found: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    for change, pairs in exchanged(study).items():
        asked = {place[p.target.name]: (p.target.name, p.source.name) for p in pairs}
        every = [prompt for pair in pairs for prompt in (pair.target, pair.source)]
        scenarios = {prompt.name: prompt.scenario for prompt in every}
        found.append(_searched(context, agent, readings_of(change, streams, asked, scenarios)))
    if found:
        _write_searches(found, context.out)
    rows: list[dict[str, object]] = []
    for question in asked_questions(study):
        members = {i: place[p] for i, p in enumerate(question.prompts) if p in place}
        if members:
            about = (question.what, agent.run.agent)
            rows += _steered(context, agent, about, question.asked(streams), members)
    write_table("direction_effects", from_rows("direction_effects", rows), context.out)


def _searched(
    context: Context, agent: Speaking, readings: Readings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    study = context.bench.study
    how = chosen(study)
    rng = stream(study.seed, "subspaces", readings.what, readings.source, agent.run.agent)
    layers = searched_layers(agent.anatomy.n_layers, how.searched)
    dimensions = tuple(k for k in how.dimensions if k <= agent.anatomy.width)
    search = Search(dimensions=dimensions, steps=how.steps, arbitrary=how.arbitrary)
    found = search_subspaces(agent, readings, layers, rng, search)
    return subspace_tables(agent.run.agent, readings, found)


def _write_searches(found: Sequence[tuple[pl.DataFrame, pl.DataFrame]], out: Path) -> None:
    write_table("subspace_effects", pl.concat(effects for effects, _ in found), out)
    write_table("subspaces", pl.concat(summary for _, summary in found), out)


def _steered(
    context: Context,
    agent: Speaking,
    about: tuple[str, str],
    asked: Asked,
    members: Mapping[int, int],
) -> list[dict[str, object]]:
    """Rows of directions found in half of the blocks and added in the other.

    Args:
        context: of the stage.
        agent: who is steered.
        about: what the direction tells apart, and in whose streams.
        asked: the readings it is found in, at all depths.
        members: readings that are of the agent's own prompts, and which prompts these are.
    """
    study = context.bench.study
    blocks = blocks_of(asked)
    rng = stream(study.seed, "directions", *about, agent.run.agent)
    train, _ = split_blocks([str(block) for block in blocks.tolist()], rng, least=2)
    tested = {m: asked.units[i] for i, m in members.items() if not train[i]}
    rows: list[dict[str, object]] = []
    for layer in searched_layers(agent.anatomy.n_layers, chosen(study).searched):
        here = Asked(asked.values[:, layer + 1], asked.labels, asked.units, asked.strata)
        vector = mean_difference(centred(here, blocks)[train], asked.labels[train])
        if not float(np.linalg.norm(vector)) > 0.0:
            continue
        rows += direction_effects(
            agent,
            Direction(*about, layer, vector),
            tested,
            rng,
            random=chosen(study).random_directions,
        )
    return rows


def represent_random(context: Context) -> None:
    """Streams of a model of the base's shape with random weights."""
    bench = context.bench
    more = extra_prompts(bench.study, searched=True)
    encoded = bench.encoded((*mechanism_prompts(bench.study), *more))
    name = base_name(bench.study)
    with bench.roster([name], context.trained).speaking(name) as model:
        other = random_like(model)
    nodes = bench.study.max_nodes
    run = run_clean("random", other, dissect(other), encoded, max_nodes=nodes, keep_cache=False)
    save_streams(streams_of(run), context.out)


def align(source: str, agent: str) -> Step:
    """One pair's subspaces: the streams of one agent put into another on the same prompts."""

    def step(context: Context) -> None:
        bench = context.bench
        theirs = streams_of(bench.clean_run(source, context.trained))
        run = bench.clean_run(agent, context.trained)
        prompts = tuple(mechanism_prompts(bench.study))
        asked = {index: (p.name, p.name) for index, p in enumerate(prompts)}
        scenarios = {prompt.name: prompt.scenario for prompt in prompts}
        roster = bench.roster([source, agent], context.trained)
        with roster.speaking(agent) as model:
            speaking = Speaking(model, roster.anatomy(agent), run)
            readings = readings_of(AGENTS, theirs, asked, scenarios)
            _write_searches([_searched(context, speaking, readings)], context.out)
            both = agents_asked(streams_of(run), theirs, prompts)
            about = (AGENTS, f"{agent}|{source}")
            members = {index: index for index in range(len(prompts))}
            rows = _steered(context, speaking, about, both, members)
        write_table("direction_effects", from_rows("direction_effects", rows), context.out)

    return step


def compare_streams(context: Context) -> None:
    """All streams beside each other: similarity, separations, directions."""
    study = context.bench.study
    names = inside(study)
    every = {name: read_streams(context.needs[f"represent-{name}"]) for name in names}
    random_model = read_streams(context.needs[RANDOM])
    prompts = tuple(mechanism_prompts(study))
    _write_similarity(context, every, prompts)
    layers = probed_layers(len(random_model.layers) - 1, chosen(study).depths)
    asked = asked_questions(study)
    rows: list[dict[str, object]] = []
    directions: list[Direction] = []
    # Counterparts of prompts are asked of the agents that subspaces are searched in.
    probed = [(n, q) for n in names for q in asked if set(q.prompts) <= set(every[n].prompts)]
    for name, question in probed:
        rows += separation_rows(
            every[name], question, layers, random_model=random_model, seed=study.seed
        )
        about = (question.what, name)
        directions += _directions(about, question.asked(every[name]), layers)
    for first, second in _separated(study):
        both = agents_asked(every[first], every[second], prompts)
        if answerable(both):
            rows += agent_separation_rows(
                every[first], every[second], prompts, layers, seed=study.seed
            )
            directions += _directions((AGENTS, f"{first}|{second}"), both, layers)
    write_table("separations", from_rows("separations", rows), context.out)
    save_directions(directions, context.out)


def _write_similarity(
    context: Context, every: dict[str, Streams], prompts: Sequence[Prompt]
) -> None:
    study, base = context.bench.study, base_name(context.bench.study)
    names = [prompt.name for prompt in prompts]
    own = {name: streams.of(names) for name, streams in every.items()}
    pairs = pl.concat(pairs_table(own[a], own[b], own[base]) for a, b in compared_streams(study))
    scenarios = {prompt.name: prompt.scenario for prompt in prompts}
    write_table("representation_pairs", pairs, context.out)
    table = similarity_table(pairs, own, base, scenarios)
    write_table("representation_similarity", table, context.out)


def compared_streams(study: Study) -> tuple[tuple[str, str], ...]:
    """All pairs whose streams are compared, each once."""
    known = set(inside(study))
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in compared(study):
        if set(pair.agents) <= known:
            found.setdefault(frozenset(pair.agents), pair.agents)
    return tuple(found.values())


def _separated(study: Study) -> list[tuple[str, str]]:
    """Pairs that are told apart: those judged, their bases, and seeds of one reward as control."""
    named = [pair.agents for pair in searched_pairs(study)]
    agents = {name for pair in named for name in pair}
    pairs = [p for p in compared(study) if set(p.agents) <= set(inside(study))]
    bases = [p.agents for p in pairs if p.kind == "base" and p.second in agents]
    seeds = [p.agents for p in pairs if p.kind == "replicate" and p.tested][:MOST_REPLICATES]
    return list(dict.fromkeys((*named, *bases, *seeds)))


def _directions(about: tuple[str, str], asked: Asked, layers: Sequence[int]) -> list[Direction]:
    blocks = blocks_of(asked)
    found: list[Direction] = []
    for layer in layers:
        here = Asked(asked.values[:, layer + 1], asked.labels, asked.units, asked.strata)
        vector = mean_difference(centred(here, blocks), asked.labels)
        found.append(Direction(*about, layer, vector))
    return found
