"""Sites are replaced in every kind of forward, as plain edits would, and nothing is left behind."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from overwritten import edited, final, hook_count, layer_of, out_proj, setting, site_edit, spans

from moralscope.core.errors import AgentError, ConfigError, ModelError, SiteError
from moralscope.core.site import Site, parse_site
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.intervening.ablation import ablate
from moralscope.mechanisms.intervening.effects import ablation_table
from moralscope.mechanisms.intervening.placements import Placement, placed
from moralscope.mechanisms.intervening.values import (
    SiteValues,
    mean_activations,
    prompt_activations,
    resampled,
)
from moralscope.models.anatomy import dissect
from moralscope.models.capture import capture
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.scoring import make_packs, score

TOKENS = [40, 91, 7, 33, 260, 12, 88]
PARTS = ("q", "k", "v")


def vector(dim: int, seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dim, dtype=torch.float64, generator=generator)


def values(model: Any, *names: str) -> SiteValues:
    anatomy = dissect(model)
    sites = [parse_site(name) for name in names]
    dims = [anatomy.width if site.head is None else anatomy.head_dim for site in sites]
    return SiteValues(
        {s: vector(d, i) for i, (s, d) in enumerate(zip(sites, dims, strict=True))}, "x"
    )


def stream_in(model: Any) -> torch.Tensor:
    """What enters layer 0, in the library's own words."""
    with torch.no_grad(), tiny.never_narrowed():
        output = model(torch.tensor([TOKENS]), output_hidden_states=True, use_cache=False)
    return output.hidden_states[0][0]


