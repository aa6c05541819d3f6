"""How can many prompts be run as one? A prefix tree of token sequences, packed into one forward.

1. Token sequences are merged into a tree in which a shared prefix is stored once.
2. The nodes are laid out as one sequence, parents before children; a node's position is its
   depth, and it attends to its ancestors and itself alone.
3. The model therefore computes at each node exactly what it would compute at the end of that
   node's own path, so one forward serves every prompt. Cost: the number of nodes, not of tokens.

Sets that are larger than memory are cut into packs. The tree knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class PromptTree:
    """A prefix tree of token sequences in packed order.

    Attributes:
        tokens: token of each node, shape ``(nodes,)``.
        parent: packed index of its parent, -1 for a first token, shape ``(nodes,)``.
        depth: tokens before it on its path, shape ``(nodes,)``.
        paths: for each input sequence, the packed indices of its tokens.
    """

    tokens: IntArray
    parent: IntArray
    depth: IntArray
    paths: tuple[IntArray, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestors(self) -> BoolArray:
        """Which node attends to which: ``[query, key]``, true for ancestors and itself."""
        seen = np.zeros((len(self), len(self)), dtype=np.bool_)
        for node, parent in enumerate(self.parent.tolist()):
            if parent >= 0:
                seen[node] = seen[parent]
            seen[node, node] = True
        return seen


def grow_tree(sequences: Sequence[Tokens]) -> PromptTree:
    """Merge sequences into a prefix tree.

    Equal sequences share all their nodes; the order of ``paths`` is that of ``sequences``.
    """
    index: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    paths: list[IntArray] = []
    for sequence in sequences:
        at = -1
        path: list[int] = []
        for depth, token in enumerate(sequence):
            node = index.setdefault((at, token), len(tokens))
            if node == len(tokens):
                tokens.append(token)
                parents.append(at)
                depths.append(depth)
            path.append(node)
            at = node
        paths.append(np.array(path, dtype=np.int64))
    return PromptTree(
        np.array(tokens, dtype=np.int64),
        np.array(parents, dtype=np.int64),
        np.array(depths, dtype=np.int64),
        tuple(paths),
    )


def cut_into_packs(groups: Sequence[Sequence[Tokens]], max_nodes: int) -> list[list[int]]:
    """Divide groups of sequences into packs of at most ``max_nodes`` tree nodes each.

    A group (the continuations of one prompt) stays together. Groups are taken in lexicographic
    order, so that those that share prefixes share a pack. A single group that is larger than the
    limit gets a pack of its own.

    Returns:
        Packs of group indices; each group is in exactly one.
    """
    order = sorted(range(len(groups)), key=lambda g: tuple(groups[g][0]))
    packs: list[list[int]] = []
    nodes: set[Tokens] = set()
    for group in order:
        grown = {s[:end] for s in groups[group] for end in range(1, len(s) + 1)} - nodes
        if not packs or len(nodes) + len(grown) > max_nodes:
            packs.append([])
            nodes = set()
            grown = {s[:end] for s in groups[group] for end in range(1, len(s) + 1)}
        packs[-1].append(group)
        nodes |= grown
    return packs
