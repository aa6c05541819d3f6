"""What is to be explained, exactly? Arguments checked and spelt out before anything is computed.

Three questions are settled here: which agent's activity goes into which agent, which prompt's into
which prompt, and at which sites. Where nothing is said,

* several agents: the base's activity into every other agent, each prompt into itself;
* the base alone: across prompts, as they declare it, or else the first prompt's activity into
  every other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from moralscope.core.decision import Prompt, PromptSet
from moralscope.core.errors import AgentError, ConfigError, PromptError, SiteError, nearest
from moralscope.core.progress import Progress, silent
from moralscope.core.site import Kind, Site, parse_site
from moralscope.explaining.agents import BASE, Agents
from moralscope.games import counterfactual_pairs, declared_pairs, with_sources
from moralscope.mechanisms.patching.donors import Write
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.models.anatomy import Anatomy

METHODS = ("lens", "attribution", "patching", "paths", "approximation", "ablation")
"""What can be measured, in the order in which it is."""

DEFAULT_METHODS = ("lens", "attribution", "patching")

NamePairs = tuple[tuple[str, str], ...]
"""(target, source) by name."""

Sites = str | Site | Sequence[str | Site | Sequence[str | Site]]
"""Sites, their names or kinds (``head``: every head); a sequence within is patched together."""


@dataclass(frozen=True)
class Wanted:
    """An explanation that was asked for.

    Attributes:
        prompts: every prompt that is run, sources of pairs included.
        methods: in the order of ``METHODS``.
        agent_pairs: (source, target) by name.
        prompt_pairs: (target, source) by name; empty where there is nothing to patch between.
        across: whether these are different prompts.
        positions: where patches act.
        sites: what is patched, each group together; None for every head and MLP.
        write: see ``mechanisms.patching.edits``.
        memory_bytes: what a pass may use beyond the model and its clean runs.
        seed: of what is drawn.
        progress: told how far along it is.
    """

    prompts: PromptSet
    methods: tuple[str, ...]
    agent_pairs: NamePairs
    prompt_pairs: NamePairs
    across: bool
    positions: str = "answer_span"
    sites: tuple[tuple[Site, ...], ...] | None = None
    write: Write = "write"
    memory_bytes: int = 2 << 30
    seed: int = 0
    progress: Progress = silent


def spell_out(
    agents: Agents,
    prompts: PromptSet,
    *,
    methods: str | Sequence[str],
    source: str | None,
    target: str | None,
    pairs: str | Sequence[tuple[str, str]] | None,
    positions: str,
    sites: Sites | None,
    write: str,
    memory_gib: float,
    seed: int,
    progress: Progress,
) -> Wanted:
    """The arguments of ``explain``, checked and spelt out.

    Raises:
        MoralscopeError: one of them is wrong; each check says what it refuses.
    """
    paired, across = _pairs(agents, prompts, source, target, pairs)
    return Wanted(
        prompts=paired[0],
        methods=check_methods(methods),
        agent_pairs=agent_pairs(agents, source, target, across=across),
        prompt_pairs=paired[1],
        across=across,
        positions=check_positions(tuple(prompts), positions),
        sites=site_groups(agents.anatomy(BASE), sites),
        write=check_write(write),
        memory_bytes=check_memory(memory_gib),
        seed=check_seed(seed),
        progress=progress,
    )


def _pairs(
    agents: Agents,
    prompts: PromptSet,
    source: str | None,
    target: str | None,
    pairs: str | Sequence[tuple[str, str]] | None,
) -> tuple[tuple[PromptSet, tuple[tuple[str, str], ...]], bool]:
    """Prompts to run with their pairs, and whether these are across prompts."""
    if pairs is not None:
        return paired_prompts(prompts, pairs), True
    alone = len(agents.names) == 1 and source in (None, BASE) and target in (None, BASE)
    if alone or (source is not None and source == target):
        return (prompts, usual_pairs(prompts)), True
    return (prompts, tuple((prompt.name, prompt.name) for prompt in prompts)), False


def check_methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    """The methods that were chosen, in the order of ``METHODS``.

    Raises:
        ConfigError: there is none, or no method of a name.
    """
    chosen = (methods,) if isinstance(methods, str) else tuple(methods)
    for name in chosen:
        if name not in METHODS:
            raise ConfigError(
                "There is no method of this name",
                seen=repr(name),
                allowed=", ".join(METHODS),
                remedy=nearest(str(name), METHODS),
            )
    if not chosen:
        raise ConfigError(
            "No method was chosen",
            seen="methods=()",
            allowed=", ".join(METHODS),
            remedy="leave out methods for the usual three",
        )
    return tuple(name for name in METHODS if name in chosen)


def agent_pairs(
    agents: Agents, source: str | None, target: str | None, *, across: bool
) -> NamePairs:
    """Whose activity goes into whom: (source, target).

    Across prompts an agent is patched with its own activity unless both are named.

    Args:
        agents: who there is.
        source: as asked for.
        target: as asked for.
        across: whether prompts are paired with others.

    Raises:
        AgentError: there is no such agent, or source and target are the same on one prompt.
    """
    for name in (source, target):
        if name is not None:
            agents.anatomy(name)  # names the nearest where there is none
    if across:
        if source is None and target is None:
            return tuple((name, name) for name in agents.names)
        return ((source or target or BASE, target or source or BASE),)
    giver = source or BASE
    takers = [name for name in agents.names if name != giver] if target is None else [target]
    if giver in takers:
        raise AgentError(
            "An agent's activity on a prompt cannot be patched into itself there: nothing changes",
            seen=f"source {giver!r}, target {target!r}",
            allowed="two agents, or pairs of prompts",
            remedy="name another source, or give pairs",
        )
    return tuple((giver, taker) for taker in takers)


def paired_prompts(
    prompts: PromptSet, pairs: str | Sequence[tuple[str, str]]
) -> tuple[PromptSet, NamePairs]:
    """The prompts to run and which of them are paired: (target, source).

    Args:
        prompts: what was asked.
        pairs: pairs of names, or a change (``games.CHANGES``, or one that prompts declare).

    Raises:
        PromptError: a name is unknown, a prompt is paired with itself, or has no counterpart.
        ConfigError: there is no such change, or the pairs are not pairs.
    """
    if isinstance(pairs, str):
        made = counterfactual_pairs(prompts, pairs)
        return with_sources(prompts, made), tuple((p.target.name, p.source.name) for p in made)
    names = [prompt.name for prompt in prompts]
    found: list[tuple[str, str]] = []
    for given in pairs:
        pair = tuple(cast("Sequence[object]", given)) if not isinstance(given, str) else (given,)
        if len(pair) != 2:
            raise ConfigError(
                "This is not a pair of prompts",
                seen=repr(given),
                allowed="(target, source): two names of prompts",
                remedy=f"write pairs=[({names[-1]!r}, {names[0]!r})]",
            )
        target, source = (_known(names, str(name)) for name in pair)
        if target == source:
            raise PromptError(
                "A prompt is paired with itself",
                seen=target,
                allowed="two different prompts",
                remedy="leave out pairs to patch between agents on the same prompt",
            )
        found.append((target, source))
    if not found:
        raise ConfigError(
            "No pair of prompts was given",
            seen=repr(pairs),
            allowed="pairs of names, or a change",
            remedy="leave out pairs to patch between agents on the same prompt",
        )
    return prompts, tuple(dict.fromkeys(found))


def _known(names: Sequence[str], name: str) -> str:
    if name not in names:
        raise PromptError(
            "There is no prompt of this name",
            seen=repr(name),
            allowed=", ".join(names),
            remedy=nearest(name, names),
        )
    return name


def usual_pairs(prompts: PromptSet) -> NamePairs:
    """Pairs of prompts where none were asked for: declared ones, else each with the first."""
    declared = declared_pairs(prompts)
    if declared:
        return tuple((pair.target.name, pair.source.name) for pair in declared)
    first, *others = (prompt.name for prompt in prompts)
    return tuple((other, first) for other in others)


def site_groups(anatomy: Anatomy, sites: Sites | None) -> tuple[tuple[Site, ...], ...] | None:
    """Sites as asked for, each checked against the decoder; None for every head and MLP.

    Raises:
        SiteError: a name is not a site's, the decoder has no such site, or it cannot be patched.
    """
    if sites is None:
        return None
    given = (sites,) if isinstance(sites, (str, Site)) else tuple(sites)
    groups: list[tuple[Site, ...]] = []
    for item in given:
        if isinstance(item, (str, Site)):
            groups += [(site,) for site in _sites(anatomy, item)]
        else:
            groups.append(tuple(site for one in item for site in _sites(anatomy, one)))
    if not groups:
        raise SiteError(
            "No site was chosen",
            seen=repr(sites),
            allowed="names such as L5.h3, or kinds such as head",
            remedy="leave out sites for every head and MLP",
        )
    for group in groups:
        Intervention(group)  # refuses what cannot be patched
        for site in group:
            anatomy.check_site(site)
    return tuple(dict.fromkeys(groups))


def _sites(anatomy: Anatomy, item: str | Site) -> tuple[Site, ...]:
    if isinstance(item, Site):
        return (item,)
    if item in get_args(Kind):
        return anatomy.sites(cast("Kind", item))
    return (parse_site(item),)


def check_positions(prompts: Sequence[Prompt], positions: str) -> str:
    """Where patches act: the answer span, everywhere, or a span that some prompt names.

    Raises:
        PromptError: no prompt has such a span.
    """
    spans = {span.category for prompt in prompts for span in prompt.decision.spans}
    known = ["answer_span", "all", *sorted(spans)]
    if positions not in known:
        raise PromptError(
            "No prompt has a span of this name",
            seen=repr(positions),
            allowed=", ".join(known),
            remedy=nearest(str(positions), known),
        )
    return positions


def check_write(write: str) -> Write:
    """How a head is patched.

    Raises:
        ConfigError: it is neither ``write`` nor ``z``.
    """
    if write not in get_args(Write):
        raise ConfigError(
            "There is no such way to patch",
            seen=repr(write),
            allowed="write (the source's own contribution) or z (its head activation)",
            remedy=nearest(str(write), get_args(Write)),
        )
    return cast("Write", write)


def check_memory(memory_gib: float) -> int:
    """A memory budget in bytes.

    Raises:
        ConfigError: it is not a positive number.
    """
    if not 0 < memory_gib < float("inf"):
        raise ConfigError(
            "This is not an amount of memory",
            seen=memory_gib,
            allowed="a positive number of GiB",
            remedy="leave it out for 2 GiB",
        )
    return int(memory_gib * 2**30)


def check_seed(seed: int) -> int:
    """The seed of what is drawn.

    Raises:
        ConfigError: it is not a whole number from 0.
    """
    if not isinstance(cast("object", seed), int) or seed < 0:
        raise ConfigError(
            "This is not a seed",
            seen=repr(seed),
            allowed="a whole number from 0",
            remedy="leave it out for 0",
        )
    return seed
