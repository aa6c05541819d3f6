"""Where are the parts of this decoder? Layers, heads, projections, norms, unembedding.

Every mechanism is written against this description, never against a model class. A supported
architecture is one entry of ``families.FAMILIES``. What the entry says is checked on the live model
before it is used: shapes must agree with the configuration and each norm must compute what
``models.norms`` assumes. An unknown architecture is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moralscope.core.errors import ModelError, SiteError, nearest
from moralscope.core.site import Kind, Site
from moralscope.models.families import FAMILIES, Family
from moralscope.models.forward import full_precision
from moralscope.models.norms import check_norm
from moralscope.models.projections import Layout, Projection, blocks_of, interleaved
from moralscope.models.weights import in_features


@dataclass(frozen=True)
class Block:
    """The parts of one decoder layer.

    Attributes:
        layer: the layer itself; its input is the residual stream before attention.
        out_proj: attention's output projection; heads live at its input.
        mlp: the MLP.
        attention_post_norm, mlp_post_norm: norms applied to a sub-layer's output before it is
            added to the residual stream, or None.
        q, k, v: queries, keys and values before rotary positions, after their own norms.
    """

    layer: nn.Module
    out_proj: nn.Module
    mlp: nn.Module
    attention_post_norm: nn.Module | None
    mlp_post_norm: nn.Module | None
    q: Projection
    k: Projection
    v: Projection


@dataclass(frozen=True)
class Anatomy:
    """A decoder taken apart.

    Attributes:
        model_type: the family's name.
        n_layers, n_heads, n_kv_heads, head_dim, width: its sizes.
        mlp_width: the MLP's inner width.
        blocks: its layers.
        core: the decoder below the unembedding.
        embed: token embedding.
        final_norm: the norm before the unembedding.
        unembed: the linear map to logits.
        softcap: ``c`` in ``c * tanh(logit / c)``, or None.
        unit_offset: whether norm gains are ``1 + weight``.
        parallel: whether attention and MLP read the same stream, so that there is no stream
            between them.
    """

    model_type: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    width: int
    mlp_width: int
    blocks: tuple[Block, ...]
    core: nn.Module
    embed: nn.Module
    final_norm: nn.Module
    unembed: nn.Module
    softcap: float | None
    unit_offset: bool
    parallel: bool

    @property
    def component_sites(self) -> tuple[Site, ...]:
        """Every head and MLP, in depth order: ``n_layers * (n_heads + 1)`` sites."""
        return self.sites("head", "mlp")

    def sites(self, *kinds: Kind) -> tuple[Site, ...]:
        """Every site of some kinds, in depth order; ``resid_mid`` only where there is one."""
        count = {
            "head": self.n_heads,
            "q": self.n_heads,
            "k": self.n_kv_heads,
            "v": self.n_kv_heads,
        }
        found: list[Site] = []
        for kind in kinds:
            if kind in ("embed", "bias", "all"):
                found.append(Site(kind))
            elif kind in count:
                found += [
                    Site(kind, layer, head)
                    for layer in range(self.n_layers)
                    for head in range(count[kind])
                ]
            elif kind != "resid_mid" or not self.parallel:
                found += [Site(kind, layer) for layer in range(self.n_layers)]
        return tuple(sorted(found))

    def check_site(self, site: Site) -> None:
        """Refuse a site that this decoder does not have.

        Raises:
            SiteError: names it and the nearest existing one.
        """
        if site.kind == "resid_mid" and self.parallel:
            raise SiteError(
                "The model has no such site",
                seen=str(site),
                allowed="resid_pre and resid_post: this model's attention and MLP are parallel",
                remedy=f"the nearest is L{site.layer}.resid_post",
            )
        heads = self.n_kv_heads if site.kind in ("k", "v") else self.n_heads
        layer = None if site.layer is None else min(site.layer, self.n_layers - 1)
        head = None if site.head is None else min(site.head, heads - 1)
        near = Site(site.kind, layer, head)
        if near != site:
            raise SiteError(
                "The model has no such site",
                seen=str(site),
                allowed=f"layers 0 to {self.n_layers - 1}, heads 0 to {self.n_heads - 1}, "
                f"key/value heads 0 to {self.n_kv_heads - 1}",
                remedy=f"the nearest is {near}",
            )

    @property
    def shape(self) -> str:
        """What two decoders must share for activations of one to be put into the other."""
        return (
            f"{self.model_type}, {self.n_layers} layers, {self.n_heads} heads of {self.head_dim}, "
            f"{self.n_kv_heads} key/value heads, width {self.width}"
        )

    def same_shape(self, other: Anatomy) -> bool:
        """Whether activations of one can be put into the other."""
        return self.shape == other.shape


def dissect(model: nn.Module) -> Anatomy:
    """Find the parts of a decoder.

    Args:
        model: a Hugging Face causal language model, with or without PEFT layers.

    Raises:
        ModelError: the architecture is not supported, or does not look as its family should;
            the message names what is missing.
    """
    config: Any = model.config
    name = str(getattr(config, "model_type", type(model).__name__))
    if name not in FAMILIES:
        raise ModelError(
            f"The architecture {name!r} is not supported",
            seen=type(model).__name__,
            allowed=", ".join(sorted(FAMILIES)),
            remedy="use a model of a supported family"
            + _likeness(name)
            + "; behaviour can be scored on any decoder, attribution and patching need its anatomy:"
            " the places of its layers, projections and norms (one entry of models.families)",
        )
    family = FAMILIES[name]
    core = _part(model, family.core, name)
    n_heads = int(config.num_attention_heads)
    sizes = _Sizes(
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads)
        if family.grouped
        else n_heads,
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // n_heads),
    )
    layers = _part(core, family.layers, name)
    parallel = family.parallel_flag is not None and bool(getattr(config, family.parallel_flag))
    anatomy = Anatomy(
        model_type=name,
        n_layers=int(config.num_hidden_layers),
        n_heads=sizes.n_heads,
        n_kv_heads=sizes.n_kv_heads,
        head_dim=sizes.head_dim,
        width=int(config.hidden_size),
        mlp_width=_mlp_width(config),
        blocks=tuple(_block(layer, family, name, sizes) for layer in layers.children()),
        core=core,
        embed=_part(core, family.embed, name),
        final_norm=_part(core, family.final_norm, name),
        unembed=_part(model, family.unembed, name),
        softcap=getattr(config, "final_logit_softcapping", None),
        unit_offset=family.unit_offset,
        parallel=parallel,
    )
    _verify(model, anatomy)
    return anatomy


def _likeness(name: str) -> str:
    close = nearest(name, FAMILIES)
    return f" ({close})" if close.startswith("did") else ""


def _mlp_width(config: Any) -> int:
    for name in ("intermediate_size", "n_inner"):
        value = getattr(config, name, None)
        if value:
            return int(value)
    return 4 * int(config.hidden_size)


@dataclass(frozen=True)
class _Sizes:
    n_heads: int
    n_kv_heads: int
    head_dim: int


def _part(parent: nn.Module, path: str, family: str) -> nn.Module:
    try:
        return parent.get_submodule(path)
    except AttributeError as cause:
        raise ModelError(
            f"This {family} model lacks the part {path!r}",
            seen=type(parent).__name__,
            allowed="a causal language model of the family as transformers builds it",
            remedy="load it with AutoModelForCausalLM, not as a bare encoder or a wrapped copy",
        ) from cause


def _block(layer: nn.Module, family: Family, name: str, sizes: _Sizes) -> Block:
    def norm(path: str | None) -> nn.Module | None:
        return None if path is None else _part(layer, path, name)

    q, k, v = _projections(layer, family, name, sizes)
    return Block(
        layer,
        _part(layer, family.out_proj, name),
        _part(layer, family.mlp, name),
        norm(family.attention_post_norm),
        norm(family.mlp_post_norm),
        q,
        k,
        v,
    )


def _projections(
    layer: nn.Module, family: Family, name: str, sizes: _Sizes
) -> tuple[Projection, Projection, Projection]:
    heads, kv, dim = sizes.n_heads, sizes.n_kv_heads, sizes.head_dim
    if family.fused is not None:
        module = _part(layer, family.fused, name)
        if family.interleaved:
            q, k, v = (interleaved(heads, dim, part) for part in range(3))
        else:
            q = blocks_of(heads, dim)
            k = blocks_of(kv, dim, heads * dim)
            v = blocks_of(kv, dim, (heads + kv) * dim)
        return Projection(module, q), Projection(module, k), Projection(module, v)

    def own(path: str, normed: str | None, count: int) -> Projection:
        layout: Layout = "features" if normed is None else family.norm_layout
        return Projection(_part(layer, normed or path, name), blocks_of(count, dim), layout)

    return (
        own(family.query, family.query_norm, heads),
        own(family.key, family.key_norm, kv),
        own(family.value, None, kv),
    )


@torch.no_grad()
def _verify(model: nn.Module, anatomy: Anatomy) -> None:
    """Check the description against the live model."""
    found = {(in_features(b.out_proj), len(anatomy.blocks)) for b in anatomy.blocks}
    expected = {(anatomy.n_heads * anatomy.head_dim, anatomy.n_layers)}
    if found != expected:
        raise ModelError(
            f"This {anatomy.model_type} model is not built as its configuration says",
            seen=f"(inputs of the output projection, layers) {sorted(found)}",
            allowed=f"{sorted(expected)}",
            remedy="check that the weights and config.json belong together",
        )
    norms = [anatomy.final_norm]
    for block in anatomy.blocks:
        norms += [n for n in (block.attention_post_norm, block.mlp_post_norm) if n is not None]
    with full_precision(model):
        for norm in norms:
            check_norm(norm, anatomy.model_type, unit_offset=anatomy.unit_offset)
