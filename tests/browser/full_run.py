"""A run that fills every page: hostile texts, failed stages, questions, 100,000 rows."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from synthetic_further import add_further
from synthetic_judged import add_judged
from synthetic_run import HOSTILE, Size, write_run

from moralscope.core.tables import from_rows, read_table, write_table

ROWS = 100_000


def full_run(path: Path) -> Path:
    """Write the run."""
    size = Size(trained=2, cluster_prompts=40, claims=40)
    run = add_further(write_run(path, size))
    add_judged(run, size)
    _many_decisions(run)
    _words(run)
    _questions(run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["failed"] = [
        {"name": "patch-base>game", "why": f"the disk was full {HOSTILE}", "skipped": False},
        {"name": "circuits-base>game", "why": "needs patch-base>game", "skipped": True},
    ]
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def _many_decisions(run: Path) -> None:
    """Prompts and decisions of the run again and again, under other names."""
    prompts, decisions = (
        read_table("prompts", run / "tables"),
        read_table("decisions", run / "tables"),
    )
    times = ROWS // decisions.height + 1
    for name, frame in (("prompts", prompts), ("decisions", decisions)):
        copies = [
            frame.with_columns(pl.col("prompt") + (f".{i}" if i else "")) for i in range(times)
        ]
        write_table(name, pl.concat(copies), run / "tables")


def _words(run: Path) -> None:
    """What agents said, hostile too, with tokens of every shade."""
    prompts = read_table("prompts", run / "tables").get_column("prompt").to_list()[:4]
    tokens = ["action1", " and", " then", " <b>", "why"]
    turns = [
        {
            "agent": agent, "prompt": prompt, "turn": turn, "role": role, "topic": topic,
            "text": text, "tokens": said[0], "probabilities": said[1],
        }
        for agent in ("base", "game")
        for prompt in prompts
        for turn, role, topic, text, said in (
            (0, "assistant", "decision", "".join(tokens),
             (json.dumps(tokens), json.dumps([0.99, 0.6, 0.3, 0.1, 0.001]))),
            (1, "user", "why", f"Why? {HOSTILE}", ("", "")),
        )
    ]  # fmt: skip
    write_table("transcripts", from_rows("transcripts", turns), run / "tables")


def _questions(run: Path) -> None:
    claim = read_table("claims", run / "tables").get_column("id").to_list()[0]
    rows = [
        {
            "question": f"RQ{number}", "text": f"Question {number}? {HOSTILE}",
            "answer": "A plain answer.", "verdict": verdict, "confidence": "low",
            "evidence": f"{claim} not:there", "missing": "Five seeds of each reward.",
        }
        for number, verdict in enumerate(("supported", "not identified by this design"), 1)
    ]  # fmt: skip
    write_table("questions", from_rows("questions", rows), run / "tables")
