"""Does what a decision looks at matter to it? Attention to a category masked or amplified.

From the answer span (the last token of the prompt and the answers' tokens) to the tokens T of one
category, and to nothing else, at every head of the chosen layers:

    weight'[t] = f weight[t] / (sum over T of f weight + sum over the others of weight),  t in T

f = 0 masks, f > 1 amplifies. That is a term ``log f`` in the additive mask of the attention, which
every kernel takes and which acts after any soft-cap, so the decision comes out of the model's own
forward. Earlier tokens are left as they are: what they had read of T before is still there.

Control: as many tokens drawn at random from the rest of the prompt. The draws are the same for
every agent.

Every edit of a prompt is a *row* beside the others (``patching.rows``), a copy of the answer span
that sees the clean keys and values of the prompt through its own mask; row 0 is unaltered, so that
both sides of an effect went through the same kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from moralscope.core.errors import PromptError
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows
from moralscope.mechanisms.attention.categories import FIRST, REST, Categories, categories_of
from moralscope.mechanisms.attention.tables import NOTHING_NAMED, Named
from moralscope.mechanisms.clean import CleanRun
from moralscope.mechanisms.patching.readings import read_log_odds
from moralscope.mechanisms.patching.rows import FrozenPrefix, masks_of_rows
from moralscope.mechanisms.patching.segments import (
    ANSWER_SPAN,
    Segment,
    case_of,
    group_cases,
    kept_rows,
    paths_of,
)
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import compute_dtype, full_precision
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.resume import call_layer

OWN = -1
"""The draw that stands for the category's own tokens."""

ROWS_AT_ONCE = 64
"""Rows of one pass: masks and activations stay below 100 MB for prompts of 2,000 tokens."""


@dataclass(frozen=True)
class Edit:
    """Attention to some tokens of a prompt, altered.

    Attributes:
        category: what the edit is about.
        factor: what the weights are multiplied by, at least 0; 0 masks.
        draw: ``OWN``, or the number of a random draw from the rest.
        tokens: indices of tokens of the prompt, at least one.
    """

    category: str
    factor: float
    draw: int
    tokens: tuple[int, ...]

    @property
    def how(self) -> str:
        """As the tables call it."""
        return "mask" if self.factor == 0.0 else "amplify"


@dataclass(frozen=True)
class Editing:
    """Which edits are made.

    Attributes:
        factors: 0 masks, above 1 amplifies.
        draws: random draws that each mask is compared with.
        layers: at which layers; None for all.
        seed: of the draws.
    """

    factors: tuple[float, ...] = (0.0, 4.0)
    draws: int = 4
    layers: tuple[int, ...] | None = None
    seed: int = 0

    @property
    def where(self) -> str:
        """The column ``layers``."""
        return "all" if self.layers is None else "+".join(f"L{at}" for at in sorted(self.layers))


def planned_edits(prompt: EncodedPrompt, categories: Categories, wanted: Editing) -> Iterator[Edit]:
    """The edits of one prompt.

    A category without tokens has none. A category of more tokens than the rest has no control.

    Args:
        prompt: what is asked.
        categories: of its tokens.
        wanted: which edits.
    """
    # The last token is the one that looks; whether it sees itself is another question.
    pool = np.array([t for t in categories[REST] if t != len(prompt.tokens) - 1], dtype=np.int64)
    for category, tokens in categories.items():
        if category in (FIRST, REST) or not tokens:
            continue
        yield from (Edit(category, factor, OWN, tokens) for factor in wanted.factors)
        if 0.0 not in wanted.factors or len(pool) < len(tokens):
            continue
        for draw in range(wanted.draws):
            rng = stream(wanted.seed, "attention-control", prompt.name, category, draw)
            drawn = rng.choice(pool, size=len(tokens), replace=False)
            yield Edit(category, 0.0, draw, tuple(sorted(drawn.tolist())))


@torch.no_grad()
def run_edits(
    model: nn.Module,
    anatomy: Anatomy,
    run: CleanRun,
    *,
    member: int,
    edits: Sequence[Edit],
    layers: Sequence[int] | None = None,
) -> tuple[float, tuple[float, ...]]:
    """Log-odds of one prompt with attention altered in several ways, side by side.

    Args:
        model: the decoder, with the weights in force that the clean run was made with.
        anatomy: its parts.
        run: its clean run, with keys and values.
        member: index of the prompt in the run.
        edits: what is altered.
        layers: at which layers; all unless given.

    Returns:
        Unaltered log-odds, and one for each edit, nats.

    Raises:
        AgentError: the clean run did not keep keys and values.
        PromptError: an edit leaves some token nothing to attend to.
    """
    case = case_of(run, run, member, member, ANSWER_SPAN)
    segment = group_cases(run, [case], share=False, max_nodes=1)[0]
    chosen = sorted(set(range(anatomy.n_layers) if layers is None else layers))
    here = _Here(model, anatomy, run, segment, tuple(chosen))
    effects: list[float] = []
    for start in range(0, len(edits), ROWS_AT_ONCE):
        baseline, *edited = _side_by_side(here, edits[start : start + ROWS_AT_ONCE])
        # Beside other rows the clean one may differ in its last digits; effects must not.
        effects += [value - baseline for value in edited]
    clean = float(run.log_odds[member])
    return clean, tuple(clean + effect for effect in effects)


