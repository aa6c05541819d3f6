"""What did each agent hold, everywhere, on these prompts? Activations of many agents, on disk.

One forward an agent and pack; what it found is written and let go before the next, so memory holds
one pack whatever the number of agents and prompts:

    bytes = width of dtype * agents * nodes * layers * (3 width + heads head_dim + ...)

``capture_agents`` goes on where an interrupted capture stopped: files that are missing, or whose
hash is not the one in the index, are made again; a folder that belongs to other agents, prompts or
models is refused. ``activations.reading`` reads one site of one prompt without loading the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from moralscope.core.errors import (
    AgentError,
    ModelError,
    OutputError,
    PromptError,
    SiteError,
    nearest,
)
from moralscope.core.files import atomic_file, remove_leftovers, require_writable
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.mechanisms.activations.index import (
    INDEX,
    LOG_ODDS,
    ActivationIndex,
    describe,
    is_whole,
    read_index,
    require_same,
    write_index,
)
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import PARTS, Part, capture, parts_of
from moralscope.models.libraries import safetensors_torch
from moralscope.models.loading import DTYPES
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster
from moralscope.models.scoring import (
    MAX_NODES,
    Pack,
    log_probabilities_from_logits,
    make_packs,
)

_IDLE_SECONDS = 60.0
"""A file under way changes more often than this; what has not is left from a killed capture."""


def capture_agents(
    roster: Roster,
    names: Sequence[str],
    encoded_prompts: Sequence[EncodedPrompt],
    folder: Path,
    *,
    everywhere: bool = False,
    parts: Collection[Part] = (),
    dtype: str = "float32",
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
) -> Path:
    """Write the activations of several agents on the same prompts into a folder.

    Args:
        roster: holds the agents.
        names: which of them, each once.
        encoded_prompts: what they read; names are unique.
        folder: where to; a capture of the same that was interrupted is continued.
        everywhere: keep every token, not the answer spans alone.
        parts: which of queries, keys and values to keep as well.
        dtype: to store in: float32, float64, bfloat16 or float16. Log-odds are float64.
        max_nodes: largest pack.
        progress: told of every file.

    Returns:
        The folder.

    Raises:
        AgentError: no agent, one twice, or an unknown one.
        PromptError: no prompt, or two of one name.
        SiteError: a part other than q, k, v.
        ModelError: no such dtype; an activation is not finite, or too large for the dtype.
        OutputError: the folder cannot be written, holds something else, or the disk has too
            little space left, as far as that can be told before.
    """
    _require_inputs(names, encoded_prompts, parts, dtype)
    kept = parts_of(parts)
    packs = make_packs(encoded_prompts, max_nodes)
    index = describe(
        roster, names, encoded_prompts, packs, everywhere=everywhere, parts=kept, dtype=dtype
    )
    require_writable(folder)
    remove_leftovers(folder, idle_seconds=_IDLE_SECONDS)
    index, missing = _resume(folder, index)
    _require_space(folder, index, missing)
    write_index(folder, index)
    done = len(index.wanted) - len(missing)
    for name in names:
        with roster.speaking(name) as model:
            anatomy = roster.anatomy(name)
            for number in [pack for agent, pack in missing if agent == name]:
                path = folder / index.file_name(name, number)
                # Nothing here holds on to the tensors: the next pack needs their memory.
                _write(path, _activations(model, anatomy, packs[number], index, number))
                entry = (sha256_file(path), path.stat().st_size)
                index = replace(index, files={**index.files, path.name: entry})
                write_index(folder, index)
                done += 1
                progress(ProgressEvent("capture", done, len(index.wanted), note=name))
    return folder


def _require_inputs(
    names: Sequence[str], prompts: Sequence[EncodedPrompt], parts: Collection[Part], dtype: str
) -> None:
    if not names or len(set(names)) < len(names):
        raise AgentError(
            "The agents to capture must be named, each once",
            seen=", ".join(names) or "no agent",
            allowed="names of agents of the roster",
            remedy="remove the repeated name" if names else "name an agent",
        )
    titles = [prompt.name for prompt in prompts]
    if not titles or len(set(titles)) < len(titles):
        twice = sorted({title for title in titles if titles.count(title) > 1})
        raise PromptError(
            "The prompts to capture must be there, each name once",
            seen=f"twice: {', '.join(twice)}" if twice else "no prompt",
            allowed="at least one prompt, and names that tell them apart",
            remedy="rename one of them" if twice else "give a prompt",
        )
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise SiteError(
            "There is no such part of attention",
            seen=repr(unknown[0]),
            allowed=", ".join(PARTS),
            remedy="everything else is kept without asking",
        )
    if dtype not in DTYPES:
        raise ModelError(
            "There is no such dtype to store activations in",
            seen=dtype,
            allowed=", ".join(DTYPES),
            remedy=nearest(dtype, DTYPES),
        )


def _resume(
    folder: Path, index: ActivationIndex
) -> tuple[ActivationIndex, tuple[tuple[str, int], ...]]:
    """The index with the files that can be believed, and agent and pack of those to be made."""
    if (folder / INDEX).exists():
        found = read_index(folder)
        require_same(folder, found, index)
        intact = {
            name: entry for name, entry in found.files.items() if is_whole(folder / name, entry)
        }
        index = replace(index, files=intact)
    wanted = index.wanted
    return index, tuple(w for w in wanted if index.file_name(*w) not in index.files)


def _require_space(
    folder: Path, index: ActivationIndex, missing: Sequence[tuple[str, int]]
) -> None:
    needed = sum(index.numbers(pack) for _, pack in missing) * DTYPES[index.dtype].itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            "The activations do not fit on the disk",
            seen=f"{needed / 1e9:.3g} GB to write, {free / 1e9:.3g} GB free in {folder}",
            allowed="a disk with space for all of them",
            remedy="free some space, keep the answer spans alone, give fewer prompts, or store "
            "them in bfloat16",
        )


@torch.no_grad()
def _activations(
    model: nn.Module, anatomy: Anatomy, pack: Pack, index: ActivationIndex, number: int
) -> dict[str, Tensor]:
    """What the index promises of a pack."""
    wanted = index.packs[number]
    kept = parts_of(wanted)
    found = capture(model, anatomy, pack.tree, pack.keep, everywhere=index.everywhere, parts=kept)
    log_p = log_probabilities_from_logits(found.logits, pack).double()
    tensors = {
        name: _narrowed(getattr(found, name), name, index.dtype)
        for name in wanted
        if name != LOG_ODDS
    }
    return {**tensors, LOG_ODDS: (log_p[:, 0] - log_p[:, 1]).cpu()}


def _narrowed(values: Tensor, name: str, dtype: str) -> Tensor:
    stored = values.to(DTYPES[dtype]).cpu().contiguous()
    if stored.dtype.itemsize < values.dtype.itemsize and not torch.isfinite(stored).all():
        raise ModelError(
            f"An activation is too large for {dtype}",
            seen=f"{float(values.abs().max()):.3g} in {name}",
            allowed=f"at most {torch.finfo(DTYPES[dtype]).max:.3g}",
            remedy="store in float32, or in bfloat16, which reaches as far",
        )
    return stored


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    with atomic_file(path) as temporary:
        try:
            safetensors_torch.save_file(tensors, str(temporary))
        except SafetensorError as cause:  # which is how the library reports a full disk
            raise OSError(str(cause)) from cause
