"""On every family: the parts are found where the library has them, and nothing is disturbed."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES, TinyFamily
from hooked import hooked_sweep, layers_of, part
from torch import Tensor, nn
from worlds import Worlds, world

from moralscope.core.errors import ModelError
from moralscope.core.site import Site
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import sweep
from moralscope.models import families as supported
from moralscope.models.anatomy import Anatomy, dissect
from moralscope.models.capture import capture
from moralscope.models.forward import run_tree
from moralscope.models.projections import Projection
from moralscope.models.resume import call_layer
from moralscope.models.scoring import make_packs


def at(layer: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else layer.get_submodule(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_those_of_the_live_model(family: str):
    model, names = tiny.tiny_model(family), FAMILIES[family]
    anatomy = dissect(model)
    config = model.config
    body = model.get_submodule(names.body)
    assert anatomy.model_type == config.model_type
    assert (anatomy.n_layers, anatomy.n_heads, anatomy.width) == (
        len(layers_of(model)), config.num_attention_heads, config.hidden_size,
    )  # fmt: skip
    keys = anatomy.blocks[0].k.read(torch.zeros(key_shape(names, config), dtype=torch.float64))
    assert keys.shape == (1, anatomy.n_kv_heads, anatomy.head_dim)
    assert anatomy.core is body
    assert anatomy.embed is body.get_submodule(names.embed) is model.get_input_embeddings()
    assert anatomy.final_norm is body.get_submodule(names.final_norm)
    assert anatomy.unembed is model.get_output_embeddings()
    for block, layer in zip(anatomy.blocks, layers_of(model), strict=True):
        assert (block.layer, block.mlp) == (layer, layer.mlp)
        assert block.out_proj is layer.get_submodule(names.out_proj)
        assert block.attention_post_norm is at(layer, names.post_norm)
        assert block.mlp_post_norm is at(layer, names.mlp_post_norm)
    assert anatomy.parallel == (names.before_mlp is None)
    assert anatomy.unit_offset == bool(names.gain_offset)
    assert anatomy.softcap == names.settings.get("final_logit_softcapping")
    assert anatomy.mlp_width == config.intermediate_size if family != "gpt2" else 128


def key_shape(names: TinyFamily, config: Any) -> tuple[int, ...]:
    """Shape of the output that holds the keys of one token."""
    heads = config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    if names.query_norm == "token_head":
        return (1, 1, kv, dim)
    if names.query_norm == "head_token":
        return (1, kv, 1, dim)
    return (1, 1, (heads + 2 * kv if names.fused else kv) * dim)


def moved_heads(model: Any, anatomy: Anatomy, projection: Projection, head: int) -> list[int]:
    """Heads whose activation changes in a layer when one query, key or value does, all tokens."""
    pack = make_packs(tiny.token_prompts(1))[0]
    plain = capture(model, anatomy, pack.tree, pack.keep).z[1]
    tokens = torch.arange(len(pack.tree))[None]
    noise = torch.randn(
        1, len(pack.tree), anatomy.head_dim, dtype=torch.float64,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip

    def hook(_: Any, __: Any, output: Tensor) -> Tensor:
        return projection.replaced(output, tokens, torch.tensor([head]), noise)

    handle = projection.module.register_forward_hook(hook)
    try:
        moved = capture(model, anatomy, pack.tree, pack.keep).z[1]
    finally:
        handle.remove()
    by_head = (moved - plain).view(len(plain), anatomy.n_heads, -1).abs().amax((0, 2))
    return [index for index, change in enumerate(by_head.tolist()) if change > 1e-8]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_moves_its_head_and_keys_and_values_those_that_share_them(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    block, shared = anatomy.blocks[1], anatomy.n_heads // anatomy.n_kv_heads
    for head in range(anatomy.n_heads):
        assert moved_heads(model, anatomy, block.q, head) == [head]
    for head in range(anatomy.n_kv_heads):
        group = list(range(head * shared, (head + 1) * shared))
        assert moved_heads(model, anatomy, block.k, head) == group
        assert moved_heads(model, anatomy, block.v, head) == group


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("family", FAMILIES)
def test_observing_changes_nothing(family: str, dtype: torch.dtype):
    model = tiny.tiny_model(family, dtype=dtype)
    (pack,) = make_packs(tiny.token_prompts(forms="multi"))
    anatomy = dissect(model)
    with torch.no_grad():
        unobserved = run_tree(model, pack.tree, pack.keep)
    spans = capture(model, anatomy, pack.tree, pack.keep)
    every = capture(model, anatomy, pack.tree, pack.keep, everywhere=True, parts=("q", "k", "v"))
    assert torch.equal(spans.logits, unobserved)
    assert torch.equal(every.logits, unobserved)
    keep = torch.as_tensor(pack.keep)
    assert torch.equal(every.at(keep).z, spans.z)
    assert every.q is not None
    assert every.q.shape[1:3] == (len(pack.tree), anatomy.n_heads)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tree_computes_what_each_sequence_does_alone(family: str):
    model = tiny.tiny_model(family)
    prompts = tiny.token_prompts(forms="multi")
    (pack,) = make_packs(prompts)
    anatomy = dissect(model)
    found = capture(
        model, anatomy, pack.tree, pack.keep, everywhere=True, parts=("q", "k", "v")
    )  # fmt: skip
    assert len(pack.tree) < sum(map(len, pack.tree.paths)), "prefixes must be shared"
    last = anatomy.n_layers - 1
    parts = {"q": Site("q", 1, 3), "k": Site("k", last, 0), "v": Site("v", 0, 1)}
    for path in pack.tree.paths[::2]:
        nodes, tokens = torch.as_tensor(path), pack.tree.tokens[path].tolist()
        seen: dict[str, Tensor] = {}

        def keep(name: str, site: Site, seen: dict[str, Tensor] = seen) -> Any:
            own = part(model, site)
            return own.module.register_forward_hook(
                lambda _, __, output: seen.update({name: own.select(output).clone()})
            )

        handles = [keep(name, site) for name, site in parts.items()]
        logits = tiny.plain_logits(model, tokens)
        for handle in handles:
            handle.remove()
        for name, site in parts.items():
            mine = getattr(found, name)[site.layer][nodes, site.head]
            assert torch.allclose(mine, seen[name], atol=1e-10, rtol=0)
        read = [(depth, int(node)) for depth, node in enumerate(path) if node in pack.keep]
        for depth, node in read:
            row = int(np.searchsorted(pack.keep, node))
            assert torch.allclose(found.logits[row], logits[depth], atol=1e-10, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recorded_call_gives_the_layer_again(family: str):
    """Resuming at each layer with its own input gives the stream that the decoder had."""
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    (pack,) = make_packs(tiny.token_prompts(2))
    found = capture(model, anatomy, pack.tree, pack.keep, everywhere=True)
    nodes = torch.arange(len(pack.tree))
    for layer, block in enumerate(anatomy.blocks):
        call = found.calls[layer]
        with torch.no_grad(), tiny.never_narrowed():
            again = call_layer(
                block.layer, call, found.resid_pre[layer][None], nodes=nodes, copies=1,
                mask=call.named["attention_mask"], cache=None,
            )  # fmt: skip
        assert torch.allclose(again[0], found.resid_post(layer), atol=1e-12, rtol=0)
        assert (again[0] - found.resid_pre[layer]).abs().max() > 0.1


def test_an_unsupported_architecture_is_refused_by_name():
    model = tiny.tiny_model("llama")
    model.config.model_type = "lama"
    with pytest.raises(ModelError, match="The architecture 'lama' is not supported") as e:
        dissect(model)
    assert e.value.seen == "LlamaForCausalLM"
    assert set(str(e.value.allowed).split(", ")) == set(supported.FAMILIES)
    assert "did you mean 'llama'" in str(e.value.remedy)
    assert "the places of its layers, projections and norms" in str(e.value.remedy)


def test_every_supported_architecture_is_in_the_suite():
    assert {tiny.tiny_config(name).model_type for name in FAMILIES} == set(supported.FAMILIES)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt_neox"])
def test_a_new_family_joins_by_one_entry_and_one_line(
    worlds: Worlds, family: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    """The same decoder under another name: refused, then described, then exact."""
    kind = tiny.tiny_config(family).model_type
    model = tiny.tiny_model(family)
    model.config.model_type = "newcomer"
    with pytest.raises(ModelError, match="The architecture 'newcomer' is not supported"):
        dissect(model)
    monkeypatch.setitem(supported.FAMILIES, "newcomer", supported.FAMILIES[kind])
    monkeypatch.setitem(FAMILIES, "newcomer", FAMILIES[family])
    here = world(tmp_path, "newcomer", n=2, model_type="newcomer")
    anatomy = here.anatomy()
    assert anatomy.model_type == "newcomer"
    with here.roster.speaking("game"):
        _, completeness = attribution_tables(anatomy, here.runs["game"])
    assert completeness["error"].abs().max() < 1e-10
    sites = [(Site("head", 1, 2),), (Site("mlp", 0),)]
    with here.roster.speaking("moral") as speaking:
        found = sweep(
            speaking, anatomy, here.runs["game"], here.runs["moral"],
            [Intervention(group) for group in sites], pairs=[(0, 0)],
        )  # fmt: skip
    direct = hooked_sweep(here.roster, "game", "moral", here.prompts[0], interventions=sites)
    assert found.patched[:, 0].numpy() == pytest.approx(direct, abs=1e-10)
    assert found.effect.abs().min() > 1e-6
