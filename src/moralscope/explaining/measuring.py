"""How is each part of an explanation measured? Jobs, one for each agent or pair of agents.

A job calls one function of ``mechanisms`` and returns tables. Jobs do not depend on each other's
success, so what cannot be done is left out and told, and the rest is done. Clean runs are made when
they are first needed and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

import polars as pl

from moralscope.core.errors import ConfigError, MoralscopeError, SiteError
from moralscope.core.site import Kind, Site
from moralscope.core.streams import stream
from moralscope.explaining.agents import BASE, Agents, is_checkpoint
from moralscope.explaining.wanted import Wanted
from moralscope.mechanisms.approximation.tables import agreement_table, approximation_table
from moralscope.mechanisms.attribution.change import base_attributions, change_table
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import CleanPack, CleanRun, run_clean, with_every_token
from moralscope.mechanisms.intervening.effects import ablation_table
from moralscope.mechanisms.lens.controls import lens_controls_table
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.mechanisms.lens.stabilisation import stabilisation_tables
from moralscope.mechanisms.lens.unrelated import unrelated_names, unrelated_prompts
from moralscope.mechanisms.patching.tables import patching_table
from moralscope.mechanisms.paths.tables import direct_to_decision, patch_paths
from moralscope.models.alignment import ANSWER_SPAN, align
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Part
from moralscope.models.rendering import EncodedPrompt, encode_all

LENS_DRAWS = 40
"""Random option pairs of the lens's control."""

Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Job:
    """One thing to measure.

    Attributes:
        method: one of ``METHODS``.
        subject: of which agent, or ``SOURCE>TARGET``.
        compute: returns tables by name.
    """

    method: str
    subject: str
    compute: Callable[[], Tables]


@dataclass
class Bench:
    """What is in memory while an explanation is measured.

    Attributes:
        agents: who.
        wanted: what.
        encoded: the prompts as the model reads them.
        tables: what has been measured so far.
    """

    agents: Agents
    wanted: Wanted
    encoded: tuple[EncodedPrompt, ...]
    tables: dict[str, list[pl.DataFrame]] = field(default_factory=dict[str, list[pl.DataFrame]])
    _runs: dict[str, CleanRun] = field(default_factory=dict[str, CleanRun])

    def run(self, name: str) -> CleanRun:
        """An agent's clean run, made once."""
        if name not in self._runs:
            sites = [site for group in self.wanted.sites or () for site in group]
            every: tuple[Part, ...] = get_args(Part)
            kinds = {site.kind for site in sites}
            with self.agents.speaking(name) as model:
                self._runs[name] = run_clean(
                    name,
                    model,
                    self.agents.anatomy(name),
                    self.encoded,
                    everywhere=self.wanted.positions != ANSWER_SPAN,
                    parts=tuple(part for part in every if part in kinds),
                )
        return self._runs[name]

    def singles(self, name: str, *kinds: Kind) -> tuple[Site, ...]:
        """The chosen sites of some kinds, each on its own; every head and MLP unless chosen.

        Raises:
            SiteError: none of the chosen sites is of these kinds.
        """
        if self.wanted.sites is None:
            return self.agents.anatomy(name).component_sites
        chosen = {site for group in self.wanted.sites for site in group if site.kind in kinds}
        if not chosen:
            raise SiteError(
                "None of the chosen sites can be measured this way",
                seen=", ".join(str(group[0]) for group in self.wanted.sites[:4]),
                allowed=f"sites of the kinds {', '.join(kinds)}",
                remedy="choose such sites as well, or leave out sites for every head and MLP",
            )
        return tuple(sorted(chosen))


def lens_jobs(bench: Bench) -> Iterator[Job]:
    """Each agent's lens, its controls, and where it settles."""
    for name in bench.agents.names:
        yield Job("lens", name, lambda name=name: _lens(bench, name))


