"""Sweeps across agents, prompts and positions, against one-by-one hooks and plain calls."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hooked import forms_of, hooked_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World, Worlds, clean_runs, patched, world

from moralscope.core.errors import AgentError, ModelError, PromptError, ResourceError, SiteError
from moralscope.core.site import Site, parse_site
from moralscope.mechanisms.patching.donors import Donor, values_of
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import full_swap, sweep
from moralscope.models.anatomy import dissect

KEPT: dict[str, Any] = {"n": 4, "everywhere": True, "parts": "qkv", "equal": True}
SITES = [
    tuple(map(parse_site, names.split()))
    for names in (
        "embed", "L1.resid_pre", "L0.resid_mid", "L2.resid_post", "L1.h2", "L1.h0.q", "L0.kv1.k",
        "L2.kv0.v", "L0.attn", "L2.mlp", "L0.h1 L1.mlp", "L0.h0.q L0.kv0.k L2.resid_mid",
    )
]  # fmt: skip


def by_hooks(here: World, pair: tuple[int, int], **chosen: Any) -> list[float]:
    mine, theirs = (here.prompts[member] for member in pair)
    agents = (chosen.pop("source", "game"), "moral")
    return hooked_sweep(
        here.roster, *agents, mine, interventions=SITES, other=theirs, **chosen
    )  # fmt: skip


@pytest.mark.parametrize("positions", ["answer_span", "all", "move"])
@pytest.mark.parametrize("source", ["moral", "game"], ids=["same_agent", "other_agent"])
def test_patches_across_prompts_equal_one_by_one_hooks(worlds: Worlds, source: str, positions: str):
    """Another prompt, and another prompt of another agent; answers of several tokens."""
    here = worlds("gemma2", forms="several", **KEPT)
    pairs = [(0, 2), (2, 1)]
    found = patched(here, SITES, source=source, pairs=pairs, positions=positions)
    assert found.pairs == tuple(pairs)
    for column, pair in enumerate(pairs):
        direct = by_hooks(here, pair, source=source, positions=positions)
        assert found.patched[:, column].numpy() == pytest.approx(direct, abs=1e-10)
    assert (found.effect.abs().max(0).values > 1e-2).all()


@pytest.mark.parametrize("write", ["write", "z"])
def test_heads_are_written_across_prompts_as_on_one(worlds: Worlds, write: Any):
    here = worlds("olmo2", forms="multi", **KEPT)
    found = patched(here, SITES, pairs=[(1, 3)], positions="all", write=write)
    direct = by_hooks(here, (1, 3), positions="all", write=write)
    assert found.patched[:, 0].numpy() == pytest.approx(direct, abs=1e-10)


def test_pairs_in_conflict_are_patched_one_by_one(worlds: Worlds):
    """The same target from several sources, beside others that share its beginning."""
    here = worlds("llama", forms="single", **KEPT)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0), (3, 3), (1, 1)]
    found = patched(here, SITES, pairs=pairs, positions="all")
    for column, pair in enumerate(pairs):
        alone = patched(here, SITES, pairs=[pair], positions="all")
        assert torch.allclose(found.patched[:, column], alone.patched[:, 0], atol=1e-10, rtol=0)
        assert found.full_swap[column] == alone.full_swap[0]
    assert found.patched[:, 1].numpy() == pytest.approx(
        by_hooks(here, (0, 1), positions="all"), abs=1e-10
    )
    gaps = (found.patched[:, 0] - found.patched[:, 1]).abs()
    assert gaps.min() > 1e-8, "sources differ"


@pytest.mark.parametrize("forms", ["single", "multi", "several"])
def test_the_full_swap_is_the_sources_own_answer(worlds: Worlds, forms: str):
    here = worlds("gemma2", forms=forms, **KEPT)
    run = here.runs["game"]
    found = full_swap(run, here.runs["moral"], 0, 2)
    with here.roster.speaking("game") as model:
        assert found == pytest.approx(tiny.plain_log_odds(model, here.prompts[2]), abs=1e-10)
    itself = full_swap(run, run, 1, 1)
    assert itself == pytest.approx(float(run.log_odds[1]), abs=1e-12)


def test_the_full_swap_reads_the_targets_options(worlds: Worlds):
    """Labels that differ between the prompts: the source's logits, at the target's tokens."""
    here = worlds("llama", forms="multi", **KEPT)
    swapped = tuple(
        dataclasses.replace(p, positive=((31, 32, 33),), negative=((31, 34, 35, 36),))
        for p in here.prompts
    )
    runs = clean_runs(here.roster, swapped, everywhere=True, parts="qkv")
    found = full_swap(here.runs["game"], runs["moral"], 1, 3)
    sides = [-np.inf, -np.inf]
    source = here.prompts[3]
    pairs = zip(forms_of(swapped[1]), forms_of(source), strict=True)
    for index, ((form, _), (own, _)) in enumerate(pairs):
        with here.roster.speaking("game") as model:
            logits = tiny.plain_logits(model, [*source.tokens, *own[:-1]]).log_softmax(-1)
        start = len(source.tokens) - 1
        sides[index] = sum(float(logits[start + i, token]) for i, token in enumerate(form))
    assert found == pytest.approx(sides[0] - sides[1], abs=1e-10)
    other = World(here.roster, swapped, runs)
    with here.roster.speaking("moral") as model:
        swept = sweep(
            model, here.anatomy(), here.runs["game"], runs["moral"],
            [Intervention((Site("embed"), *here.anatomy().component_sites))],
            pairs=[(1, 3)], positions="all",
        )  # fmt: skip
    # The answers' tokens are the source's too, so everything written is the source.
    assert float(swept.patched[0, 0]) == pytest.approx(found, abs=1e-10)
    direct = hooked_sweep(
        other.roster, "game", "moral", swapped[1], other=source, positions="all",
        interventions=[(Site("embed"), *here.anatomy().component_sites)],
    )  # fmt: skip
    assert float(swept.patched[0, 0]) == pytest.approx(direct[0], abs=1e-10)


@given(
    budget=st.integers(102, 106), tokens=st.integers(1, 400), nodes=st.sampled_from([1, 60, 999])
)
@settings(max_examples=6)
def test_budgets_and_packs_change_no_result(worlds: Worlds, budget: int, tokens: int, nodes: int):
    sites = SITES[1::3]
    whole = patched(worlds("gemma2", forms="multi", **KEPT), sites, positions="all")
    here = worlds("gemma2", forms="multi", max_nodes=nodes, **KEPT)
    cut = patched(here, sites, positions="all", memory_bytes=budget << 20, max_row_tokens=tokens)
    assert torch.allclose(cut.patched, whole.patched, atol=1e-10, rtol=0)
    assert torch.allclose(cut.baseline, here.runs["moral"].log_odds, atol=1e-10, rtol=0)
    assert torch.allclose(cut.full_swap, whole.full_swap, atol=1e-10, rtol=0)
    assert whole.effect.abs().min() > 1e-6


def test_results_are_in_the_order_of_the_pairs(worlds: Worlds):
    here = worlds("llama", forms="single", **KEPT)
    pairs = [(3, 3), (0, 0), (2, 1), (1, 1)]
    found = patched(here, SITES[:3], pairs=pairs, positions="all")
    clean = here.runs["moral"].log_odds[[mine for mine, _ in pairs]]
    assert torch.allclose(found.baseline, clean, atol=1e-10, rtol=0)
    expected = here.runs["game"].log_odds[[theirs for _, theirs in pairs]]
    assert torch.allclose(found.full_swap, expected, atol=1e-10, rtol=0)


def test_prompts_of_a_pack_are_computed_together_at_all_positions(worlds: Worlds):
    """What they share is computed once: the rows are shorter than the prompts side by side."""
    here = worlds("llama", forms="single", **KEPT)
    tokens: list[int] = []
    layer = here.anatomy().blocks[0].layer
    handle = layer.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append((args or (kwargs["hidden_states"],))[0].shape[1]),
        with_kwargs=True,
    )
    try:
        patched(here, [(Site("embed"),)], positions="all")
    finally:
        handle.remove()
    (nodes,) = {len(part.pack.tree) for part in here.runs["moral"].packs}
    assert tokens == [nodes]
    assert nodes < sum(len(prompt.tokens) for prompt in here.prompts)


def test_runs_that_do_not_belong_together_are_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    other = clean_runs(here.roster, tiny.token_prompts(2, seed=5))
    mixed = World(here.roster, here.prompts, {**here.runs, "game": other["game"]})
    with pytest.raises(AgentError, match="were not run on the same prompts") as e:
        patched(mixed, [(Site("mlp", 0),)])
    assert e.value.seen == "game and moral"


def test_tokens_whose_activations_were_not_kept_are_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    with pytest.raises(AgentError, match="needs activations that were not kept") as e:
        patched(here, [(Site("mlp", 0),)], positions="all")
    assert e.value.remedy == "run clean with everywhere=True"


def test_queries_that_were_not_kept_are_refused(worlds: Worlds):
    with pytest.raises(AgentError, match="queries, keys or values were not kept") as e:
        patched(worlds("llama", n=2), [(Site("k", 1, 0),)])
    assert (e.value.seen, e.value.remedy) == ("k of layer 1", "run clean with parts=('k',)")


def test_a_donor_without_a_value_is_refused():
    donor = Donor(own={Site("mlp", 0): torch.zeros(1, 4)})
    with pytest.raises(AgentError, match="The source has no value for a site") as e:
        values_of(donor, [Site("mlp", 1)], "write", 4)
    assert (e.value.seen, e.value.allowed) == ("L1.mlp", "L0.mlp")


@pytest.mark.parametrize(
    ("site", "near"),
    [("L7.h1", "L2.h1"), ("L1.h9.q", "L1.h3.q"), ("L0.kv2.v", "L0.kv1.v"), ("L3.attn", "L2.attn")],
)
def test_a_site_that_the_model_lacks_is_refused(worlds: Worlds, site: str, near: str):
    with pytest.raises(SiteError, match=f"The model has no such site. Seen: {site}") as e:
        patched(worlds("llama", n=1), [(Site("mlp", 0),), (parse_site(site),)])
    assert e.value.remedy == f"the nearest is {near}"


def test_prompts_that_do_not_align_are_refused(worlds: Worlds):
    here = worlds("llama", n=2)
    assert len(here.prompts[0].tokens) != len(here.prompts[1].tokens)
    with pytest.raises(PromptError, match="'p0' and 'p1' do not align token by token"):
        patched(here, [(Site("mlp", 0),)], pairs=[(0, 1)], positions="all")
    with pytest.raises(PromptError, match="A span is absent from prompt 'p0'"):
        patched(here, [(Site("mlp", 0),)], positions="move")


def test_a_budget_too_small_for_one_row_is_refused(worlds: Worlds):
    with pytest.raises(ResourceError, match="Not even one row of a patching sweep fits") as e:
        patched(worlds("llama", n=1), [(Site("mlp", 0),)], memory_bytes=1 << 20)
    assert str(e.value.seen).startswith("1 MiB for rows of 1 tokens")


def test_weights_that_are_not_finite_are_refused_naming_the_first_site(tmp_path: Path):
    here = world(tmp_path, "qwen2", n=1)
    here.roster.base.model.model.layers[1].mlp.down_proj.weight.data.fill_(float("inf"))
    with pytest.raises(ModelError, match="An activation is not finite. Seen: first at L1.mlp"):
        clean_runs(here.roster, here.prompts)


@pytest.mark.parametrize(
    ("family", "changes", "theirs"),
    [
        ("qwen2", {}, "qwen2, 3 layers, 4 heads of 8, 2 key/value heads, width 32"),
        ("llama", {"num_hidden_layers": 2}, "llama, 2 layers, 4 heads"),
        ("llama", {"num_attention_heads": 2, "head_dim": 16}, "llama, 3 layers, 2 heads of 16"),
    ],
)
def test_two_decoders_of_different_anatomy_are_refused(
    worlds: Worlds, family: str, changes: dict[str, Any], theirs: str
):
    """Their numbers would often fit and mean nothing."""
    here, other = worlds("llama", n=1), worlds(family, n=1, **changes)
    mixed = World(here.roster, here.prompts, {**here.runs, "other": other.runs["game"]})
    with pytest.raises(AgentError, match="'game' cannot be patched into 'base'") as e:
        patched(mixed, [(Site("mlp", 0),)], source="other", target="base")
    assert str(e.value.seen).startswith(theirs)
    assert str(e.value.allowed).startswith("llama, 3 layers, 4 heads of 8, 2 key/value heads")


def test_two_bases_of_one_shape_are_patched_into_each_other(worlds: Worlds):
    """The source may be another model altogether: only its activations are used."""
    here = worlds("llama", **KEPT)
    other = worlds("llama", seed=7, **KEPT)
    assert dissect(other.roster.base.model).same_shape(here.anatomy())
    mixed = World(here.roster, here.prompts, {**here.runs, "other": other.runs["base"]})
    everything = [(Site("embed"), *here.anatomy().component_sites)]
    found = patched(mixed, everything, source="other", target="base", positions="all")
    gap = other.runs["base"].log_odds - here.runs["base"].log_odds
    assert gap.abs().min() > 1e-2
    # Its final norm and unembedding are its own: the target's read its stream differently.
    assert (found.patched[0] - found.full_swap).abs().max() > 1e-3
