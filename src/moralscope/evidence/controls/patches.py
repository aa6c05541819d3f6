"""Is it what a patch writes, or only how much? Vectors of known length and of known effect.

*Random directions* (negative): at each site the size of the mean effect over prompts, of the patch
and of directions drawn at random that are as long as its change; ``measured`` is the median over
sites of their ratio, with an exact interval of order statistics. If the patch's direction were as
good as any, it would do more than all D random ones at a site with probability 1 / (D + 1); the
number of sites where it does has a binomial p, and the control holds where that lies below .05.

*Planted writes* (positive): the effect ``m`` of a vector by the rows of a sweep must be its effect
``e`` in an ordinary forward: ``|m - e| <= 1e-4 max(1, |e|)`` in float32, and ``sum m e / sum e^2``
is 1. Effects too small to tell the two apart say nothing.

*Random sites* (negative): what share of the full swap a circuit reaches, beside random sets of as
many sites of the same kinds (table ``circuit_curves``).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
from scipy import special

from moralscope.evidence.controls.result import Result, absent
from moralscope.evidence.gates.site_quality import mantissa_bits
from moralscope.evidence.gates.sites import sweep_name
from moralscope.evidence.ledger import Setting, probability, size
from moralscope.evidence.statistics.intervals import Interval
from moralscope.evidence.statistics.resampling import Array

MAX_DEVIATION = 1e-4
"""Largest deviation from an ordinary forward, share of max(1, |effect|), in float32."""

NARROW_DEVIATION = 0.1
"""The same where weights and activations are narrower than float32."""

LEVEL = 0.05
"""Of the binomial test of patches beside random directions."""

_FLOAT32_BITS = 23
_TELLING = 10.0
"""Effects must be so many times the tolerance for their agreement to say anything."""


def judge_patches(setting: Setting) -> Iterator[Result]:
    """Controls of every pair that was patched into another agent, and of every circuit."""
    for source, target in _pairs(setting):
        rows = _rows(setting, source, target)
        yield _random_directions(f"{source}>{target}", rows)
        yield _planted(setting, (source, target), rows)
    yield from _random_sites(setting)


def _pairs(setting: Setting) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for name in ("patching", "control_patches"):
        if setting.has(name):
            pairs = setting.tables[name].select("source", "target").unique(maintain_order=True)
            found |= dict.fromkeys((str(a), str(b)) for a, b in pairs.iter_rows() if a != b)
    return list(found)


def _rows(setting: Setting, source: str, target: str) -> pl.DataFrame | None:
    if not setting.has("control_patches"):
        return None
    own = (pl.col("source") == source) & (pl.col("target") == target)
    return setting.tables["control_patches"].filter(own)


def _random_directions(pair: str, rows: pl.DataFrame | None) -> Result:
    def unknown(reason: str) -> Result:
        return absent("random_direction", pair, "negative", "ratio", reason)

    drawn = None if rows is None else rows.filter(pl.col("control") == "random_direction")
    if drawn is None or drawn.is_empty():
        return unknown("write random directions where patches are written (random_directions).")
    known = drawn.drop_nulls("effect")
    if known.is_empty():
        return unknown(
            "the patches change nothing at any of the sites, so that no random direction could be "
            "given their length; the two agents compute the same."
        )
    compared = known.drop_nulls("source_effect")
    if compared.is_empty():
        return unknown("patch the same sites on the same prompts to compare with.")
    sizes = _sizes(compared)
    real, random, most = (sizes.get_column(c).to_numpy() for c in ("real", "random", "most"))
    ratios = real / np.where(random > 0.0, random, np.nan)
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        return unknown("no random direction has any effect on these prompts.")
    middle, beyond = float(np.median(ratios)), int((real > most).sum())
    interval = median_interval(ratios)
    draws = compared.get_column("draw").n_unique()
    chance = 1.0 / (draws + 1)
    p = float(special.bdtrc(beyond - 1, len(sizes), chance)) if beyond else 1.0
    passed = p < LEVEL
    meaning = (
        "what is written matters, not only how much."
        if passed
        else "that what is written matters, and not only how much, does not show at these sites."
    )
    return Result(
        control="random_direction",
        subject=pair,
        kind="negative",
        measured=middle,
        interval=interval,
        expected=1.0,
        unit="ratio",
        n=len(sizes),
        passed=passed,
        sentence=f"Beside {draws} random {'directions' if draws > 1 else 'direction'} as long as "
        f"the patch's own change, on {compared.get_column('prompt').n_unique()} prompts, the patch "
        f"does {size(middle)} times as much (median over {len(sizes)} sites), and more than "
        f"each of them at {beyond} of {len(sizes)} sites, where chance would give "
        f"{chance * len(sizes):.3g} ({probability(p)}): {meaning}",
    )


def _sizes(rows: pl.DataFrame) -> pl.DataFrame:
    """Sizes of mean effects over prompts: (site, real, random: mean over draws, most: largest)."""
    by_draw = rows.group_by("site", "draw", maintain_order=True).agg(
        random=pl.col("effect").mean().abs(), real=pl.col("source_effect").mean().abs()
    )
    return by_draw.group_by("site", maintain_order=True).agg(
        real=pl.col("real").first(), random=pl.col("random").mean(), most=pl.col("random").max()
    )


def median_interval(values: Array, level: float = 0.95) -> Interval | None:
    """Distribution-free interval of a median: order statistics, at least the level; else None.

    ``x_(k) to x_(n + 1 - k)`` with the largest k such that ``P(Binomial(n, 1/2) < k)`` is at most
    half of what the level leaves.
    """
    ordered = np.sort(values)
    n = len(ordered)
    k = 0
    while k < n // 2 and float(special.bdtr(k, n, 0.5)) <= (1.0 - level) / 2.0:
        k += 1
    return None if k == 0 else (float(ordered[k - 1]), float(ordered[n - k]))


def _planted(setting: Setting, pair: tuple[str, str], rows: pl.DataFrame | None) -> Result:
    name = ">".join(pair)

    def unknown(reason: str) -> Result:
        return absent("planted_write", name, "positive", "ratio", reason)

    planted = None if rows is None else rows.filter(pl.col("control") == "planted")
    if planted is None or planted.is_empty():
        return unknown("write a vector of known effect where patches are written (planted).")
    known = planted.drop_nulls(["effect", "expected"])
    effect, expected = (known.get_column(c).to_numpy() for c in ("effect", "expected"))
    allowed = _tolerance(setting, pair[1])
    if not len(known) or float(np.abs(expected).max()) < _TELLING * allowed:
        return unknown(
            "the planted vectors have no effect to be found, because the patches change nothing or "
            "next to nothing; the two agents compute the same."
        )
    slope = float((effect * expected).sum() / (expected**2).sum())
    worst = float((np.abs(effect - expected) / np.maximum(1.0, np.abs(expected))).max())
    passed = worst <= allowed
    sites = known.get_column("site").n_unique()
    meaning = (
        "patches are where they claim to be and do what they say."
        if passed
        else "patches of this pair do not do what they say, so none of their effects can be "
        "trusted."
    )
    return Result(
        control="planted_write",
        subject=name,
        kind="positive",
        measured=slope,
        interval=None,
        expected=1.0,
        unit="ratio",
        n=known.get_column("prompt").n_unique(),
        passed=passed,
        sentence=f"Vectors of known length written at {sites} {'sites' if sites > 1 else 'site'}, "
        f"at full and at half size: measured as patches are, their effects are {slope:.6g} times "
        f"those of an ordinary forward, and deviate by at most {worst:.1e} of max(1, effect), "
        f"where {allowed:.0e} is allowed: {meaning}",
    )


def _tolerance(setting: Setting, target: str) -> float:
    if not setting.has("agents"):
        return MAX_DEVIATION
    stored = setting.tables["agents"].filter(pl.col("agent") == target).get_column("dtype")
    bits = mantissa_bits(str(stored[0])) if len(stored) else None
    narrow = bits is not None and bits < _FLOAT32_BITS
    return NARROW_DEVIATION if narrow else MAX_DEVIATION


def _random_sites(setting: Setting) -> Iterator[Result]:
    if not setting.has("circuit_curves"):
        return
    curves = setting.tables["circuit_curves"].filter(pl.col("curve") == "faithfulness")
    key = ["source", "target", "positions", "write", "circuit"]
    several = curves.select(key).unique().height > curves.select(key[:-1]).unique().height
    for (*how, circuit), rows in curves.group_by(key, maintain_order=True):
        source, target, positions, write = map(str, how)
        name = sweep_name(source, target, positions, write)
        found = _beside_random(f"{name} {circuit}" if several else name, rows)
        if found is not None:
            yield found


def _beside_random(subject: str, rows: pl.DataFrame) -> Result | None:
    own = rows.filter(pl.col("sets") == "circuit")
    random = rows.filter(pl.col("sets") == "random")
    sizes = set(own.get_column("size").to_list()) & set(random.get_column("size").to_list())
    if not sizes:
        return None
    at = pl.col("size") == max(sizes)
    reached = float(own.filter(at).get_column("share").to_numpy()[0])
    shares = random.filter(at).get_column("share").to_numpy()
    low, high = (float(q) for q in np.quantile(shares, [0.025, 0.975]))
    passed = reached > float(shares.max())
    meaning = (
        "which sites they are matters."
        if passed
        else "as many sites drawn at random reach as much, so the circuit is not special."
    )
    return Result(
        control="random_sites",
        subject=subject,
        kind="negative",
        measured=float(shares.mean()),
        interval=(low, high),
        expected=reached,
        unit="share of the full swap",
        n=len(shares),
        passed=passed,
        sentence=f"{max(sizes)} sites of the circuit reach {reached:.0%} of the full swap; random "
        f"sets of as many sites of the same kinds reach {float(shares.mean()):.0%} on average and "
        f"{float(shares.max()):.0%} at most in {len(shares)} draws: {meaning}",
    )