def _lens(bench: Bench, name: str) -> Tables:
    asked = tuple(bench.wanted.prompts)
    neutral = tuple(unrelated_prompts(asked))
    read = encode_all(bench.agents.roster.tokenizer, neutral)
    run = bench.run(name)
    with bench.agents.speaking(name) as model:
        anatomy = bench.agents.anatomy(name)
        lens = lens_table(anatomy, run)
        controls = lens_controls_table(
            anatomy,
            run,
            rng=stream(bench.wanted.seed, "lens-controls"),
            draws=LENS_DRAWS,
            elsewhere=run_clean(name, model, anatomy, read, keep_cache=False),
            names=unrelated_names(asked, neutral),
        )
    scenarios = {prompt.name: prompt.scenario for prompt in asked}
    settled, summary = stabilisation_tables(
        lens, scenarios, seed=bench.wanted.seed, controls=controls
    )
    return {
        "lens": lens,
        "lens_controls": controls,
        "stabilisation": settled,
        "stabilisation_summary": summary,
    }


def attribution_jobs(bench: Bench) -> Iterator[Job]:
    """Each agent's attribution, and its change from the base split into weights and input."""
    for name in bench.agents.names:
        yield Job("attribution", name, lambda name=name: _attribution(bench, name))
    for name in bench.agents.names:
        if name != BASE:
            yield Job("attribution", f"{name} against base", lambda name=name: _change(bench, name))


def _attribution(bench: Bench, name: str) -> Tables:
    run = bench.run(name)
    with bench.agents.speaking(name):
        whole, completeness = attribution_tables(bench.agents.anatomy(name), run)
    return {"attribution": whole, "completeness": completeness}


def _change(bench: Bench, name: str) -> Tables:
    base, run = bench.run(BASE), bench.run(name)
    with bench.agents.speaking(BASE):
        found = base_attributions(bench.agents.anatomy(BASE), base)
    with bench.agents.speaking(name) as model:
        anatomy = bench.agents.anatomy(name)
        whole = _whole_packs(bench.agents, base)
        return {"attribution": change_table(model, anatomy, run, base, found, everywhere=whole)}


def _whole_packs(agents: Agents, base: CleanRun) -> Iterator[CleanPack]:
    """The base's packs with every token, one at a time: together they might not fit."""
    for part in base.packs:
        if part.everywhere is not None:
            yield part
        else:
            with agents.speaking(BASE) as model:
                whole = with_every_token(model, agents.anatomy(BASE), part)
            yield whole


@dataclass(frozen=True)
class Aligned:
    """The pairs of prompts that align at some positions, as (target, source) indices."""

    pairs: tuple[tuple[int, int], ...]
    refused: tuple[tuple[str, MoralscopeError], ...]


def aligned(bench: Bench, positions: str) -> Aligned:
    """Which of the wanted pairs align, and why the others do not."""
    place = {read.name: index for index, read in enumerate(bench.encoded)}
    pairs: list[tuple[int, int]] = []
    refused: list[tuple[str, MoralscopeError]] = []
    for target, source in bench.wanted.prompt_pairs:
        pair = place[target], place[source]
        try:
            align(bench.encoded[pair[0]], bench.encoded[pair[1]], positions)
        except MoralscopeError as error:
            refused.append((target if target == source else f"{source} into {target}", error))
        else:
            pairs.append(pair)
    return Aligned(tuple(pairs), tuple(refused))


def patching_jobs(bench: Bench, pairs: Aligned) -> Iterator[Job]:
    """Every pair of agents, and each target patched into itself as a control."""
    if not pairs.pairs:
        return
    for source, target in bench.wanted.agent_pairs:
        subject = f"{source}>{target}"
        yield Job(
            "patching", subject, lambda s=source, t=target: _patching(bench, s, t, pairs.pairs)
        )
    for target in dict.fromkeys(target for _, target in bench.wanted.agent_pairs):
        itself = f"{target} into itself"
        yield Job("patching", itself, lambda t=target: _self_patch(bench, t, pairs.pairs[0][0]))


def _patching(bench: Bench, source: str, target: str, pairs: tuple[tuple[int, int], ...]) -> Tables:
    wanted = bench.wanted
    donor, receiver = bench.run(source), bench.run(target)
    with bench.agents.speaking(target) as model:
        patching, controls = patching_table(
            model,
            bench.agents.anatomy(target),
            donor,
            receiver,
            sites=wanted.sites,
            pairs=pairs,
            positions=wanted.positions,
            write=wanted.write,
            memory_bytes=wanted.memory_bytes,
            progress=wanted.progress,
        )
    if is_checkpoint(bench.agents, source, target) and source != target:
        # Full checkpoints may differ in what no site writes: final norm and unembedding.
        controls = controls.filter(pl.col("control") != "write_all")
    return {"patching": patching, "controls": controls}


