"""Which sites matter most on these prompts? Means over prompts, with shares and agreement in sign.

For a site s with effects ``e_p(s)`` on prompts p,

    mean(s) = mean over p of e_p(s)        share(s) = mean(s) / mean over p of the whole

The whole is the full swap where activity was patched, and the sum over all components where
contributions are ranked. Shares of single sites need not add up to one: components act together. A
share of a whole below ``NO_WHOLE`` nats is null. ``same_sign`` counts the prompts on which the
effect has the sign of the mean. This orders numbers; it tests nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from moralscope.core.errors import ConfigError, nearest

RANKED = ("patching", "attribution", "paths", "ablation")
"""What can be ranked."""

NO_WHOLE = 0.05
"""Below this, in nats, there is hardly a whole to have a share of."""

_TABLES = {
    "patching": "patching",
    "attribution": "attribution",
    "paths": "edges",
    "ablation": "ablation",
}


def rankable(tables: Mapping[str, pl.DataFrame]) -> tuple[str, ...]:
    """The methods that were measured and can be ranked."""
    return tuple(name for name in RANKED if _TABLES[name] in tables)


def rank(tables: Mapping[str, pl.DataFrame], method: str) -> pl.DataFrame:
    """Every site in the order of its mean effect, largest first, for each agent or pair.

    Args:
        tables: of an explanation.
        method: one of ``RANKED``.

    Returns:
        Columns source and target (or agent), site, then the mean in nats (effect, change from
        base or contribution), share, prompts, same_sign, smallest, largest; for changes of
        attribution also their parts weights and input.

    Raises:
        ConfigError: there is no such method, or it was not measured.
    """
    known = rankable(tables)
    if method not in known:
        raise ConfigError(
            f"Sites cannot be ranked by {method!r} here",
            seen=f"measured: {', '.join(sorted(tables))}",
            allowed=", ".join(known) or "none of what was measured",
            remedy="rank approximations with evidence.approximation_gates.rank_by, which refuses "
            "those that do not agree with exact patches"
            if method == "approximation"
            else nearest(str(method), known or RANKED),
        )
    match method:
        case "patching":
            return _patches(tables["patching"])
        case "paths":
            edges = tables["edges"].with_columns(pl.col("sender").alias("site"))
            return _ordered(_means(edges, ("source", "target"), "effect"), _full(tables))
        case "ablation":
            return _ordered(_means(tables["ablation"], ("agent",), "effect"), None)
        case _:
            return _contributions(tables)


def _patches(table: pl.DataFrame) -> pl.DataFrame:
    single = table.filter(pl.col("kind") != "all")
    return _ordered(_means(single, ("source", "target"), "effect"), _full({"patching": table}))


def _full(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame | None:
    """The mean full swap of each pair, where it was measured."""
    if "patching" not in tables:
        return None
    full = tables["patching"].filter(pl.col("kind") == "all")
    return full.group_by("source", "target").agg(whole=pl.col("effect").mean())


def _means(table: pl.DataFrame, who: tuple[str, ...], value: str) -> pl.DataFrame:
    """Mean, range and agreement in sign over prompts, by who and site."""
    mean = pl.col(value).mean()
    return table.group_by(*who, "site", maintain_order=True).agg(
        mean.alias(value),
        prompts=pl.len(),
        same_sign=(pl.col(value).sign() == mean.sign()).sum(),
        smallest=pl.col(value).min(),
        largest=pl.col(value).max(),
    )


def _ordered(
    means: pl.DataFrame, whole: pl.DataFrame | None, value: str = "effect"
) -> pl.DataFrame:
    who = [name for name in ("source", "target", "agent") if name in means.columns]
    if whole is None:
        joined = means.with_columns(whole=pl.lit(None, dtype=pl.Float64))
    else:
        joined = means.join(whole, on=who, how="left", maintain_order="left")
    share = (
        pl.when(pl.col("whole").abs() >= NO_WHOLE)
        .then(pl.col(value) / pl.col("whole"))
        .alias("share")
    )
    ordered = joined.with_columns(share, order=pl.col(value).abs()).sort(
        "order", descending=True, maintain_order=True
    )
    groups = means.select(who).unique(maintain_order=True).with_row_index("place")
    rest = [c for c in ("weights", "input") if c in means.columns]
    return (
        ordered.join(groups, on=who, maintain_order="left")
        .sort("place", maintain_order=True)
        .select(*who, "site", value, "share", "prompts", "same_sign", "smallest", "largest", *rest)
    )


def _contributions(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Changes from the base where there are other agents, else the base's own contributions."""
    table = tables["attribution"].filter(pl.col("token") == -1)
    whole = table.filter(pl.col("part") == "whole").select(
        "agent", "prompt", "site", "contribution"
    )
    bases = tables["agents"].filter(pl.col("kind") == "base").get_column("agent").to_list()
    others = whole.filter(~pl.col("agent").is_in(bases))
    if others.is_empty():
        return _summed(whole, "contribution")
    base = whole.filter(pl.col("agent").is_in(bases)).select(
        "prompt", "site", before="contribution"
    )
    changes = others.join(base, on=["prompt", "site"], maintain_order="left").select(
        "agent", "prompt", "site", change=pl.col("contribution") - pl.col("before")
    )
    parts = table.filter(pl.col("part") != "whole")
    return _summed(changes, "change", parts)


def _summed(rows: pl.DataFrame, value: str, parts: pl.DataFrame | None = None) -> pl.DataFrame:
    whole = (
        rows.group_by("agent", "prompt")
        .agg(pl.col(value).sum())
        .group_by("agent")
        .agg(whole=pl.col(value).mean())
    )
    means = _means(rows, ("agent",), value)
    if parts is not None and not parts.is_empty():
        split = (
            parts.group_by("agent", "site", "part")
            .agg(pl.col("contribution").mean())
            .pivot("part", index=["agent", "site"], values="contribution")
        )
        means = means.join(split, on=["agent", "site"], how="left", maintain_order="left")
    return _ordered(means, whole, value)
