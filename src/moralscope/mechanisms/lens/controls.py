"""How much would the lens show of any decision? Random option pairs and unrelated prompts.

An early reading of the lens is mostly the identity of the last token and the labels, so it means
something only beside the same reading where there is nothing to decide:

    random_pair       (W[a] - W[b]) . norm_final(x_l)    random tokens a and b, same place
    unrelated_prompt  (W[+] - W[-]) . norm_final(x'_l)   the decision's own direction; x' comes of
                                                         a neutral question, same stem and options

The lens itself is ``lens.reading``. Random pairs are the same for every prompt, so that a draw
can be averaged over prompts like the decision; they cost one matrix product. Unrelated prompts
(``lens.unrelated``) cost one clean run of short prompts.

A reading grows with the length of its direction, and two labels are closer to each other than two
random tokens (half as far apart, for 1 and 2 in SmolLM2). So the table also says by which *scale* a
pair's readings have to be multiplied to be those of a direction as long as the decision's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from moralscope.core.errors import ConfigError, PromptError
from moralscope.core.tables import conform, schema_of
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.lens.reading import Depths, depth_names, read_depths
from moralscope.models.anatomy import Anatomy
from moralscope.models.norms import gain, is_layer_norm
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.tree import IntArray
from moralscope.models.weights import bias_of, effective_weight

RANDOM_PAIR, UNRELATED_PROMPT = "random_pair", "unrelated_prompt"
"""The two values of the column ``control``."""

DRAWS = 100
"""Random pairs unless told otherwise: the ends of their range are then stable to some 10%."""


def random_pairs(
    prompts: Sequence[EncodedPrompt],
    vocabulary: int,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
    among: Sequence[int] | None = None,
) -> IntArray:
    """Pairs of different tokens, none of them in an option of any prompt.

    Args:
        prompts: whose options' tokens are left out.
        vocabulary: rows of the unembedding.
        rng: draws the pairs.
        draws: how many.
        among: tokens to draw from; None for the whole vocabulary. Some models have rows that no
            text ever uses; giving the tokenizer's tokens leaves them out.

    Returns:
        Shape ``(draws, 2)``.

    Raises:
        ConfigError: fewer than one draw, a token outside the vocabulary, or fewer than two tokens
            left to draw from.
    """
    wanted = np.unique(np.arange(vocabulary) if among is None else np.array(among, dtype=np.int64))
    if draws < 1:
        raise ConfigError(
            "There are no random option pairs to draw",
            seen=f"draws {draws}",
            allowed="one draw or more; two give a range",
            remedy=f"use the default of {DRAWS}",
        )
    outside = wanted[(wanted < 0) | (wanted >= vocabulary)]
    if outside.size:
        raise ConfigError(
            "A token to draw from is not in the vocabulary",
            seen=int(outside[0]),
            allowed=f"0 to {vocabulary - 1}",
            remedy="give token indices of this model's tokenizer",
        )
    own = {token for p in prompts for form in p.positive + p.negative for token in form}
    candidates = np.setdiff1d(wanted, np.array(sorted(own), dtype=np.int64))
    if len(candidates) < 2:
        raise ConfigError(
            "Too few tokens are left to draw random option pairs from",
            seen=f"{len(candidates)} besides those of the prompts' options",
            allowed="two tokens or more",
            remedy="draw from the whole vocabulary",
        )
    first = rng.integers(0, len(candidates), draws)
    second = rng.integers(0, len(candidates) - 1, draws)
    second += second >= first
    return np.stack([candidates[first], candidates[second]], axis=1)


@torch.no_grad()
def read_random_pairs(
    anatomy: Anatomy, run: CleanRun, pairs: IntArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lens along random pairs, where each prompt's options part.

    Args:
        anatomy: the agent's decoder, its weights in force.
        run: its clean run.
        pairs: tokens, shape ``(draws, 2)``.

    Returns:
        First minus second, in nats, shape ``(prompts, draws, 1 + 2 * layers)``; and the length of
        each prompt's own direction over that of each pair's, as they act on the stream at unit
        scale (through the gain of the final norm), shape ``(prompts, draws)``. A pair whose
        direction is zero has scale 1.
    """
    direction, offset = _along(anatomy, pairs[:, 0], pairs[:, 1])
    result = np.empty((len(run.prompts), len(pairs), 1 + 2 * anatomy.n_layers))
    scale = np.empty((len(run.prompts), len(pairs)))
    lengths = _lengths(anatomy, direction)
    for members, found, branch in _at_branches(anatomy, run):
        normed = found.normed[:, branch]
        values = normed @ direction.to(normed).T + offset.to(normed)
        result[members] = np.asarray(values.double().cpu().permute(1, 2, 0))
        own = _lengths(anatomy, found.readout.direction[branch])
        ratio = own[:, None] / np.where(lengths > 0.0, lengths, 1.0)
        scale[members] = np.where(lengths > 0.0, ratio, 1.0)
    return result, scale


