"""Where one head's query, key and value lies in the output of a projection."""

import pytest
import torch
from torch import nn

from moralscope.models.projections import Layout, Projection, blocks_of, interleaved

HEADS, DIM, TOKENS = 3, 2, 5
VALUES = torch.arange(TOKENS * HEADS * DIM, dtype=torch.float64).view(TOKENS, HEADS, DIM)
"""What each token and head holds: every number once."""

OUTPUTS: dict[Layout, torch.Tensor] = {
    "features": VALUES.view(1, TOKENS, HEADS * DIM),
    "token_head": VALUES[None],
    "head_token": VALUES.transpose(0, 1)[None].contiguous(),
}


def projection(layout: Layout) -> Projection:
    return Projection(nn.Identity(), blocks_of(HEADS, DIM), layout)


@pytest.mark.parametrize("layout", OUTPUTS)
def test_heads_are_read_in_every_layout(layout: Layout):
    assert torch.equal(projection(layout).read(OUTPUTS[layout]), VALUES)


@pytest.mark.parametrize("layout", OUTPUTS)
def test_heads_are_replaced_at_their_tokens_and_nowhere_else(layout: Layout):
    output = OUTPUTS[layout].clone()
    tokens, heads = torch.tensor([[0, 3], [4, 1]]), torch.tensor([2, 0])
    new = -1.0 - torch.arange(2 * 2 * DIM, dtype=torch.float32).view(2, 2, DIM)
    found = projection(layout)
    replaced = found.replaced(output, tokens, heads, new)
    expected = VALUES.clone()
    for row, head in enumerate(heads.tolist()):
        for column, token in enumerate(tokens[row].tolist()):
            expected[token, head] = new[row, column].double()
    assert torch.equal(found.read(replaced), expected)
    assert torch.equal(output, OUTPUTS[layout]), "the module's own output must stay"
    assert replaced.dtype == torch.float64


def test_blocks_lie_one_after_another():
    assert blocks_of(2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert blocks_of(2, 2, 10).tolist() == [[10, 11], [12, 13]]


def test_interleaved_parts_go_head_by_head():
    q, k, v = (interleaved(2, 2, part) for part in range(3))
    assert q.tolist() == [[0, 1], [6, 7]]
    assert k.tolist() == [[2, 3], [8, 9]]
    assert v.tolist() == [[4, 5], [10, 11]]
    assert sorted(torch.cat([q, k, v]).flatten().tolist()) == list(range(12))
