"""May anything be concluded at all? Checks of the measurement itself, before any inference.

Each gate states what it measured, the threshold, and what to do: *liveness* (does the agent still
do what it did when it was trained), *duplicates* (prompts and sites that are copies), *dead sites*
and *dead channel* (never reached, never fired), *resolution* (more than rounding), *completeness*
(do the parts sum to the whole), *noise floor* (is a patch with nothing to change zero),
*approximation* (do estimates agree with exact patches), *metric agreement* (do sampled answers
follow the log-odds) and *undefined values*. A gate that cannot be judged has ``passed`` null: not
available is not passed.

Liveness: ``b = sum(dm du) / sum(du^2)``, d being agent minus base in log-odds, m as measured and u
as stored when the agent was trained; b is 1 for an intact agent and 0 for a dead one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.gates.agreement import judge_agreement
from moralscope.evidence.gates.approximation import judge_approximations
from moralscope.evidence.gates.site_quality import (
    MIN_DISTINCT,
    MIN_STEPS,
    mantissa_bits,
    resolution,
)
from moralscope.evidence.gates.sites import judge_sites
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import Tables, checked

MIN_RETENTION = 0.9
"""Smallest retention slope of a live agent."""

MIN_LIVENESS_PROMPTS = 20
"""Fewest prompts on which liveness is judged."""

NIL_EFFECT = 1e-3
"""Root mean square stored change, in nats, below which there is no effect to retain."""

MAX_COMPLETENESS = 1e-4
"""Largest attribution error, as a share of max(1, |logit difference|)."""

MAX_SELF_PATCH = 5e-5
"""Largest effect of a patch that changes nothing, in nats, float32."""

MAX_WRITE_ALL = 1e-4
"""Largest deviation from the source when everything is written, share of max(1, |log-odds|)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One row of the gates table."""

    gate: str
    subject: str
    measured: float | None
    threshold: float | None
    passed: bool | None
    advice: str

    def row(self) -> dict[str, object]:
        """As a mapping of column to value."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def judge_gates(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """All gates that the tables present allow.

    Args:
        tables: result tables by name, any subset of the documented ones.

    Returns:
        The ``gates`` table, one row per gate and subject.

    Raises:
        TableError: a table does not follow its schema, or a sweep lacks sites on some prompts.
    """
    known = checked(tables)
    gates = [*_behaviour(known), *_prompts(known), *_labels(known)]
    gates += [*_completeness(known), *_noise(known)]
    rows = [gate.row() for gate in gates]
    rows += [*judge_sites(known), *(gate.row() for gate in _attention(known))]
    rows += [*judge_approximations(known), *judge_agreement(known)]
    return from_rows("gates", rows)


def _behaviour(tables: Tables) -> Iterator[Gate]:
    if "agents" not in tables or "decisions" not in tables:
        return
    agents, decisions = tables["agents"], tables["decisions"]
    for agent in trained_agents(agents):
        yield _liveness(agents, decisions, agent)
    for agent, dtype in agents.select("agent", "dtype").iter_rows():
        log_odds = decisions.filter(pl.col("agent") == agent).get_column("log_odds")
        if len(log_odds):
            yield _undefined(agent, log_odds)
            yield _decision_resolution(agent, dtype, log_odds)


def _liveness(agents: pl.DataFrame, decisions: pl.DataFrame, agent: str) -> Gate:
    def unknown(reason: str) -> Gate:
        return Gate("liveness", agent, None, MIN_RETENTION, None, f"Not available: {reason}")

    base = base_of(agents, agent)
    if base is None:
        return unknown("no base agent to compare with; measure the base on the same prompts.")
    of_base = decisions.filter(pl.col("agent") == base).select(
        "prompt", pl.col("log_odds").alias("base_log_odds")
    )
    own = decisions.filter(pl.col("agent") == agent).join(of_base, on="prompt", how="inner")
    stored = own.filter(pl.col("fingerprint_log_odds").is_not_null())
    if stored.height == 0:
        return unknown("the agent carries no fingerprint; store one when it is trained.")
    if (
        stored.get_column("log_odds").null_count()
        or stored.get_column("base_log_odds").null_count()
    ):
        return unknown("log-odds are undefined on prompts of the fingerprint; score them.")
    if stored.height < MIN_LIVENESS_PROMPTS:
        return unknown(
            f"{stored.height} prompts with a fingerprint, {MIN_LIVENESS_PROMPTS} are needed."
        )
    measured, kept, zero = (
        stored.get_column(name).to_numpy()
        for name in ("log_odds", "fingerprint_log_odds", "base_log_odds")
    )
    return _retention(agent, measured - zero, kept - zero)


def _retention(agent: str, measured: Array, stored: Array) -> Gate:
    """Judge the slope of measured on stored changes from base, (prompts,) each."""
    size = float(np.sqrt(np.mean(stored**2)))
    if size < NIL_EFFECT:
        return Gate(
            "liveness",
            agent,
            size,
            NIL_EFFECT,
            None,
            f"No effect: as stored, the agent differs from base by {size:.2g} nats (root mean "
            "square), so there is nothing to retain; check that its training did anything.",
        )
    slope = float((measured * stored).sum() / (stored**2).sum())
    alive = slope >= MIN_RETENTION
    advice = (
        f"On {len(stored)} prompts the agent does {slope:.1%} of what it did when trained."
        if alive
        else f"Dead or damaged: on {len(stored)} prompts the agent does only {slope:.1%} of what "
        "it did when trained; load the adapter un-merged, in the dtype it was trained in."
    )
    return Gate("liveness", agent, slope, MIN_RETENTION, alive, advice)


def _undefined(agent: str, log_odds: pl.Series) -> Gate:
    nulls = log_odds.null_count()
    if nulls == len(log_odds):
        return Gate(
            "undefined values", agent, float(nulls), 0.0, None,
            "Not available: the agent has no log-odds at all (a scripted policy); it is compared "
            "by its probabilities only.",
        )  # fmt: skip
    advice = (
        "Every log-odds is defined."
        if nulls == 0
        else f"{nulls} of {len(log_odds)} log-odds are undefined; they are never read as zero. "
        "Find out why the scorer gave none."
    )
    return Gate("undefined values", agent, float(nulls), 0.0, nulls == 0, advice)


def _decision_resolution(agent: str, dtype: str, log_odds: pl.Series) -> Gate:
    values = log_odds.drop_nulls().to_numpy()[:, None]
    bits = mantissa_bits(dtype)
    if bits is None or len(values) < MIN_DISTINCT:
        reason = (
            f"the resolution of dtype {dtype} is not known."
            if bits is None
            else f"{len(values)} log-odds, {MIN_DISTINCT} or more are needed."
        )
        advice = f"Not available: {reason}"
        return Gate("resolution", agent, None, MIN_STEPS, None, advice)
    found = resolution(values, values, bits)
    steps, distinct = float(found.steps[0]), int(found.values[0])
    passed = found.resolved[0]
    what = f"Log-odds vary by {steps:.3g} units in the last place ({found.bits} mantissa bits)"
    advice = (
        f"{what} and take {distinct} distinct values."
        if passed
        else f"Rounding: {what[0].lower()}{what[1:]} and take {distinct} distinct values; measure "
        "in float32."
    )
    return Gate("resolution", agent, steps, MIN_STEPS, passed, advice)


def _prompts(tables: Tables) -> Iterator[Gate]:
    if "prompts" not in tables:
        return
    prompts = tables["prompts"]
    # The same text with other options is another decision.
    asked = prompts.select(
        "scenario",
        pl.concat_str(
            "sha256", pl.min_horizontal("positive", "negative"),
            pl.max_horizontal("positive", "negative"), separator="\0",
        ).alias("asked"),
    )  # fmt: skip
    clones = prompts.height - asked.get_column("asked").n_unique()
    yield Gate(
        "duplicates", "prompts", float(clones), 0.0, clones == 0,
        f"All {prompts.height} prompts are different texts."
        if clones == 0
        else f"{clones} of {prompts.height} prompts repeat the text of another; they add rows and "
        "no evidence. Word them differently or remove them.",
    )  # fmt: skip
    per_text = asked.group_by("asked").agg(pl.col("scenario").n_unique().alias("n"))
    shared = per_text.filter(pl.col("n") > 1).height
    yield Gate(
        "duplicates", "scenarios", float(shared), 0.0, shared == 0,
        "No two scenarios share a text."
        if shared == 0
        else f"{shared} texts stand in more than one scenario, so the scenarios are not separate "
        "units of replication; give each its own texts.",
    )  # fmt: skip


def _labels(tables: Tables) -> Iterator[Gate]:
    """Whether each trained agent is asked with the labels that it was trained with."""
    if "trained_on" not in tables or "prompts" not in tables:
        return
    asked = set(tables["prompts"].get_column("labels").to_list())
    known = tables["trained_on"].filter(pl.col("known"))
    for agent, labels in known.select("agent", "labels").iter_rows():
        trained = str(labels).split(",")
        absent = [assignment for assignment in trained if assignment not in asked]
        advice = (
            f"It is asked with the labels that it was trained with ({', '.join(trained)})."
            if not absent
            else f"It was trained with {', '.join(absent)}, which no prompt here uses: what it "
            "does with other labels may be another thing than what it learned. Ask with its own "
            "labels too."
        )
        yield Gate("trained labels", agent, float(len(absent)), 0.0, not absent, advice)


def _completeness(tables: Tables) -> Iterator[Gate]:
    if "completeness" not in tables:
        return
    relative = pl.col("error").abs() / pl.max_horizontal(pl.lit(1.0), pl.col("logit_diff").abs())
    worst = tables["completeness"].group_by("agent", maintain_order=True).agg(relative.max())
    for agent, measured in worst.iter_rows():
        passed = measured <= MAX_COMPLETENESS
        advice = (
            f"The parts sum to the logit difference within {measured:.1e} of it."
            if passed
            else f"The parts miss the logit difference by {measured:.1e} of it; the attribution "
            "leaves something out, so no share of it can be trusted."
        )
        yield Gate("completeness", agent, measured, MAX_COMPLETENESS, passed, advice)


def _noise(tables: Tables) -> Iterator[Gate]:
    if "controls" not in tables:
        return
    controls = tables["controls"]
    self_patch = controls.filter(pl.col("control") == "self_patch")
    for subject, worst in _worst(self_patch, pl.col("value").abs()):
        passed = worst <= MAX_SELF_PATCH
        advice = (
            f"A patch with nothing to change moves the log-odds by at most {worst:.1e} nats."
            if passed
            else f"A patch with nothing to change moves the log-odds by {worst:.1e} nats; the "
            "patch is not where it claims to be, or the kernel is too coarse."
        )
        yield Gate("noise floor", f"self-patch {subject}", worst, MAX_SELF_PATCH, passed, advice)
    written = controls.filter(pl.col("control") == "write_all")
    for subject, worst in _worst(_with_scale(written, tables), pl.col("value").abs() / "scale"):
        passed = worst <= MAX_WRITE_ALL
        advice = (
            f"Writing every site reproduces the source within {worst:.1e} of its log-odds."
            if passed
            else f"Writing every site misses the source by {worst:.1e} of its log-odds; the sites "
            "do not cover the model, so single-site effects are not what they seem."
        )
        yield Gate("noise floor", f"write-all {subject}", worst, MAX_WRITE_ALL, passed, advice)


def _worst(rows: pl.DataFrame, measure: pl.Expr) -> Iterator[tuple[str, float]]:
    yield from rows.group_by("subject", maintain_order=True).agg(measure.max()).iter_rows()


def _with_scale(rows: pl.DataFrame, tables: Tables) -> pl.DataFrame:
    """Rows of SOURCE>TARGET with ``scale`` = max(1, |log-odds of the source|), 1 if unknown."""
    with_source = rows.with_columns(pl.col("subject").str.split(">").list.first().alias("agent"))
    known = tables.get("decisions", pl.DataFrame(schema={
        "agent": pl.String, "prompt": pl.String, "log_odds": pl.Float64
    })).select("agent", "prompt", pl.col("log_odds").abs().alias("scale"))  # fmt: skip
    joined = with_source.join(known, on=["agent", "prompt"], how="left", maintain_order="left")
    return joined.with_columns(pl.max_horizontal(pl.lit(1.0), pl.col("scale")).alias("scale"))


def _attention(tables: Tables) -> Iterator[Gate]:
    if "attention" not in tables:
        return
    rows = tables["attention"]
    peaks = rows.group_by("agent", "category", maintain_order=True).agg(pl.col("mass").max())
    for (agent,), found in peaks.group_by("agent", maintain_order=True):
        silent: list[str] = found.filter(pl.col("mass") == 0.0).get_column("category").to_list()
        advice = (
            f"All {found.height} attention categories receive attention somewhere."
            if not silent
            else f"No head ever attends to {', '.join(silent)}: a span that was not found, not a "
            "finding. Check the spans of the prompts."
        )
        yield Gate("dead channel", str(agent), float(len(silent)), 0.0, not silent, advice)
