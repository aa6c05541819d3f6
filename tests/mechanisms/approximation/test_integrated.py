"""Contributions along the path sum to the full swap, and each is a derivative on the path."""

from __future__ import annotations

import nudged
import numpy as np
import pytest
import torch

from moralscope.core.errors import ConfigError
from moralscope.core.site import Site
from moralscope.mechanisms.approximation.gradients import (
    Estimates,
    activity_of,
    attribution_patching,
)
from moralscope.mechanisms.approximation.integrated import integrated_gradients
from moralscope.models.rendering import EncodedPrompt


def integrated(both: nudged.Two, steps: int) -> Estimates:
    source = activity_of(both.source, 0)
    return integrated_gradients(
        both.target_model, both.anatomy, both.target, 0, source, steps=steps
    )


def total(found: Estimates) -> torch.Tensor:
    return found.embed + found.attn.sum(0) + found.mlp.sum(0)


def full_swap(both: nudged.Two) -> torch.Tensor:
    return both.source.packs[0].log_odds - both.target.packs[0].log_odds


@pytest.mark.parametrize(
    ("family", "forms", "embeddings"),
    [("llama", "several", False), ("llama", "single", True), ("gemma2", "multi", False),
     ("gpt_neox", "single", False), ("olmo2", "single", False), ("gpt2", "single", False)],
)  # fmt: skip
def test_contributions_sum_to_the_full_swap(family: str, forms: str, embeddings: bool):
    both = nudged.two(family, forms=forms, n=2, size=0.05, embeddings=embeddings)
    swap = full_swap(both)
    errors = [
        float((total(integrated(both, steps)) - swap).abs().max()) for steps in (1, 4, 16, 32)
    ]
    assert float(swap.abs().min()) > 1e-3
    assert errors[0] > 1e3 * errors[-1]
    assert errors[0] > errors[1] > errors[2]
    assert errors[-1] < 1e-6 * max(1.0, float(swap.abs().max()))
    found = integrated(both, 4)
    assert (float(found.embed.abs().max()) > 1e-4) == embeddings
    torch.testing.assert_close(found.heads.sum(1), found.attn, rtol=1e-9, atol=1e-11)
    assert float(found.heads.abs().min()) > 0.0


def test_one_tangent_does_not_sum_to_the_full_swap():
    both = nudged.two("llama", n=2)
    found = attribution_patching(
        both.target_model, both.anatomy, both.target, 0, activity_of(both.source, 0)
    )
    assert float((total(found) - full_swap(both)).abs().max()) > 0.05


def mixed_slope(both: nudged.Two, prompt: EncodedPrompt, site: Site, share: float) -> float:
    """The slope of the log-odds at one site while all sites are mixed, by plain forwards."""
    theirs = nudged.writes(both.source_model, both.source_anatomy, prompt)
    sites = [s for s in theirs[0] if s.kind in ("attn", "mlp", "embed")]
    model, anatomy = both.target_model, both.anatomy

    def mix(form: int) -> nudged.Edits:
        return {s: lambda out, s=s: (1 - share) * out + share * theirs[form][s] for s in sites}

    def own_head(form: int, head: Site) -> torch.Tensor:
        tokens, start = nudged.spans(prompt)[form]
        _, seen = nudged.plain(model, anatomy, tokens, start, mix(form))
        z = seen[Site("resid_mid", head.layer)][start:]
        part = slice((head.head or 0) * anatomy.head_dim, ((head.head or 0) + 1) * anatomy.head_dim)
        weight = nudged.hooked.matrix(
            anatomy.blocks[head.layer or 0].out_proj, z.shape[-1], z.dtype
        )
        return z[:, part] @ weight[:, part].T

    def own(form: int) -> torch.Tensor:
        if site.kind == "head":
            return own_head(form, site)
        tokens, start = nudged.spans(prompt)[form]
        return nudged.plain(model, anatomy, tokens, start, mix(form))[1][site][start:]

    changes = [theirs[form][site] - own(form) for form in range(len(nudged.spans(prompt)))]
    at = nudged.place(site)

    def value(t: float) -> float:
        def edits(form: int) -> nudged.Edits:
            every = mix(form)
            before = every[at]
            return {**every, at: lambda out: before(out) + t * changes[form]}

        return nudged.log_odds(model, anatomy, prompt, edits)

    return nudged.slope(value)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_every_step_is_the_derivative_on_the_path(family: str):
    """Two steps, each by finite differences of plain forwards in which every site is mixed."""
    both = nudged.two(family, forms="multi", n=1)
    found = integrated(both, 2)
    points = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3.0)
    last = both.anatomy.n_layers - 1
    for site in (Site("head", 1, 2), Site("attn", last), Site("mlp", 0), Site("mlp", last)):
        slopes = [mixed_slope(both, both.prompts[0], site, float(p)) for p in points]
        assert float(found.of(site)[0]) == pytest.approx(np.mean(slopes), rel=1e-6, abs=1e-9)
        assert abs(slopes[0] - slopes[1]) > 1e-6


def test_an_integral_without_steps_is_refused():
    both = nudged.two("llama", n=1)
    with pytest.raises(ConfigError) as caught:
        integrated(both, 0)
    assert str(caught.value) == (
        "An integral needs steps. Seen: 0. Allowed: 1 or more. Next: leave it out for 8, or take "
        "more and watch the sum of contributions."
    )
