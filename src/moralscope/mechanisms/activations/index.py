"""What lies in a folder of activations, and is it what was asked for? Its index, and its layout.

A folder holds one safetensors file for each agent and pack, and ``index.json``, which says all that
determines the numbers (model, agents, tokenizer, prompts, layout, dtype) and the hash of every
finished file. Two captures may go into one folder only if they agree in all of it, files aside.

In a pack (``models.scoring``) prompts share their beginnings, so a prompt's tokens are some of the
pack's nodes. The index gives them as half-open ranges of rows: nodes of a prompt come in the order
of its tokens, those of its options after them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moralscope.core.errors import OutputError
from moralscope.core.files import write_text
from moralscope.core.hashing import sha256_file
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import Part
from moralscope.models.loading import tokenizer_hashes
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster
from moralscope.models.scoring import Pack
from moralscope.models.tree import IntArray, Tokens

VERSION = 1
INDEX = "index.json"
LOG_ODDS = "log_odds"
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class StoredPrompt:
    """A prompt and where its tokens lie.

    Attributes:
        name, sha256, tokens, positive, negative: as in ``EncodedPrompt``; the hash is the text's.
        pack: its pack.
        member: its place in the pack.
        span: rows of its answer span, as half-open ranges.
        every: rows of all its tokens and then those of its options; None where only spans were
            kept.
    """

    name: str
    sha256: str
    tokens: Tokens
    positive: tuple[Tokens, ...]
    negative: tuple[Tokens, ...]
    pack: int
    member: int
    span: Ranges
    every: Ranges | None


@dataclass(frozen=True)
class ActivationIndex:
    """All that determines a folder of activations, and what of it is finished.

    Attributes:
        version: of the format.
        model: name, hash and dtype of the base.
        decoder: ``Anatomy.shape``.
        sizes: ``n_layers``, ``n_heads``, ``n_kv_heads``.
        parallel: whether attention and MLP read the same stream.
        agents: the hash of each agent's own weights by its name; None for the base.
        tokenizer: hashes of vocabulary and chat template.
        dtype: of the stored activations.
        everywhere: whether every token was kept, or the answer spans alone.
        packs: for each pack, the shape of every stored tensor by its name.
        prompts: in the order asked for.
        files: hash and bytes of every finished file by its name.
    """

    version: int
    model: Mapping[str, str]
    decoder: str
    sizes: Mapping[str, int]
    parallel: bool
    agents: Mapping[str, str | None]
    tokenizer: Mapping[str, str]
    dtype: str
    everywhere: bool
    packs: tuple[Mapping[str, tuple[int, ...]], ...]
    prompts: tuple[StoredPrompt, ...]
    files: Mapping[str, tuple[str, int]]

    def file_name(self, agent: str, pack: int) -> str:
        """The file of an agent's pack; agents are numbered, for their names may hold anything."""
        return f"agent{list(self.agents).index(agent):02d}-pack{pack:04d}.safetensors"

    @property
    def wanted(self) -> tuple[tuple[str, int], ...]:
        """Agent and pack of every file of a finished folder."""
        return tuple((agent, pack) for agent in self.agents for pack in range(len(self.packs)))

    def numbers(self, pack: int) -> int:
        """How many numbers a file of a pack holds."""
        return sum(math.prod(shape) for shape in self.packs[pack].values())


def describe(
    roster: Roster,
    names: Sequence[str],
    prompts: Sequence[EncodedPrompt],
    packs: Sequence[Pack],
    *,
    everywhere: bool,
    parts: Sequence[Part],
    dtype: str,
) -> ActivationIndex:
    """The index of a folder in which nothing is finished yet.

    Args:
        roster: holds the agents.
        names: which of them.
        prompts: what they read.
        packs: how it is laid out.
        everywhere: whether every token is kept.
        parts: which of queries, keys and values are kept.
        dtype: of the stored activations.
    """
    anatomy = roster.anatomy(names[0])
    kept = [len(p.tree) if everywhere else len(p.keep) for p in packs]
    stored = {m: (i, at) for i, p in enumerate(packs) for at, m in enumerate(p.members)}
    return ActivationIndex(
        version=VERSION,
        model={
            "name": roster.base.source.name,
            "sha256": roster.base.source.sha256,
            "dtype": roster.base.dtype,
        },
        decoder=anatomy.shape,
        sizes={
            "n_layers": anatomy.n_layers,
            "n_heads": anatomy.n_heads,
            "n_kv_heads": anatomy.n_kv_heads,
        },
        parallel=anatomy.parallel,
        agents={name: roster.weights_sha256(name) for name in names},
        tokenizer=tokenizer_hashes(roster.tokenizer),
        dtype=dtype,
        everywhere=everywhere,
        packs=tuple(
            _shapes(anatomy, nodes, len(pack.members), parts)
            for nodes, pack in zip(kept, packs, strict=True)
        ),
        prompts=tuple(
            _stored(prompt, packs, *stored[index], everywhere=everywhere)
            for index, prompt in enumerate(prompts)
        ),
        files={},
    )


def _shapes(
    anatomy: Anatomy, nodes: int, members: int, parts: Sequence[Part]
) -> dict[str, tuple[int, ...]]:
    layers, heads, dim = anatomy.n_layers, anatomy.n_heads, anatomy.head_dim
    stream = (layers, nodes, anatomy.width)
    shapes: dict[str, tuple[int, ...]] = {
        "z": (layers, nodes, heads * dim),
        "attn_out": stream,
        "mlp_out": stream,
        "resid_pre": stream,
        "resid_final": (nodes, anatomy.width),
        LOG_ODDS: (members,),
    }
    # Where there is no post-norm, what a sub-layer writes is what it gives, and is stored once.
    if anatomy.blocks[0].attention_post_norm is not None:
        shapes["attn_write"] = stream
    if anatomy.blocks[0].mlp_post_norm is not None:
        shapes["mlp_write"] = stream
    for part in parts:
        shapes[part] = (layers, nodes, heads if part == "q" else anatomy.n_kv_heads, dim)
    return shapes


