"""How does another tool read these activations? One prompt's, under TransformerLens's hook names.

    hook_embed, hook_pos_embed             blocks.5.hook_resid_pre | _mid | _post
    blocks.5.attn.hook_q | k | v | z       blocks.5.hook_attn_out, blocks.5.hook_mlp_out

Each has a batch axis of one. Names and meanings are those of ``TransformerBridge`` in
TransformerLens 4 without weight processing, which leaves ``hook_pattern``, ``hook_scale`` and the
like to those who run the model there. What to know when comparing:

- After a post-norm, where there is one: ``hook_attn_out`` and ``hook_mlp_out`` are what is added to
  the stream. The sites ``attn`` and ``mlp``, which ``core.site.parse_site`` makes of these names,
  are patched before that norm.
- Queries, keys and values are before rotary positions. Where a family norms queries and keys, ours
  are after that norm, and named ``hook_q_normed`` and ``hook_k_normed``, not ``hook_q``. Their axes
  are as here in every family; in TransformerLens these two follow the model's own.
- Keys and values have one head for each key/value head.
- There is no ``hook_resid_mid`` where attention and MLP are parallel, and ``hook_pos_embed`` only
  where the family adds embeddings of positions to the stream.
- Tokens were run as part of a packed tree, which computes at each node what a run of that path
  alone would, up to rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moralscope.core.errors import PromptError, nearest
from moralscope.mechanisms.clean import CleanPack, CleanRun
from moralscope.mechanisms.patching.segments import kept_rows
from moralscope.models.anatomy import Anatomy
from moralscope.models.capture import PARTS, Capture, Part
from moralscope.models.families import FAMILIES


def hook_names(run: CleanRun, prompt: str, anatomy: Anatomy, *, form: int = 0) -> dict[str, Tensor]:
    """Activations of one prompt by TransformerLens's hook names.

    Args:
        run: an agent's clean run.
        prompt: name of a prompt of it.
        anatomy: the parts of the agent's decoder.
        form: which form of the options follows the prompt: the positive ones come first, from 0.

    Returns:
        Tensors ``(1, tokens, width)``, and ``(1, tokens, heads, head_dim)`` for ``attn.hook_*``;
        float32 or wider. The tokens are those of the prompt and of the form but its last if the
        run kept every token; else the answer span: from the last token of the prompt on. Queries,
        keys and values are there if the run kept them.

    Raises:
        PromptError: the run has no such prompt, or the prompt no such form.
    """
    names = [known.name for known in run.prompts]
    if prompt not in names:
        raise PromptError(
            "The run has no such prompt",
            seen=prompt,
            allowed=f"one of its {len(names)} prompts",
            remedy=nearest(prompt, names),
        )
    index = names.index(prompt)
    forms = len(run.prompts[index].continuations)
    if not 0 <= form < forms:
        raise PromptError(
            f"The options of prompt {prompt!r} have no such form",
            seen=form,
            allowed=f"0 to {forms - 1}: positive forms, then negative ones",
            remedy="leave form out for the first",
        )
    part = next(part for part in run.packs if index in part.pack.members)
    captured, tokens = _one_path(part, index, len(run.prompts[index].tokens), form)
    return hooks_of(captured, tokens, anatomy)


def _one_path(part: CleanPack, index: int, n_tokens: int, form: int) -> tuple[Capture, Tensor]:
    """What was kept of one sequence, and its tokens."""
    pack = part.pack
    first = int(np.searchsorted(pack.option, 2 * pack.members.index(index)))
    path = pack.tree.paths[first + form]
    nodes = path if part.everywhere is not None else path[n_tokens - 1 :]
    captured, rows = kept_rows(part, nodes)
    at = torch.as_tensor(rows, device=captured.resid_final.device)
    return captured.at(at), torch.as_tensor(pack.tree.tokens[nodes], device=at.device)


@torch.no_grad()
def hooks_of(captured: Capture, tokens: Tensor, anatomy: Anatomy) -> dict[str, Tensor]:
    """A capture at the tokens of one sequence by TransformerLens's hook names.

    Args:
        captured: at these tokens, in their order.
        tokens: int64, ``(tokens,)``.
        anatomy: the parts of the decoder that was run.

    Returns:
        As ``hook_names``.
    """
    embedded = anatomy.embed(tokens).to(captured.resid_pre.dtype)
    found = {"hook_embed": embedded}
    positions = captured.resid_pre[0] - embedded
    if positions.any():
        found["hook_pos_embed"] = positions
    for layer in range(anatomy.n_layers):
        block = f"blocks.{layer}."
        heads = captured.z[layer].reshape(-1, anatomy.n_heads, anatomy.head_dim)
        found[f"{block}hook_resid_pre"] = captured.resid_pre[layer]
        for part in PARTS:
            values: Tensor | None = getattr(captured, part)
            if values is not None:
                found[f"{block}attn.{_part_name(part, anatomy)}"] = values[layer]
        found[f"{block}attn.hook_z"] = heads
        found[f"{block}hook_attn_out"] = captured.attn_write[layer]
        if not anatomy.parallel:
            found[f"{block}hook_resid_mid"] = captured.resid_pre[layer] + captured.attn_write[layer]
        found[f"{block}hook_mlp_out"] = captured.mlp_write[layer]
        found[f"{block}hook_resid_post"] = captured.resid_post(layer)
    # Each with memory of its own: safetensors saves no other, and the run stays as it is.
    return {name: values.clone().unsqueeze(0) for name, values in found.items()}


def _part_name(part: Part, anatomy: Anatomy) -> str:
    normed = part != "v" and FAMILIES[anatomy.model_type].query_norm is not None
    return f"hook_{part}_normed" if normed else f"hook_{part}"
