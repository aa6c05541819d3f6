"""What would numerical noise be taken for? The base against itself, by the test of changes.

The base was measured once more under another attention kernel, and with its weights rounded to
another dtype (table ``replicas``). Its differences from itself go through the test that the claims
``change:`` rest on: means over the prompts of a scenario, sign-flips of scenarios. Rounding is a
real change of the weights, so a small p there is no fault of the test; it shows how small an effect
can be and still be found, and the size is what counts. It must lie well below what is claimed:

    |mean shift|, with its whole interval  <  the smallest change from base that the test finds

or, where it finds none, below the margin within which changes count as equivalent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from moralscope.evidence.controls.families import change_means
from moralscope.evidence.controls.result import Result, absent
from moralscope.evidence.findings.behaviour import behaviour
from moralscope.evidence.ledger import Setting, between, probability, signed, size
from moralscope.evidence.statistics.intervals import cluster_interval
from moralscope.evidence.statistics.resampling import max_t, sign_flip

_DONE = {
    "kernel": "measured once more with the {setting} attention kernel",
    "dtype": "measured once more with its weights held in {setting}",
}
_SWITCH = {
    "kernel": "measure the base under another kernel (controls: kernel)",
    "dtype": "measure the base in another dtype (controls: dtype); a 4-bit base has no other",
}


def judge_numerical(setting: Setting) -> Iterator[Result]:
    """Per base and kind of change its mean shift, beside the smallest change that is found."""
    bases = _bases(setting)
    scale, named = _scale(setting)
    for base in bases:
        for change in _DONE:
            yield _judge(setting, base, change, (scale, named))


def _bases(setting: Setting) -> list[str]:
    """Bases with log-odds that others are compared with, and those that were replicated."""
    found = behaviour(setting)
    named = [] if found is None else list(found.bases.values())
    if setting.has("replicas"):
        named += setting.tables["replicas"].get_column("agent").to_list()
    return list(dict.fromkeys(named))


def _scale(setting: Setting) -> tuple[float | None, str]:
    """The smallest change that is found, or the margin of equivalence; and what it is called."""
    means = change_means(setting)
    if means is not None:
        # The stream of the claims themselves, so that what is found here is what they find.
        tested = max_t(means, setting.rng("agents"), setting.draws)
        sizes = np.abs(means.mean(axis=0))[tested.p_adjusted < setting.alpha]
        if len(sizes):
            return float(sizes.min()), "the smallest change from base that the test finds"
    found = behaviour(setting)
    margins = [m for m in found.margins.values() if m > 0.0] if found is not None else []
    if not margins:
        return None, ""
    return min(margins), "the margin within which changes count as equivalent"


def _judge(setting: Setting, base: str, change: str, scale: tuple[float | None, str]) -> Result:
    subject, unit = f"{change} {base}", "nats"
    rows = _rows(setting, base, change)
    prompts, open_ones = rows.height, rows.get_column("shift").null_count()
    if not prompts or open_ones:
        reason = (
            f"{_SWITCH[change]}."
            if not prompts
            else f"log-odds are undefined on {open_ones} of {prompts} prompts; find out why the "
            "scorer gave none."
        )
        return absent("numerical", subject, "negative", unit, reason)
    means = rows.group_by("scenario", maintain_order=True).agg(pl.col("shift").mean())
    values = means.get_column("shift").to_numpy()
    largest = float(rows.get_column("shift").abs().to_numpy().max())
    kernel = ", ".join(rows.get_column("setting").unique(maintain_order=True).to_list())
    mean = float(values.mean())
    interval = cluster_interval(values, setting.rng("controls", subject), draws=setting.draws)
    p, _ = sign_flip(values, setting.rng("controls", "flips", subject), setting.draws)
    reach = max(map(abs, interval)) if interval is not None else float(np.abs(values).max())
    limit = scale[0]
    passed = None if limit is None else reach < limit
    return Result(
        control="numerical",
        subject=subject,
        kind="negative",
        measured=mean,
        interval=interval,
        expected=limit,
        unit=unit,
        n=prompts,
        passed=passed,
        sentence=f"{base} {_DONE[change].format(setting=kernel)}, against itself: its log-odds "
        f"shift by {signed(mean)} nats on average over {len(values)} scenarios "
        f"({between(interval)}; {probability(p)}), by at most {size(largest)} on one of {prompts} "
        f"prompts. {_meaning(passed, p < setting.alpha, reach, scale)}",
    )


def _meaning(
    passed: bool | None,
    found: bool,
    reach: float,
    scale: tuple[float | None, str],
) -> str:
    limit, named = scale
    note = (
        " The test of changes finds this shift as well: a small p alone is no sign of training."
        if found
        else ""
    )
    if limit is None:
        return f"No change was measured that it could be compared with.{note}"
    if passed:
        ratio = f", {limit / reach:.3g} times as large" if reach > 0.0 else ""
        return f"This is below {named}, {size(limit)} nats{ratio}.{note}"
    return (
        f"This is as large as {named}, {size(limit)} nats, which numerical noise may "
        f"explain; measure in float32.{note}"
    )


def _rows(setting: Setting, base: str, change: str) -> pl.DataFrame:
    """Replicas of a base on prompts whose scenario is known, with their ``shift`` in nats."""
    if not setting.has("replicas", "prompts"):
        return pl.DataFrame(schema={"shift": pl.Float64})
    return (
        setting.tables["replicas"]
        .filter(pl.col("agent") == base, pl.col("change") == change)
        .join(setting.tables["prompts"].select("prompt", "scenario"), on="prompt", how="inner")
        .with_columns(shift=pl.col("log_odds") - pl.col("reference_log_odds"))
    )
