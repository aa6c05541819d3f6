"""How far do numbers move when nothing does? The base under another kernel, or in another dtype.

    kernel: largest |x - reference| / max(1, |reference|) <= 5e-5, log-odds in nats, in float32
    dtype:  largest |x - reference|, measured and compared with nothing: rounding weights is real

The kernel sums the same terms in another order, so all that differs is numerical noise; in weights
narrower than float32 that noise is large, and is measured without a threshold as well.
``behaviour_noise`` is the floor that changes of behaviour are compared with: no mean over prompts
of such differences can exceed the largest of them. ``rounding_noise`` is what the format of the
numbers themselves leaves open: a number is off by half a step, the difference of two by one, and
where all are off in the same direction their mean is off by the mean step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from moralscope.evidence.gates.gate import Gate
from moralscope.evidence.gates.site_quality import MANTISSA_BITS, mantissa_bits, resolution, ulp
from moralscope.evidence.units import Tables

GATE = "noise floor"

MAX_KERNEL = 5e-5
"""Largest effect of another kernel, share of max(1, |log-odds|), float32."""


def judge_replicas(tables: Tables) -> Iterator[Gate]:
    """``kernel AGENT`` and ``dtype AGENT``, as far as the table ``replicas`` has them."""
    if "replicas" not in tables:
        return
    size = (pl.col("log_odds") - pl.col("reference_log_odds")).abs()
    relative = size / pl.max_horizontal(pl.lit(1.0), pl.col("reference_log_odds").abs())
    found = (
        tables["replicas"]
        .group_by("agent", "change", maintain_order=True)
        .agg(
            size.max().alias("size"),
            relative.max().alias("relative"),
            pl.col("setting").unique(maintain_order=True),
            pl.len().alias("n"),
        )
    )
    for row in found.iter_rows(named=True):
        subject = f"{row['change']} {row['agent']}"
        how = f"{', '.join(row['setting'])}, {row['n']} prompts"
        if row["change"] == "kernel" and _full_precision(tables, str(row["agent"])):
            yield _kernel(subject, row["relative"], row["size"], how)
        else:
            yield _measured(subject, row["size"], how)


def _full_precision(tables: Tables, agent: str) -> bool:
    """Whether weights are float32 or finer; so they are taken to be where it is not known."""
    if "agents" not in tables:
        return True
    stored = tables["agents"].filter(pl.col("agent") == agent).get_column("dtype").to_list()
    if not stored:
        return True
    bits = mantissa_bits(stored[0])
    return bits is not None and bits >= MANTISSA_BITS["float32"]


def _kernel(subject: str, relative: float, size: float, how: str) -> Gate:
    passed = relative <= MAX_KERNEL
    advice = (
        f"The same sums in another order ({how}) move the log-odds by at most {size:.1e} nats."
        if passed
        else f"The same sums in another order ({how}) move the log-odds by {size:.1e} nats, "
        f"{relative:.1e} of their size where {MAX_KERNEL:.0e} is allowed; one of the kernels is "
        "wrong or too coarse. Compare them with float64 on one prompt before anything is concluded."
    )
    return Gate(GATE, subject, relative, MAX_KERNEL, passed, advice)


def _measured(subject: str, size: float, how: str) -> Gate:
    what = "Another kernel" if subject.startswith("kernel") else "Rounding the weights"
    return Gate(
        GATE, subject, size, None, True,
        f"{what} ({how}) moves the log-odds of an unchanged agent by at most {size:.1e} nats: what "
        "is no larger says nothing of training. Measure in float32 for a lower floor.",
    )  # fmt: skip


def behaviour_noise(tables: Tables) -> float:
    """Numerical noise of mean log-odds, nats; 0 where it was not measured.

    The largest difference that another kernel makes on any prompt bounds that of every mean.
    """
    if "replicas" not in tables:
        return 0.0
    rows = tables["replicas"].filter(pl.col("change") == "kernel")
    if rows.is_empty():
        return 0.0
    difference = (rows.get_column("log_odds") - rows.get_column("reference_log_odds")).abs()
    return float(difference.drop_nulls().to_numpy().max(initial=0.0))


def rounding_noise(tables: Tables, agents: Sequence[str]) -> float:
    """Largest error of a difference of mean log-odds by rounding, nats; 0 where none is known.

    Args:
        tables: with ``decisions``; the format is read from the numbers, and is no finer than
            ``agents`` says. Weights narrower than float32 say nothing of the numbers' own format.
        agents: whose log-odds are compared.
    """
    if "decisions" not in tables:
        return 0.0
    rows = tables["decisions"].filter(pl.col("agent").is_in(list(agents)))
    largest = 0.0
    for (agent,), own in rows.group_by("agent", maintain_order=True):
        values = own.get_column("log_odds").drop_nulls().to_numpy()
        sizes = np.abs(values[values != 0.0])
        if len(sizes):
            claimed = _claimed_bits(tables, str(agent))
            found = resolution(values[:, None], values[:, None], claimed)
            steps = np.maximum(ulp(sizes, found.bits), float(found.printed[0]))
            largest = max(largest, float(steps.mean()))
    return largest


def _claimed_bits(tables: Tables, agent: str) -> int:
    finest = MANTISSA_BITS["float64"]
    if "agents" not in tables:
        return finest
    stored = tables["agents"].filter(pl.col("agent") == agent).get_column("dtype").to_list()
    bits = mantissa_bits(stored[0]) if stored else None
    return finest if bits is None else max(bits, MANTISSA_BITS["float32"])
