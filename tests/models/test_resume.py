"""Resuming a decoder at one of its layers, with the arguments of the clean run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moralscope.core.errors import ModelError
from moralscope.models.resume import LayerCall, call_layer, record_call

HIDDEN = torch.zeros(1, 4, 2)


class Layer(nn.Module):
    """Takes what decoder layers take, and keeps it."""

    def __init__(self, *, wraps: bool = False) -> None:
        super().__init__()
        self.wraps = wraps

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        layer_past: object = None,
        use_cache: bool = False,
        **kwargs: Any,
    ) -> Any:
        self.seen = {
            "mask": attention_mask, "positions": position_ids, "cache": layer_past,
            "use_cache": use_cache, **kwargs,
        }  # fmt: skip
        return (hidden_states + 1.0, None) if self.wraps else hidden_states + 1.0


def test_arguments_are_named_however_they_were_passed():
    mask = torch.ones(1, 1, 4, 4)
    recorded = record_call(Layer(), (HIDDEN, mask), {"use_cache": True, "flag": 3})
    assert set(recorded.named) == {"attention_mask", "use_cache", "flag"}
    assert recorded.named["attention_mask"] is mask
    by_name = record_call(Layer(), (), {"hidden_states": HIDDEN, "attention_mask": mask})
    assert set(by_name.named) == {"attention_mask"}


@pytest.mark.parametrize("wraps", [False, True])
def test_arguments_by_token_are_cut_and_repeated_for_each_copy(wraps: bool):
    layer = Layer(wraps=wraps)
    cosine = torch.arange(8.0).view(1, 4, 2)
    positions = torch.tensor([[5, 6, 7, 8]])
    recorded = LayerCall(
        {
            "attention_mask": torch.zeros(1, 1, 4, 4),
            "position_ids": positions,
            "layer_past": "the clean run's",
            "use_cache": True,
            "position_embeddings": (cosine, -cosine),
            "cache_position": torch.arange(4),
            "flag": 3,
        }
    )
    mask, hidden = torch.ones(1, 1, 4, 6), torch.zeros(1, 4, 2)
    nodes = torch.tensor([3, 1])
    found = call_layer(
        layer, recorded, hidden, nodes=nodes, copies=2, mask=mask, cache="the prefix"
    )  # fmt: skip
    assert torch.equal(found, hidden + 1.0)
    seen = layer.seen
    assert seen["mask"] is mask
    assert (seen["cache"], seen["use_cache"], seen["flag"]) == ("the prefix", True, 3)
    assert seen["positions"].tolist() == [[8, 6, 8, 6]]
    assert seen["cache_position"].tolist() == [3, 1, 3, 1]
    first, second = seen["position_embeddings"]
    assert first.tolist() == [[[6, 7], [2, 3], [6, 7], [2, 3]]]
    assert torch.equal(second, -first)
    assert recorded.named["position_ids"] is positions


def test_without_a_prefix_no_cache_is_asked_for():
    layer = Layer()
    recorded = LayerCall({"layer_past": "old", "use_cache": True, "position_ids": None})
    call_layer(
        layer, recorded, HIDDEN, nodes=torch.arange(4), copies=1, mask=HIDDEN, cache=None
    )  # fmt: skip
    assert (layer.seen["cache"], layer.seen["use_cache"]) == (None, False)
    assert layer.seen["positions"] is None


def test_a_tensor_whose_meaning_is_not_known_is_refused():
    with pytest.raises(ModelError, match="takes an argument that is not understood") as e:
        record_call(Layer(), (HIDDEN,), {"slopes": torch.ones(4)})
    assert e.value.seen == "Layer(slopes=...)"
    assert "position_embeddings" in str(e.value.allowed)


def test_a_wrapper_that_hides_names_is_refused():
    layer: Any = Layer()
    own = layer.forward

    def nameless(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    layer.forward = nameless
    recorded = record_call(layer, (HIDDEN,), {"use_cache": True})
    assert recorded.named == {"use_cache": True}
    with pytest.raises(ModelError, match="wrapped so that its arguments have no names"):
        record_call(layer, (HIDDEN, torch.ones(1)), {})