def _lengths(anatomy: Anatomy, direction: Tensor) -> NDArray[np.float64]:
    """Length of each direction as it acts on the stream at unit scale, shape ``(directions,)``."""
    norm = anatomy.final_norm
    acting = direction * gain(norm, unit_offset=anatomy.unit_offset).to(direction.dtype)
    if is_layer_norm(norm):
        acting = acting - acting.mean(-1, keepdim=True)
    return np.asarray(acting.pow(2).sum(-1).sqrt().double().cpu())


@torch.no_grad()
def read_unrelated(
    anatomy: Anatomy, run: CleanRun, elsewhere: CleanRun, names: Mapping[str, Sequence[str]]
) -> NDArray[np.float64]:
    """The lens along each prompt's own decision, on its unrelated prompts.

    Args:
        anatomy: the agent's decoder, its weights in force.
        run: its clean run on the prompts.
        elsewhere: its clean run on the unrelated prompts.
        names: for each prompt, its unrelated prompts (``unrelated.unrelated_names``), equally
            many for each.

    Returns:
        Positive minus negative, in nats, shape ``(prompts, draws, 1 + 2 * layers)``.

    Raises:
        ConfigError: the two runs are of different agents.
        PromptError: a prompt has no unrelated prompts or another number of them than the first,
            one of them was not run, or it does not end in the same tokens.
    """
    if elsewhere.agent != run.agent:
        raise ConfigError(
            "The lens and its control are of different agents",
            seen=f"{run.agent} and {elsewhere.agent}",
            allowed="two clean runs of one agent",
            remedy="run the unrelated prompts with the agent whose lens they control",
        )
    others = _numbered(run, elsewhere, names)
    streams: dict[int, Tensor] = {}
    for members, found, branch in _at_branches(anatomy, elsewhere):
        streams.update(zip(members, found.normed[:, branch].unbind(1), strict=True))
    result = np.empty((len(others), len(others[0]), 1 + 2 * anatomy.n_layers))
    for members, found, branch in _at_branches(anatomy, run):
        for member, entry in zip(members, branch.tolist(), strict=True):
            there = torch.stack([streams[other] for other in others[member]])
            values = there @ found.readout.direction[entry].to(there)
            result[member] = np.asarray((values + found.readout.offset[entry]).double().cpu())
    return result


