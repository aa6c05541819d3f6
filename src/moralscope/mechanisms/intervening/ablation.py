"""Is a site needed? Its activation replaced by nothing, by its mean, or by another prompt's.

With ``f`` the log-odds of the decision and ``a`` what site s holds,

    effect(s) = f(a(s) := v) - f        v = 0, mean(s) or a_p'(s)        (Chan et al. 2022)

``ablate`` is a context manager: while it is open, every forward of the decoder, be it an ordinary
call, a packed tree or generation, has its sites replaced; afterwards none has, whatever happened in
between. Heads are replaced at the input of the output projection; attention and the MLP before any
post-norm, so that the norm is recomputed; queries and keys before rotary positions; streams where
they are read. What comes after a replaced site is computed anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from moralscope.core.errors import ConfigError, SiteError, nearest
from moralscope.core.site import Kind, Site, parse_site
from moralscope.mechanisms.intervening.placements import (
    Change,
    Placement,
    Positions,
    at_middle,
    at_stream,
    check_anatomy,
    check_positions,
    placed,
    tokens_at,
)
from moralscope.mechanisms.intervening.values import SiteValues
from moralscope.models.anatomy import Anatomy
from moralscope.models.forward import compute_dtype
from moralscope.models.projections import Projection

How = Literal["zero", "mean", "resample"]


@contextlib.contextmanager
def ablate(
    model: nn.Module,
    anatomy: Anatomy,
    sites: Site | str | Iterable[Site | str],
    *,
    how: How,
    values: SiteValues | None = None,
    positions: Positions = "all",
) -> Generator[None]:
    """Replace what sites hold, for the length of a block.

    Blocks nest: at one site the inner one wins. Gradients flow through what is not replaced.

    Args:
        model: the decoder, with the wanted adapter active; any dtype, values are cast to it.
        anatomy: its parts.
        sites: which, or their names; any kind but ``bias`` and ``all``.
        how: ``zero``, ``mean`` (``values`` from ``mean_activations``) or ``resample`` (from
            ``resampled``).
        values: what goes in; none for ``zero``.
        positions: which tokens, see ``interventions.Positions``.

    Raises:
        SiteError: a site does not exist or cannot be ablated, or its value is missing, of another
            shape or not finite.
        ConfigError: ``how`` or ``positions`` is not understood.
        ModelError: the anatomy is another model's.
    """
    check_anatomy(model, anatomy)
    check_positions(positions)
    chosen = ablatable(anatomy, sites)
    held = _held(anatomy, chosen, how, values, compute_dtype(model))
    with placed(_placements(anatomy, held, positions)):
        yield


def ablatable(anatomy: Anatomy, sites: Site | str | Iterable[Site | str]) -> tuple[Site, ...]:
    """Sites in depth order, each once, checked.

    Raises:
        SiteError: one does not exist, or is ``bias`` or ``all``.
    """
    given = (sites,) if isinstance(sites, (Site, str)) else sites
    chosen = sorted({parse_site(site) if isinstance(site, str) else site for site in given})
    for site in chosen:
        if site.kind in ("bias", "all"):
            raise SiteError(
                "This site cannot be ablated",
                seen=str(site),
                allowed=", ".join(kind for kind in get_args(Kind) if kind not in ("bias", "all")),
                remedy="ablate heads and MLPs, which together with embed are the whole model",
            )
        anatomy.check_site(site)
    return tuple(chosen)


def _held(
    anatomy: Anatomy,
    sites: Sequence[Site],
    how: str,
    values: SiteValues | None,
    dtype: torch.dtype,
) -> dict[Site, Tensor]:
    """What goes in at each site."""
    if how not in get_args(How):
        raise ConfigError(
            "This way to ablate is not known",
            seen=repr(how),
            allowed=", ".join(get_args(How)),
            remedy=nearest(str(how), get_args(How)),
        )
    if (how == "zero") != (values is None):
        raise ConfigError(
            "The values do not go with the way to ablate",
            seen=f"how={how!r} {'without' if values is None else 'with'} values",
            allowed="values for mean and resample, none for zero",
            remedy="give values=mean_activations(run, anatomy) or values=resampled(...)",
        )
    if values is None:
        return {site: torch.zeros(_dim(anatomy, site), dtype=dtype) for site in sites}
    return {site: _checked(values, site, _dim(anatomy, site), dtype) for site in sites}


def _dim(anatomy: Anatomy, site: Site) -> int:
    return anatomy.head_dim if site.kind in ("head", "q", "k", "v") else anatomy.width


def _checked(values: SiteValues, site: Site, dim: int, dtype: torch.dtype) -> Tensor:
    if site not in values.values:
        kept = site.kind not in ("q", "k", "v")
        raise SiteError(
            "There is no value for a site",
            seen=f"{site}, values of {values.origin}",
            allowed=f"{len(values.values)} other sites",
            remedy="give a value for every site that is ablated"
            if kept
            else f"run clean with parts=({site.kind!r},)",
        )
    value = values.values[site]
    finite = bool(torch.isfinite(value.to(dtype)).all())
    if value.shape != (dim,) or not finite:
        raise SiteError(
            "A value does not fit its site",
            seen=f"{site}: shape {tuple(value.shape)}" + ("" if finite else ", not all finite"),
            allowed=f"{dim} finite numbers",
            remedy="take values from a clean run of a model of this shape",
        )
    return value


def _placements(
    anatomy: Anatomy, held: Mapping[Site, Tensor], positions: Positions
) -> list[Placement]:
    """One placement for all sites of one kind in one layer."""
    placements: list[Placement] = []
    ordered = sorted(held)
    for (kind, layer), group in groupby(ordered, lambda site: (site.kind, site.layer or 0)):
        members = list(group)
        block = anatomy.blocks[layer]
        by_head = [(site.head or 0, held[site]) for site in members]
        whole = _fill(held[members[0]], positions)
        if kind == "head":
            # Heads lie one after another at the input of the output projection.
            features = torch.arange(anatomy.n_heads * anatomy.head_dim)
            at_z = Projection(block.out_proj, features.view(anatomy.n_heads, -1))
            placements.append(
                Placement(block.out_proj, "input", _fill_heads(at_z, by_head, positions))
            )
        elif kind in ("q", "k", "v"):
            projection: Projection = getattr(block, kind)
            change = _fill_heads(projection, by_head, positions)
            placements.append(Placement(projection.module, "output", change))
        elif kind == "resid_mid":
            placements += at_middle(block, whole)
        elif kind in ("attn", "mlp"):
            module = block.out_proj if kind == "attn" else block.mlp
            placements.append(Placement(module, "output", whole))
        else:
            placements.append(at_stream(anatomy, layer + (kind == "resid_post"), whole))
    return placements


def _fill(value: Tensor, positions: Positions) -> Change:
    """Put one value at some tokens."""

    def change(x: Tensor) -> Tensor:
        filled = x.clone()
        filled[:, tokens_at(x, positions)] = value.to(x)
        return filled

    return change


def _fill_heads(
    projection: Projection, by_head: Sequence[tuple[int, Tensor]], positions: Positions
) -> Change:
    """Put values of heads at some tokens, in the layout of a projection's output."""

    def change(x: Tensor) -> Tensor:
        filled = x.clone()
        view = filled.transpose(1, 2) if projection.layout == "head_token" else filled
        tokens = tokens_at(view, positions)
        for head, value in by_head:
            if projection.layout != "features":
                view[:, tokens, head] = value.to(x)
                continue
            features = projection.features[head].to(x.device)
            rows = tokens if isinstance(tokens, slice) else tokens[:, None]
            view[:, rows, features] = value.to(x)
        return filled

    return change
