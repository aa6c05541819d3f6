"""Attribution patching equals finite differences of plain forwards, prompt by prompt."""

from __future__ import annotations

from dataclasses import replace

import hooked
import nudged
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Worlds

from moralscope.core.errors import SiteError
from moralscope.core.site import Site
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    activity_of,
    attribution_patching,
    slopes,
    span_groups,
)
from moralscope.models.rendering import EncodedPrompt

FAMILIES = [
    ("llama", "several"), ("llama_bias", "single"), ("gemma2", "multi"), ("qwen3", "single"),
    ("olmo2", "single"), ("gpt_neox", "single"), ("phi3", "single"), ("gemma3_text", "single"),
    ("gpt2", "several"),
]  # fmt: skip


def estimates_of(both: nudged.Two, **changes: object) -> Estimates:
    return attribution_patching(
        both.target_model, both.anatomy, both.target, 0, activity_of(both.source, 0), **changes
    )  # type: ignore[arg-type]


def tangent(both: nudged.Two, prompt: EncodedPrompt, site: Site) -> float:
    """The slope of the log-odds as the source's write begins to take the target's place."""
    own = nudged.writes(both.target_model, both.anatomy, prompt)
    theirs = nudged.writes(both.source_model, both.source_anatomy, prompt)

    def value(t: float) -> float:
        def edits(form: int) -> nudged.Edits:
            change = t * (theirs[form][site] - own[form][site])
            return {nudged.place(site): lambda output: output + change}

        return nudged.log_odds(both.target_model, both.anatomy, prompt, edits)

    return nudged.slope(value)


