"""On every family: each kind of site, patched at any tokens, against one-by-one plain hooks."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from families import FAMILIES
from hooked import hooked_sweep
from peft import PeftModel
from worlds import World, Worlds, patched

from moralscope.core.errors import SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import sweep
from moralscope.models.anatomy import Anatomy, dissect
from moralscope.models.capture import hooks
from moralscope.models.libraries import renamed_properties_tolerated

POSITIONS = ("answer_span", "all", "move")
KEPT: dict[str, Any] = {
    "forms": "multi", "n": 3, "everywhere": True, "parts": "qkv", "equal": True,
}  # fmt: skip


def sample(anatomy: Anatomy) -> list[tuple[Site, ...]]:
    """Every kind of site, early, middle and last, and some sets of them."""
    last, kv = anatomy.n_layers - 1, anatomy.n_kv_heads - 1
    single = [
        Site("resid_pre", 1), Site("resid_post", 0), Site("resid_post", last),
        Site("head", 0, 2), Site("head", last, 3), Site("attn", 1), Site("mlp", 0),
        Site("mlp", last), Site("q", 1, 3), Site("q", last, 1), Site("k", 1, 0),
        Site("k", 0, kv), Site("v", 0, 1), Site("v", last, kv),
    ]  # fmt: skip
    if not anatomy.parallel:
        single += [Site("resid_mid", 0), Site("resid_mid", last)]
    together = [
        (Site("head", 1, 0), Site("head", 1, 1), Site("mlp", last)),
        (Site("q", 1, 0), Site("k", 1, 1), Site("v", 0, 0), Site("q", 1, 2)),
    ]
    return [*((site,) for site in single), *together]


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_patches_equal_one_by_one_hooks(worlds: Worlds, family: str, positions: str):
    here = worlds(family, **KEPT)
    interventions = sample(here.anatomy())
    found = patched(here, interventions, positions=positions, pairs=[(1, 1)])
    direct = hooked_sweep(
        here.roster, "game", "moral", here.prompts[1], interventions=interventions,
        positions=positions,
    )  # fmt: skip
    assert found.patched[:, 0].numpy() == pytest.approx(direct, abs=1e-10)
    effects = found.effect[:, 0].abs().numpy()
    # The last layer sees the middle of the prompt through its keys and values alone.
    blind = [positions == "move" and deaf(sites, here.anatomy()) for sites in interventions]
    assert effects[~np.array(blind)].min() > 1e-7, "every site must matter"
    assert (effects[blind] < 1e-10).all()


def deaf(sites: tuple[Site, ...], anatomy: Anatomy) -> bool:
    """Whether what these sites do to a token in the middle ends at that token."""
    return all(
        site.layer == anatomy.n_layers - 1 and site.kind not in ("k", "v", "resid_pre")
        for site in sites
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_across_prompts_equal_one_by_one_hooks(worlds: Worlds, family: str):
    """From another prompt of another agent, and of the same, the embedding included."""
    here = worlds(family, **KEPT)
    interventions = [(Site("embed"),), *sample(here.anatomy())[::3]]
    for source, positions in (("game", "all"), ("moral", "move")):
        found = patched(here, interventions, source=source, positions=positions, pairs=[(2, 0)])
        direct = hooked_sweep(
            here.roster, source, "moral", here.prompts[2], interventions=interventions,
            other=here.prompts[0], positions=positions,
        )  # fmt: skip
        assert found.patched[:, 0].numpy() == pytest.approx(direct, abs=1e-10)
        assert float(found.effect[0, 0].abs()) > 1e-3, "the embedding must matter"


@pytest.mark.parametrize("positions", ["answer_span", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_writing_all_sites_is_the_source(worlds: Worlds, family: str, positions: str):
    here = worlds(family, **KEPT)
    everything = [(Site("embed"), *here.anatomy().component_sites)]
    found = patched(here, everything, positions=positions)
    expected = here.runs["game"].log_odds
    assert torch.allclose(found.full_swap, expected, atol=1e-10, rtol=0)
    assert (expected - found.baseline).abs().min() > 1e-3
    assert torch.allclose(found.patched[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_agent_patched_into_itself_does_not_change(worlds: Worlds, family: str):
    here = worlds(family, **KEPT)
    interventions = [(Site("embed"),), *sample(here.anatomy())]
    for positions in POSITIONS:
        found = patched(here, interventions, source="moral", positions=positions)
        assert found.effect.abs().max() < 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_all_heads_of_a_layer_are_its_attention(worlds: Worlds, family: str):
    here = worlds(family, **KEPT)
    anatomy = here.anatomy()
    for layer in range(anatomy.n_layers):
        heads = tuple(Site("head", layer, head) for head in range(anatomy.n_heads))
        found = patched(here, [heads, (Site("attn", layer),), heads[:-1]])
        assert torch.allclose(found.patched[0], found.patched[1], atol=1e-10, rtol=0)
        assert (found.patched[2] - found.patched[1]).abs().min() > 1e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_enter_at_their_layer(worlds: Worlds, family: str):
    """The fast path: each layer is called once, on the rows that have entered and no more."""
    here = worlds(family, **KEPT)
    anatomy = here.anatomy()
    interventions = [(Site("mlp", layer),) for layer in range(anatomy.n_layers)] * 4
    part = here.runs["moral"].packs[0]
    prompt = part.pack.members.index(1)
    forms = np.flatnonzero(part.pack.option // 2 == prompt)
    reads = part.pack.keep[part.pack.row[np.isin(part.pack.form, forms)]]
    length = len(np.unique(reads))
    calls: list[tuple[int, int]] = []

    def note(layer: int) -> Any:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            calls.append((layer, hidden.shape[1]))

        return hook

    blocks = enumerate(anatomy.blocks)
    with hooks([b.layer.register_forward_pre_hook(note(i), with_kwargs=True) for i, b in blocks]):
        patched(here, interventions, pairs=[(1, 1)])
    present = [(layer, (1 + 4 * (layer + 1)) * length) for layer in range(anatomy.n_layers)]
    assert calls == present


@pytest.mark.parametrize("family", FAMILIES)
def test_unmerged_adapters_equal_merged_copies(worlds: Worlds, family: str):
    """Merging is PEFT's own, in float64, where it rounds nothing away that matters."""
    here = worlds(family, **KEPT)
    spec = here.roster.specs["game"]
    with renamed_properties_tolerated():
        wrapped = PeftModel.from_pretrained(tiny.tiny_model(family), str(spec.adapter))
        merged = wrapped.merge_and_unload().eval().requires_grad_(False)
    anatomy = dissect(merged)
    run = run_clean("game", merged, anatomy, here.prompts, everywhere=True, parts="qkv")
    own = here.runs["game"]
    assert torch.allclose(run.log_odds, own.log_odds, atol=1e-10, rtol=0)
    assert (own.log_odds - here.runs["base"].log_odds).abs().min() > 1e-3
    direct, _ = attribution_tables(anatomy, run)
    with here.roster.speaking("game"):
        found, _ = attribution_tables(here.anatomy(), own)
    assert found["contribution"].to_numpy() == pytest.approx(
        direct["contribution"].to_numpy(), abs=1e-9
    )
    both_ways(here, merged, run)


