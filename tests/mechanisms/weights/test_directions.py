"""Does an update lie along the decision? Against finite changes of the decision's own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import merged
import numpy as np
import polars as pl
import pytest
import tiny
import torch

from moralscope.mechanisms.weights.directions import PAIRS, answer_axes, compass, control_pairs
from moralscope.mechanisms.weights.tables import update_tables
from moralscope.mechanisms.weights.updates import linear_places
from moralscope.models.anatomy import dissect
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

A, B = 11, 12
"""The answer tokens of ``tiny.token_prompts``."""


def tables_of(roster: Roster, name: str = "game") -> dict[str, pl.DataFrame]:
    return update_tables(roster, name, tiny.token_prompts(3))


def unit(x: Any) -> merged.Array:
    found = np.asarray(x, dtype=np.float64)
    return found / np.linalg.norm(found)


def stream_axis(model: Any, tokens: tuple[int, int] = (A, B)) -> merged.Array:
    """The stream's direction of the decision: gains written out from the names of the family."""
    own = families.named(model)
    norm = getattr(getattr(model, own.body), own.final_norm)
    head = model.get_output_embeddings().weight.detach().double().numpy()
    u = (norm.weight.detach().double().numpy() + own.gain_offset) * (
        head[tokens[0]] - head[tokens[1]]
    )
    return unit(u - u.mean() if isinstance(norm, torch.nn.LayerNorm) else u)


def through(model: Any, norm: Any, u: merged.Array, *, after: bool) -> merged.Array:
    """A direction read after a norm (``after``), or met behind it."""
    if norm is None:
        return u
    gain = norm.weight.detach().double().numpy() + families.named(model).gain_offset
    if not isinstance(norm, torch.nn.LayerNorm):
        return unit(gain * u)
    return unit(gain * u - (gain * u).mean()) if after else unit(gain * (u - u.mean()))


FIRST = {"gpt2": "ln_1", "olmo2": None}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "olmo2", "gpt_neox", "phi3"])
def test_shares_are_those_of_merged_updates(tmp_path: Path, family: str) -> None:
    roster = tiny.tiny_roster(tmp_path, family)
    found = {
        (row["layer"], row["module"]): row
        for row in tables_of(roster)["update_directions"].iter_rows(named=True)
    }
    own = families.FAMILIES[family]
    model = roster.base.model
    parts = merged.parts(family)
    layers = model.config.num_hidden_layers
    assert len(found) == layers * len(parts)
    u = stream_axis(model)
    mlp = [part for part in parts if part.startswith("mlp")]
    for index in range(layers):
        layer = merged.layer(model, index)
        named = {name: None if name is None else layer.get_submodule(name) for name in (
            own.post_norm, own.mlp_post_norm, FIRST.get(family, "input_layernorm"))}  # fmt: skip
        before = {"olmo2": None, "gpt_neox": "post_attention_layernorm"}.get(family, own.before_mlp)
        named[before] = None if before is None else layer.get_submodule(before)
        for part in parts:
            dw = merged.change(roster, "game", index, part)
            row = found[index, part]
            if part in (own.out_proj, mlp[-1]):
                norm = named[own.mlp_post_norm if part in mlp else own.post_norm]
                along = through(model, norm, u, after=True) @ dw
            else:
                norm = named[before if part in mlp else FIRST.get(family, "input_layernorm")]
                along = dw @ through(model, norm, u, after=False)
            writes = part in (own.out_proj, mlp[-1])
            assert row["side"] == ("writes" if writes else "reads")
            share = np.square(along).sum() / np.square(dw).sum()
            assert row["share"] == pytest.approx(share, abs=1e-10)
            assert row["expected"] == pytest.approx(1 / 32)
            assert row["ratio"] == pytest.approx(32 * share, abs=1e-8)
            assert row["norm"] == pytest.approx(np.linalg.norm(dw), rel=1e-10)


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_readers_read_the_stream_through_the_norm_that_is_said(tmp_path: Path, family: str) -> None:
    """The norms are named for each family; here the live model says what its layers read."""
    model = tiny.tiny_model(family)
    places = linear_places(model)
    anatomy = dissect(model)
    found = compass(anatomy, places, np.array([[A, B]]))
    seen: dict[Any, torch.Tensor] = {}
    handles = [
        linear.register_forward_pre_hook(lambda _, args, at=place: seen.update({at: args[0]}))
        for place, linear in places.items()
    ]
    norms = {norm for side, norm in found.layers.values() if norm is not None and side == "reads"}
    outputs: dict[Any, torch.Tensor] = {}
    handles += [
        norm.register_forward_hook(lambda m, _, out: outputs.update({m: out})) for norm in norms
    ]
    streams: dict[int, torch.Tensor] = {}
    for index, block in enumerate(anatomy.blocks):
        handles.append(block.layer.register_forward_pre_hook(
            lambda _, args, kw, at=index: streams.update(
                {at: args[0] if args else kw["hidden_states"]}), with_kwargs=True))  # fmt: skip
    tiny.plain_logits(model, list(range(30, 40)))
    for handle in handles:
        handle.remove()
    attention = {}
    for place, (side, norm) in found.layers.items():
        if side == "reads" and norm is not None:
            assert torch.equal(seen[place], outputs[norm]), place
        elif side == "reads" and "mlp" not in place[1]:
            assert torch.equal(seen[place], streams[place[0]]), place
            attention[place] = True
    assert {side for side, _ in found.layers.values()} == {"writes", "reads"}
    assert bool(attention) == (family == "olmo2")


