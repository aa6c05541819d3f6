"""Exported activations are those of plain runs, under names that lead back to the same sites."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hooked import forms_of, hooked, layers_of, out_proj, part
from safetensors.torch import load_file, save_file
from torch import Tensor
from worlds import World, Worlds

from moralscope.core.errors import PromptError
from moralscope.core.site import Site, parse_site
from moralscope.mechanisms.activations.exporting import hook_names

POSITIONS = {"gpt2": "wpe"}
NORMED = ("qwen3", "gemma3_text", "olmo2")


def leaving(found: dict[str, Tensor], module: Any, name: str, pick: Any = None) -> Any:
    def note(_: Any, __: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        found[name] = value[0].clone() if pick is None else pick(value).clone()

    return module.register_forward_hook(note)


def entering(found: dict[str, Tensor], module: Any, name: str) -> Any:
    def note(_: Any, args: Any, kwargs: Any) -> None:
        found[name] = (args[0] if args else kwargs["hidden_states"])[0].clone()

    return module.register_forward_pre_hook(note, with_kwargs=True)


def around(found: dict[str, Tensor], model: Any, index: int) -> list[Any]:
    """Hooks on one layer."""
    names, layer, block = tiny.families.named(model), layers_of(model)[index], f"blocks.{index}."
    attention, mlp = out_proj(model, index), layer.mlp
    handles = [
        entering(found, layer, f"{block}hook_resid_pre"),
        entering(found, attention, f"{block}attn.hook_z"),
        leaving(found, layer, f"{block}hook_resid_post"),
    ]
    for name, path, own in (
        ("attn", names.post_norm, attention),
        ("mlp", names.mlp_post_norm, mlp),
    ):
        module = own if path is None else layer.get_submodule(path)
        handles.append(leaving(found, module, f"{block}hook_{name}_out"))
    if names.before_mlp is not None:
        reads = layer.get_submodule(names.before_mlp)
        handles.append(entering(found, reads, f"{block}hook_resid_mid"))
    heads = model.config.num_attention_heads
    counts = {"q": heads, "k": getattr(model.config, "num_key_value_heads", None) or heads}
    for kind in ("q", "k", "v"):
        for head in range(counts["q" if kind == "q" else "k"]):
            at = part(model, Site(kind, index, head))
            handles.append(leaving(found, at.module, f"{block}{kind}{head}", at.select))
    return handles


@torch.no_grad()
def plain(family: str, model: Any, tokens: list[int]) -> dict[str, Tensor]:
    """The same by plain hooks on one sequence; names are put together here once more."""
    names = tiny.families.named(model)
    body, found = model.get_submodule(names.body), {}
    handles = [leaving(found, body.get_submodule(names.embed), "hook_embed")]
    if family in POSITIONS:
        handles.append(leaving(found, getattr(body, POSITIONS[family]), "hook_pos_embed"))
    for index in range(len(layers_of(model))):
        handles += around(found, model, index)
    with hooked(handles):
        tiny.plain_logits(model, tokens)
    return joined(found, family, model.config)


def joined(found: dict[str, Tensor], family: str, config: Any) -> dict[str, Tensor]:
    """Heads side by side, under the names of the parts."""
    result: dict[str, Tensor] = {}
    heads: dict[str, list[Tensor]] = {}
    for name, value in found.items():
        if split := re.fullmatch(r"(blocks\.\d+\.)([qkv])\d+", name):
            normed = "_normed" if family in NORMED and split[2] != "v" else ""
            heads.setdefault(f"{split[1]}attn.hook_{split[2]}{normed}", []).append(value)
        elif name.endswith("hook_z"):
            result[name] = torch.stack(value.chunk(config.num_attention_heads, -1), 1)
        else:
            result[name] = value
    return {**result, **{name: torch.stack(each, 1) for name, each in heads.items()}}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_hook_is_what_a_plain_run_finds(worlds: Worlds, family: str):
    here = worlds(family, everywhere=True, parts="qkv", forms="several", n=3)
    prompt, form = here.prompts[1], 3
    ours = hook_names(here.runs["game"], prompt.name, here.anatomy(), form=form)
    sequence = [*prompt.tokens, *forms_of(prompt)[form][0][:-1]]
    assert len(sequence) > len(prompt.tokens)
    with here.roster.speaking("game") as model:
        theirs = plain(family, model, sequence)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == (1, *value.shape), name
        torch.testing.assert_close(ours[name][0], value, rtol=1e-8, atol=1e-8, msg=name)
        assert float(value.abs().max()) > 1e-3, name


def test_the_answer_span_is_the_end_of_the_whole(worlds: Worlds):
    wide = worlds("gemma2", everywhere=True, parts="qkv", forms="several", n=3)
    narrow = worlds("gemma2", forms="several", n=3)
    prompt = wide.prompts[2]
    for form, (tokens, _) in enumerate(forms_of(prompt)):
        whole = hook_names(wide.runs["moral"], prompt.name, wide.anatomy(), form=form)
        span = hook_names(narrow.runs["moral"], prompt.name, narrow.anatomy(), form=form)
        assert {name for name in whole if name not in span} == {
            f"blocks.{layer}.attn.hook_{kind}" for layer in range(4) for kind in "qkv"
        }
        for name, value in span.items():
            assert value.shape[1] == len(tokens)
            torch.testing.assert_close(value, whole[name][:, -len(tokens) :])


@pytest.fixture(scope="module")
def here(worlds: Worlds) -> World:
    return worlds("llama", everywhere=True, parts="qkv", forms="several", n=3)


def test_names_lead_back_to_sites(here: World):
    anatomy = here.anatomy()
    found: set[Site] = set()
    for name, value in hook_names(here.runs["base"], "p0", anatomy).items():
        heads = range(value.shape[2]) if ".attn." in name else [None]
        found |= {parse_site(name if h is None else f"{name}[:, :, {h}]") for h in heads}
    kinds = ("embed", "resid_pre", "head", "q", "k", "v", "attn", "resid_mid", "mlp", "resid_post")
    assert found == set(anatomy.sites(*kinds))


def test_agents_differ_and_gradients_are_not_kept(here: World):
    game, base = (hook_names(here.runs[a], "p0", here.anatomy()) for a in ("game", "base"))
    assert torch.equal(game["hook_embed"], base["hook_embed"])
    assert not torch.allclose(game["blocks.2.hook_mlp_out"], base["blocks.2.hook_mlp_out"])
    assert not any(value.requires_grad for value in game.values())


def test_what_is_given_is_of_its_own_and_can_be_saved(here: World, tmp_path: Path):
    given = hook_names(here.runs["base"], "p0", here.anatomy())
    save_file(given, tmp_path / "hooks.safetensors")
    saved = load_file(tmp_path / "hooks.safetensors")
    for value in given.values():
        value.zero_()
    again = hook_names(here.runs["base"], "p0", here.anatomy())
    assert {name for name in again if torch.equal(again[name], saved[name])} == set(saved)


def test_what_is_not_there_is_named(here: World):
    with pytest.raises(PromptError, match="no such prompt.*did you mean 'p"):
        hook_names(here.runs["base"], "p7", here.anatomy())
    for form in (-1, 5):
        with pytest.raises(PromptError, match="no such form.*0 to 4"):
            hook_names(here.runs["base"], "p0", here.anatomy(), form=form)