def both_ways(here: World, merged: Any, run: CleanRun) -> None:
    """Patches from and into an agent whose adapter is merged are those of the un-merged one."""
    anatomy = dissect(merged)
    sites = sample(anatomy)[::2]
    interventions = [Intervention(group) for group in sites]
    into = sweep(merged, anatomy, here.runs["moral"], run, interventions)
    own = patched(here, sites, source="moral", target="game")
    assert torch.allclose(into.patched, own.patched, atol=1e-10, rtol=0)
    assert own.effect.abs().min() > 1e-7
    with here.roster.speaking("moral") as model:
        target = here.runs["moral"]
        out_of = sweep(model, here.roster.anatomy("moral"), run, target, interventions)
    assert torch.allclose(out_of.patched, patched(here, sites).patched, atol=1e-10, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_between_the_sublayers_exists_unless_they_are_parallel(
    worlds: Worlds, family: str
):
    here = worlds(family, **KEPT)
    kinds = {site.kind for site in here.anatomy().sites("resid_mid", "resid_post")}
    if FAMILIES[family].before_mlp is not None:
        assert kinds == {"resid_mid", "resid_post"}
        return
    assert kinds == {"resid_post"}
    with pytest.raises(SiteError, match="The model has no such site. Seen: L1.resid_mid") as e:
        patched(here, [(Site("resid_mid", 1),)])
    assert "attention and MLP are parallel" in str(e.value.allowed)
    assert e.value.remedy == "the nearest is L1.resid_post"
