"""Which tokens does a patch change? The part of a prompt tree that has to be computed again.

A patch at some tokens changes nothing before them. For a group of prompts,

1. the *edited* nodes are those at which sites are replaced (``positions``): the answer span, one
   named span, or all tokens;
2. the *changed* nodes are the edited ones and everything that can see them; a row computes these;
3. the *frozen* nodes are the rest of the prompts, seen through keys and values of the clean run.

Every edited node of the target has its counterpart in the source, token by token
(``models.alignment``), which may be another prompt. Prompts whose counterparts disagree on a node
that they share cannot be in one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moralscope.core.errors import AgentError
from moralscope.mechanisms.clean import CleanPack
from moralscope.models.alignment import align
from moralscope.models.capture import Capture
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import Pack
from moralscope.models.tree import IntArray

ANSWER_SPAN = "answer_span"
ALL = "all"


class Packed(Protocol):
    """Prompts cut into packs: a clean run, or what one would be."""

    @property
    def prompts(self) -> tuple[EncodedPrompt, ...]:
        """The prompts, in the caller's order."""
        ...

    @property
    def layouts(self) -> tuple[Pack, ...]:
        """Their packs."""
        ...


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts cut into packs but not run, for plans."""

    prompts: tuple[EncodedPrompt, ...]
    layouts: tuple[Pack, ...]


Counterparts = dict[int, tuple[int, int]]
"""Target node to (source pack, source node)."""


@dataclass(frozen=True)
class Case:
    """One patched prompt: where it is, and where its counterpart is.

    Attributes:
        member, source_member: indices into the prompts of the two clean runs.
        pack, position: the prompt's pack, and its position there.
        nodes: every node of the prompt and its options, ascending.
        counterparts: of the edited nodes.
    """

    member: int
    source_member: int
    pack: int
    position: int
    nodes: tuple[int, ...]
    counterparts: Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Segment:
    """What a row holds and what it sees.

    Attributes:
        cases: the prompts of the group, of one pack.
        frozen: packed nodes that stay as they are, parents first.
        nodes: packed nodes that are computed again, parents first.
        edited: which of ``nodes`` are replaced.
        counterparts: (source pack, source node) of each edited node, ``(edited, 2)``.
    """

    cases: tuple[Case, ...]
    frozen: IntArray
    nodes: IntArray
    edited: IntArray
    counterparts: IntArray

    @property
    def pack(self) -> int:
        """Index of the pack that all cases are in."""
        return self.cases[0].pack


def where(run: Packed, member: int) -> tuple[int, int]:
    """The pack of a prompt and its position there."""
    for index, pack in enumerate(run.layouts):
        if member in pack.members:
            return index, pack.members.index(member)
    raise IndexError(member)


def paths_of(run: Packed, member: int) -> list[IntArray]:
    """Packed nodes of each form of a prompt's options, positive first, prompt included."""
    pack, position = where(run, member)
    option = run.layouts[pack].option
    first = int(np.searchsorted(option, 2 * position))
    last = int(np.searchsorted(option, 2 * position + 1, side="right"))
    return list(run.layouts[pack].tree.paths[first:last])


def case_of(
    source: Packed, target: Packed, member: int, source_member: int, positions: str
) -> Case:
    """Align a prompt of the target with one of the source.

    Args:
        source: clean run that activations come from.
        target: clean run that is patched.
        member: index of the target's prompt.
        source_member: index of the source's prompt.
        positions: ``answer_span``, ``all`` or a named span.

    Raises:
        PromptError: the two do not align token by token, or a prompt lacks the span.
    """
    prompt, other = target.prompts[member], source.prompts[source_member]
    found = align(prompt, other, positions)
    pack, position = where(target, member)
    source_pack, _ = where(source, source_member)
    paths, theirs = paths_of(target, member), paths_of(source, source_member)
    pairs = [(int(paths[0][t]), int(theirs[0][s])) for t, s in found.prompt]
    for form, step in found.forms:
        mine = int(paths[form][len(prompt.tokens) + step])
        pairs.append((mine, int(theirs[form][len(other.tokens) + step])))
    nodes = tuple(int(n) for n in np.unique(np.concatenate(paths)))
    counterparts = {node: (source_pack, theirs) for node, theirs in pairs}
    return Case(member, source_member, pack, position, nodes, counterparts)


def group_cases(
    target: Packed, cases: Sequence[Case], *, share: bool, max_nodes: int
) -> list[Segment]:
    """Segments that together hold every case once.

    Args:
        target: the clean run that is patched.
        cases: what to patch.
        share: put prompts of a pack together, so that what they share is computed once; else
            each prompt is a segment of its own.
        max_nodes: largest number of changed nodes in a shared segment.
    """
    segments: list[Segment] = []
    pending: list[Case] = []
    for case in sorted(cases, key=lambda c: (c.pack, c.position)):
        joined = [*pending, case]
        if pending and (not share or not _fit(target, joined, max_nodes)):
            segments.append(_segment(target, pending))
            joined = [case]
        pending = joined
    return [*segments, _segment(target, pending)] if pending else segments


def _fit(target: Packed, cases: Sequence[Case], max_nodes: int) -> bool:
    if len({case.pack for case in cases}) > 1:
        return False
    *others, newest = cases
    for other in others:
        for node, theirs in newest.counterparts.items():
            if other.counterparts.get(node, theirs) != theirs:
                return False
        # A node that one case edits and another only sees cannot be both.
        shared = set(other.nodes) & set(newest.nodes)
        if (shared & set(other.counterparts)) != (shared & set(newest.counterparts)):
            return False
    return len(_segment(target, cases).nodes) <= max_nodes


def _segment(target: Packed, cases: Sequence[Case]) -> Segment:
    tree = target.layouts[cases[0].pack].tree
    counterparts: Counterparts = {}
    for case in cases:
        counterparts.update(case.counterparts)
    relevant = sorted({node for case in cases for node in case.nodes})
    changed: set[int] = set()
    for node in relevant:
        if node in counterparts or int(tree.parent[node]) in changed:
            changed.add(node)
    nodes = np.array([n for n in relevant if n in changed], dtype=np.int64)
    edited = [n for n in nodes.tolist() if n in counterparts]
    return Segment(
        tuple(cases),
        np.array([n for n in relevant if n not in changed], dtype=np.int64),
        nodes,
        np.searchsorted(nodes, edited).astype(np.int64),
        np.array([counterparts[n] for n in edited], dtype=np.int64).reshape(-1, 2),
    )


def kept_rows(part: CleanPack, nodes: IntArray) -> tuple[Capture, IntArray]:
    """The capture that holds some nodes of a pack, and their rows in it.

    Raises:
        AgentError: the clean run did not keep them.
    """
    if part.everywhere is not None:
        return part.everywhere, nodes
    rows = np.searchsorted(part.pack.keep, nodes)
    held = (rows < len(part.pack.keep)) & (
        part.pack.keep[np.minimum(rows, len(part.pack.keep) - 1)] == nodes
    )
    if not held.all():
        raise AgentError(
            "A patch outside the answer span needs activations that were not kept",
            seen=f"{int((~held).sum())} of {len(nodes)} tokens without activations",
            allowed="positions='answer_span', or a clean run that kept every token",
            remedy="run clean with everywhere=True",
        )
    return part.captured, rows.astype(np.int64)