def _self_patch(bench: Bench, target: str, member: int) -> Tables:
    wanted, run = bench.wanted, bench.run(target)
    with bench.agents.speaking(target) as model:
        _, controls = patching_table(
            model,
            bench.agents.anatomy(target),
            run,
            run,
            sites=wanted.sites,
            pairs=[(member, member)],
            positions=wanted.positions,
            write=wanted.write,
            memory_bytes=wanted.memory_bytes,
            progress=wanted.progress,
        )
    return {"controls": controls}


def path_jobs(bench: Bench, pairs: Aligned) -> Iterator[Job]:
    """Every path from a site straight to the decision."""
    for source, target in bench.wanted.agent_pairs if pairs.pairs else ():
        subject = f"{source}>{target}"
        yield Job("paths", subject, lambda s=source, t=target: _paths(bench, s, t, pairs.pairs))


def _paths(bench: Bench, source: str, target: str, pairs: tuple[tuple[int, int], ...]) -> Tables:
    wanted = bench.wanted
    donor, receiver = bench.run(source), bench.run(target)
    senders = bench.singles(target, "embed", "head", "attn", "mlp")
    with bench.agents.speaking(target) as model:
        anatomy: Anatomy = bench.agents.anatomy(target)
        edges = [direct_to_decision(anatomy, site) for site in senders]
        table = patch_paths(
            model,
            anatomy,
            donor,
            receiver,
            edges,
            pairs=pairs,
            positions=wanted.positions,
            write=wanted.write,
            memory_bytes=wanted.memory_bytes,
            progress=wanted.progress,
        )
    return {"edges": table}


def approximation_jobs(bench: Bench, pairs: Aligned) -> Iterator[Job]:
    """Every pair's effects in a few passes, at the answer span, and their agreement."""
    for source, target in bench.wanted.agent_pairs if pairs.pairs else ():
        yield Job(
            "approximation",
            f"{source}>{target}",
            lambda s=source, t=target: _approximation(bench, s, t, pairs.pairs),
        )


def _approximation(
    bench: Bench, source: str, target: str, pairs: tuple[tuple[int, int], ...]
) -> Tables:
    donor, receiver = bench.run(source), bench.run(target)
    sites = bench.singles(target, "embed", "head", "attn", "mlp")
    with bench.agents.speaking(target) as model:
        table = approximation_table(
            model,
            bench.agents.anatomy(target),
            donor,
            receiver,
            sites=sites,
            pairs=pairs,
            progress=bench.wanted.progress,
        )
    found = {"approximations": table}
    mine = (pl.col("source") == source) & (pl.col("target") == target)
    exact = [part.filter(mine) for part in bench.tables.get("patching", ())]
    comparable = bench.wanted.positions == ANSWER_SPAN and bench.wanted.write == "write"
    if comparable and any(part.height for part in exact):
        found["agreement"] = agreement_table(table, pl.concat(exact))
    return found


def ablation_jobs(bench: Bench) -> Iterator[Job]:
    """Each agent without each site: zero in its place."""
    for name in bench.agents.names:
        yield Job("ablation", name, lambda name=name: _ablation(bench, name))


def _ablation(bench: Bench, name: str) -> Tables:
    where = bench.wanted.positions
    if where not in ("all", "answer_span"):
        raise ConfigError(
            "Ablation does not act at a named span",
            seen=f"positions={where!r}",
            allowed="answer_span or all",
            remedy="leave out ablation, or use mechanisms.ablate with node indices",
        )
    kinds = tuple(kind for kind in get_args(Kind) if kind not in ("bias", "all"))
    sites = bench.singles(name, *kinds)
    run = bench.run(name)
    with bench.agents.speaking(name) as model:
        table = ablation_table(
            model,
            bench.agents.anatomy(name),
            run,
            sites,
            "zero",
            positions="all" if where == "all" else "answer_span",
            progress=bench.wanted.progress,
        )
    return {"ablation": table}


def joined(tables: Mapping[str, list[pl.DataFrame]]) -> Tables:
    """Parts of one table put together."""
    return {name: pl.concat(parts) for name, parts in tables.items()}
