"""May sites be ranked by an approximation? Only where it agrees with exact patches.

One subject for each method and pair (``METHOD SOURCE>TARGET``). What is measured is the smallest
correlation, Pearson's or Spearman's, between estimates and exact effects over the kinds of sites
that are ranked, and over all of them together:

    measured = min over kinds, all of min(pearson, spearman)        passed: measured >= 0.8

The threshold asks for 64% of the variance; with ten patches or more such a correlation has p < .005
where there is none. An approximation that was compared on fewer, or not at all, is not available,
and nothing may be ranked by it (``rank_by``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.core.errors import EvidenceError, nearest
from moralscope.core.tables import conform
from moralscope.evidence.units import Tables

Row = dict[str, object]

MIN_CORRELATION = 0.8
"""Smallest correlation with exact patches at which an approximation may rank sites."""

MIN_PATCHES = 10
"""Fewest exact patches of a kind on which an approximation is judged."""

_PAIR = ("source", "target", "method")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well an approximation agrees with exact patches.

    Attributes:
        correlation: the smallest over what is ranked; None where it is not known.
        where: the kind of sites that it belongs to, or for which it is not known.
        reason: why it is not known, else empty.
    """

    correlation: float | None
    where: str
    reason: str


def worst_agreement(agreement: pl.DataFrame, kinds: Sequence[str]) -> Agreement:
    """The smallest correlation over kinds of sites that are ranked together.

    Args:
        agreement: the rows of one source, target and method.
        kinds: kinds that are ranked; their pooled correlation counts where there are several.
    """
    wanted = [*kinds, *(["all"] if len(kinds) > 1 else [])]
    known = {str(row["kind"]): row for row in agreement.iter_rows(named=True)}
    worst: Agreement | None = None
    for kind in wanted:
        row = known.get(kind)
        if row is None or row["n"] == 0:
            return Agreement(None, kind, "never compared with exact patches")
        if row["n"] < MIN_PATCHES:
            reason = f"compared on {row['n']} exact patches, {MIN_PATCHES} are needed"
            return Agreement(None, kind, reason)
        if row["pearson"] is None or row["spearman"] is None:
            return Agreement(None, kind, "effects or estimates do not vary")
        value = min(float(row["pearson"]), float(row["spearman"]))
        if worst is None or worst.correlation is None or value < worst.correlation:
            worst = Agreement(value, kind, "")
    return worst or Agreement(None, "all", "there is nothing to rank")


def judge_approximations(tables: Tables) -> Iterator[Row]:
    """Rows of the gates table for every method and pair of the approximations present."""
    if "approximations" in tables:
        ranked = tables["approximations"]
    elif "agreement" in tables:
        ranked = tables["agreement"].filter(pl.col("kind") != "all")
    else:
        return
    for key, rows in ranked.group_by(_PAIR, maintain_order=True):
        source, target, method = (str(part) for part in key)
        kinds = rows.get_column("kind").unique(maintain_order=True).to_list()
        found = worst_agreement(_of(tables.get("agreement"), source, target, method), kinds)
        yield _gate(f"{method} {source}>{target}", found)


def _of(agreement: pl.DataFrame | None, source: str, target: str, method: str) -> pl.DataFrame:
    if agreement is None:
        return conform("agreement", _EMPTY)
    return agreement.filter(
        (pl.col("source") == source) & (pl.col("target") == target) & (pl.col("method") == method)
    )


_EMPTY = pl.DataFrame(
    schema={"source": pl.String, "target": pl.String, "method": pl.String, "kind": pl.String,
            "n": pl.Int64, "pearson": pl.Float64, "spearman": pl.Float64}
)  # fmt: skip


def _gate(subject: str, found: Agreement) -> Row:
    value = found.correlation
    passed = None if value is None else value >= MIN_CORRELATION
    if value is None:
        advice = (
            f"Not available: {found.reason} (kind {found.where}); patch a sample of sites exactly "
            "and compare."
        )
    elif passed:
        advice = f"Estimates correlate with exact patches by {value:.2f} or more."
    else:
        advice = (
            f"Estimates correlate with exact patches by only {value:.2f} (kind {found.where}); do "
            "not rank sites by them, patch exactly."
        )
    return {
        "gate": "approximation",
        "subject": subject,
        "measured": value,
        "threshold": MIN_CORRELATION,
        "passed": passed,
        "advice": advice,
    }


def rank_by(
    approximations: pl.DataFrame, agreement: pl.DataFrame, *, kinds: Sequence[str] | None = None
) -> pl.DataFrame:
    """Sites in the order of their estimated effects, where the estimates may be believed.

    Args:
        approximations: the table, any number of pairs and methods; each is ranked on its own.
        agreement: their correlations with exact patches.
        kinds: which kinds of sites to rank together; all that were estimated unless given.

    Returns:
        ``source, target, method, rank`` (from 1), ``site, layer, kind, head, n_prompts,
        mean_estimate, mean_absolute_estimate`` in nats, largest absolute estimate first.

    Raises:
        EvidenceError: an approximation correlates below 0.8, was not compared, or there are no
            such sites.
        TableError: a table does not follow its schema.
    """
    estimates = conform("approximations", approximations)
    compared = conform("agreement", agreement)
    present: list[str] = estimates.get_column("kind").unique(maintain_order=True).to_list()
    chosen = present if kinds is None else list(kinds)
    for kind in chosen:
        if kind not in present:
            raise EvidenceError(
                "No effect of this kind of site was estimated",
                seen=kind,
                allowed=", ".join(present) or "none: the table is empty",
                remedy=nearest(kind, present) if present else "estimate effects first",
            )
    ranked = estimates.filter(pl.col("kind").is_in(chosen))
    for key, _ in ranked.group_by(_PAIR, maintain_order=True):
        source, target, method = (str(part) for part in key)
        found = worst_agreement(_of(compared, source, target, method), chosen)
        _refuse(method, f"{source}>{target}", found)
    by = [*_PAIR, "site", "layer", "kind", "head"]
    means = ranked.group_by(by, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_prompts"),
        pl.col("estimate").mean().alias("mean_estimate"),
        pl.col("estimate").abs().mean().alias("mean_absolute_estimate"),
    )
    order = ["mean_absolute_estimate", "site"]
    pairs = [
        group.sort(order, descending=[True, False]).with_row_index("rank", offset=1)
        for _, group in means.group_by(_PAIR, maintain_order=True)
    ]
    if not pairs:
        return means.with_columns(rank=pl.lit(0, dtype=pl.Int64)).select(*_COLUMNS)
    return pl.concat(pairs).with_columns(pl.col("rank").cast(pl.Int64)).select(*_COLUMNS)


_COLUMNS = (*_PAIR, "rank", "site", "layer", "kind", "head", "n_prompts", "mean_estimate",
            "mean_absolute_estimate")  # fmt: skip


def _refuse(method: str, pair: str, found: Agreement) -> None:
    value = found.correlation
    if value is not None and value >= MIN_CORRELATION:
        return
    seen = (
        f"not available ({found.reason}, kind {found.where})"
        if value is None
        else f"{value:.2f} (kind {found.where})"
    )
    raise EvidenceError(
        f"Sites of {pair} cannot be ranked by {method}",
        seen=f"correlation with exact patches {seen}",
        allowed=f"{MIN_CORRELATION} or more, on {MIN_PATCHES} patches or more of each kind",
        remedy="patch exactly, or compare more exact patches with it"
        if value is None
        else "patch exactly",
    )
