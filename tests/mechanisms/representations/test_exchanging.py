"""Streams put in after a layer decide as they do in an ordinary forward, and so do their slopes."""

from __future__ import annotations

from typing import Any

import hooked
import numpy as np
import pytest
import tiny
import torch
from worlds import World, Worlds, patched

from moralscope.core.site import Site
from moralscope.mechanisms.representations.exchanging import (
    Place,
    Speaking,
    continuation,
    places,
)
from moralscope.mechanisms.representations.streams import branch_of, read_stream


def speaking(here: World, name: str, model: Any) -> Speaking:
    return Speaking(model, here.roster.anatomy(name), here.runs[name])


def plainly(agent: Speaking, member: int, layer: int, stream: torch.Tensor) -> float:
    """The log-odds of a prompt, each form run by itself, one token's stream replaced by a hook."""
    prompt = agent.run.prompts[member]
    at = len(prompt.tokens) - 1 + branch_of(agent.run, member)
    found = [-np.inf, -np.inf]

    def replace(_: Any, __: Any, output: Any) -> Any:
        whole = (output[0] if isinstance(output, tuple) else output).clone()
        if whole.shape[1] > at:
            whole[0, at] = stream
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    for form, positive in hooked.forms_of(prompt):
        handle = agent.anatomy.blocks[layer].layer.register_forward_hook(replace)
        with hooked.hooked([handle]):
            log_p = tiny.plain_logits(agent.model, [*prompt.tokens, *form[:-1]]).log_softmax(-1)
        start = len(prompt.tokens) - 1
        value = sum(float(log_p[start + i, token]) for i, token in enumerate(form))
        side = 0 if positive else 1
        found[side] = float(np.logaddexp(found[side], value))
    return found[0] - found[1]


def every_place(agent: Speaking) -> list[tuple[Place, int, int]]:
    members = list(range(len(agent.run.prompts)))
    return [(p, at, m) for p in places(agent.run, members) for at, m in enumerate(p.members)]


@pytest.mark.parametrize(
    ("family", "forms"),
    [("llama", "single"), ("llama", "several"), ("gemma2", "single"), ("gpt2", "multi")],
)
def test_a_replaced_stream_decides_as_in_an_ordinary_forward(
    worlds: Worlds, family: str, forms: str
) -> None:
    here = worlds(family, forms=forms)
    with here.roster.speaking("moral") as model:
        agent = speaking(here, "moral", model)
        for place, at, member in every_place(agent)[:3]:
            layer = member % agent.anatomy.n_layers
            theirs = read_stream(here.runs["game"], member)[layer + 1]
            streams = place.clean(layer).repeat(2, 1, 1)
            streams[1, at] = theirs
            found = continuation(agent, place, 2).log_odds(layer, streams)
            assert float(found[0, at]) == pytest.approx(
                float(agent.run.log_odds[member]), abs=1e-10
            )
            assert float(found[1, at]) == pytest.approx(
                plainly(agent, member, layer, theirs), abs=1e-10
            )


def test_exchanging_everything_is_a_patch_of_the_stream(worlds: Worlds) -> None:
    here = worlds("llama")
    swept = patched(here, [[Site("resid_post", 1)]])
    with here.roster.speaking("moral") as model:
        agent = speaking(here, "moral", model)
        for place in places(agent.run, range(4)):
            theirs = torch.stack([read_stream(here.runs["game"], m)[2] for m in place.members])
            found = continuation(agent, place, 1).log_odds(1, theirs[None])[0]
            for at, member in enumerate(place.members):
                assert float(found[at]) == pytest.approx(float(swept.patched[0, member]), abs=1e-10)


def test_slopes_are_finite_differences(worlds: Worlds) -> None:
    here = worlds("gemma2")
    with here.roster.speaking("moral") as model:
        agent = speaking(here, "moral", model)
        place = places(agent.run, range(4))[0]
        through = continuation(agent, place, 1)
        own = place.clean(0)[None].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(through.log_odds(0, own).sum(), own)
        generator = torch.Generator().manual_seed(3)
        push = torch.randn(own.shape, generator=generator, dtype=torch.float64)
        h = 1e-5
        with torch.no_grad():
            up, down = (through.log_odds(0, own + s * h * push).sum() for s in (1.0, -1.0))
        assert float((up - down) / (2 * h)) == pytest.approx(float((slope * push).sum()), rel=1e-7)


def test_prompts_that_end_within_another_are_replaced_apart(worlds: Worlds) -> None:
    here = worlds("llama", forms="several", n=6)
    run = here.runs["moral"]
    for place in places(run, range(6)):
        assert len(set(place.segment.nodes.tolist())) == len(place.segment.nodes)
    assert sorted(m for place in places(run, range(6)) for m in place.members) == list(range(6))
