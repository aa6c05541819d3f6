"""Sites print, parse and sort the same everywhere."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.errors import SiteError
from moralscope.core.site import Edge, Kind, Site, parse_edge, parse_site

PLAIN: tuple[Kind, ...] = ("resid_pre", "attn", "resid_mid", "mlp", "resid_post")
INDEXED: tuple[Kind, ...] = ("head", "q", "k", "v")
GLOBAL: tuple[Kind, ...] = ("embed", "bias", "all")

indices = st.integers(0, 10**6)
sites = st.one_of(
    st.builds(Site, st.sampled_from(GLOBAL)),
    st.builds(Site, st.sampled_from(PLAIN), indices),
    st.builds(Site, st.sampled_from(INDEXED), indices, indices),
)


@given(sites)
def test_every_site_reads_back_as_itself(site: Site):
    assert parse_site(str(site)) == site
    assert parse_site(f"  {site}\n") == site


@given(sites, sites)
def test_different_sites_have_different_names(one: Site, other: Site):
    assert (str(one) == str(other)) == (one == other)


@given(sites, sites)
def test_every_edge_reads_back_as_itself(sender: Site, receiver: Site):
    edge = Edge(sender, receiver)
    assert str(edge) == f"{sender}>{receiver}"
    assert parse_edge(str(edge)) == edge


@given(st.lists(sites, unique=True), st.randoms(use_true_random=False))
def test_order_is_total_and_independent_of_the_input_order(found: list[Site], shuffler):
    shuffled = found.copy()
    shuffler.shuffle(shuffled)
    assert sorted(shuffled) == sorted(found)
    for lower, upper in itertools.pairwise(sorted(found)):
        assert lower < upper
        assert not upper < lower


def test_order_follows_the_flow_through_the_model():
    flow = [
        "embed",
        "L0.resid_pre", "L0.h0", "L0.h1", "L0.h10", "L0.h0.q", "L0.kv0.k", "L0.kv0.v", "L0.attn",
        "L0.resid_mid", "L0.mlp", "L0.resid_post",
        "L1.resid_pre", "L2.mlp", "L10.mlp",
        "bias", "all",
    ]  # fmt: skip
    assert [str(site) for site in sorted(map(parse_site, reversed(flow)))] == flow


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("L8.mlp", Site("mlp", 8)),
        ("L5.h3", Site("head", 5, 3)),
        ("L5.h3.q", Site("q", 5, 3)),
        ("L5.kv1.k", Site("k", 5, 1)),
        ("L5.kv1.v", Site("v", 5, 1)),
        ("L5.attn", Site("attn", 5)),
        ("L5.resid_pre", Site("resid_pre", 5)),
        ("L5.resid_mid", Site("resid_mid", 5)),
        ("L5.resid_post", Site("resid_post", 5)),
        ("embed", Site("embed")),
        ("bias", Site("bias")),
        ("all", Site("all")),
    ],
)
def test_the_grammar(text: str, site: Site):
    assert parse_site(text) == site
    assert str(site) == text


@pytest.mark.parametrize(
    ("alias", "text"),
    [
        ("hook_embed", "embed"),
        ("blocks.8.hook_mlp_out", "L8.mlp"),
        ("blocks.8.hook_attn_out", "L8.attn"),
        ("blocks.0.hook_resid_pre", "L0.resid_pre"),
        ("blocks.0.hook_resid_mid", "L0.resid_mid"),
        ("blocks.12.hook_resid_post", "L12.resid_post"),
        ("blocks.5.attn.hook_z[:, :, 3]", "L5.h3"),
        ("blocks.5.attn.hook_z[:,:,3]", "L5.h3"),
        ("blocks.5.attn.hook_result[:, :, 3]", "L5.h3"),
        ("blocks.5.attn.hook_q[:, :, 3]", "L5.h3.q"),
        ("blocks.5.attn.hook_k[:, :, 1]", "L5.kv1.k"),
        ("blocks.5.attn.hook_v[:, :, 1]", "L5.kv1.v"),
    ],
)
def test_transformerlens_names_are_aliases(alias: str, text: str):
    assert str(parse_site(alias)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "L5", "5.h3", "L5.h", "L-1.mlp", "L5.H3", "L5.h3.k", "L5.kv1", "L5.kv1.q", "L5.resid",
        "L5.mlp.extra", "x L5.mlp", "embed.0", "L1.mlp>L2.mlp", "blocks.5.attn.hook_z",
        "blocks.5.attn.hook_z[:, 3]", "hook_pos_embed",
    ],
)  # fmt: skip
def test_what_is_not_a_site_is_refused(text: str):
    with pytest.raises(SiteError, match=re.escape(f"Seen: {text!r}. Allowed: L5.h3")) as refusal:
        parse_site(text)
    assert refusal.value.problem == "This is not the name of a site"
    assert "write the layer as L and the head as h" in refusal.value.remedy


@pytest.mark.parametrize("text", ["L1.mlp", "L1.mlp>L2.mlp>L3.mlp", ""])
def test_what_is_not_an_edge_is_refused(text: str):
    with pytest.raises(SiteError, match="This is not the name of an edge"):
        parse_edge(text)


def test_an_edge_of_a_wrong_site_names_that_site():
    with pytest.raises(SiteError, match="Seen: 'L2.mpl'"):
        parse_edge("L1.mlp>L2.mpl")


@pytest.mark.parametrize(
    ("kind", "layer", "head"),
    [
        ("embed", 0, None), ("all", None, 1), ("mlp", None, None), ("mlp", 3, 1),
        ("head", 3, None), ("k", None, 1), ("mlp", -1, None), ("head", 0, -2),
    ],
)  # fmt: skip
def test_indices_that_do_not_fit_the_kind_are_refused(kind: Kind, layer, head):
    with pytest.raises(SiteError, match=f"kind {kind}, layer {layer}, head {head}"):
        Site(kind, layer, head)
