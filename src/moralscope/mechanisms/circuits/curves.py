"""Is the circuit sufficient, and is it all? Curves over its size, against sets that are not it.

With the first k sites of a circuit, ``C_k``, and ``share`` as in ``circuits.effects``,

    faithfulness(k) = share(C_k)                    from 0 towards what the circuit reaches
    completeness(k) = share(everything but C_k)     from everything towards what is left without it

A circuit that carries the difference rises fast in the first and falls fast in the second; a
redundant copy elsewhere leaves the second high (Wang et al. 2023). Both are compared with

    random    sets of the same size and the same kinds (as many heads, as many MLPs), drawn from
              the same candidates, each draw one growing sequence of sets
    layers    whole layers, put together in the order of their own shares

A circuit that does no better than random sets of its size is not one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import ConfigError, SiteError
from moralscope.core.site import Site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.circuits.effects import FloatArray, SetEffects, SiteSet, score

DRAWS = 20
"""Random sequences of sets unless told otherwise."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Shares of the full swap's effect, by number of sites.

    Attributes:
        faithfulness: of the first k sites, ``(sites + 1,)``, k from 0.
        completeness: of everything but them, ``(sites + 1,)``.
        random_faithfulness, random_completeness: the same of random sets, ``(draws, sites + 1)``.
        layers: whole layers in their order.
        layer_sizes: sites in the first k of them, ``(layers + 1,)``.
        layer_faithfulness, layer_completeness: the same of whole layers, ``(layers + 1,)``.
    """

    faithfulness: FloatArray
    completeness: FloatArray
    random_faithfulness: FloatArray
    random_completeness: FloatArray
    layers: tuple[int, ...]
    layer_sizes: tuple[int, ...]
    layer_faithfulness: FloatArray
    layer_completeness: FloatArray


def curves(
    effects: SetEffects,
    sites: Sequence[Site],
    generator: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> Curves:
    """Faithfulness and completeness of a circuit, of random sets and of whole layers.

    Evaluates about ``2 (draws + 1)`` sets a site of the circuit and three a layer.

    Args:
        effects: what sets do.
        sites: the circuit, in the order in which it is to grow (``Circuit.sites``).
        generator: of the random sets; ``streams.stream(seed, 'circuits')``.
        draws: random sequences.

    Raises:
        SiteError: a site is not among the candidates, or cannot be left out because it is not one
            of the sites of which everything is made.
        ConfigError: there is no draw.
        EvidenceError: as ``circuits.effects.score``.
    """
    if draws < 1:
        raise ConfigError(
            "A circuit is compared with random sets",
            seen=f"{draws} draws",
            allowed="1 or more",
            remedy=f"give draws={DRAWS}",
        )
    _check_sites(effects, sites)
    grown = _growing([(site,) for site in sites])
    drawn = [
        _growing([(site,) for site in draw_alike(sites, effects.candidates, generator)])
        for _ in range(draws)
    ]
    by_layer = _layers(effects)
    shares = score(effects, [frozenset(found) for found in by_layer.values()]).share
    # Rounded, so that equal layers stay in the order of depth.
    rank = {layer: -round(float(s), 9) for layer, s in zip(by_layer, shares, strict=True)}
    layers = sorted(by_layer, key=rank.__getitem__)
    whole = _growing([by_layer[layer] for layer in layers])
    random = [_both(effects, sequence) for sequence in drawn]
    kept, left = _both(effects, grown)
    layers_kept, layers_left = _both(effects, whole)
    return Curves(
        kept,
        left,
        np.stack([pair[0] for pair in random]),
        np.stack([pair[1] for pair in random]),
        tuple(layers),
        tuple(len(sites) for sites in whole),
        layers_kept,
        layers_left,
    )


def _check_sites(effects: SetEffects, sites: Sequence[Site]) -> None:
    allowed = set(effects.candidates) & effects.everything
    wrong = [site for site in sites if site not in allowed]
    if wrong or not sites or len(set(sites)) < len(sites):
        raise SiteError(
            "This is no circuit whose complement is defined",
            seen=", ".join(map(str, wrong or sites)) or "no site",
            allowed="different candidates, all of them sites of which the whole model is made: "
            "embed, MLPs, and either heads or attention layers",
            remedy="search among sites of these kinds only",
        )


def draw_alike(
    sites: Sequence[Site], candidates: Iterable[Site], generator: np.random.Generator
) -> tuple[Site, ...]:
    """Random different sites of the same kinds as some, in the same order of kinds.

    Args:
        sites: what to imitate; any of them may be drawn.
        candidates: what to draw from, at least as many of each kind.
        generator: of the draw.
    """
    pools: dict[str, list[Site]] = {}
    for site in sorted(candidates):
        pools.setdefault(site.kind, []).append(site)
    shuffled: dict[str, Iterator[Site]] = {}
    for kind, pool in pools.items():
        order: list[int] = generator.permutation(len(pool)).tolist()
        shuffled[kind] = iter([pool[index] for index in order])
    return tuple(next(shuffled[site.kind]) for site in sites)


def _growing(groups: Sequence[Sequence[Site]]) -> list[SiteSet]:
    """The empty set, then one group more at a time."""
    sets: list[SiteSet] = [frozenset()]
    for group in groups:
        sets.append(sets[-1] | frozenset(group))
    return sets


def _layers(effects: SetEffects) -> dict[int, list[Site]]:
    """Sites of each layer of the whole model, first layer first."""
    found: dict[int, list[Site]] = {}
    for site in sorted(effects.everything):
        if site.layer is not None:
            found.setdefault(site.layer, []).append(site)
    return found


def _both(effects: SetEffects, sets: Sequence[SiteSet]) -> tuple[FloatArray, FloatArray]:
    """Shares of sets, and of everything but them."""
    left = [effects.everything - sites for sites in sets]
    found = score(effects, [*sets, *left]).share
    return found[: len(sets)], found[len(sets) :]


def curves_table(effects: SetEffects, found: Mapping[str, Curves]) -> pl.DataFrame:
    """The table ``circuits.curves``.

    Args:
        effects: what the curves were found in.
        found: by the name of the circuit in the table ``circuits``.
    """
    rows: list[dict[str, object]] = []
    for name, one in found.items():
        sizes = range(len(one.faithfulness))
        rows += _rows(name, "circuit", sizes, [one.faithfulness], [one.completeness])
        rows += _rows(
            name, "random", sizes, list(one.random_faithfulness), list(one.random_completeness)
        )
        rows += _rows(
            name, "layers", one.layer_sizes, [one.layer_faithfulness], [one.layer_completeness]
        )
    return from_rows("circuit_curves", [{**effects.subject.columns(), **row} for row in rows])


def _rows(
    name: str,
    sets: str,
    sizes: Sequence[int],
    faithfulness: Sequence[FloatArray],
    completeness: Sequence[FloatArray],
) -> list[dict[str, object]]:
    return [
        {
            "circuit": name,
            "curve": curve,
            "sets": sets,
            "size": size,
            "draw": draw,
            "share": float(share),
        }
        for curve, drawn in (("faithfulness", faithfulness), ("completeness", completeness))
        for draw, shares in enumerate(drawn)
        for size, share in zip(sizes, shares, strict=True)
    ]
