"""Patches as rows against one-by-one hooks that share no code with them."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hooked import hooked_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import BODY, World, Worlds, clean_runs

from moralscope.core.errors import AgentError, SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.clean import span_of
from moralscope.mechanisms.patching.edits import Intervention, Write
from moralscope.mechanisms.patching.rows import CLEAN_ROW_FROM
from moralscope.mechanisms.patching.tables import sweep_prompt
from moralscope.models.capture import hooks

HEADS = [Site("head", layer, head) for layer in range(3) for head in range(4)]


def swept(
    here: World,
    interventions: list[tuple[Site, ...]],
    *,
    source: str = "game",
    target: str = "moral",
    member: int = 0,
    write: Write = "write",
    **limits: Any,
) -> tuple[float, np.ndarray]:
    with here.roster.speaking(target) as model:
        baseline, values = sweep_prompt(
            model,
            here.roster.anatomy(target),
            here.runs[source],
            here.runs[target],
            member=member,
            interventions=[Intervention(sites) for sites in interventions],
            write=write,
            **limits,
        )
    return baseline, values.numpy()


def mixed(here: World) -> list[tuple[Site, ...]]:
    """Every single site, whole attention layers, and sets of sites over several layers."""
    anatomy = here.anatomy()
    last = anatomy.n_layers - 1
    return [
        *((site,) for site in anatomy.component_sites),
        *((Site("attn", layer),) for layer in range(anatomy.n_layers)),
        (Site("head", 0, 1), Site("head", 0, 2)),
        (Site("mlp", 0), Site("head", 1, 3), Site("mlp", last)),
        (Site("attn", 1), Site("head", 2, 0)),
        anatomy.component_sites,
    ]


@pytest.mark.parametrize(("forms", "write"), [("single", "z"), ("multi", "write")])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_site_equals_one_by_one_hooks(worlds: Worlds, family: str, forms: str, write: Write):
    here = worlds(family, forms=forms, n=2)
    interventions = mixed(here)
    prompt = here.prompts[1]
    baseline, values = swept(here, interventions, member=1, write=write)
    with here.roster.speaking("moral") as model:
        assert baseline == pytest.approx(tiny.plain_log_odds(model, prompt), abs=1e-10)
    direct = hooked_sweep(
        here.roster, "game", "moral", prompt, interventions=interventions, write=write
    )
    assert values == pytest.approx(direct, abs=1e-10)
    effects = values - baseline
    assert np.abs(effects).min() > 1e-6, "every site must matter, or nothing is compared"


@pytest.mark.parametrize("forms", ["single", "multi", "several"])
@pytest.mark.parametrize(("source", "target"), [("base", "game"), ("game", "base")])
def test_both_directions_with_the_base_and_all_kinds_of_options(
    worlds: Worlds, forms: str, source: str, target: str
):
    here = worlds("gemma2", forms=forms, n=2)
    sites = [(Site("head", 2, 1),), (Site("mlp", 1),), (Site("attn", 0),)]
    _, values = swept(here, sites, source=source, target=target)
    direct = hooked_sweep(here.roster, source, target, here.prompts[0], interventions=sites)
    assert values == pytest.approx(direct, abs=1e-10)


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_writing_an_agent_into_itself_does_nothing(worlds: Worlds, family: str):
    here = worlds(family, forms="several", n=2)
    interventions = mixed(here)
    for write in ("write", "z"):
        baseline, values = swept(here, interventions, source="game", target="game", write=write)
        assert np.abs(values - baseline).max() <= 1e-10


def test_by_hooks_writing_an_agent_into_itself_is_exactly_nothing(worlds: Worlds):
    here = worlds("gemma2", forms="multi", n=1)
    clean, *values = hooked_sweep(
        here.roster, "game", "game", here.prompts[0], interventions=[[], *mixed(here)], write="z"
    )
    assert set(values) == {clean}


@pytest.mark.parametrize("forms", ["single", "several"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_writing_everything_is_the_source(worlds: Worlds, family: str, forms: str):
    here = worlds(family, forms=forms, n=3)
    for member in range(3):
        baseline, values = swept(here, [here.anatomy().component_sites], member=member)
        source = float(here.runs["game"].log_odds[member])
        assert values[0] == pytest.approx(source, rel=1e-5)
        assert abs(source - baseline) > 1e-3


def test_no_two_heads_are_clones(worlds: Worlds):
    here = worlds("llama")
    for write in ("write", "z"):
        _, values = swept(here, [(head,) for head in HEADS], write=write)
        gaps = np.abs(values[:, None] - values[None, :]) + np.eye(len(values))
        assert gaps.min() > 1e-8


def test_all_heads_of_a_layer_are_its_attention(worlds: Worlds):
    for family in ("llama", "gemma2", "qwen2"):
        here = worlds(family)
        for layer in range(3):
            heads = tuple(Site("head", layer, head) for head in range(4))
            baseline, values = swept(here, [heads, (Site("attn", layer),)])
            assert values[0] == pytest.approx(values[1], abs=1e-10)
            assert abs(values[1] - baseline) > 1e-4


def test_write_and_z_differ_only_through_the_output_projection(worlds: Worlds):
    heads = [(head,) for head in HEADS]
    everywhere = worlds("llama")
    difference = swept(everywhere, heads)[1] - swept(everywhere, heads, write="z")[1]
    assert np.abs(difference).min() > 1e-6
    elsewhere = worlds("llama", settings={"target_modules": BODY})
    baseline, values = swept(elsewhere, heads)
    assert values == pytest.approx(swept(elsewhere, heads, write="z")[1], abs=1e-10)
    assert np.abs(values - baseline).min() > 1e-6


@pytest.mark.parametrize("max_nodes", [1, 50, 4096])
@pytest.mark.parametrize("max_row_tokens", [1, 7, 40, 4096])
def test_packs_and_passes_of_any_size_give_equal_results(
    worlds: Worlds, max_nodes: int, max_row_tokens: int
):
    here = worlds("gemma2", forms="several", max_nodes=max_nodes)
    whole = worlds("gemma2", forms="several")
    interventions = mixed(here)[::3]
    for member in (0, 3):
        cut = swept(here, interventions, member=member, max_row_tokens=max_row_tokens)
        one = swept(whole, interventions, member=member)
        assert cut[0] == pytest.approx(one[0], abs=1e-10)
        assert cut[1] == pytest.approx(one[1], abs=1e-10)


def test_hundreds_of_patches_are_one_call_of_each_layer(worlds: Worlds):
    here = worlds("llama", forms="several")
    interventions = mixed(here)
    tokens: list[int] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens.append((args[0] if args else kwargs["hidden_states"]).shape[1])

    part = here.runs["moral"].packs[0]
    prompt = here.prompts[part.pack.members[0]]
    span = span_of(part, 0, len(prompt.tokens), 5)
    anatomy = here.anatomy()
    modules = [anatomy.core, *(block.layer for block in anatomy.blocks)]
    with hooks([m.register_forward_pre_hook(note, with_kwargs=True) for m in modules]):
        swept(here, interventions, member=part.pack.members[0])
    entries = np.array([min(site.layer or 0 for site in sites) for sites in interventions])
    assert set(entries) == {0, 1, 2}
    # One clean row, and of the others those whose sites have been reached; the decoder itself,
    # which would embed tokens and run every layer on every row, is not called.
    rows = [1 + int((entries <= layer).sum()) for layer in range(3)]
    assert tokens == [count * len(span.nodes) for count in rows]


def test_rows_that_enter_late_leave_the_first_layers_out(worlds: Worlds):
    here = worlds("llama", forms="several")
    anatomy = here.anatomy()
    called: list[int] = []
    handles = [
        block.layer.register_forward_hook(lambda *_, layer=layer: called.append(layer))
        for layer, block in enumerate(anatomy.blocks)
    ]
    with hooks(handles):
        swept(here, [(Site("mlp", 2),), (Site("head", 1, 0), Site("head", 2, 0))])
        swept(here, [(Site("resid_post", 2),)])
    assert called == [1, 2]


def test_the_answer_span_is_the_last_token_and_the_options_but_their_last(worlds: Worlds):
    here = worlds(forms="several", n=3, max_nodes=60)
    found = 0
    for part in here.runs["base"].packs:
        for position, member in enumerate(part.pack.members):
            prompt = here.prompts[member]
            span = span_of(part, position, len(prompt.tokens), 5)
            spelled = sorted(part.pack.tree.tokens[span.nodes].tolist())
            # Forms (11), (13, 14), (12), (13, 15, 16), (17): 13 and 15 are read, 13 once.
            assert spelled == sorted([prompt.tokens[-1], 13, 15])
            assert tuple(part.pack.tree.tokens[span.prefix].tolist()) == prompt.tokens[:-1]
            assert np.array_equal(part.pack.keep[span.rows], span.nodes)
            found += 1
    assert found == 3


@given(st.data())
@settings(max_examples=15)
def test_rows_do_not_see_each_other(worlds: Worlds, data: st.DataObject):
    shared = worlds("gemma2", forms="multi")
    sites = st.lists(st.sampled_from(shared.anatomy().component_sites), min_size=1, max_size=5)
    many = [tuple(found) for found in data.draw(st.lists(sites, min_size=1, max_size=5))]
    together = swept(shared, many)[1]
    alone = [float(swept(shared, [sites])[1][0]) for sites in many]
    assert together == pytest.approx(alone, abs=1e-10)


def test_the_model_is_left_as_it_was(worlds: Worlds):
    here = worlds("gemma2", forms="several")
    model = here.roster.base.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    swept(here, mixed(here))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_prompt_that_was_not_run_is_refused(worlds: Worlds):
    with pytest.raises(IndexError, match="9"):
        swept(worlds("llama"), [(Site("mlp", 0),)], member=9)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ((Site("bias"),), "This site cannot be patched. Seen: bias"),
        ((Site("mlp", 0), Site("all")), "This site cannot be patched. Seen: all"),
        ((), "An intervention has no site"),
    ],
)
def test_what_cannot_be_patched_is_refused(sites: tuple[Site, ...], message: str):
    with pytest.raises(SiteError, match=message):
        Intervention(sites)


def test_an_intervention_enters_at_its_first_layer():
    entries = {
        (Site("embed"),): 0,
        (Site("resid_pre", 2),): 2,
        (Site("resid_mid", 2),): 2,
        (Site("resid_post", 2),): 3,
        (Site("head", 5, 1), Site("k", 3, 0)): 3,
    }
    assert {sites: Intervention(sites).entry for sites in entries} == entries


@given(st.data())
@settings(max_examples=10)
def test_the_order_of_interventions_does_not_matter(worlds: Worlds, data: st.DataObject):
    shared = worlds("gpt_neox", forms="multi")
    kinds = ("embed", "resid_pre", "resid_post", "head", "mlp", "attn")
    single = [(site,) for site in shared.anatomy().sites(*kinds)]
    many = data.draw(st.lists(st.sampled_from(single), min_size=2, max_size=12))
    order = data.draw(st.permutations(range(len(many))))
    plain = swept(shared, many)[1]
    shuffled = swept(shared, [many[i] for i in order])[1]
    assert shuffled == pytest.approx(plain[list(order)], abs=1e-10)


def test_few_rows_and_many_agree(worlds: Worlds):
    """Below some number of rows the clean one is not run with them but taken from the clean run."""
    here = worlds("gemma2", forms="several")
    interventions = mixed(here)
    assert len(interventions) > CLEAN_ROW_FROM
    baseline, together = swept(here, interventions)
    for start in range(0, len(interventions), CLEAN_ROW_FROM - 1):
        few = interventions[start : start + CLEAN_ROW_FROM - 1]
        alone, values = swept(here, few)
        assert alone == pytest.approx(baseline, abs=1e-10)
        assert values == pytest.approx(together[start : start + len(few)], abs=1e-10)


def test_a_clean_run_without_keys_and_values_is_refused(worlds: Worlds):
    here = worlds("llama", n=1)
    runs = clean_runs(here.roster, here.prompts, keep_cache=False)
    with pytest.raises(AgentError, match="A patch needs the keys and values of the clean run") as e:
        sweep_prompt(
            here.roster.base.model, here.anatomy(), here.runs["game"], runs["base"],
            member=0, interventions=[Intervention((Site("mlp", 0),))],
        )  # fmt: skip
    assert "keep_cache=True" in str(e.value.remedy)
