"""What does it decide, where does that form, and what carries the difference? All in one call.

1. Arguments are checked and spelt out (``explaining.wanted``); a mistake in them is an error.
2. Every agent's decisions are scored, then each method runs as jobs (``explaining.measuring``).
3. A job that cannot be done (prompts that do not align, a span that is not there, too little
   memory) leaves a note that says why; the rest is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import ConfigError, MoralscopeError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.tables import conform
from moralscope.explaining.agents import Agents
from moralscope.explaining.asking import named
from moralscope.explaining.explanation import Explanation, Note
from moralscope.explaining.measuring import (
    Aligned,
    Bench,
    Job,
    ablation_jobs,
    aligned,
    approximation_jobs,
    attribution_jobs,
    joined,
    lens_jobs,
    patching_jobs,
    path_jobs,
)
from moralscope.explaining.wanted import DEFAULT_METHODS, METHODS, Sites, Wanted, spell_out
from moralscope.models.alignment import ANSWER_SPAN
from moralscope.models.rendering import encode_all
from moralscope.models.tables import agents_table, decisions_table, prompts_table

__all__ = ["METHODS", "explain"]

_ON_PAIRS = ("patching", "paths", "approximation")
"""Methods that put one thing's activity into another."""


def explain(
    agents: Agents,
    prompts: Prompt | Sequence[Prompt] | PromptSet,
    *,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    source: str | None = None,
    target: str | None = None,
    pairs: str | Sequence[tuple[str, str]] | None = None,
    positions: str = ANSWER_SPAN,
    sites: Sites | None = None,
    write: str = "write",
    memory_gib: float = 2.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explanation:
    """Explain what agents decide on prompts.

    Args:
        agents: from ``load``.
        prompts: from ``ask``, one or more, or from ``games``.
        methods: any of ``METHODS``: lens, attribution (with its change from the base), patching,
            paths (straight to the decision), approximation (a few passes instead of a sweep),
            ablation (zero in place of a site).
        source: agent that activity comes from; the base unless given.
        target: agent that it is put into; every other one unless given.
        pairs: patch across prompts instead: (target, source) names of prompts, or the name of a
            change (``labels``, ``payoffs``, ... of ``games.CHANGES``). Each agent is then patched
            with its own activity unless ``source`` and ``target`` differ. Without other agents,
            prompts are paired as they declare it, else each with the first.
        positions: where patches act: ``answer_span``, ``all``, or a named span of the prompts.
        sites: what is patched: kinds (``head``, ``attn``, ``q``, ...), names (``L5.h3``), a
            sequence within for sites together; every head and MLP unless given.
        write: ``write`` (the source's own contribution) or ``z`` (its head activation through
            the target's projection).
        memory_gib: what a pass may use beyond the model and its clean runs.
        seed: of what is drawn: the lens's random option pairs.
        progress: told how far along it is.

    Returns:
        Tables, figures and a summary. What could not be done is in its ``notes``.

    Raises:
        MoralscopeError: an argument is wrong, an answer cannot be scored as asked, an agent does
            not act as it did when it was trained, the architecture is not supported, or nothing
            of what was asked could be done.
    """
    if not isinstance(cast("object", agents), Agents):
        raise ConfigError(
            "These are not agents",
            seen=f"{type(agents).__name__}",
            allowed="what load returns",
            remedy='write explain(load("default"), prompts)',
        )
    wanted = spell_out(
        agents, named(prompts), methods=methods, source=source, target=target, pairs=pairs,
        positions=positions, sites=sites, write=write, memory_gib=memory_gib, seed=seed,
        progress=progress or silent,
    )  # fmt: skip
    bench = Bench(agents, wanted, encode_all(agents.roster.tokenizer, tuple(wanted.prompts)))
    _decide(bench)
    notes = _measure(bench)
    tables = {name: conform(name, table) for name, table in joined(bench.tables).items()}
    return Explanation(
        wanted.prompts, tables, notes, wanted.methods, wanted.positions, wanted.write
    )


def _decide(bench: Bench) -> None:
    """Who is asked what, and what each agent decides."""
    prompts, roster = tuple(bench.wanted.prompts), bench.agents.roster
    bench.tables["agents"] = [agents_table(roster)]
    bench.tables["prompts"] = [prompts_table(prompts, bench.encoded)]
    bench.tables["decisions"] = [
        decisions_table(roster, name, prompts, bench.encoded, progress=bench.wanted.progress)
        for name in bench.agents.names
    ]


def _measure(bench: Bench) -> tuple[Note, ...]:
    """Every job that can be done, and why the others cannot.

    Raises:
        MoralscopeError: the first reason, where none could be done.
    """
    wanted = bench.wanted
    places = aligned(bench, wanted.positions)
    at_answer = aligned(bench, ANSWER_SPAN)
    notes = _unpaired(wanted, places, at_answer)
    jobs = [job for method in wanted.methods for job in _jobs(bench, method, places, at_answer)]
    done = 0
    for count, job in enumerate(jobs, start=1):
        try:
            found = job.compute()
        except MoralscopeError as error:
            notes.append(Note(job.method, job.subject, error))
        else:
            done += 1
            for name, table in found.items():
                bench.tables.setdefault(name, []).append(table)
        wanted.progress(ProgressEvent("explain", count, len(jobs), f"{job.method} {job.subject}"))
    if not done:
        raise notes[0].error
    return tuple(notes)


def _jobs(bench: Bench, method: str, places: Aligned, at_answer: Aligned) -> Iterator[Job]:
    match method:
        case "lens":
            yield from lens_jobs(bench)
        case "attribution":
            yield from attribution_jobs(bench)
        case "patching":
            yield from patching_jobs(bench, places)
        case "paths":
            yield from path_jobs(bench, places)
        case "approximation":
            yield from approximation_jobs(bench, at_answer)
        case _:
            yield from ablation_jobs(bench)


def _unpaired(wanted: Wanted, places: Aligned, at_answer: Aligned) -> list[Note]:
    """What cannot be patched because there is nothing to patch between, or it does not align."""
    notes: list[Note] = []
    chosen = [method for method in wanted.methods if method in _ON_PAIRS]
    if chosen and not wanted.prompt_pairs:
        alone = ConfigError(
            "There is nothing to patch between",
            seen="one agent and one prompt",
            allowed="two agents, or two prompts",
            remedy="ask a second prompt, or load an agent beside the base",
        )
        return [Note(", ".join(chosen), "", alone)]
    for method in chosen:
        here = at_answer if method == "approximation" else places
        notes += [Note(method, subject, error) for subject, error in here.refused]
    return notes
