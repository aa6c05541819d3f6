"""Which sub-layers would one train alone? Chosen by an analysis, at random, or by depth.

A sub-layer is the attention or the MLP of one layer. Its score under

    patching      |mean over prompts of the effect of the agent's sub-layer in the base|
    attribution   |mean over prompts of its change of contribution by its own weights|
    pathways      largest |path effect| of a pathway that it begins or ends

where heads are measured one by one their effects are summed first. The highest scores are chosen.
Random choices have as many sub-layers of each kind as the reference choice, so that they train as
many parameters; bands are whole consecutive layers in the first, middle and last third.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError
from moralscope.core.site import Kind, Site, parse_site

Scores = Mapping[Site, float]


def sub_layers(n_layers: int) -> tuple[Site, ...]:
    """Attention and MLP of every layer, in order."""
    return tuple(Site(kind, layer) for layer in range(n_layers) for kind in ("attn", "mlp"))


def _summed(effects: pl.DataFrame, value: str) -> dict[Site, float]:
    """Absolute sum over a sub-layer's sites of their means over prompts.

    Args:
        effects: ``prompt``, ``site`` and the value; heads or whole sub-layers.
        value: the column.
    """
    means = effects.group_by("site", maintain_order=True).agg(pl.col(value).mean())
    whole: dict[Site, float] = {}
    heads: dict[Site, float] = {}
    for text, mean in means.iter_rows():
        site = parse_site(text)
        if site.kind in ("attn", "mlp"):
            whole[site] = mean
        elif site.kind == "head":
            of = Site("attn", site.layer)
            heads[of] = heads.get(of, 0.0) + mean
    return {site: abs(mean) for site, mean in {**heads, **whole}.items()}


def patching_scores(patching: pl.DataFrame, source: str, target: str) -> dict[Site, float]:
    """Scores from patches of one pair at the answer span; empty where it was not patched."""
    rows = patching.filter(
        (pl.col("source") == source)
        & (pl.col("target") == target)
        & (pl.col("positions") == "answer_span")
    )
    return _summed(rows, "effect")


def attribution_scores(attribution: pl.DataFrame, agent: str) -> dict[Site, float]:
    """Scores from an agent's change of contribution by its own weights, summed over the answer."""
    rows = attribution.filter(
        (pl.col("agent") == agent) & (pl.col("part") == "weights") & (pl.col("token") == -1)
    )
    return _summed(rows, "contribution")


def pathway_scores(pathways: pl.DataFrame) -> dict[Site, float]:
    """Scores from pathways between sub-layers, or heads, whose path effects were measured."""
    found: dict[Site, float] = {}
    columns = ["sender", "receiver", "effect_a_to_b", "effect_b_to_a"]
    for sender, receiver, there, back in pathways.select(columns).iter_rows():
        effect = max(abs(value) for value in (there, back, 0.0) if value is not None)
        for text in (sender, receiver):
            end = parse_site(text)
            site = Site("attn", end.layer) if end.kind == "head" else end
            if site.kind in ("attn", "mlp"):
                found[site] = max(found.get(site, 0.0), effect)
    return found


def highest(scores: Scores, budget: int, strategy: str) -> tuple[Site, ...]:
    """The sub-layers with the highest scores, the first in the model's order among equals.

    Raises:
        ConfigError: fewer sub-layers have a score than are wanted.
    """
    if len(scores) < budget:
        raise ConfigError(
            f"Too few sub-layers were measured to choose {budget} by {strategy}",
            seen=f"{len(scores)} with a score",
            allowed=f"{budget} or more",
            remedy=f"lower the budget, or add {strategy} to mechanisms.methods with more sites",
        )
    return tuple(sorted(scores, key=lambda site: (-scores[site], site))[:budget])


def alike(reference: Iterable[Site], n_layers: int, rng: np.random.Generator) -> tuple[Site, ...]:
    """As many sub-layers of each kind as in the reference, drawn from all layers."""
    kinds: list[Kind] = [site.kind for site in reference]
    return tuple(
        sorted(
            Site(kind, int(layer))
            for kind in dict.fromkeys(kinds)
            for layer in rng.choice(n_layers, size=kinds.count(kind), replace=False)
        )
    )


def band(third: str, budget: int, n_layers: int) -> tuple[Site, ...]:
    """Consecutive whole layers in the middle of a third of the model.

    Args:
        third: early, middle or late.
        budget: sub-layers; of an odd number the last layer's attention comes alone.
        n_layers: of the model.

    Raises:
        ConfigError: the model has fewer sub-layers.
    """
    layers = (budget + 1) // 2
    if layers > n_layers:
        raise ConfigError(
            "A band cannot be wider than the model",
            seen=f"{budget} sub-layers of {2 * n_layers}",
            allowed=f"at most {2 * n_layers}",
            remedy="lower targeted.budgets",
        )
    share = {"early": 1 / 6, "middle": 1 / 2, "late": 5 / 6}[third]
    first = round(share * n_layers - layers / 2)
    first = min(max(first, 0), n_layers - layers)
    whole: Sequence[Site] = [
        Site(kind, layer) for layer in range(first, first + layers) for kind in ("attn", "mlp")
    ]
    return tuple(whole[:budget])