def test_writing_along_the_axis_moves_the_decision_and_nothing_else_so_well(tmp_path: Path) -> None:
    """What is called the axis is the gradient of the logit difference, up to the norm's scale."""
    model = tiny.tiny_model("gemma2", final_logit_softcapping=None)
    seen: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tiny.plain_logits(model, list(range(30, 40)))
    handle.remove()
    x = seen[0][0, -1].clone().requires_grad_(True)
    head = model.get_output_embeddings().weight
    # The scale frozen: the gradient through the gain alone.
    normed = x * (1.0 + model.model.norm.weight)
    (head[A] - head[B]).matmul(normed).backward()
    assert x.grad is not None
    assert unit(x.grad) == pytest.approx(stream_axis(model), abs=1e-12)


# Axes and controls


def test_an_axis_is_named_by_its_tokens_and_counted_once(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path)
    word = roster.tokenizer.decode
    plain = tiny.token_prompts(2)
    swapped = [EncodedPrompt("s", "s", p.tokens, p.negative, p.positive) for p in plain]
    several = tiny.token_prompts(2, forms="multi")
    axes = answer_axes(roster.tokenizer, [*plain, *swapped, *several])
    assert list(axes.values()) == [(11, 12), (21, 24)]
    assert list(axes) == [f"{word([a])}/{word([b])}" for a, b in axes.values()]
    tables = update_tables(roster, "game", [*plain, *swapped, *several])
    both = tables["update_directions"]
    assert both.get_column("axis").unique(maintain_order=True).to_list() == list(axes)
    alone = update_tables(roster, "game", swapped)["update_directions"]
    same = both.filter(pl.col("axis") == next(iter(axes)))
    assert alone.get_column("share").to_list() == same.get_column("share").to_list()


def test_axes_whose_words_are_alike_keep_apart() -> None:
    class Blank:
        def decode(self, tokens: list[int]) -> str:
            return " a " if tokens[0] < 20 else ""

    prompts = [EncodedPrompt(str(i), "", (1,), ((i,),), ((i + 1,),)) for i in (3, 7, 30)]
    axes = answer_axes(Blank(), prompts)
    assert axes == {"a/a": (3, 4), "a/a (7/8)": (7, 8), "30/31": (30, 31)}


def test_controls_are_random_pairs_the_same_for_every_agent(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path)
    made = {name: tables_of(roster, name) for name in ("game", "moral")}
    controls = made["game"]["update_controls"]
    assert controls.height == 2 * PAIRS
    rows = made["game"]["update_directions"]
    # The same pairs by hand: the share of one draw over all layers of a side.
    pairs = control_pairs(tiny.token_prompts(3), roster.tokenizer, roster.anatomy("base"))
    assert pairs.shape == (PAIRS, 2)
    assert not set(pairs.ravel().tolist()) & {A, B}
    u = stream_axis(roster.base.model, tuple(pairs[7]))
    total = written = 0.0
    for index in range(3):
        for part in ("self_attn.o_proj", "mlp.down_proj"):
            dw = merged.change(roster, "game", index, part)
            total += float(np.square(dw).sum())
            written += float(np.square(u @ dw).sum())
    drawn = controls.filter((pl.col("side") == "writes") & (pl.col("draw") == 7))
    assert drawn["share"].item() == pytest.approx(written / total, abs=1e-10)
    assert (rows["control"] <= rows["control_high"]).all()
    assert not made["moral"]["update_controls"]["share"].equals(controls["share"])


def test_a_layer_without_an_update_has_no_share(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path, settings={"target_modules": ["o_proj"]})
    tables = tables_of(roster)
    bare = tables["update_directions"].filter(pl.col("module") != "self_attn.o_proj")
    assert bare.get_column("share").null_count() == bare.height == 18
    assert bare.get_column("expected").null_count() == 0
    reads = tables["update_controls"].filter(pl.col("side") == "reads")
    assert reads.get_column("share").null_count() == reads.height == PAIRS


# Planted


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_update_that_writes_the_decision_is_found_and_a_random_one_is_not(
    tmp_path: Path, family: str
) -> None:
    model = tiny.tiny_model(family)
    own = families.named(model)
    rng = np.random.default_rng(3)
    u = stream_axis(model)
    layer = merged.layer(model, 1)
    norm = None if own.post_norm is None else layer.get_submodule(own.post_norm)
    axis = through(model, norm, u, after=True)
    name = f"{own.body}.{own.layers}.1.{own.out_proj}"
    n_in = 32
    folders = {}
    for agent, b in (("game", axis[:, None]), ("moral", rng.normal(size=(32, 1)))):
        factors = {name: (b, rng.normal(size=(1, n_in)))}
        folders[agent] = merged.adapter_of(tmp_path / agent, family, factors, rank=1)
    roster = merged.roster_of(family, folders)
    rows = {}
    totals = {}
    for agent in folders:
        tables = tables_of(roster, agent)
        found = tables["update_directions"].filter(pl.col("share").is_not_null())
        (rows[agent],) = found.iter_rows(named=True)
        totals[agent] = tables["update_controls"].drop_nulls().get_column("share").to_numpy()
    assert (rows["game"]["layer"], rows["game"]["module"]) == (1, own.out_proj)
    assert rows["game"]["share"] == pytest.approx(1.0, abs=1e-10)
    assert rows["game"]["share"] > rows["game"]["null_high"]
    assert rows["game"]["share"] > rows["game"]["control_high"] == np.sort(totals["game"])[-5]
    assert rows["moral"]["share"] < rows["moral"]["null_high"]
    assert (totals["game"] < 1.0).all()
