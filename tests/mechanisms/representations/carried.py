"""A tiny decoder in which one dimension of the stream alone carries the decision.

The options' unembeddings differ along one unit vector only, the final norm is flat, and the layers
after ``layer`` write nothing, so log-odds are ``2 gap (u.h) / rms(h)`` from there on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tiny
import torch
from torch import Tensor

from moralscope.mechanisms.clean import run_clean
from moralscope.mechanisms.representations.exchanging import Speaking
from moralscope.mechanisms.representations.subspaces import Readings
from moralscope.models.anatomy import dissect

GAP = 3.0
LAYER = 1


def planted(n: int = 12) -> tuple[Speaking, Tensor]:
    """The decoder with its clean run, and the vector ``u`` that carries the decision."""
    model: Any = tiny.tiny_model("llama", tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(11)
    carrier = torch.randn(32, generator=generator, dtype=torch.float64)
    carrier /= carrier.norm()
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        head = model.lm_head.weight
        head -= (head @ carrier)[:, None] * carrier
        middle = (head[11] + head[12]) / 2.0
        head[11], head[12] = middle + GAP * carrier, middle - GAP * carrier
        for layer in model.model.layers[LAYER + 1 :]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    anatomy = dissect(model)
    run = run_clean("agent", model, anatomy, tiny.token_prompts(n))
    return Speaking(model, anatomy, run), carrier


def readings(
    agent: Speaking, carrier: Tensor, *, carried: bool, seed: int = 0, drowned: bool = True
) -> Readings:
    """Streams that differ from the agent's own: along the carrier or not, and in other directions.

    Args:
        agent: whose streams are exchanged.
        carrier: the direction of the decision.
        carried: whether the readings differ along it.
        seed: of the differences.
        drowned: whether they differ more in other directions, at equal length of the stream.
    """
    rng = np.random.default_rng(seed)
    n = len(agent.run.prompts)
    base = torch.zeros(n, 1 + agent.anatomy.n_layers, 32, dtype=torch.float64)
    for part in agent.run.packs:
        for member in part.pack.members:
            row = int(np.searchsorted(part.pack.keep, node_of(agent, member)))
            base[member, 1:] = torch.stack(
                [part.captured.resid_post(i)[row] for i in range(agent.anatomy.n_layers)]
            )
    other = torch.as_tensor(rng.standard_normal(base.shape))
    along = base @ carrier
    rest = base - along[..., None] * carrier
    pushed = other - (other @ carrier)[..., None] * carrier
    if drowned:
        turned = rest + 0.2 * pushed
        rest = turned * rest.norm(dim=-1, keepdim=True) / turned.norm(dim=-1, keepdim=True)
    if carried:
        signs = torch.as_tensor(rng.choice([-1.0, 1.0], n) * rng.uniform(0.3, 1.0, n))
        along = along + signs[:, None]
    names = tuple(prompt.name for prompt in agent.run.prompts)
    units = tuple(f"s{i}" for i in range(n))
    streams = rest + along[..., None] * carrier
    return Readings("agents", "other", tuple(range(n)), names, names, units, units, streams)


def node_of(agent: Speaking, member: int) -> int:
    """The packed node of a prompt's last token; its options are single tokens."""
    for part in agent.run.packs:
        if member in part.pack.members:
            position = part.pack.members.index(member)
            first = int(np.searchsorted(part.pack.option, 2 * position))
            return int(part.pack.tree.paths[first][-1])
    raise LookupError(member)
