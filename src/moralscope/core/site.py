"""Where does something live inside a model? One name for every place, printed the same everywhere.

Grammar (``L`` is a layer from 0, ``h`` an attention head, ``kv`` a key/value head):

    L8.mlp   L5.attn   L5.h3   L5.h3.q   L5.kv1.k   L5.kv1.v
    L5.resid_pre   L5.resid_mid   L5.resid_post   embed   bias   all

Key and value sites belong to key/value heads: query heads that share one are not separate
sites. An edge is ``SENDER>RECEIVER``. TransformerLens names are accepted as aliases
(``blocks.8.hook_mlp_out``, ``blocks.5.attn.hook_z[:, :, 3]``). Sites sort by depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from moralscope.core.errors import SiteError

Kind = Literal[
    "embed", "resid_pre", "head", "q", "k", "v", "attn", "resid_mid", "mlp", "resid_post",
    "bias", "all",
]  # fmt: skip

_ORDER = {kind: rank for rank, kind in enumerate(get_args(Kind))}
_GLOBAL = ("embed", "bias", "all")
_OWN = re.compile(
    r"L(?P<layer>\d+)\.(?:"
    r"(?P<plain>mlp|attn|resid_pre|resid_mid|resid_post)"
    r"|h(?P<head>\d+)(?P<q>\.q)?"
    r"|kv(?P<kv>\d+)\.(?P<part>[kv]))"
)
_LENS = re.compile(
    r"blocks\.(?P<layer>\d+)\.(?:"
    r"hook_(?P<plain>mlp_out|attn_out|resid_pre|resid_mid|resid_post)"
    r"|attn\.hook_(?P<part>z|result|q|k|v)\[:, ?:, ?(?P<index>\d+)\])"
)
_LENS_KINDS: dict[str, Kind] = {
    "mlp_out": "mlp", "attn_out": "attn", "z": "head", "result": "head",
    "q": "q", "k": "k", "v": "v",
    "resid_pre": "resid_pre", "resid_mid": "resid_mid", "resid_post": "resid_post",
}  # fmt: skip
_PLAIN: dict[str, Kind] = {
    "mlp": "mlp", "attn": "attn", "resid_pre": "resid_pre", "resid_mid": "resid_mid",
    "resid_post": "resid_post",
}  # fmt: skip
_ALIASES: dict[str, Kind] = {"embed": "embed", "hook_embed": "embed", "bias": "bias", "all": "all"}


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a decoder.

    Attributes:
        kind: what it is.
        layer: decoder layer from 0; None for ``embed``, ``bias`` and ``all``.
        head: attention head (``head``, ``q``) or key/value head (``k``, ``v``), from 0.
    """

    kind: Kind
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        indexed = self.kind in ("head", "q", "k", "v")
        placed = (self.layer is None) == (self.kind in _GLOBAL) and (self.head is None) != indexed
        if not placed or min(self.layer or 0, self.head or 0) < 0:
            raise SiteError(
                "A site has the wrong indices for its kind",
                seen=f"kind {self.kind}, layer {self.layer}, head {self.head}",
                allowed="no layer for embed, bias, all; a head for head, q, k, v alone; "
                "both counted from 0",
                remedy="build sites with parse_site('L5.h3')",
            )

    def __str__(self) -> str:
        if self.layer is None:
            return self.kind
        prefix = f"L{self.layer}."
        if self.kind == "head":
            return f"{prefix}h{self.head}"
        if self.kind == "q":
            return f"{prefix}h{self.head}.q"
        if self.kind in ("k", "v"):
            return f"{prefix}kv{self.head}.{self.kind}"
        return prefix + self.kind

    def __lt__(self, other: Site) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[float, int, int]:
        edge = {"embed": -1.0, "bias": float("inf"), "all": float("inf")}
        depth = edge[self.kind] if self.layer is None else float(self.layer)
        return (depth, _ORDER[self.kind], -1 if self.head is None else self.head)


@dataclass(frozen=True, slots=True)
class Edge:
    """A path from a sending site directly to a receiving one, printed ``SENDER>RECEIVER``."""

    sender: Site
    receiver: Site

    def __str__(self) -> str:
        return f"{self.sender}>{self.receiver}"


def every_site(
    *kinds: Kind, n_layers: int, n_heads: int, n_kv_heads: int, parallel: bool = False
) -> tuple[Site, ...]:
    """Every site of some kinds that a decoder of these sizes has, in depth order.

    Args:
        kinds: which kinds.
        n_layers: decoder layers.
        n_heads: attention heads of a layer.
        n_kv_heads: its key/value heads.
        parallel: whether attention and MLP work in parallel: then there is no ``resid_mid``.
    """
    count = {"head": n_heads, "q": n_heads, "k": n_kv_heads, "v": n_kv_heads}
    found: list[Site] = []
    for kind in kinds:
        if kind in _GLOBAL:
            found.append(Site(kind))
        elif kind in count:
            places = ((layer, head) for layer in range(n_layers) for head in range(count[kind]))
            found += [Site(kind, layer, head) for layer, head in places]
        elif kind != "resid_mid" or not parallel:
            found += [Site(kind, layer) for layer in range(n_layers)]
    return tuple(sorted(found))


def parse_site(text: str) -> Site:
    """Read a site name, ours or TransformerLens's.

    ``str(parse_site(str(site))) == str(site)`` for every site.

    Raises:
        SiteError: the text is not a site name.
    """
    name = text.strip()
    if name in _ALIASES:
        return Site(_ALIASES[name])
    if own := _OWN.fullmatch(name):
        return _own_site(own)
    if lens := _LENS.fullmatch(name):
        layer = int(lens["layer"])
        if lens["plain"]:
            return Site(_LENS_KINDS[lens["plain"]], layer)
        return Site(_LENS_KINDS[lens["part"]], layer, int(lens["index"]))
    raise SiteError(
        "This is not the name of a site",
        seen=repr(text),
        allowed="L5.h3, L5.h3.q, L5.kv1.k, L5.kv1.v, L5.attn, L8.mlp, L5.resid_pre|mid|post, "
        "embed, bias, all, or a TransformerLens hook name",
        remedy="write the layer as L and the head as h, both counted from 0",
    )


def _own_site(found: re.Match[str]) -> Site:
    layer = int(found["layer"])
    if found["plain"]:
        return Site(_PLAIN[found["plain"]], layer)
    if found["head"]:
        return Site("q" if found["q"] else "head", layer, int(found["head"]))
    return Site("k" if found["part"] == "k" else "v", layer, int(found["kv"]))


def parse_edge(text: str) -> Edge:
    """Read ``SENDER>RECEIVER``.

    Raises:
        SiteError: there is not exactly one ``>``, or a part is not a site.
    """
    parts = text.split(">")
    if len(parts) != 2:
        raise SiteError(
            "This is not the name of an edge",
            seen=repr(text),
            allowed="SENDER>RECEIVER, such as L3.h1>L7.mlp",
            remedy="write two sites with one > between them",
        )
    return Edge(parse_site(parts[0]), parse_site(parts[1]))
