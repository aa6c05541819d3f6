"""Which tokens are run together, and what is read of them? A step's sequences as parts of one tree.

All sequences of a training, examples and texts, form one prefix tree. A step takes some of them:
its part of the tree, cut into packs where it is larger than memory. Prefixes that examples share,
such as the system message of a chat template, are run once a pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moralscope.core.streams import stream
from moralscope.models.tree import IntArray, PromptTree, Tokens, grow_tree
from moralscope.training.supervised_examples import EncodedChat


@dataclass(frozen=True)
class Corpus:
    """Everything that a training may run.

    Attributes:
        tree: of all sequences, the last predicted token of each left out.
        predicting: for each sequence, the nodes of ``tree`` from which its tokens are predicted.
        predicted: the tokens that are predicted there.
    """

    tree: PromptTree
    predicting: tuple[IntArray, ...]
    predicted: tuple[IntArray, ...]

    def count(self, members: Iterable[int]) -> int:
        """How many tokens are predicted in some sequences."""
        return sum(len(self.predicted[member]) for member in members)


def corpus_of(chats: Sequence[EncodedChat], texts: Sequence[Tokens]) -> Corpus:
    """Chats, whose answers are predicted, then texts, predicted from their second token on."""
    sequences = [(c.tokens, c.learned) for c in chats] + [(t, (1, len(t))) for t in texts]
    tree = grow_tree([tokens[:-1] for tokens, _ in sequences])
    predicting: list[IntArray] = []
    predicted: list[IntArray] = []
    for path, (tokens, (first, stop)) in zip(tree.paths, sequences, strict=True):
        predicting.append(path[first - 1 : stop - 1])
        predicted.append(np.array(tokens[first:stop], dtype=np.int64))
    return Corpus(tree, tuple(predicting), tuple(predicted))


@dataclass(frozen=True)
class Pack:
    """Sequences that are run in one forward.

    Attributes:
        tree: theirs.
        nodes: for each node, which node of the corpus it is, ascending.
        keep: nodes of ``tree`` whose logits are wanted.
        row, token: for each predicted token, its row among ``keep`` and the token itself.
    """

    tree: PromptTree
    nodes: IntArray
    keep: IntArray
    row: IntArray
    token: IntArray


def packs_of(corpus: Corpus, members: Sequence[int], max_nodes: int) -> list[Pack]:
    """Some sequences in packs of at most ``max_nodes`` nodes each.

    Sequences are taken in the order of their nodes, so that those that share prefixes share a
    pack. A sequence that is larger than the limit gets a pack of its own; one that is named twice
    counts twice.
    """
    paths = corpus.tree.paths
    packs: list[list[int]] = []
    nodes: set[int] = set()
    for member in sorted(members, key=lambda m: tuple(paths[m])):
        own = set(paths[member].tolist())
        if not packs or len(nodes | own) > max_nodes:
            packs.append([])
            nodes = set()
        packs[-1].append(member)
        nodes |= own
    return [_pack(corpus, pack) for pack in packs]


def _pack(corpus: Corpus, members: Sequence[int]) -> Pack:
    tree = corpus.tree
    # A parent has a lower number than its children, in the corpus and so in every part of it.
    nodes = np.unique(np.concatenate([tree.paths[member] for member in members]))
    parent = tree.parent[nodes]
    inner = np.where(parent < 0, -1, np.searchsorted(nodes, parent))
    part = PromptTree(
        tree.tokens[nodes],
        inner,
        tree.depth[nodes],
        tuple(np.searchsorted(nodes, tree.paths[member]) for member in members),
    )
    asked = np.concatenate([corpus.predicting[member] for member in members])
    keep, row = np.unique(np.searchsorted(nodes, asked), return_inverse=True)
    token = np.concatenate([corpus.predicted[member] for member in members])
    return Pack(part, nodes, keep, row, token)


def examples_of(seed: int, batch: int, examples: int, step: int) -> tuple[int, ...]:
    """The examples of a step, counted from 1; each is in one step of every epoch.

    Args:
        seed: of the training.
        batch: examples of a step.
        examples: how many there are.
        step: counted from 1, over all epochs.
    """
    per_epoch = -(-examples // batch)
    epoch, at = divmod(step - 1, per_epoch)
    order = stream(seed, "supervised order", epoch).permutation(examples)
    return tuple(int(i) for i in order[at * batch : (at + 1) * batch])


def texts_of(seed: int, wanted: int, texts: int, step: int) -> tuple[int, ...]:
    """The texts of a step's KL term, drawn without replacement; all where there are no more."""
    drawn = stream(seed, "supervised texts", step).choice(texts, min(wanted, texts), replace=False)
    return tuple(int(i) for i in np.sort(drawn))
