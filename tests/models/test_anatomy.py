"""The parts of a decoder, found by their description and checked on the live model."""

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from moralscope.core.errors import ModelError, SiteError
from moralscope.core.site import Site
from moralscope.models.anatomy import dissect


def test_component_sites_are_every_head_and_mlp_in_depth_order():
    sites = dissect(tiny.tiny_model("llama")).component_sites
    assert len(sites) == 3 * (4 + 1)
    assert [str(site) for site in sites[:6]] == [
        "L0.h0", "L0.h1", "L0.h2", "L0.h3", "L0.mlp", "L1.h0",
    ]  # fmt: skip
    assert sites[-1] == Site("mlp", 2)
    assert list(sites) == sorted(sites)


def test_shapes_are_compared():
    small = dissect(tiny.tiny_model("llama"))
    assert small.same_shape(dissect(tiny.tiny_model("llama", seed=9)))
    assert not small.same_shape(dissect(tiny.tiny_model("llama", num_hidden_layers=2)))
    assert not small.same_shape(dissect(tiny.tiny_model("qwen2")))


def test_a_bare_encoder_is_refused():
    with pytest.raises(ModelError, match="This llama model lacks the part 'model'") as e:
        dissect(tiny.tiny_model("llama").model)
    assert "AutoModelForCausalLM" in e.value.remedy


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 8), ("num_hidden_layers", 5), ("head_dim", 4)]
)
def test_weights_of_another_configuration_are_refused(key: str, value: int):
    model = tiny.tiny_model("llama")
    setattr(model.config, key, value)
    with pytest.raises(ModelError, match="not built as its configuration says") as e:
        dissect(model)
    assert "(32, 3)" in str(e.value.seen)


class Centred(nn.Module):
    """A norm that subtracts the mean, in a class that does not say so."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float64))
        self.eps = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight)


def test_a_norm_of_another_kind_is_refused():
    model = tiny.tiny_model("llama")
    model.model.norm = Centred(32)
    with pytest.raises(ModelError, match="neither a root-mean-square nor a layer norm") as e:
        dissect(model)
    assert "Centred" in str(e.value)


def test_a_gain_stored_in_the_other_way_is_noticed():
    model = tiny.tiny_model("llama")
    model.config.model_type = "gemma2"
    for layer in model.model.layers:
        layer.post_feedforward_layernorm = layer.input_layernorm
    with pytest.raises(ModelError, match="neither a root-mean-square nor a layer norm"):
        dissect(model)


def test_an_adapter_does_not_hide_the_parts(tmp_path: Any):
    roster = tiny.tiny_roster(tmp_path, "gemma2")
    with roster.speaking("game"):
        anatomy = roster.anatomy("game")
    assert anatomy.n_layers == 4
    assert type(anatomy.blocks[0].out_proj).__module__.startswith("peft")


def test_sites_of_a_kind_are_in_depth_order_and_as_many_as_there_are():
    anatomy = dissect(tiny.tiny_model("llama"))
    assert [str(s) for s in anatomy.sites("k", "mlp")[:4]] == [
        "L0.kv0.k", "L0.kv1.k", "L0.mlp", "L1.kv0.k",
    ]  # fmt: skip
    counts = {"q": 12, "k": 6, "v": 6, "attn": 3, "resid_mid": 3, "resid_pre": 3, "embed": 1}
    assert {kind: len(anatomy.sites(kind)) for kind in counts} == counts
    assert anatomy.sites("embed", "resid_post", "q")[0] == Site("embed")
    assert dissect(tiny.tiny_model("gpt_neox")).sites("resid_mid") == ()


@pytest.mark.parametrize(
    ("site", "near"),
    [
        (Site("head", 7, 1), "L2.h1"),
        (Site("head", 1, 9), "L1.h3"),
        (Site("mlp", 3), "L2.mlp"),
        (Site("q", 3, 4), "L2.h3.q"),
        (Site("k", 0, 2), "L0.kv1.k"),
        (Site("v", 5, 3), "L2.kv1.v"),
        (Site("resid_mid", 3), "L2.resid_mid"),
    ],
)
def test_a_site_that_does_not_exist_is_refused_with_the_nearest(site: Site, near: str):
    anatomy = dissect(tiny.tiny_model("llama"))
    with pytest.raises(SiteError, match="The model has no such site") as e:
        anatomy.check_site(site)
    assert e.value.seen == str(site)
    assert e.value.allowed == "layers 0 to 2, heads 0 to 3, key/value heads 0 to 1"
    assert e.value.remedy == f"the nearest is {near}"


def test_every_site_that_is_listed_exists():
    for family in ("llama", "gpt_neox"):
        anatomy = dissect(tiny.tiny_model(family))
        kinds = ("embed", "resid_pre", "head", "q", "k", "v", "attn", "resid_mid", "mlp",
                 "resid_post", "bias", "all")  # fmt: skip
        for site in anatomy.sites(*kinds):
            anatomy.check_site(site)