def logits(model: Any) -> torch.Tensor:
    return tiny.plain_logits(model, TOKENS)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_decoder_without_sublayers_reads_its_embedding(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    expected = final(model, stream_in(model))
    with ablate(model, anatomy, anatomy.sites("attn", "mlp"), how="zero"):
        found = logits(model)
    assert torch.allclose(found, expected, atol=1e-10, rtol=0)
    assert (logits(model) - expected).abs().max() > 0.1


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("name", ["L1.h2", "L1.attn", "L0.mlp", "L1.resid_post"])
def test_a_replaced_site_is_what_a_plain_edit_gives(family: str, name: str):
    model = tiny.tiny_model(family)
    put = values(model, name)
    with site_edit(model, name, put.values[parse_site(name)]):
        expected = logits(model)
    with ablate(model, dissect(model), name, how="mean", values=put):
        found = logits(model)
    assert torch.allclose(found, expected, atol=1e-11, rtol=0)
    assert (found - logits(model)).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_without_values_heads_write_nothing_and_without_scores_attention_is_even(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)

    def zeroed(*sites: Site) -> torch.Tensor:
        with ablate(model, anatomy, sites, how="zero"):
            return logits(model)

    shared = anatomy.n_heads // anatomy.n_kv_heads
    readers = [Site("head", 1, shared + h) for h in range(shared)]
    assert torch.allclose(zeroed(Site("v", 1, 1)), zeroed(*readers), atol=1e-11, rtol=0)
    queries = [Site("q", 1, head) for head in range(anatomy.n_heads)]
    keys = [Site("k", 1, head) for head in range(anatomy.n_kv_heads)]
    assert torch.allclose(zeroed(*queries), zeroed(*keys), atol=1e-11, rtol=0)
    for sites in (readers, queries, queries[:1]):
        assert (zeroed(*sites) - logits(model)).abs().max() > 1e-4
    assert (zeroed(*queries[:1]) - zeroed(*queries)).abs().max() > 1e-6


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_streams_of_a_layer_are_set_where_they_are_read(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    last = anatomy.n_layers - 1

    def put(name: str, value: torch.Tensor, *zero: str) -> torch.Tensor:
        given = SiteValues({parse_site(name): value}, "drawn")
        with (
            ablate(model, anatomy, zero, how="zero"),
            ablate(model, anatomy, name, how="mean", values=given),
        ):
            return logits(model)

    value = vector(anatomy.width)
    expected = final(model, value).expand(len(TOKENS), -1)
    assert torch.allclose(put(f"L{last}.resid_post", value), expected, atol=1e-11, rtol=0)
    assert torch.equal(put("L0.resid_post", value), put("L1.resid_pre", value))
    assert torch.equal(put("L0.resid_pre", value), put("embed", value))
    assert (put("embed", value) - put("L0.resid_post", value)).abs().max() > 1e-3
    if not anatomy.parallel:
        middle = put(f"L{last}.resid_mid", value, f"L{last}.mlp")
        assert torch.allclose(middle, expected, atol=1e-11, rtol=0)
        first = put("L0.resid_mid", value, "L0.mlp", "embed")
        assert torch.allclose(first, put("L1.resid_pre", value), atol=1e-11, rtol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_putting_back_what_a_site_holds_changes_nothing(family: str):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    prompts = tiny.token_prompts(2)
    run = run_clean("base", model, anatomy, prompts, parts=PARTS, keep_cache=False)
    own, other = prompt_activations(run, anatomy)
    pack = make_packs(prompts[:1])[0]
    kinds = ("embed", "resid_pre", "head", "q", "k", "v", "attn", "resid_mid", "mlp", "resid_post")
    sites = anatomy.sites(*kinds)
    assert set(own.values) == set(sites)
    before = score(model, prompts[:1]).log_odds[0]

    def after(put: SiteValues) -> list[float]:
        found: list[float] = []
        for site in sites[::3]:
            with ablate(
                model, anatomy, site, how="resample", values=put, positions=pack.keep.tolist()
            ):
                found.append(float(score(model, prompts[:1]).log_odds[0]))
        return found

    assert np.allclose(after(own), before, atol=1e-9, rtol=0)
    changed = np.abs(np.array(after(other)) - before)
    assert np.count_nonzero(changed > 1e-6) > 0.8 * len(changed)


def test_the_last_position_and_named_positions():
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    put = values(model, "L0.mlp")
    value = put.values[Site("mlp", 0)]
    last = len(TOKENS) - 1
    for positions, start in (("last", last), ([last], last), (range(2, len(TOKENS)), 2)):
        with edited(layer_of(model, 0).mlp, after=setting(value, start=start)):
            expected = logits(model)
        with ablate(model, anatomy, "L0.mlp", how="mean", values=put, positions=positions):
            found = logits(model)
        assert torch.allclose(found, expected, atol=1e-11, rtol=0)
        assert torch.equal(found[:start], logits(model)[:start])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("positions", ["all", "last", [1, 4]])
def test_every_sequence_of_a_batch_is_changed(family: str, positions: Any):
    model = tiny.tiny_model(family)
    anatomy = dissect(model)
    names = ("L0.h1", "L0.h1.q", "L0.kv0.k", "L1.kv1.v", "L1.resid_mid", "L2.mlp")
    put = values(model, *names)
    batch = [TOKENS, TOKENS[::-1]]
    with ablate(model, anatomy, names, how="mean", values=put, positions=positions):
        apart = torch.stack([tiny.plain_logits(model, tokens) for tokens in batch])
        with torch.no_grad(), tiny.never_narrowed():
            together = model(torch.tensor(batch), use_cache=False).logits
    assert torch.allclose(together, apart, atol=1e-11, rtol=0)
    assert (apart[0] - logits(model)).abs().max() > 1e-3


def test_generation_is_changed_token_by_token():
    model = tiny.tiny_model("llama")
    head = values(model, "L1.h2").values[Site("head", 1, 2)]
    put = SiteValues({Site("head", 1, 2): 8 * head}, "drawn")
    ids = torch.tensor([TOKENS])

    def generated() -> list[int]:
        named = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
        mask = torch.ones_like(ids)
        return model.generate(ids, attention_mask=mask, **named)[0].tolist()

    expected = list(TOKENS)
    with site_edit(model, "L1.h2", put.values[Site("head", 1, 2)]):
        for _ in range(6):
            expected.append(int(tiny.plain_logits(model, expected)[-1].argmax()))
    with ablate(model, dissect(model), "L1.h2", how="mean", values=put):
        assert generated() == expected
    assert generated() != expected


def test_nested_blocks_act_in_order():
    model = tiny.tiny_model("gemma2")
    anatomy = dissect(model)
    put = values(model, "L1.mlp", "L1.resid_mid")

    def nested(first: Any, second: Any) -> torch.Tensor:
        with first(), second():
            return logits(model)

    def zero() -> Any:
        return ablate(model, anatomy, "L1.mlp", how="zero")

    def mean() -> Any:
        return ablate(model, anatomy, "L1.mlp", how="mean", values=put)

    def alone(block: Any) -> torch.Tensor:
        with block():
            return logits(model)

    assert torch.equal(nested(zero, mean), alone(mean))
    assert torch.equal(nested(mean, zero), alone(zero))
    assert not torch.equal(alone(mean), alone(zero))

    def middle() -> Any:
        return ablate(model, anatomy, "L1.resid_mid", how="mean", values=put)

    def earlier() -> Any:
        return ablate(model, anatomy, ["embed", "L0.mlp", "L1.attn"], how="zero")

    # What comes later in the decoder wins, however the blocks are nested.
    assert torch.allclose(nested(middle, earlier), nested(earlier, middle), atol=1e-12, rtol=0)


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(0, 14), min_size=1, max_size=6))
def test_sites_together_are_sites_one_inside_another(chosen: set[int]):
    model = tiny.tiny_model("llama")
    anatomy = dissect(model)
    sites = [anatomy.component_sites[i] for i in sorted(chosen)]
    put = values(model, *(str(site) for site in sites))
    with ablate(model, anatomy, reversed(sites), how="mean", values=put):
        together = logits(model)
    blocks = [ablate(model, anatomy, site, how="mean", values=put) for site in sites]
    for block in blocks:
        block.__enter__()
    one_inside_another = logits(model)
    for block in reversed(blocks):
        block.__exit__(None, None, None)
    assert torch.equal(together, one_inside_another)
    assert not torch.equal(together, logits(model))
    assert hook_count(model) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_values_are_cast_to_the_model(dtype: torch.dtype):
    model = tiny.tiny_model("llama", dtype=dtype)
    anatomy = dissect(model)
    put = values(model, "L1.mlp", "L0.h3", "L0.kv1.k")
    pack = make_packs(tiny.token_prompts(2))[0]
    with ablate(model, anatomy, list(put.values), how="mean", values=put):
        seen = capture(model, anatomy, pack.tree, pack.keep, parts=PARTS)
    wanted = {site: value.to(dtype).float() for site, value in put.values.items()}
    assert torch.equal(seen.mlp_out[1], wanted[Site("mlp", 1)].expand_as(seen.mlp_out[1]))
    heads = seen.z[0].unflatten(-1, (4, -1))
    assert torch.equal(heads[:, 3], wanted[Site("head", 0, 3)].expand_as(heads[:, 3]))
    assert seen.k is not None
    assert torch.equal(seen.k[0, :, 1], wanted[Site("k", 0, 1)].expand_as(seen.k[0, :, 1]))
    assert not torch.equal(heads[:, 2], heads[:1, 2].expand_as(heads[:, 2]))


def test_adapters_stay_unmerged_and_in_force(worlds: Any):
    w = worlds("llama", n=2)
    found: dict[str, torch.Tensor] = {}
    for agent in ("game", "moral"):
        with w.roster.speaking(agent) as model:
            anatomy = w.roster.anatomy(agent)
            with site_edit(model, "L1.h2", vector(8, seed=0)):
                expected = logits(model)
            put = values(model, "L1.h2")
            with ablate(model, anatomy, "L1.h2", how="mean", values=put):
                found[agent] = logits(model)
            assert torch.allclose(found[agent], expected, atol=1e-11, rtol=0)
            pack = make_packs(w.prompts)[0]
            with ablate(model, anatomy, "L1.attn", how="zero"):
                assert not capture(model, anatomy, pack.tree, pack.keep).attn_out[1].any()
            assert out_proj(model, 1).merged is False
    assert (found["game"] - found["moral"]).abs().max() > 1e-3


class _StopError(Exception):
    pass


def _stop(_: torch.Tensor) -> torch.Tensor:
    raise _StopError


def test_no_hook_outlives_its_block():
    model = tiny.tiny_model("gemma2")
    anatomy = dissect(model)
    every = anatomy.sites("head", "q", "k", "v", "attn", "mlp", "resid_pre", "resid_mid")
    clean = logits(model)
    assert hook_count(model) == 0

    def entered() -> Any:
        return ablate(model, anatomy, every, how="zero")

    with entered():
        outer = hook_count(model)
        assert outer >= 8 * anatomy.n_layers
        with entered():
            assert hook_count(model) == 2 * outer
        assert hook_count(model) == outer
    assert hook_count(model) == 0
    with pytest.raises(_StopError), entered(), entered():
        raise _StopError
    assert hook_count(model) == 0
    with edited(layer_of(model, 2).mlp, after=_stop), pytest.raises(_StopError), entered():
        logits(model)
    assert hook_count(model) == 0
    block = entered()
    block.__enter__()
    assert hook_count(model) == outer
    del block
    gc.collect()
    assert hook_count(model) == 0
    with (
        pytest.raises(ModelError, match="beyond the end"),
        ablate(model, anatomy, "L0.mlp", how="zero", positions=[99]),
    ):
        logits(model)
    assert hook_count(model) == 0
    assert torch.equal(logits(model), clean)


def test_a_module_that_gives_a_tuple_keeps_the_rest_of_it():
    model = tiny.tiny_model("llama")
    attention = model.model.layers[0].self_attn
    with placed([Placement(attention, "output", torch.zeros_like)]):
        found = logits(model)
    with ablate(model, dissect(model), "L0.attn", how="zero"):
        assert torch.equal(found, logits(model))
    assert not torch.equal(found, logits(model))


def test_what_cannot_be_placed_takes_the_rest_with_it():
    model = tiny.tiny_model("llama")
    good = Placement(model.model.norm, "output", torch.clone)
    broken: Any = Placement(torch.jit, "output", torch.clone)  # type: ignore[arg-type]
    with pytest.raises(AttributeError), placed([good, broken]):
        raise _StopError
    assert hook_count(model) == 0


@pytest.mark.parametrize(
    ("sites", "named", "kind", "text"),
    [
        ("bias", {"how": "zero"}, SiteError, "cannot be ablated. Seen: bias"),
        (["L0.mlp", "all"], {"how": "zero"}, SiteError, "cannot be ablated. Seen: all"),
        ("L9.mlp", {"how": "zero"}, SiteError, "the nearest is L2.mlp"),
        ("L1.h7", {"how": "zero"}, SiteError, "the nearest is L1.h3"),
        ("L1.kv3.v", {"how": "zero"}, SiteError, "the nearest is L1.kv1.v"),
        ("mlp8", {"how": "zero"}, SiteError, "not the name of a site"),
        ("L0.mlp", {"how": "zer"}, ConfigError, "did you mean 'zero'"),
        ("L0.mlp", {"how": "mean"}, ConfigError, "how='mean' without values"),
        ("L0.mlp", {"how": "zero", "values": "good"}, ConfigError, "how='zero' with values"),
        ("L1.mlp", {"how": "mean", "values": "good"}, SiteError, "no value for a site. Seen: L1"),
        ("L0.h0.q", {"how": "mean", "values": "good"}, SiteError, "run clean with parts=('q',)"),
        ("L0.mlp", {"how": "mean", "values": "long"}, SiteError, "L0.mlp: shape (33,)"),
        ("L0.mlp", {"how": "mean", "values": "nan"}, SiteError, "not all finite"),
        ("L0.mlp", {"how": "zero", "positions": "first"}, ConfigError, "Seen: 'first'"),
        ("L0.mlp", {"how": "zero", "positions": []}, ConfigError, "not positions of a forward"),
        ("L0.mlp", {"how": "zero", "positions": [2, -1]}, ConfigError, "indices of tokens from 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_placed(
    sites: Any, named: dict[str, Any], kind: type[Exception], text: str
):
    model = tiny.tiny_model("llama")
    made = {"good": torch.ones(32), "long": torch.ones(33), "nan": torch.full((32,), torch.nan)}
    if "values" in named:
        named = {**named, "values": SiteValues({Site("mlp", 0): made[named["values"]]}, "x")}
    with pytest.raises(kind) as caught, ablate(model, dissect(model), sites, **named):
        raise _StopError
    assert text in str(caught.value)
    assert hook_count(model) == 0


def test_an_anatomy_of_another_or_an_older_model_is_refused(tmp_path: Any):
    model, other = tiny.tiny_model("llama"), tiny.tiny_model("llama")
    with (
        pytest.raises(ModelError, match="describes another model"),
        ablate(model, dissect(other), "L0.mlp", how="zero"),
    ):
        raise _StopError
    roster = tiny.tiny_roster(tmp_path, adapters=())
    old = roster.anatomy("base")
    folder = tiny.save_adapter(tmp_path / "late", tiny.tiny_model("llama"))
    roster.add(tiny.AgentSpec(name="late", base="tiny", adapter=str(folder)))
    with (
        roster.speaking("late") as late,
        pytest.raises(ModelError, match="older than the adapters"),
        ablate(late, old, "L0.mlp", how="zero"),
    ):
        raise _StopError


# --- values -------------------------------------------------------------------------------------


def clean(model: Any, prompts: Any, **named: Any) -> CleanRun:
    return run_clean("base", model, dissect(model), prompts, keep_cache=False, **named)


@pytest.mark.parametrize("name", ["L1.h2", "L0.attn", "L2.mlp"])
@pytest.mark.parametrize("max_nodes", [2048, 40])
def test_means_count_every_prompt_once(name: str, max_nodes: int):
    model = tiny.tiny_model("llama")
    one, two, several = (tiny.token_prompts(3, forms=f) for f in ("single", "multi", "several"))
    prompts = (one[0], several[1], two[2])
    run = clean(model, prompts, max_nodes=max_nodes)
    assert len(run.packs) == (1 if max_nodes == 2048 else 3)
    dim = 8 if ".h" in name else 32
    by_hand = [spans(model, prompt, name, dim) for prompt in prompts]
    assert [len(span) for span in by_hand] == [1, 3, 5]
    site = parse_site(name)
    per_prompt = prompt_activations(run, dissect(model))
    for found, span in zip(per_prompt, by_hand, strict=True):
        assert torch.allclose(found.values[site], span.mean(0), atol=1e-11, rtol=0)
    expected = torch.stack([span.mean(0) for span in by_hand]).mean(0)
    found = mean_activations(run, dissect(model))
    assert torch.allclose(found.values[site], expected, atol=1e-11, rtol=0)
    assert found.origin == "mean of base over 3 prompts"


def test_means_over_all_tokens():
    model = tiny.tiny_model("llama")
    prompts = tiny.token_prompts(3)
    run = clean(model, prompts, everywhere=True)
    by_hand: list[torch.Tensor] = []
    for prompt in prompts:
        seen: list[torch.Tensor] = []
        with edited(layer_of(model, 1).mlp, after=lambda x, s=seen: s.append(x[0].mean(0)) or x):
            tiny.plain_logits(model, prompt.tokens)
        by_hand += seen
    found = mean_activations(run, dissect(model), over="all").values[Site("mlp", 1)]
    assert torch.allclose(found, torch.stack(by_hand).mean(0), atol=1e-11, rtol=0)
    span = mean_activations(run, dissect(model)).values[Site("mlp", 1)]
    assert (found - span).abs().max() > 1e-2
    with pytest.raises(AgentError, match="run clean with everywhere=True"):
        mean_activations(clean(model, prompts), dissect(model), over="all")


def test_another_prompt_is_drawn():
    model = tiny.tiny_model("llama")
    prompts = tiny.token_prompts(4)
    run, anatomy = clean(model, prompts), dissect(model)
    every = {one.origin: one for one in prompt_activations(run, anatomy)}
    draws = [
        resampled(run, anatomy, np.random.default_rng(seed), other_than=2) for seed in range(24)
    ]
    assert {draw.origin for draw in draws} == {"p0", "p1", "p3"}
    for draw in draws[:3]:
        for site, value in draw.values.items():
            assert torch.equal(value, every[draw.origin].values[site])
    again = resampled(run, anatomy, np.random.default_rng(0), other_than=2)
    assert again.origin == draws[0].origin
    alone = clean(model, prompts[:1])
    with pytest.raises(AgentError, match="Resampling needs another prompt"):
        resampled(alone, anatomy, np.random.default_rng(0), other_than=0)


def test_the_mean_of_a_constant_site_changes_nothing():
    model = tiny.tiny_model("llama")
    prompt = tiny.token_prompts(1)[0]
    twins = tuple(
        EncodedPrompt(n, n, prompt.tokens, prompt.positive, prompt.negative) for n in "ab"
    )
    run = clean(model, twins)
    sites = ["L0.mlp", "L1.h2", "L1.attn", "L2.resid_mid", "embed"]
    table = ablation_table(model, dissect(model), run, sites, "mean", positions="answer_span")
    assert table["effect"].abs().max() < 1e-10
    everywhere = ablation_table(model, dissect(model), run, sites, "mean")
    assert everywhere.filter(site="L0.mlp")["effect"].abs().min() > 1e-3


# --- the table ----------------------------------------------------------------------------------

SITES = ("L0.mlp", "L1.h2", "L2.attn")


def by_hand(model: Any, prompt: EncodedPrompt, site: str, value: torch.Tensor, start: int) -> float:
    with site_edit(model, site, value, start=start):
        return tiny.plain_log_odds(model, prompt)


@pytest.mark.parametrize("positions", ["all", "answer_span"])
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_effects_are_those_of_plain_edits(worlds: Any, how: Any, positions: Any):
    w = worlds("llama", n=4, forms="several", max_nodes=70)
    run = w.runs["game"]
    assert len(run.packs) > 1
    generator = np.random.default_rng(3) if how == "resample" else None
    events: list[Any] = []
    with w.roster.speaking("game") as model:
        table = ablation_table(
            model, w.roster.anatomy("game"), run, SITES, how,
            positions=positions, generator=generator, progress=events.append,
        )  # fmt: skip
        held = {
            (site, p.name): spans(model, p, site, 8 if ".h" in site else 32).mean(0)
            for site in SITES
            for p in w.prompts
        }
        for row in table.rows(named=True):
            prompt = next(p for p in w.prompts if p.name == row["prompt"])
            own = held[row["site"], prompt.name]
            value = torch.zeros_like(own)
            if how == "mean":
                value = torch.stack([held[row["site"], p.name] for p in w.prompts]).mean(0)
            if how == "resample":
                assert row["donor"] != row["prompt"]
                value = held[row["site"], row["donor"]]
            start = 0 if positions == "all" else len(prompt.tokens) - 1
            expected = by_hand(model, prompt, row["site"], value, start)
            assert row["ablated_log_odds"] == pytest.approx(expected, abs=1e-9)
            baseline = tiny.plain_log_odds(model, prompt)
            assert row["baseline_log_odds"] == pytest.approx(baseline, abs=1e-9)
            assert row["effect"] == row["ablated_log_odds"] - row["baseline_log_odds"]
            assert row["flipped"] == (expected * baseline < 0)
    assert table.height == len(SITES) * len(w.prompts)
    assert table["effect"].abs().min() > 1e-4
    assert [event.done for event in events] == [1, 2, 3]
    assert table["donor"].null_count() == (0 if how == "resample" else table.height)
    assert table.select("prompt", "donor").n_unique() == len(w.prompts)


def test_a_span_inside_another_prompt_is_left_alone():
    model = tiny.tiny_model("llama")
    short = EncodedPrompt("short", "s", tuple(TOKENS), ((11,),), ((12,),))
    longer = EncodedPrompt("longer", "l", (*TOKENS, 44, 45), ((11,),), ((12,),))
    run = clean(model, (short, longer))
    table = ablation_table(model, dissect(model), run, "L0.mlp", "zero", positions="answer_span")
    for row, prompt in zip(table.rows(named=True), (short, longer), strict=True):
        start = len(prompt.tokens) - 1
        expected = by_hand(model, prompt, "L0.mlp", torch.zeros(32, dtype=torch.float64), start)
        assert row["ablated_log_odds"] == pytest.approx(expected, abs=1e-9)
        assert abs(row["effect"]) > 1e-4


def test_tables_that_cannot_be_made_are_refused(worlds: Any):
    w = worlds("llama", n=2)
    with w.roster.speaking("moral") as model:
        anatomy = w.roster.anatomy("moral")
        with pytest.raises(AgentError, match=r"inside roster.speaking\('game'\)"):
            ablation_table(model, anatomy, w.runs["game"], "L0.mlp", "zero")
        for how, named in (
            ("resample", {}),
            ("zero", {"generator": np.random.default_rng(0)}),
            ("zero", {"positions": "last"}),
            ("men", {}),
            ("zero", {"values": SiteValues({}, "x")}),
        ):
            with pytest.raises(ConfigError, match="ablation table cannot be made"):
                ablation_table(model, anatomy, w.runs["moral"], "L0.mlp", how, **named)  # type: ignore[arg-type]
        assert hook_count(model) == 0
