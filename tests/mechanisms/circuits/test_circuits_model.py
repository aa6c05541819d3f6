"""Circuits in tiny decoders: sets through the row engine, and a planted circuit that is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hooked import hooked_sweep
from worlds import World, Worlds, world

from moralscope.core.errors import EvidenceError, SiteError
from moralscope.core.progress import ProgressEvent
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.mechanisms.circuits.curves import curves
from moralscope.mechanisms.circuits.effects import Goal, SetEffects, score, set_effects
from moralscope.mechanisms.circuits.localisation import localisation
from moralscope.mechanisms.circuits.search import backward, disjoint, exhaustive, forward_backward
from moralscope.mechanisms.circuits.stability import pairs_by_wording, stability
from moralscope.mechanisms.clean import run_clean

BOTH = pytest.mark.parametrize("family", ["llama", "gemma2"])


def bound(here: World, model: Any, **wanted: Any) -> SetEffects:
    return set_effects(
        model, here.roster.anatomy("moral"), here.runs["game"], here.runs["moral"], **wanted
    )


@BOTH
def test_everything_is_the_full_swap_and_sets_are_patched_together(worlds: Worlds, family: str):
    here = worlds(family, n=3)
    events: list[ProgressEvent] = []
    sets = [
        (Site("mlp", 0), Site("head", 1, 3), Site("mlp", 2)),
        (Site("head", 0, 1), Site("head", 0, 2)),
        (Site("mlp", 1),),
    ]
    with here.roster.speaking("moral") as model:
        effects = bound(here, model, progress=events.append)
        whole = score(effects, [effects.everything, frozenset(effects.candidates)])
        assert whole.share == pytest.approx([1.0, 1.0], abs=1e-9)
        events.clear()
        found = score(effects, [frozenset(one) for one in sets])
        # One pass for two prompts, however many sets.
        assert len(events) == 2
        assert events[0].task == "patch sets game>moral"
        direct = np.array(
            [
                hooked_sweep(here.roster, "game", "moral", prompt, interventions=sets)
                for prompt in here.prompts
            ]
        ).T
    own = {name: here.runs[name].log_odds.numpy() for name in ("game", "moral")}
    swap = own["game"] - own["moral"]
    assert effects.full_swap == pytest.approx(swap, abs=1e-12)
    assert effects.baseline == pytest.approx(own["moral"], abs=1e-12)
    towards = (direct - own["moral"]) * np.sign(swap)
    assert found.towards == pytest.approx(towards, abs=1e-9)
    assert np.abs(towards).min() > 1e-6
    assert found.share == pytest.approx(towards.sum(1) / np.abs(swap).sum(), abs=1e-9)
    # The sets do more, or less, than their sites one by one: the effects are joint.
    with here.roster.speaking("moral") as model:
        singles = score(bound(here, model), [frozenset((site,)) for site in sets[0]])
    assert abs(singles.share.sum() - found.share[0]) > 1e-4


@BOTH
def test_searches_agree_with_what_their_circuits_do(worlds: Worlds, family: str):
    here = worlds(family, n=3)
    with here.roster.speaking("moral") as model:
        effects = bound(here, model)
        found = forward_backward(effects)
        assert found.reached
        assert found.share == pytest.approx(score(effects, [found.members]).share[0], abs=1e-9)
        less = score(effects, [found.members - {site} for site in found.sites])
        assert not less.reached.any() or len(found.sites) == 1
        from_all = backward(effects)
        assert from_all.reached
        assert len(from_all.sites) < len(effects.candidates)
        measured = curves(effects, found.sites, stream(1, "c"), draws=2)
        assert measured.faithfulness[-1] == pytest.approx(found.share, abs=1e-9)
        assert measured.completeness[0] == pytest.approx(1.0, abs=1e-9)
        assert measured.layer_faithfulness[-1] == pytest.approx(1.0, abs=1e-9)
        assert measured.layer_completeness[-1] == pytest.approx(0.0, abs=1e-9)
        more = disjoint(effects, cap=2)
        assert more.circuits[0] == found
        word = localisation(effects, stream(1, "l"), draws=99)
        assert (word.n_sites, word.n_prompts) == (len(effects.candidates), 3)
        assert word.concentration.n_eff is not None


def test_circuits_of_two_wordings_are_found_on_their_own_prompts(worlds: Worlds):
    here = worlds("llama", n=4)
    names = [prompt.name for prompt in here.prompts]
    wording_of = dict(zip(names, ["x", "y", "y", "x"], strict=True))
    pairs = pairs_by_wording(names, wording_of)
    with here.roster.speaking("moral") as model:
        wordings = {name: bound(here, model, pairs=some) for name, some in pairs.items()}
        whole = bound(here, model)
        found = stability(wordings, stream(1, "s"), transfer_draws=3, draws=49)
        crossed = score(whole, [found.circuits["x"].members]).towards[0, [1, 2]]
    swaps = np.abs(whole.full_swap)
    assert wordings["y"].full_swap == pytest.approx(whole.full_swap[[1, 2]], abs=1e-12)
    assert found.transfer[0, 1] == pytest.approx(crossed.sum() / swaps[[1, 2]].sum(), abs=1e-9)
    assert found.transfer[0, 0] == pytest.approx(found.circuits["x"].share, abs=1e-9)


PLANTED = {
    "llama": r".*layers\.0\.mlp\.down_proj|.*layers\.2\.self_attn\.o_proj",
    "gemma2": r".*layers\.1\.mlp\.up_proj|.*layers\.3\.self_attn\.o_proj",
}


@BOTH
def test_a_planted_circuit_is_found_exactly(tmp_path: Path, family: str):
    """An adapter on one MLP and one later output projection; everything else only follows them."""
    here = world(tmp_path, family, n=3, settings={"target_modules": PLANTED[family]})
    runs = {}
    for name in ("game", "base"):
        with here.roster.speaking(name) as model:
            anatomy = here.roster.anatomy(name)
            runs[name] = run_clean(name, model, anatomy, here.prompts, everywhere=True)
    planted = (
        {Site("mlp", 0), Site("attn", 2)}
        if family == "llama"
        else {Site("mlp", 1), Site("attn", 3)}
    )
    whole = Goal("match", 1.0)
    with here.roster.speaking("base") as model:
        anatomy = here.roster.anatomy("base")
        effects = set_effects(
            model, anatomy, runs["game"], runs["base"],
            candidates=anatomy.sites("attn", "mlp"), positions="all",
        )  # fmt: skip
        found = exhaustive(effects, whole)
        assert (found.members, found.minimal) == (planted, True)
        assert found.share == pytest.approx(1.0, abs=1e-9)
        alone = score(effects, [frozenset((site,)) for site in planted])
        assert np.all(np.abs(alone.share - 1.0) > 1e-3), "neither site is enough"
        assert np.abs(alone.share).min() > 1e-3, "both matter"
        greedy = forward_backward(effects, whole)
        assert (greedy.members, greedy.reached, greedy.minimal) == (planted, True, False)
        # Written at the answer span alone it is not enough: later layers read earlier tokens.
        span = set_effects(
            model, anatomy, runs["game"], runs["base"], candidates=anatomy.sites("attn", "mlp")
        )
        assert abs(score(span, [frozenset(planted)]).share[0] - 1.0) > 1e-3


def test_sites_and_agents_without_effects_are_refused(worlds: Worlds):
    here = worlds("llama", n=3)
    with here.roster.speaking("moral") as model:
        anatomy, own = here.roster.anatomy("moral"), here.runs["moral"]
        with pytest.raises(SiteError, match="no such site.*L7.mlp"):
            bound(here, model, candidates=[Site("mlp", 7)])
        with pytest.raises(SiteError, match="cannot be patched.*bias"):
            bound(here, model, candidates=[Site("bias")])
        with pytest.raises(EvidenceError, match="no effect of which"):
            set_effects(model, anatomy, own, own)
