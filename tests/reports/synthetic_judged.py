"""Drawn tables of what was judged besides claims: hypotheses, controls, design, coverage."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from synthetic_run import HOSTILE, Size, sites

from moralscope.core.streams import stream
from moralscope.core.tables import from_rows, read_table, write_table

Row = dict[str, object]


def add_judged(run: Path, size: Size | None = None) -> Path:
    """Add these tables to a synthetic run; without ``coverage``, which makes it an audit."""
    claims = read_table("claims", run / "tables")
    answer = {
        **claims.row(0, named=True),
        "id": "hypothesis:first",
        "outcome": "contradicted",
        "verdict": "not distinguishable from noise",
        "reason": "The effect points the other way.",
        "registered": True,
        "q": None,
    }
    frames = {
        "claims": pl.concat([claims, from_rows("claims", [answer])]),
        "hypotheses": from_rows("hypotheses", hypotheses()),
        "control_results": from_rows("control_results", control_results()),
        "design": from_rows("design", design()),
        "control_patches": from_rows("control_patches", control_patches(size or Size())),
    }
    for name, frame in frames.items():
        write_table(name, frame, run / "tables")
    return run


def hypotheses() -> list[Row]:
    late = {"quantity": "change", "agents": "game", "sites": "", "direction": "above"}
    return [
        {**late, "id": "second", "statement": f"Late {HOSTILE}", "registered": False,
         "basis": "Named after the tables existed.", "published": 12.5},
        {**late, "id": "first", "statement": "game defects more than base.", "registered": True,
         "basis": "Named before anything was measured."},
    ]  # fmt: skip


def control_results() -> list[Row]:
    common: Row = {"unit": "nats", "low": -0.1, "high": 0.2, "expected": 0.0, "n": 20}
    rows = [
        ("numerical", "base", "negative", 0.01, True),
        ("planted", "game", "positive", 0.9, None),
        ("shuffled", "agents", "negative", 0.4, False),
    ]
    return [
        {**common, "control": c, "subject": s, "kind": k, "measured": m, "passed": p,
         "sentence": f"The {c} control of {s}."}
        for c, s, k, m, p in rows
    ]  # fmt: skip


def design() -> list[Row]:
    return [
        {"question": "checkpoints", "subject": "all", "unit": "scenario", "n": 20, "floor": 1e-6,
         "level": 0.05, "needed": 6, "needed_for_power": 10, "identified": True,
         "sentence": "20 scenarios."},
        {"question": "reward", "subject": "game", "unit": "training seed", "n": 1, "floor": 1.0,
         "level": 0.05, "needed": 7, "needed_for_power": None, "identified": False,
         "sentence": "7 seeds would identify it."},
    ]  # fmt: skip


def coverage() -> list[Row]:
    return [
        {"question": "decisions", "subject": "decisions.csv", "ran": True, "sentence": "Read."},
        {"question": "liveness", "subject": "", "ran": False, "sentence": "No fingerprint."},
    ]


def control_patches(size: Size) -> list[Row]:
    """Two prompts, three random directions a site, all of them smaller than the patch but one."""
    rng = stream(13, "control patches")
    chosen = [site for site, *_ in sites(size)][:4]
    return [
        {
            "control": "random_direction", "source": "base", "target": "game", "prompt": prompt,
            "site": site, "draw": draw, "norm": 1.0,
            "effect": 2.0 if (i, draw) == (0, 0) else float(rng.uniform(-0.1, 0.1)),
            "source_effect": -0.5 - i,
        }
        for prompt in ("p0", "p1") for i, site in enumerate(chosen) for draw in range(3)
    ]  # fmt: skip