def lens_controls_table(
    anatomy: Anatomy,
    run: CleanRun,
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
    among: Sequence[int] | None = None,
    elsewhere: CleanRun | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> pl.DataFrame:
    """The table ``lens.controls`` of one agent; its weights must be in force.

    Args:
        anatomy: the agent's decoder.
        run: its clean run on the prompts.
        rng: draws the random pairs.
        draws: how many.
        among: tokens to draw from, as in ``random_pairs``.
        elsewhere: its clean run on the unrelated prompts, or None to leave that control out.
        names: which unrelated prompts belong to which prompt; with ``elsewhere``.

    Raises:
        ConfigError: as for ``random_pairs`` and ``read_unrelated``.
        PromptError: as for ``read_unrelated``.
    """
    vocabulary = len(effective_weight(anatomy.unembed))
    pairs = random_pairs(run.prompts, vocabulary, rng, draws=draws, among=among)
    found = [_rows(anatomy, run, RANDOM_PAIR, *read_random_pairs(anatomy, run, pairs))]
    if elsewhere is not None:
        values = read_unrelated(anatomy, run, elsewhere, names or {})
        found.append(_rows(anatomy, run, UNRELATED_PROMPT, values, np.ones(values.shape[:2])))
    return conform("lens_controls", pl.concat(found))


def _rows(
    anatomy: Anatomy,
    run: CleanRun,
    control: str,
    values: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> pl.DataFrame:
    """One row for each prompt, draw and depth; by columns, because there may be a million."""
    prompts, draws, depths = values.shape
    places = depth_names(anatomy.n_layers)
    names = [prompt.name for prompt in run.prompts]
    n = values.size
    return pl.DataFrame(
        {
            "agent": pl.repeat(run.agent, n, eager=True),
            "prompt": [name for name in names for _ in range(draws * depths)],
            "control": pl.repeat(control, n, eager=True),
            "draw": [draw for draw in range(draws) for _ in range(depths)] * prompts,
            "layer": [layer for layer, _ in places] * (prompts * draws),
            "sublayer": [name for _, name in places] * (prompts * draws),
            "logit_diff": values.ravel(),
            "scale": np.repeat(scale.ravel(), depths),
        },
        schema=schema_of("lens_controls").dtypes(),
    )


def _at_branches(
    anatomy: Anatomy, run: CleanRun
) -> Generator[tuple[list[int], Depths, NDArray[np.int64]]]:
    """For each pack its prompts, its readings, and for each prompt the entry of its branch."""
    for part in run.packs:
        found = read_depths(anatomy, run, part)
        branch = np.asarray(found.readout.is_branch).nonzero()[0]
        yield list(part.pack.members), found, branch


def _numbered(
    run: CleanRun, elsewhere: CleanRun, names: Mapping[str, Sequence[str]]
) -> list[list[int]]:
    """For each prompt, the places of its unrelated prompts in their run, checked."""
    place = {prompt.name: index for index, prompt in enumerate(elsewhere.prompts)}
    draws = len(names.get(run.prompts[0].name, ()))
    found: list[list[int]] = []
    for prompt in run.prompts:
        own = names.get(prompt.name, ())
        missing = [name for name in own if name not in place]
        if not own or missing or len(own) != draws:
            raise PromptError(
                f"Prompt {prompt.name!r} lacks unrelated prompts",
                seen=f"{missing[0]!r} was not run" if missing else f"{len(own)} of {draws or 1}",
                allowed="the same number of unrelated prompts, one or more, for each prompt",
                remedy="make them with unrelated_prompts from all prompts, and run them all",
            )
        found.append([place[name] for name in own])
        for other in found[-1]:
            _refuse_other_ending(prompt, elsewhere.prompts[other])
    return found


def _refuse_other_ending(prompt: EncodedPrompt, other: EncodedPrompt) -> None:
    """The last token and the labels must be the same, or the control controls nothing."""
    ends = [
        (p.tokens[-1], frozenset((p.positive[0], p.negative[0]))) for p in (prompt, other)
    ]  # fmt: skip
    if ends[0] != ends[1]:
        raise PromptError(
            f"Prompt {prompt.name!r} and its unrelated prompt {other.name!r} end differently",
            seen=f"last tokens and options {ends[0]} and {ends[1]}",
            allowed="the same last token and the same tokens for the two options",
            remedy="give them the same stem and the same first form of each option",
        )


def _along(anatomy: Anatomy, plus: IntArray, minus: IntArray) -> tuple[Tensor, Tensor]:
    """Unembedding direction and bias of each pair of tokens."""
    weight = effective_weight(anatomy.unembed)
    up, down = (torch.as_tensor(t, device=weight.device) for t in (plus, minus))
    bias = bias_of(anatomy.unembed)
    offset = weight.new_zeros(len(up)) if bias is None else (bias[up] - bias[down]).to(weight.dtype)
    return weight[up] - weight[down], offset