def _stored(
    prompt: EncodedPrompt, packs: Sequence[Pack], pack: int, member: int, *, everywhere: bool
) -> StoredPrompt:
    layout = packs[pack]
    first = int(np.searchsorted(layout.option, 2 * member))
    paths = layout.tree.paths[first : first + len(prompt.continuations)]
    every = np.unique(np.concatenate(paths))
    # A prompt's own tokens are one path, so the span begins at the last of them.
    span = every[len(prompt.tokens) - 1 :]
    rows = span if everywhere else np.searchsorted(layout.keep, span)
    return StoredPrompt(
        prompt.name,
        prompt.sha256,
        prompt.tokens,
        prompt.positive,
        prompt.negative,
        pack,
        member,
        _ranges(rows),
        _ranges(every) if everywhere else None,
    )


def _ranges(rows: IntArray) -> Ranges:
    """Ascending rows as half-open ranges."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)


def write_index(folder: Path, index: ActivationIndex) -> None:
    """Write ``index.json``, whole or not at all; compact, for it holds every token."""
    value = {**asdict(index), "files": dict(sorted(index.files.items()))}
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    write_text(folder / INDEX, text + "\n")


def read_index(folder: Path) -> ActivationIndex:
    """Read ``index.json``.

    Raises:
        OutputError: there is none, or it is not an index of this format.
    """
    try:
        raw: Any = json.loads((folder / INDEX).read_text())
        version = raw["version"]
        if version == VERSION:
            return _from_json(raw)
        seen = f"format version {version}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        seen = f"{type(cause).__name__}: {cause}"
    raise OutputError(
        "This is not a folder of activations",
        seen=f"{folder / INDEX}: {seen}",
        allowed=f"a folder that capture_agents wrote, format version {VERSION}",
        remedy="give the folder that capture_agents returned, or capture into a new one",
    )


def _from_json(raw: Any) -> ActivationIndex:
    prompts = tuple(
        StoredPrompt(
            name=str(p["name"]),
            sha256=str(p["sha256"]),
            tokens=_integers(p["tokens"]),
            positive=tuple(map(_integers, p["positive"])),
            negative=tuple(map(_integers, p["negative"])),
            pack=int(p["pack"]),
            member=int(p["member"]),
            span=_pairs(p["span"]),
            every=None if p["every"] is None else _pairs(p["every"]),
        )
        for p in raw["prompts"]
    )
    return ActivationIndex(
        version=int(raw["version"]),
        model=dict(raw["model"]),
        decoder=str(raw["decoder"]),
        sizes={name: int(size) for name, size in raw["sizes"].items()},
        parallel=bool(raw["parallel"]),
        agents=dict(raw["agents"]),
        tokenizer=dict(raw["tokenizer"]),
        dtype=str(raw["dtype"]),
        everywhere=bool(raw["everywhere"]),
        packs=tuple({k: _integers(v) for k, v in pack.items()} for pack in raw["packs"]),
        prompts=prompts,
        files={name: (str(sha), int(size)) for name, (sha, size) in raw["files"].items()},
    )


def _integers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _pairs(values: Iterable[Any]) -> Ranges:
    return tuple((int(start), int(stop)) for start, stop in values)


_SAID: dict[str, Callable[[Any], str]] = {
    "model": lambda x: f"model {x['name']} ({x['sha256'][:12]}, {x['dtype']})",
    "agents": lambda x: (
        "agents " + ", ".join(f"{name} ({(sha or 'base')[:12]})" for name, sha in x.items())
    ),
    "prompts": lambda x: f"{len(x)} prompts",
    "packs": lambda x: f"{len(x)} packs of {', '.join(x[0])}",
    "tokenizer": lambda x: f"tokenizer ({x['tokenizer'][:12]}, {x['chat_template'][:12]})",
}


def require_same(folder: Path, found: ActivationIndex, wanted: ActivationIndex) -> None:
    """Refuse to continue a folder that belongs to something else.

    Raises:
        OutputError: names what differs.
    """
    ours, theirs = vars(replace(wanted, files={})), vars(replace(found, files={}))
    differing = [key for key in ours if not _same(ours[key], theirs[key])]
    if not differing:
        return
    pairs: list[str] = []
    for key in differing:
        say = _SAID.get(key, lambda x, key=key: f"{key} {x}")
        there, here = say(theirs[key]), say(ours[key])
        if there == here:
            there, here = f"another {_first_difference(theirs[key], ours[key])}", "this one"
        pairs.append(f"{there}, not {here}")
    raise OutputError(
        "This folder holds activations of something else",
        seen=f"{folder}: {'; '.join(pairs)}",
        allowed="the same model, agents, tokenizer, prompts, layout and dtype as before",
        remedy="capture into another folder, or remove this one",
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two values agree, in the order of their keys as well: files are named by it."""
    return one == other and (not isinstance(one, Mapping) or [*one] == [*other])


def _first_difference(theirs: Sequence[Any], ours: Sequence[Any]) -> str:
    at = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
    name = getattr(ours[at], "name", None)
    return f"layout of pack {at}" if name is None else f"prompt {name!r}"


def is_whole(path: Path, entry: tuple[str, int], *, by_hash: bool = True) -> bool:
    """Whether a file is what the index says: its bytes by their hash, or by their number alone."""
    if not path.is_file() or path.stat().st_size != entry[1]:
        return False
    return not by_hash or sha256_file(path) == entry[0]