@dataclass(frozen=True, eq=False)
class _Here:
    """One prompt's answer span, and the layers at which it is edited, ascending."""

    model: nn.Module
    anatomy: Anatomy
    run: CleanRun
    segment: Segment
    layers: tuple[int, ...]


def _side_by_side(here: _Here, edits: Sequence[Edit]) -> list[float]:
    """Log-odds of the unaltered row, and of one row for each edit."""
    model, anatomy, segment, rows = here.model, here.anatomy, here.segment, len(edits) + 1
    pack = here.run.packs[segment.pack].pack
    plain = masks_of_rows(model, anatomy, pack.tree, segment, rows)
    altered = _altered(here.run, segment, edits, plain)
    masks = [altered[at] if at in here.layers else plain[at] for at in range(anatomy.n_layers)]
    with full_precision(model):
        log_odds = read_log_odds(anatomy, pack, segment, _through(here, masks, rows))
    return [float(value) for value in log_odds[:, 0].double().cpu()]


def _altered(
    run: CleanRun, segment: Segment, edits: Sequence[Edit], plain: Sequence[Tensor]
) -> list[Tensor]:
    """The masks of the layers with every edit in its row; row 0 stays."""
    member, length = segment.cases[0].member, len(segment.nodes)
    prompt = run.prompts[member]
    path = paths_of(run, member)[0][: len(prompt.tokens)]
    frozen = {int(node): at for at, node in enumerate(segment.frozen)}
    inside = {int(node): len(frozen) + at for at, node in enumerate(segment.nodes)}
    made: dict[int, Tensor] = {}
    for mask in plain:
        if id(mask) in made:
            continue
        new = mask.clone()
        for row, edit in enumerate(edits, start=1):
            nodes = [int(path[token]) for token in edit.tokens]
            columns = [
                frozen[node] if node in frozen else inside[node] + row * length for node in nodes
            ]
            own = new[0, 0, row * length : (row + 1) * length]
            own[:, columns] += math.log(edit.factor) if edit.factor > 0.0 else -math.inf
            if bool(torch.isneginf(own).all(-1).any()):
                raise _nothing_left(prompt, edit)
        made[id(mask)] = new
    return [made[id(mask)] for mask in plain]


def _nothing_left(prompt: EncodedPrompt, edit: Edit) -> PromptError:
    return PromptError(
        f"Without {edit.category!r} prompt {prompt.name!r} has nothing to attend to",
        seen=f"{len(edit.tokens)} of {len(prompt.tokens)} tokens masked, and no other within reach",
        allowed="a category that leaves some token within every layer's window",
        remedy="leave the category out, or amplify it instead",
    )


def _through(here: _Here, masks: Sequence[Tensor], rows: int) -> Tensor:
    """The stream after the last layer, ``(rows, tokens, width)``."""
    segment, part, first = here.segment, here.run.packs[here.segment.pack], here.layers[0]
    captured, kept = kept_rows(part, segment.nodes)
    device, dtype = captured.resid_final.device, compute_dtype(here.model)
    nodes = torch.as_tensor(segment.nodes, device=device)
    frozen = torch.as_tensor(segment.frozen, device=device)
    clean = captured.resid_pre[first, torch.as_tensor(kept, device=device)].to(dtype)
    hidden = clean.repeat(rows, 1)[None]
    for layer in range(first, here.anatomy.n_layers):
        hidden = call_layer(
            here.anatomy.blocks[layer].layer,
            part.captured.calls[layer],
            hidden,
            nodes=nodes,
            copies=rows,
            mask=masks[layer],
            cache=FrozenPrefix.of(part.cache, layer, frozen),
        )
    return hidden.view(rows, len(segment.nodes), -1)


def attention_edits_table(
    model: nn.Module,
    anatomy: Anatomy,
    run: CleanRun,
    wanted: Editing,
    *,
    named: Named = NOTHING_NAMED,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The table ``attention_edits`` of one agent.

    Args:
        model: the decoder, with the agent's weights in force.
        anatomy: its parts.
        run: the agent's clean run, with keys and values.
        wanted: which edits.
        named: categories that the prompts name, from ``categories.named_categories``.
        progress: told of every prompt.

    Raises:
        PromptError: an edit leaves some token nothing to attend to.
    """
    rows: list[dict[str, object]] = []
    for member, prompt in enumerate(run.prompts):
        progress(ProgressEvent(f"edit attention {run.agent}", member, len(run.prompts)))
        categories = categories_of(prompt, named.get(prompt.name, ()))
        edits = tuple(planned_edits(prompt, categories, wanted))
        if not edits:
            continue
        baseline, edited = run_edits(
            model, anatomy, run, member=member, edits=edits, layers=wanted.layers
        )
        rows += [
            _row(run.agent, prompt.name, wanted, edit, (baseline, value))
            for edit, value in zip(edits, edited, strict=True)
        ]
    return from_rows("attention_edits", rows)


def _row(
    agent: str, prompt: str, wanted: Editing, edit: Edit, log_odds: tuple[float, float]
) -> dict[str, object]:
    baseline, edited = log_odds
    return {
        "agent": agent,
        "prompt": prompt,
        "category": edit.category,
        "how": edit.how,
        "factor": edit.factor,
        "layers": wanted.where,
        "draw": edit.draw,
        "tokens": len(edit.tokens),
        "baseline_log_odds": baseline,
        "edited_log_odds": edited,
        "effect": edited - baseline,
    }