@pytest.mark.parametrize(("family", "forms"), FAMILIES)
def test_estimates_are_tangents(family: str, forms: str):
    both = nudged.two(family, forms=forms, n=2)
    found = estimates_of(both)
    assert len(both.target.packs) == 1
    position = 1
    prompt = both.prompts[both.target.packs[0].pack.members[position]]
    for site in nudged.some_sites(both.anatomy):
        expected = tangent(both, prompt, site)
        assert float(found.of(site)[position]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert (abs(expected) > 1e-5) == (site.kind != "embed")


def test_heads_write_with_their_own_adapters(worlds: Worlds):
    """Both agents carry un-merged adapters, also on the output projection."""
    made = worlds("llama", forms="multi")
    prompt = made.prompts[0]
    position = made.runs["game"].packs[0].pack.members.index(0)
    with made.roster.speaking("moral") as model:
        theirs = nudged.writes(model, made.roster.anatomy("moral"), prompt)
    with made.roster.speaking("game") as model:
        anatomy = made.roster.anatomy("game")
        own = nudged.writes(model, anatomy, prompt)
        source = activity_of(made.runs["moral"], 0)
        found = attribution_patching(model, anatomy, made.runs["game"], 0, source)
        wrong = replace(source, out_weights=made.runs["base"].out_weights)
        other = attribution_patching(model, anatomy, made.runs["game"], 0, wrong)
        for site in (Site("head", 0, 2), Site("head", 2, 1), Site("mlp", 1)):

            def value(t: float, site: Site = site) -> float:
                def edits(form: int) -> nudged.Edits:
                    change = t * (theirs[form][site] - own[form][site])
                    return {nudged.place(site): lambda output: output + change}

                return nudged.log_odds(model, anatomy, prompt, edits)

            expected = nudged.slope(value)
            assert float(found.of(site)[position]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
            same = float(other.of(site)[position]) == pytest.approx(expected, rel=1e-3)
            assert same == (site.kind == "mlp")


def test_observing_leaves_the_decision_as_it_is():
    both = nudged.two("gemma2", forms="several")
    pack = both.target.packs[0].pack
    handles = [len(m._forward_hooks) + len(m._forward_pre_hooks)
               for m in both.target_model.modules()]  # fmt: skip
    (group,) = span_groups(pack)
    found = slopes(both.target_model, both.anatomy, pack, group)
    assert torch.equal(found.log_odds, both.target.packs[0].log_odds)
    rows = torch.as_tensor(group.rows)
    clean = activity_of(both.target, 0).at(rows)
    for name in ("embed", "z", "attn_out", "mlp_out"):
        assert torch.equal(getattr(found.own, name), getattr(clean, name))
    assert handles == [len(m._forward_hooks) + len(m._forward_pre_hooks)
                       for m in both.target_model.modules()]  # fmt: skip


def test_prompts_that_end_within_others_are_kept_apart():
    """The answer span of the short prompt lies on the path of the long one."""
    long = tiny.token_prompts(1)[0]
    short = EncodedPrompt("short", "text", long.tokens[:-3], long.positive, long.negative)
    swapped = EncodedPrompt("swapped", "text", long.tokens, long.negative, long.positive)
    prompts = (long, short, swapped)
    both = nudged.two("llama", prompts=prompts)
    pack = both.target.packs[0].pack
    assert len(span_groups(pack)) == 3
    assert len(span_groups(pack, [pack.members.index(1)])) == 1
    found = estimates_of(both)
    for member, prompt in enumerate(prompts):
        alone = estimates_of(nudged.two("llama", prompts=(prompt,)))
        position = pack.members.index(member)
        for name in ("heads", "attn", "mlp"):
            one, other = getattr(found, name)[..., position], getattr(alone, name)[..., 0]
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert float(found.mlp[:, position].abs().min()) > 1e-6
    # One group would have given the short prompt the long one's gradient as well.
    torch.testing.assert_close(
        found.mlp[:, pack.members.index(0)], -found.mlp[:, pack.members.index(2)]
    )


def test_usual_prompts_share_one_pass():
    both = nudged.two("llama", n=6, forms="several")
    (group,) = span_groups(both.target.packs[0].pack)
    assert len(group.positions) == 6
    assert len(set(group.rows.tolist())) == len(group.rows)


@settings(max_examples=5, deadline=None)
@given(share=st.floats(-2.0, 3.0), seed=st.integers(0, 99))
def test_estimates_are_linear_in_the_source_and_nil_for_itself(share: float, seed: int):
    both = _TWO
    own, theirs = activity_of(both.target, 0), activity_of(both.source, 0)
    noise = torch.Generator().manual_seed(seed)

    def mixed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + share * (b - a)

    z = theirs.z + torch.randn(theirs.z.shape, generator=noise, dtype=torch.float64)
    source = replace(theirs, z=z, out_weights=own.out_weights)
    between = replace(
        own, z=mixed(own.z, z), mlp_out=mixed(own.mlp_out, theirs.mlp_out),
        attn_out=mixed(own.attn_out, theirs.attn_out),
    )  # fmt: skip
    found, partly, nil = (
        attribution_patching(both.target_model, both.anatomy, both.target, 0, s)
        for s in (source, between, own)
    )
    for name in ("heads", "attn", "mlp"):
        torch.testing.assert_close(
            getattr(partly, name), share * getattr(found, name), rtol=1e-9, atol=1e-10
        )
        assert float(getattr(nil, name).abs().max()) == 0.0


_TWO = nudged.two("llama", n=2)


def test_sites_that_are_not_estimated_are_refused():
    found = estimates_of(_TWO)
    with pytest.raises(SiteError) as caught:
        found.of(Site("resid_pre", 1))
    assert str(caught.value) == (
        "The effect of this site is not estimated. Seen: L1.resid_pre. Allowed: embed, heads, "
        "attention layers and MLPs. Next: patch it exactly."
    )


def test_hooks_are_removed_when_the_forward_fails():
    both = _TWO
    broken = both.anatomy.blocks[2].mlp.register_forward_hook(lambda *_: 1 / 0)
    with hooked.hooked([broken]), pytest.raises(ZeroDivisionError):
        estimates_of(both)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in both.target_model.modules())
