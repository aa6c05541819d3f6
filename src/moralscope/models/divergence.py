"""How does an agent read a text, and how far from its base? Nats per token and their divergence.

For a text x of tokens t = 0 .. T, of which the first is given,

    nats = mean_t -log p(x_t | x_<t)        KL = mean_t KL( p(. | x_<t) || q(. | x_<t) )

over the whole vocabulary, p being the first agent named and q the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moralscope.core.errors import PromptError
from moralscope.models.forward import run_tree
from moralscope.models.roster import Roster
from moralscope.models.tree import Tokens, grow_tree


@torch.no_grad()
def read_text(
    roster: Roster, agents: Sequence[str], tokens: Tokens
) -> tuple[tuple[float, ...], float]:
    """What agents make of one text; no more than their distributions on it are held.

    Args:
        roster: models and adapters.
        agents: who reads, at least one.
        tokens: the text, two tokens or more.

    Returns:
        Nats per token of each agent, and the divergence of the first from the last in nats per
        token, 0 for a single agent.

    Raises:
        AgentError: there is no such agent.
        PromptError: the text has nothing to predict.
    """
    if len(tokens) < 2:
        raise PromptError(
            "A text has nothing to predict",
            seen=f"{len(tokens)} tokens",
            allowed="two tokens or more",
            remedy="give a longer text",
        )
    tree = grow_tree([tokens[:-1]])
    keep = np.arange(len(tree), dtype=np.int64)
    said: list[Tensor] = []
    for agent in agents:
        with roster.speaking(agent) as model:
            said.append(run_tree(model, tree, keep).log_softmax(-1))
    after = torch.tensor(tokens[1:], device=said[0].device)[:, None]
    nats = tuple(-float(log_p.gather(1, after).double().mean()) for log_p in said)
    p = said[0].exp()
    # What the first never says adds nothing, whatever the last does.
    terms = torch.where(p > 0, p * (said[0] - said[-1]), 0.0).sum(-1)
    return nats, float(terms.double().mean())
