"""What did this agent hold here? Activations on disk, of which only what is asked for is read.

Sites are those of ``models.capture``: heads at the input of the output projection, sub-layers
before any post-norm, queries and keys before rotary positions and after norms of their own. The
stream between attention and MLP is ``resid_pre`` plus what attention writes. A file is believed
when its hash is the one in the index; that is checked when it is first read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moralscope.core.errors import AgentError, OutputError, PromptError, SiteError, nearest
from moralscope.core.site import Kind, Site, every_site, parse_site
from moralscope.mechanisms.activations.index import (
    LOG_ODDS,
    ActivationIndex,
    Ranges,
    StoredPrompt,
    is_whole,
    read_index,
)
from moralscope.models.capture import PARTS

Positions = Literal["answer_span", "all"] | Sequence[int]

_TENSOR_OF: dict[Kind, str] = {
    "embed": "resid_pre",
    "resid_pre": "resid_pre",
    "head": "z",
    "q": "q",
    "k": "k",
    "v": "v",
    "attn": "attn_out",
    "mlp": "mlp_out",
}


@dataclass(frozen=True, eq=False)
class StoredActivations:
    """Activations on disk, of which only what is asked for is read.

    Attributes:
        folder: where they lie.
        index: what they are.
        check: whether a file's hash is checked before it is first read, or only its size.
    """

    folder: Path
    index: ActivationIndex
    check: bool = True
    _believed: set[str] = field(default_factory=set[str], repr=False)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents."""
        return tuple(self.index.agents)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of the prompts."""
        return tuple(prompt.name for prompt in self.index.prompts)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site that can be asked for, in depth order."""
        kept: list[Kind] = ["resid_mid", "resid_post"]
        kept.extend(kind for kind in _TENSOR_OF if _TENSOR_OF[kind] in self.index.packs[0])
        return every_site(*kept, parallel=self.index.parallel, **self.index.sizes)

    def prompt(self, name: str) -> StoredPrompt:
        """A prompt's tokens and place.

        Raises:
            PromptError: there is none of this name.
        """
        for prompt in self.index.prompts:
            if prompt.name == name:
                return prompt
        raise PromptError(
            "There are no activations of this prompt",
            seen=name,
            allowed=f"one of the {len(self.prompts)} prompts that were captured",
            remedy=nearest(name, self.prompts),
        )

    def get(
        self, agent: str, prompt: str, site: Site | str, positions: Positions = "answer_span"
    ) -> Tensor:
        """What a site of an agent held on a prompt.

        Args:
            agent: its name.
            prompt: its name.
            site: which site; a name is parsed.
            positions: ``answer_span`` (the last token of the prompt, and those of the options'
                forms but the last of each), ``all`` tokens and then those of the options, or
                indices into the prompt's tokens, from 0.

        Returns:
            ``(positions, head_dim)`` for heads, queries, keys and values, ``(positions, width)``
            for the others; float32, or wider where it was stored so.

        Raises:
            AgentError, PromptError, SiteError: there is none of this name, or it was not kept.
            OutputError: the file is missing or damaged.
        """
        self._require_agent(agent)
        stored = self.prompt(prompt)
        chosen = self._require_site(parse_site(site) if isinstance(site, str) else site)
        rows = _rows(stored, positions)
        with self._opened(agent, stored.pack) as file:
            return self._values(file, chosen, rows)

    def log_odds(self, agent: str) -> Tensor:
        """An agent's log-odds on every prompt, in their order, float64."""
        self._require_agent(agent)
        result = torch.empty(len(self.prompts), dtype=torch.float64)
        for pack in range(len(self.index.packs)):
            with self._opened(agent, pack) as file:
                values: Tensor = file.get_tensor(LOG_ODDS)
            for at, prompt in enumerate(self.index.prompts):
                if prompt.pack == pack:
                    result[at] = values[prompt.member]
        return result

    def _values(self, file: Any, site: Site, rows: Ranges) -> Tensor:
        layer, last = site.layer or 0, self.index.sizes["n_layers"] - 1

        def stream(name: str, at: int) -> Tensor:
            return _read(file, name, rows, lambda r: (at, r))

        if site.kind == "resid_mid":
            wrote = "attn_write" if "attn_write" in self.index.packs[0] else "attn_out"
            return stream("resid_pre", layer) + stream(wrote, layer)
        if site.kind == "resid_post":
            if layer < last:
                return stream("resid_pre", layer + 1)
            return _read(file, "resid_final", rows, lambda r: (r,))
        name = _TENSOR_OF[site.kind]
        if site.head is None:
            return stream(name, layer)
        if name != "z":
            return _read(file, name, rows, lambda r: (layer, r, site.head))
        dim = file.get_slice("z").get_shape()[-1] // self.index.sizes["n_heads"]
        head = slice(site.head * dim, (site.head + 1) * dim)
        return _read(file, "z", rows, lambda r: (layer, r, head))

    def _require_agent(self, agent: str) -> None:
        if agent not in self.index.agents:
            raise AgentError(
                "There are no activations of this agent",
                seen=agent,
                allowed=", ".join(self.agents),
                remedy=nearest(agent, self.agents),
            )

    def _require_site(self, site: Site) -> Site:
        if site in self.sites:
            return site
        if site.kind in PARTS and site.kind not in self.index.packs[0]:
            remedy = f"capture with parts=({site.kind!r},)"
        else:
            remedy = nearest(str(site), [str(known) for known in self.sites])
        raise SiteError(
            "There are no activations of this site",
            seen=str(site),
            allowed=f"sites of {self.index.decoder}, of kinds "
            + ", ".join(dict.fromkeys(known.kind for known in self.sites)),
            remedy=remedy,
        )

    @contextlib.contextmanager
    def _opened(self, agent: str, pack: int) -> Generator[Any]:
        """A file that can be believed.

        Raises:
            OutputError: it is not finished, or not what was written.
        """
        name = self.index.file_name(agent, pack)
        path = self.folder / name
        entry = self.index.files.get(name)
        if entry is None:
            raise OutputError(
                "The capture of these activations was interrupted",
                seen=f"{self.folder}: no pack {pack} of {agent}",
                allowed="a finished capture",
                remedy="call capture_agents again as before: it goes on where it stopped",
            )
        if name not in self._believed and not is_whole(path, entry, by_hash=self.check):
            raise _damaged(path, entry)
        self._believed.add(name)
        opened: Any = safe_open
        try:
            with opened(str(path), "pt") as file:
                yield file
        except (SafetensorError, OSError) as cause:
            raise _damaged(path, entry) from cause


