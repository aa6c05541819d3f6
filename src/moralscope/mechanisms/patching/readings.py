"""What do rows decide? Log-odds read from final residual streams.

Each form of an option is a token sequence; its log-probability is a sum over the tokens of the
answer span at which it is read (``models.scoring``). Where all forms are single tokens read at one
place, the normaliser cancels and only their own logits are computed:

    log_odds = logsumexp_positive logit - logsumexp_negative logit
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moralscope.mechanisms.patching.segments import Segment
from moralscope.models.anatomy import Anatomy
from moralscope.models.scoring import Pack
from moralscope.models.weights import bias_of, effective_weight

_LOGITS_AT_ONCE = 1 << 23
"""Logits that are held at once where a normaliser is needed: 32 MiB in float32."""


def read_log_odds(anatomy: Anatomy, pack: Pack, segment: Segment, rows: Tensor) -> Tensor:
    """Log-odds of every row on each prompt of a segment.

    Args:
        anatomy: the decoder whose unembedding reads them.
        pack: what was run.
        segment: which of its prompts, and which nodes a row holds.
        rows: residual streams before the final norm, ``(rows, tokens, width)``.

    Returns:
        ``(rows, cases)``, in nats, float32 or wider.
    """
    return torch.stack(
        [_of_prompt(anatomy, pack, segment, case.position, rows) for case in segment.cases], 1
    )


def _of_prompt(
    anatomy: Anatomy, pack: Pack, segment: Segment, position: int, rows: Tensor
) -> Tensor:
    forms = np.flatnonzero(pack.option // 2 == position)
    predicted = np.flatnonzero(np.isin(pack.form, forms))
    nodes, at = np.unique(pack.keep[pack.row[predicted]], return_inverse=True)
    places = torch.as_tensor(np.searchsorted(segment.nodes, nodes), device=rows.device)
    token = torch.as_tensor(pack.token[predicted], device=rows.device)
    form = torch.as_tensor(pack.form[predicted] - forms[0], device=rows.device)
    positive = torch.as_tensor(pack.option[forms] % 2 == 0, device=rows.device)
    weight = effective_weight(anatomy.unembed)
    bias = bias_of(anatomy.unembed)
    bias = None if bias is None else bias.to(weight.dtype)
    cancels = len(nodes) == 1
    step = len(rows) if cancels else max(1, _LOGITS_AT_ONCE // (len(nodes) * len(weight)))
    chunks: list[Tensor] = []
    for start in range(0, len(rows), step):
        hidden: Tensor = anatomy.final_norm(rows[start : start + step, places]).to(weight.dtype)
        if cancels:
            logits = hidden[:, 0] @ weight[token].T
            picked = _softcap(anatomy, logits if bias is None else logits + bias[token])
        else:
            logits = hidden @ weight.T
            logits = _softcap(anatomy, logits if bias is None else logits + bias)
            picked = logits.log_softmax(-1)[:, torch.as_tensor(at, device=rows.device), token]
        total = picked.new_zeros(len(hidden), len(forms)).index_add(1, form, picked)
        chunks.append(total[:, positive].logsumexp(-1) - total[:, ~positive].logsumexp(-1))
    return torch.cat(chunks)


def _softcap(anatomy: Anatomy, logits: Tensor) -> Tensor:
    cap = anatomy.softcap
    return logits if cap is None else cap * (logits / cap).tanh()