def _damaged(path: Path, entry: tuple[str, int]) -> OutputError:
    return OutputError(
        "A file of activations is missing or damaged",
        seen=str(path),
        allowed=f"{entry[1]} bytes of SHA-256 {entry[0][:12]}...",
        remedy="call capture_agents again as before: it makes this file again",
    )


def _rows(prompt: StoredPrompt, positions: Positions) -> Ranges:
    """Rows of a prompt's pack, in the order of the positions."""
    if positions == "answer_span":
        return prompt.span
    n_tokens = len(prompt.tokens)
    if positions != "all" and not isinstance(positions, str):
        if positions and all(0 <= at < n_tokens for at in positions):
            # The last token is where the answer span begins, and kept in any case.
            last = {n_tokens - 1: prompt.span[0][0]}
            row = last if prompt.every is None else dict(enumerate(_spread(prompt.every)))
            if all(at in row for at in positions):
                return tuple((row[at], row[at] + 1) for at in positions)
    elif positions == "all" and prompt.every is not None:
        return prompt.every
    kept = "the answer span and any token" if prompt.every else "the answer span and the last token"
    raise PromptError(
        "There are no activations at these positions",
        seen=f"{positions!r} of {prompt.name!r}",
        allowed=f"{kept} of {n_tokens}: 'answer_span'"
        + (", 'all'" if prompt.every else "")
        + ", or indices from 0",
        remedy="capture with everywhere=True" if prompt.every is None else "check the positions",
    )


def _spread(ranges: Ranges) -> list[int]:
    return [row for start, stop in ranges for row in range(start, stop)]


def _read(file: Any, name: str, rows: Ranges, at: Callable[[slice], tuple[Any, ...]]) -> Tensor:
    """Some rows of a stored tensor, float32 or wider; copied, so that the file can be let go."""
    stored = file.get_slice(name)
    pieces: list[Tensor] = [stored[at(slice(start, stop))] for start, stop in rows]
    joined = torch.cat(pieces)
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def read_activations(folder: Path, *, check: bool = True) -> StoredActivations:
    """Open a folder that ``capture_agents`` wrote.

    Args:
        folder: what it returned.
        check: check the hash of a file before it is first read; else only its size.

    Raises:
        OutputError: it is no such folder.
    """
    return StoredActivations(folder, read_index(folder), check)
